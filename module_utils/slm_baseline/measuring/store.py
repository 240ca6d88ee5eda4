"""Samples on the host's own disk, one JSON object a line: what was measured outlives an interrupted run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host

RUNS = "/var/lib/slm-baseline/runs"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def samples_path(run_id: str) -> str:
    """Where a run's samples lie on the host; SettingError for a run id that is no plain file name."""
    if not _RUN_ID.fullmatch(run_id):
        raise SettingError(
            "run_id",
            "letters, digits, dots, dashes and underscores",
            repr(run_id),
            "The run id names a folder on the host.",
            "give another run id.",
        )
    return f"{RUNS}/{run_id}/samples.jsonl"


def append_sample(host: Host, run_id: str, sample: Mapping[str, Any]) -> None:
    """Append one line durably: all of it, then fsync of the file and, when new, of the folders above it."""
    path = host.path(samples_path(run_id))
    is_new = not path.exists()
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        line = json.dumps(sample, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(descriptor).st_size
        # A crash may have torn the last line; a new line of its own keeps this sample out of it.
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        view = memoryview(line)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        for folder in (path.parent, path.parent.parent):
            host.sync_folder(folder)


def read_lines(host: Host, run_id: str) -> list[dict[str, Any]]:
    """A run's whole lines in order, torn ones left out; none where the run has not measured yet."""
    lines = []
    for text in (host.read_or_none(samples_path(run_id)) or "").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("block"), int):
            lines.append(line)
    return lines


def read_samples(host: Host, run_id: str) -> list[dict[str, Any]]:
    """A run's samples in order: its lines but those that close a block."""
    return [line for line in read_lines(host, run_id) if isinstance(line.get("wanted"), str)]


@dataclass(frozen=True)
class Block:
    """A finished block: its samples in order, and the line that closed it, which tells what its samples share."""

    number: int
    samples: list[dict[str, Any]]
    shared: dict[str, Any]


def close_block(host: Host, run_id: str, number: int, shared: Mapping[str, Any]) -> None:
    """Mark a block as finished, so that the same run never measures it again."""
    append_sample(host, run_id, {"block": number, "shared": shared})


def finished_blocks(host: Host, run_id: str) -> dict[int, Block]:
    """A run's finished blocks by number. Samples of an attempt that was interrupted belong to none."""
    blocks: dict[int, Block] = {}
    pending: dict[int, list[dict[str, Any]]] = {}
    for line in read_lines(host, run_id):
        number = line["block"]
        if isinstance(line.get("shared"), dict):
            blocks[number] = Block(number, _latest(pending.pop(number, [])), line["shared"])
        elif isinstance(line.get("wanted"), str):
            pending.setdefault(number, []).append(line)
    return blocks


def _latest(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last sample of each wanted kind: an attempt before it was interrupted."""
    return list({sample["wanted"]: sample for sample in samples}.values())
