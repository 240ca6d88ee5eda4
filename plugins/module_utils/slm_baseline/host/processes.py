"""Processes of a host from /proc: which ones use a folder, which ones have huge pages mapped."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

from .files import Host

_POOL_READERS = ("kubelet", "libvirtd", "virtqemud")
_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)


def holders(host: Host, path: str, most: int = 8) -> list[str]:
    """Return the processes with a mapping, open file, root or working folder under a path, as `name (pid N)`."""
    found = []
    for pid in filter(str.isdigit, host.names("/proc")):
        if _holds(host, pid, path):
            found.append(f"{(host.read_or_none(f'/proc/{pid}/comm') or '?').strip()} (pid {pid})")
            if len(found) == most:
                break
    return found


def _holds(host: Host, pid: str, path: str) -> bool:
    links = [f"/proc/{pid}/cwd", f"/proc/{pid}/root", *(f"/proc/{pid}/fd/{fd}" for fd in host.names(f"/proc/{pid}/fd"))]
    for link in links:
        with contextlib.suppress(OSError):
            target = os.readlink(host.path(link))
            if target == path or target.startswith(f"{path}/"):
                return True
    return any(f" {path}/" in line for line in (host.read_or_none(f"/proc/{pid}/maps") or "").splitlines())


def pool_users(host: Host) -> list[dict[str, Any]]:
    """Return the processes that map huge pages: pid, name, bytes (HugetlbPages of /proc/PID/status), largest first."""
    users = []
    for pid in filter(str.isdigit, host.names("/proc")):
        status = host.read_or_none(f"/proc/{pid}/status") or ""
        fields: Mapping[str, str] = dict(line.partition(":")[::2] for line in status.splitlines())
        pages = fields.get("HugetlbPages", "0").split()
        if pages and _DECIMAL.fullmatch(pages[0]) and int(pages[0]) > 0:
            users.append({"pid": int(pid), "name": fields.get("Name", "?").strip(), "bytes": int(pages[0]) * 1024})
    return sorted(users, key=lambda user: -int(user["bytes"]))


def pool_readers(host: Host) -> list[str]:
    """Return the running programs that read the pools only when they start and promise their pages, as `name (pid N)`.

    kubelet reports them as the node's capacity, libvirt checks its guests against them.
    """
    names = {
        pid: (host.read_or_none(f"/proc/{pid}/comm") or "").strip() for pid in host.names("/proc") if pid.isdigit()
    }
    return [f"{name} (pid {pid})" for pid, name in sorted(names.items()) if name in _POOL_READERS]
