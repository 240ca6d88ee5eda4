"""Which processes belong to a target: those of a unit's whole control group, or all that a command has started.

A process is identified by its id and its start time together, since ids are reused (proc_pid_stat(5)).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

Belongs = Callable[[int], "bool | None"]
"""Returns whether a process belongs to the target; None where it has ended and this is unknown."""
_STAT_PARENT, _STAT_START = 1, 19
"""Fields behind the name in /proc/PID/stat, counted from 0: `ppid` and `starttime`."""


def in_tree(root_pid: int) -> Belongs:
    """Return a test for processes that descend from `root_pid`, by their parents in /proc."""
    known: dict[tuple[int, int], bool] = {}

    def belongs(pid: int) -> bool | None:
        chain = []
        current, answer = pid, False
        while current != root_pid:
            found = identity(current)
            if found is None:
                return None
            key = (current, found[1])
            if key in known:
                answer = known[key]
                break
            chain.append(key)
            if found[0] <= 1:
                break
            current = found[0]
        else:
            answer = True
        known.update(dict.fromkeys(chain, answer))
        return answer

    return belongs


def in_control_group(path: str) -> Belongs:
    """Return a test for processes in the control group with that full path, or in one below it.

    A process that was in it once keeps belonging to it, whatever group it moves to.
    """
    members: set[tuple[int, int]] = set()

    def belongs(pid: int) -> bool | None:
        found = identity(pid)
        if found is None:
            return None
        key = (pid, found[1])
        if key in members:
            return True
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                is_member = any(is_below(path, group) for group in systemd_groups(file))
        except OSError:
            return None
        # Check again: it may have ended since, and its id may have been reused.
        if identity(pid) != found:
            return None
        if is_member:
            members.add(key)
        return is_member

    return belongs


def systemd_groups(lines: Iterable[str]) -> list[str]:
    """Return the groups of /proc/PID/cgroup that systemd manages: the unified one, and version 1's `name=systemd`."""
    found = []
    for line in lines:
        number, _, rest = line.rstrip("\n").partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and not controllers) or controllers == "name=systemd":
            found.append(path)
    return found


def is_below(path: str, group: str) -> bool:
    """Return whether a group is at the path or below it; False for the root group, which is nobody's in particular."""
    return len(path) > 1 and (group == path or group.startswith(f"{path}/"))


def identity(pid: int) -> tuple[int, int] | None:
    """Return a process's parent, and its start time in ticks since boot; None for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[_STAT_PARENT]), int(fields[_STAT_START])
    except (OSError, ValueError, IndexError):
        return None


def is_alive(pid: int, started: int) -> bool:
    """Return whether exactly that process is still running."""
    found = identity(pid)
    return found is not None and found[1] == started


def own_identity() -> tuple[int, int]:
    """Return this process's id and start time."""
    found = identity(os.getpid())
    return os.getpid(), found[1] if found else 0
