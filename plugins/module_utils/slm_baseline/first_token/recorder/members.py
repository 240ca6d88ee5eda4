"""Which processes belong to a target: those of a unit's whole control group, or all that a command has started.

A process is identified by its id and its start time together, since ids are reused (proc_pid_stat(5)).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from ...containers.control_groups import container_of

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


class ContainerMembers:
    """A test for processes of containers that did not run before, and of a unit beside them.

    A container that is made at each start has an id that nobody knows beforehand. So all new ones are taken in, and
    `is_of` tells afterwards which of the processes were the target's.
    """

    def __init__(self, before: Collection[str], unit: Belongs | None = None) -> None:
        self._before = before
        self._unit = unit
        self._containers: dict[tuple[int, int], str] = {}
        self._by_pid: dict[int, str] = {}

    def __call__(self, pid: int) -> bool | None:
        found = identity(pid)
        if found is None:
            return None
        key = (pid, found[1])
        if key not in self._containers:
            container = read_container(pid)
            if container is None or identity(pid) != found:
                return None
            # A process of the runtime moves to the container's group a moment after its start.
            if not container or container in self._before:
                return self._unit(pid) if self._unit else False
            self._containers[key] = self._by_pid[pid] = container
        return True

    def is_of(self, pid: int, container: str) -> bool:
        """Return whether a process that belonged was in that container, or in no container at all."""
        return self._by_pid.get(pid, container) == container


def read_container(pid: int) -> str | None:
    """Return the id of the container that a process is in, empty for none; None where it has ended."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            return container_of(file.read())
    except OSError:
        return None


def running_containers() -> set[str]:
    """Return the ids of the containers in which a process of this host is."""
    return {read_container(int(pid)) or "" for pid in os.listdir("/proc") if pid.isdigit()} - {""}


def may_listen_for(container: str) -> Callable[[int], bool]:
    """Return a test for processes that may listen for a container: its own, and those of the host (docker-proxy)."""
    return lambda pid: read_container(pid) in (None, "", container)


def users_of_container(container: str) -> list[int]:
    """Return the users of the processes in a container."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if read_container(int(pid)) == container:
            try:
                found.add(os.stat(f"/proc/{pid}").st_uid)
            except OSError:
                continue
    return sorted(found)


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
