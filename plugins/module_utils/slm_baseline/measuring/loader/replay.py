"""Replay: a program that reads what a start will read, before the loader starts or together with it.

The kernel reports how much it read; the program reports which part of that was weights, checked against the kernel's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ...host.accounts import Account, run_as
from ...host.errors import SettingError

AHEAD, TOGETHER = "ahead", "together"
_BLOCK_BYTES = 512
"""Unit of `ru_inblock`: the kernel's `read_bytes` of the process in such blocks, with all of its threads."""
_STEP_S = 0.002
_LINE_BYTES = 1 << 16
"""The capacity of a pipe."""


@dataclass(frozen=True)
class Replay:
    """The program, with its arguments. `when`: `ahead` ends before the loader is started, `together` starts with it."""

    command: tuple[str, ...]
    when: str


@dataclass(frozen=True)
class ReplayRecord:
    """What one replay did. Times count from its own start; None where it did not report them.

    `read_bytes` is what the kernel read from disk for it, `weights_read_bytes` the part after its imports.
    `weights_bytes` is the size of the weights in its plan. `problem` says why it was not the replay that was planned.
    """

    when: str
    read_bytes: int
    weights_read_bytes: int
    weights_bytes: int
    cpu_s: float
    first_request_s: float | None = None
    imports_s: float | None = None
    ended_s: float | None = None
    stale: int | None = None
    problem: str | None = None


class Replaying:
    """A replay around one start; nothing of it is left running after its block."""

    def __init__(self, replay: Replay | None, account: Account | None, timeout_s: float) -> None:
        self._replay = replay
        self._account = account
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.record: ReplayRecord | None = None

    def run_ahead(self) -> None:
        """Run a replay of kind `ahead` to its end."""
        if self._replay and self._replay.when == AHEAD:
            self.start()
            self.finish()

    @property
    def is_together(self) -> bool:
        return self._replay is not None and self._replay.when == TOGETHER

    def start(self) -> int:
        """Start the replay and return its process id. SettingError where it cannot be started."""
        assert self._replay
        try:
            self._process = subprocess.Popen(
                self._replay.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                start_new_session=True,
                **run_as(self._account),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SettingError(
                "first_token.replay",
                f"{self._replay.command[0]}, which the loader's user can run",
                str(error),
                "It reads the plan of a start before the start asks.",
                "install python3 there, or leave out the arms that replay.",
            ) from error
        return self._process.pid

    def finish(self) -> None:
        """Wait until a started replay has ended, and keep its record."""
        if self._process and self._replay:
            self.record = self._reaped(self._process, self._replay.when)
            self._process = None

    def stop(self) -> None:
        """Kill it if it still runs."""
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.finish()

    def _reaped(self, process: subprocess.Popen[bytes], when: str) -> ReplayRecord:
        deadline = time.monotonic() + self._timeout_s
        is_late = False
        while True:
            # wait4(2), since RUSAGE_CHILDREN would sum over all children so far.
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline and not is_late:
                is_late = True
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_STEP_S)
        process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        assert process.stdout
        with process.stdout as stream:
            said = _take_line(stream.fileno())
        problem = f"it was still reading after {self._timeout_s:g} s" if is_late else None
        if not problem and process.returncode:
            problem = (said.splitlines() or [f"it ended with {process.returncode}"])[-1][:300]
        return replay_record(when, said, usage.ru_inblock * _BLOCK_BYTES, usage.ru_utime + usage.ru_stime, problem)


def _take_line(descriptor: int) -> str:
    """Read the line of a program that has ended: it is in the pipe, even if others of its user hold that open."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, _LINE_BYTES).decode("utf-8", "replace").strip()
    return ""


def replay_record(when: str, said: str, read_bytes: int, cpu_s: float, problem: str | None = None) -> ReplayRecord:
    """Build a replay's record from its line (`name=value ...`) and the kernel's counters."""
    words = dict(word.split("=", 1) for word in said.split() if "=" in word)
    stale = int(words["stale"]) if words.get("stale", "").isdigit() else None
    if not problem and "memory" in words:
        problem = "there was too little memory for all of the plan"
    if not problem and stale:
        problem = f"{stale} files of the plan have changed since it was recorded"
    counts = {name: int(text) for name, text in words.items() if name.startswith("weights_") and text.isdigit()}
    return ReplayRecord(
        when=when,
        read_bytes=read_bytes,
        weights_read_bytes=min(read_bytes, counts.get("weights_read_bytes", 0)),
        weights_bytes=counts.get("weights_bytes", 0),
        cpu_s=round(cpu_s, 3),
        first_request_s=_seconds(words.get("first_request_s")),
        imports_s=_seconds(words.get("imports_s")),
        ended_s=_seconds(words.get("ended_s")),
        stale=stale,
        problem=problem,
    )


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


@contextlib.contextmanager
def replaying(replay: Replay | None, account: Account | None, timeout_s: float) -> Iterator[Replaying]:
    """Yield a replay for one start: call `run_ahead` before it, `start` with it, `finish` after it.

    None replays nothing.
    """
    run = Replaying(replay, account, timeout_s)
    try:
        yield run
    finally:
        run.stop()
