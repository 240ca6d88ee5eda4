"""A fake host whose kernel files behave: selectors, pools by node, partial grants, surplus, a read-only /sys.

Source: Documentation/admin-guide/mm/hugetlbpage.rst and set_max_huge_pages() of mm/hugetlb.c.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.slm_baseline.host.files import Host

from tests.support.fakes import put

MIN_FREE = "/proc/sys/vm/min_free_kbytes"
_POOL = re.compile(
    r"(?:/sys/kernel/mm/hugepages|/sys/devices/system/node/node(?P<node>\d+)/hugepages)"
    r"/hugepages-(?P<kb>\d+)kB/nr_hugepages"
)
_NODE = re.compile(r"node(\d+)")


@dataclass(frozen=True)
class FakeKernel(Host):
    """A Host under a temporary root that answers writes to kernel files as the kernel does.

    `room` is how many pages of a size a node can give at most, `used` how many pages of a node's pool are in use (sizes
    in bytes, nodes by number). `stuck` files accept a write and keep their value; `failing` files refuse it.
    """

    room: dict[tuple[int, int], int] = field(default_factory=dict)
    used: dict[tuple[int, int], int] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)

    def write_kernel(self, path: str | Path, value: str) -> None:
        path = str(path)
        self.writes.append((path, value))
        for prefix, number in self.failing.items():
            if path.startswith(prefix):
                raise OSError(number, os.strerror(number), path)
        if path in self.stuck:
            return
        pool = _POOL.fullmatch(path)
        if pool:
            self._set_pool(int(pool["kb"]) * 1024, int(pool["node"]) if pool["node"] else None, int(value))
            return
        if path == "/proc/sys/vm/compact_memory":
            return
        text = self.read(path)
        if "[" not in text:
            put(self.root, path, f"{value}\n")
            return
        words = re.sub(r"[\[\]]", "", text).split()
        if value not in words:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        put(self.root, path, " ".join(f"[{word}]" if word == value else word for word in words) + "\n")
        if path.endswith("transparent_hugepage/enabled") and "[never]" in text:
            put(self.root, MIN_FREE, "112640\n")  # khugepaged's start raises it

    def pages(self, size: int) -> dict[int, int]:
        """Persistent pages by node."""
        return {node: self._persistent(size, node) for node in self._nodes()}

    def let_go(self, size: int, node: int = 0) -> None:
        """The users of a node's pages exit: surplus pages go back to the system."""
        persistent = self._persistent(size, node)
        self.used.pop((size, node), None)
        self._store(size, node, persistent)

    def _nodes(self) -> list[int]:
        return sorted(int(name[4:]) for name in self.names("/sys/devices/system/node") if _NODE.fullmatch(name))

    def _count(self, size: int, node: int, name: str) -> int:
        return int(self.read(f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size // 1024}kB/{name}"))

    def _persistent(self, size: int, node: int) -> int:
        return self._count(size, node, "nr_hugepages") - self._count(size, node, "surplus_hugepages")

    def _set_pool(self, size: int, node: int | None, count: int) -> None:
        pages = self.pages(size)
        if node is not None:
            goals = {**pages, node: count}
        else:
            goals, nodes = dict(pages), sorted(pages)
            while sum(goals.values()) != count:
                step = 1 if sum(goals.values()) < count else -1
                able = [n for n in nodes if (goals[n] < self._room(size, n) if step > 0 else goals[n] > 0)]
                if not able:
                    break
                # Round robin, as hstate_next_node_to_alloc and its sibling for freeing go about it.
                pick = min(able, key=lambda n: goals[n] * step)
                goals[pick] += step
        for number, goal in goals.items():
            self._store(size, number, min(goal, max(self._room(size, number), pages[number])))

    def _room(self, size: int, node: int) -> int:
        return self.room.get((size, node), 1 << 30)

    def _store(self, size: int, node: int, persistent: int) -> None:
        used = self.used.get((size, node), 0)
        total = max(persistent, used)
        counts = {"nr_hugepages": total, "free_hugepages": total - used, "surplus_hugepages": total - persistent}
        folder = f"hugepages/hugepages-{size // 1024}kB"
        for name, number in counts.items():
            put(self.root, f"/sys/devices/system/node/node{node}/{folder}/{name}", f"{number}\n")
        for name in counts:
            whole = sum(self._count(size, other, name) for other in self._nodes())
            put(self.root, f"/sys/kernel/mm/{folder}/{name}", f"{whole}\n")


def add_node(root: Path, node: int = 1) -> None:
    """A second NUMA node with empty pools of both sizes."""
    for size_kb in (2048, 1048576):
        for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
            put(root, f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size_kb}kB/{name}", "0\n")
    put(root, f"/sys/devices/system/node/node{node}/meminfo", f"Node {node} MemTotal: 16384000 kB\n")
