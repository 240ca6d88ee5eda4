"""The memory limit of this process's control group, which every process that it starts inherits."""

from __future__ import annotations

import os

from .files import Host
from .sizes import is_number

_ROOT = "/sys/fs/cgroup"


def memory_limit_bytes(host: Host) -> int | None:
    """Return the smallest memory.max from this process's group upwards (cgroup v2, or v1's limit); None for no limit.

    Sources: Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/memory.rst. Pages of hugetlb pools do not count
    towards it, unless the hierarchy is mounted with memory_hugetlb_accounting.
    """
    limits = []
    for line in (host.read_or_none("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            limits += _limits(host, _ROOT, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(host, f"{_ROOT}/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(host: Host, root: str, path: str, name: str) -> list[int]:
    limits = []
    folder = os.path.normpath("/" + path.lstrip("/"))
    while True:
        text = (host.read_or_none(f"{root}{folder.rstrip('/')}/{name}") or "").strip()
        # Version 1 writes "no limit" as the largest number of whole pages in 63 bits.
        if is_number(text) and int(text) < 1 << 62:
            limits.append(int(text))
        if folder == "/":
            return limits
        folder = os.path.dirname(folder)
