"""Ending every process that a piece of work started, also those that left its process group and its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from . import libc

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_PATIENCE_S = 20.0
"""How long killed processes may take to end: freeing a large model's memory takes seconds."""
_PROC = Path("/proc")


class ProcessTree:
    """The processes started since a moment, including orphans that this process has adopted."""

    def __init__(self) -> None:
        self._before = set(_children_of(_parents(), os.getpid()))

    def exclude(self, pid: int) -> None:
        """Exclude this child from the tree: whoever started it ends it."""
        self._before.add(pid)

    def children(self) -> list[int]:
        """Return our own children among them: those that we started, and adopted orphans."""
        return [pid for pid in _children_of(_parents(), os.getpid()) if pid not in self._before]

    def end(self, patience_s: float = _PATIENCE_S) -> bool:
        """Kill all of them and reap our own children; return False where some are left after `patience_s`."""
        deadline = time.monotonic() + patience_s
        while left := self._living():
            # Kill again in each round: a process forked meanwhile is in the next one.
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def _living(self) -> list[int]:
        parents = _parents()
        found: list[int] = []
        ahead = [pid for pid in _children_of(parents, os.getpid()) if pid not in self._before]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            ahead += _children_of(parents, pid)
        return found


@contextlib.contextmanager
def subreaper() -> Iterator[ProcessTree]:
    """Adopt orphans of what the block starts (prctl(2), PR_SET_CHILD_SUBREAPER), and end all of them with the block.

    For a single thread that starts processes, as in our modules: every child started meanwhile counts as the block's.
    """
    was = libc.read_prctl(_PR_GET_CHILD_SUBREAPER)
    family = ProcessTree()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield family
    finally:
        family.end()
        libc.prctl(_PR_SET_CHILD_SUBREAPER, was)


def parse_parent(stat: str) -> int:
    """Return the parent's id from /proc/PID/stat; the name before it, in parentheses, may hold anything (proc(5))."""
    return int(stat.rpartition(")")[2].split()[1])


def _parents() -> dict[int, int]:
    """Return the parent of every process."""
    parents = {}
    for name in os.listdir(_PROC):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parents[int(name)] = parse_parent((_PROC / name / "stat").read_text(errors="replace"))
    return parents


def _children_of(parents: dict[int, int], parent: int) -> list[int]:
    return [pid for pid, its_parent in parents.items() if its_parent == parent]
