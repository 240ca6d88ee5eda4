"""The user as whom a container runs, as the host sees it."""

from __future__ import annotations

import os
from typing import Union

from .members import read_container
from .start import Identity

_NO_NAMESPACE = ["0", "0", "4294967295"]
"""/proc/PID/uid_map of a process without a user namespace of its own (user_namespaces(7))."""

Owner = Union[Identity, str]
"""A user, or in words why nobody can say which one it is."""


def find_owner(container: str, proc: str = "/proc") -> Owner:
    """Return the user of all processes of a running container; in words why that is not known.

    With a user namespace the next container may be given other users of the host (`--userns=auto`).
    """
    found: set[tuple[int, int]] = set()
    for pid in filter(str.isdigit, os.listdir(proc)):
        if read_container(int(pid)) != container:
            continue
        try:
            maps = [_read(f"{proc}/{pid}/{name}").split() for name in ("uid_map", "gid_map")]
            lines = dict(line.partition(":")[::2] for line in _read(f"{proc}/{pid}/status").splitlines())
            ids = int(lines["Uid"].split()[1]), int(lines["Gid"].split()[1])
        except (OSError, ValueError, KeyError, IndexError):
            # It has ended.
            continue
        if any(each != _NO_NAMESPACE for each in maps):
            return "it has a user namespace, and nobody knows which users of the host its next one gets"
        found.add(ids)
    if not found:
        return "none of its processes could be asked which user it is"
    if len(found) > 1:
        return f"its processes run as several users ({', '.join(sorted(f'{uid}:{gid}' for uid, gid in found))})"
    return Identity(*found.pop())


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
