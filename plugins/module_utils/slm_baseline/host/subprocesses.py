"""Running an untrusted program: a bounded answer within a time limit, and no process left behind."""

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
    """The exit status and output of a program."""

    returncode: int
    output: bytes
    errors: bytes


class OutputLimit(subprocess.SubprocessError):
    """The program wrote more than the limit; the message names the limit."""


def run_bounded(
    command: Sequence[str], account: Account | None, env: Mapping[str, str], timeout_s: float, request: bytes = b""
) -> Completed:
    """Run a program as this user and return its output once it ends, even if a child of it still holds the output open.

    `request` is its standard input. Raises OSError where it cannot be started, subprocess.TimeoutExpired where it takes
    too long, OutputLimit where it writes more than a mebibyte. Everything that it started has ended by then.
    """
    with subreaper(), tempfile.TemporaryFile() as asked:
        # A file, not a pipe: a program that does not read its input blocks nobody.
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
        # Check for the end before reading: all output written before the end is in the pipes by then.
        has_ended = process.poll() is not None
        for stream in select.select(list(said), [], [], 0 if has_ended else _POLL_S)[0]:
            said[stream] += os.read(stream.fileno(), _MOST_BYTES)
            if len(said[stream]) > _MOST_BYTES:
                raise OutputLimit(f"it said more than {_MOST_BYTES >> 20} MiB")
        if has_ended:
            return said
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, timeout_s)
