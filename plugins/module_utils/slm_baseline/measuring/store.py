"""Samples on the host's own disk, one JSON object a line: they survive an interrupted run."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host
from ..host.paths import RUNS
from .sample import NotASample, Sample, Shared, read_document, to_document

KEPT = "run.json"
"""In a run's folder: the result of the last block, and what else its result document needs."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def samples_path(run_id: str) -> str:
    """Return the path of a run's samples on the host; SettingError for a run id that is not a plain file name."""
    if not _RUN_ID.fullmatch(run_id):
        raise SettingError(
            "run_id",
            "letters, digits, dots, dashes and underscores",
            repr(run_id),
            "The run id names a folder on the host.",
            "give another run id.",
        )
    return f"{RUNS}/{run_id}/samples.jsonl"


def append_line(host: Host, run_id: str, line: Mapping[str, Any]) -> None:
    """Append one line durably: all of it, then fsync of the file and, when new, of the folders above it."""
    path = host.path(samples_path(run_id))
    is_new = not path.exists()
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(descriptor).st_size
        # A crash may have truncated the last line; a line end keeps the new line separate from it.
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text
        view = memoryview(text)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        for folder in (path.parent, path.parent.parent):
            host.sync_folder(folder)


def keep_run(host: Host, run_id: str, document: Mapping[str, Any]) -> None:
    """Store a whole measured run beside its samples, for a control node that could not store it; OSError."""
    path = f"{os.path.dirname(samples_path(run_id))}/{KEPT}"
    host.write_durably(path, json.dumps(document).encode(), mode=0o600)


def kept_run(host: Host, run_id: str = "") -> dict[str, Any]:
    """Read a stored run, the latest where none is named; SettingError where none can be read."""
    wanted = [run_id] if run_id else sorted(host.names(RUNS), reverse=True)
    for name in wanted:
        text = host.read_or_none(f"{os.path.dirname(samples_path(name))}/{KEPT}") if _RUN_ID.fullmatch(name) else None
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text or "")
            if isinstance(found, dict) and isinstance(found.get("benchmark"), dict):
                return found
    raise SettingError(
        "fetch_run",
        f"run {run_id}, measured to its end" if run_id else "a run that was measured to its end",
        f"none in {RUNS}",
        "Only a whole run makes a result; an unfinished one has its samples in samples.jsonl there.",
        "measure again, or name another run.",
    )


def append_sample(host: Host, run_id: str, sample: Sample) -> None:
    """Append a sample durably."""
    append_line(host, run_id, sample.to_json())


def read_lines(host: Host, run_id: str) -> list[dict[str, Any]]:
    """Read a run's complete lines in order; none where the run has not measured yet."""
    lines = []
    for text in (host.read_or_none(samples_path(run_id)) or "").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("block"), int):
            lines.append(line)
    return lines


@dataclass(frozen=True)
class Block:
    """A finished block: its samples in order, and what they share."""

    number: int
    samples: tuple[Sample, ...]
    shared: Shared


def close_block(host: Host, run_id: str, number: int, shared: Shared) -> None:
    """Mark a block as finished, so that the same run never measures it again."""
    append_line(host, run_id, {"block": number, "shared": to_document(shared)})


def shared_of(host: Host, run_id: str) -> dict[int, Shared]:
    """Read what the samples of each closed block share, by block."""
    return {line["block"]: shared for line in read_lines(host, run_id) if (shared := _shared(line))}


def finished_blocks(host: Host, run_id: str) -> dict[int, Block]:
    """Read a run's finished blocks by number. Samples of an interrupted attempt belong to none."""
    blocks: dict[int, Block] = {}
    # The last sample of each wanted kind: earlier ones are of an interrupted attempt.
    pending: dict[int, dict[str, Sample]] = {}
    for line in read_lines(host, run_id):
        number, shared = line["block"], _shared(line)
        if shared:
            blocks[number] = Block(number, tuple(pending.pop(number, {}).values()), shared)
            continue
        with contextlib.suppress(NotASample):
            sample = Sample.from_json(line)
            pending.setdefault(number, {})[sample.wanted] = sample
    return blocks


def _shared(line: Mapping[str, Any]) -> Shared | None:
    """Parse a closing line; None for any other line."""
    try:
        return read_document(Shared, line["shared"]) if "shared" in line else None
    except NotASample:
        return None
