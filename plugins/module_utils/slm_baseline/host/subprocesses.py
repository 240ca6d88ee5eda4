"""Asking a program that may be anybody's: a short answer within a time, and no process left."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from .accounts import Account, run_as
from .subreaper import subreaper

_MOST_BYTES = 1 << 20
_POLL_S = 0.02


@dataclass(frozen=True)
class Completed:
    """How a program ended, and what it said."""

    returncode: int
    output: bytes
    errors: bytes


class OutputLimit(subprocess.SubprocessError):
    """The program said more than anybody wants to read; the message names how much."""


def run_bounded(
    command: Sequence[str], account: Account | None, env: Mapping[str, str], timeout_s: float, request: bytes = b""
) -> Completed:
    """Run a program as this user and take what it says until it ends, though a child of its may hold its output open.

    `request` is what it finds on standard input. Raises OSError where it cannot be started, subprocess.TimeoutExpired
    where it takes longer, OutputLimit where it says more than a mebibyte. Whatever it started has ended by then.
    """
    with subreaper(), tempfile.TemporaryFile() as asked:
        # A file, not a pipe: nobody waits for a program that does not read.
        asked.write(request)
        asked.seek(0)
        process = subprocess.Popen(
            command,
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(env),
            start_new_session=True,
            **run_as(account),
        )
        try:
            assert process.stdout
            assert process.stderr
            with process.stdout as output, process.stderr as errors:
                said = _listen(process, {output: b"", errors: b""}, time.monotonic() + timeout_s, timeout_s)
                return Completed(process.wait(), said[output], said[errors])
        finally:
            process.kill()
            process.wait()


def _listen(
    process: subprocess.Popen[bytes], said: dict[IO[bytes], bytes], deadline: float, timeout_s: float
) -> dict[IO[bytes], bytes]:
    for stream in said:
        os.set_blocking(stream.fileno(), False)
    while True:
        # Looked at before reading: what it said before its end is in the pipes by then.
        has_ended = process.poll() is not None
        for stream in select.select(list(said), [], [], 0 if has_ended else _POLL_S)[0]:
            said[stream] += os.read(stream.fileno(), _MOST_BYTES)
            if len(said[stream]) > _MOST_BYTES:
                raise OutputLimit(f"it said more than {_MOST_BYTES >> 20} MiB")
        if has_ended:
            return said
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, timeout_s)
