"""Samples on the host's own disk, one JSON object a line: what was measured outlives an interrupted run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import SettingError
from .hostfs import Host

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
    """Append one sample durably: a single write, then fsync of the file and, when new, of the folders above it."""
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
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        for folder in (path.parent, path.parent.parent):
            host.sync_folder(folder)


def read_samples(host: Host, run_id: str) -> list[dict[str, Any]]:
    """A run's whole samples in order, torn lines left out; none where the run has not measured yet."""
    samples = []
    for line in (host.read_or_none(samples_path(run_id)) or "").splitlines():
        try:
            sample = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(sample, dict) and isinstance(sample.get("block"), int) and isinstance(sample.get("wanted"), str):
            samples.append(sample)
    return samples


def samples_of_block(samples: Sequence[Mapping[str, Any]], block: int, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The block's samples, the latest of each wanted kind, or none where one is missing: a block is whole or redone."""
    latest = {sample["wanted"]: dict(sample) for sample in samples if sample["block"] == block}
    return [latest[kind] for kind in wanted] if all(kind in latest for kind in wanted) else []
