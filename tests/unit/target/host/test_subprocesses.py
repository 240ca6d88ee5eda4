"""Asking a program that may be anybody's: what it says in time, and nothing of it left."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.subprocesses import OutputLimit, run_bounded

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def shell(text: str, timeout_s: float = 30.0) -> tuple[int, bytes, bytes]:
    reply = run_bounded(["/bin/sh", "-c", text], None, ENVIRONMENT, timeout_s)
    return reply.returncode, reply.output, reply.errors


def test_a_plain_answer() -> None:
    assert shell("echo said; echo meant >&2; exit 3") == (3, b"said\n", b"meant\n")
    assert shell("head -c 200000 /dev/zero")[1] == bytes(200_000)
    assert shell("kill -9 $$")[0] == -9


@pytest.mark.parametrize("stream", ["1", "2"])
def test_one_that_never_stops_talking_is_ended(stream: str) -> None:
    with pytest.raises(OutputLimit, match="more than 1 MiB"):
        shell(f"yes >&{stream}", 60.0)


def test_one_that_never_ends_is_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        shell("trap '' TERM; while :; do sleep 1; done", 0.3)


def test_a_child_that_holds_the_output_open_is_not_waited_for_and_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    began = time.monotonic()
    code, output, _ = shell(
        f"setsid sh -c 'echo $$ > {note}; exec sleep 300' & while [ ! -s {note} ]; do :; done; echo x"
    )
    assert (code, output) == (0, b"x\n")
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_one_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        run_bounded(["/nowhere/python"], None, ENVIRONMENT, 1.0)
