"""Huge page pools in the kernel's files: sizes, nodes, counts, and their flat names.

Source: Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...host.errors import ParseError
from ...host.files import Host
from ...host.sizes import format_size, is_number, parse_size

HUGEPAGES = "/sys/kernel/mm/hugepages"
NODES = "/sys/devices/system/node"

_FOLDER = re.compile(r"hugepages-([0-9]+)kB")
_NODE = re.compile(r"node([0-9]+)")


@dataclass(frozen=True)
class PoolSpec:
    """A wanted pool: `count` persistent pages of `size_bytes`, on one NUMA node or (None) on any."""

    size_bytes: int
    count: int
    node: int | None = None

    @property
    def name(self) -> str:
        return pool_name(self.size_bytes, self.node)


@dataclass(frozen=True)
class Pool:
    """A pool's runtime state, in pages. `total` includes `surplus`; per-node pools have no `reserved`."""

    size_bytes: int
    node: int | None
    total: int
    free: int
    surplus: int
    reserved: int | None = None
    overcommit: int | None = None

    @property
    def name(self) -> str:
        return pool_name(self.size_bytes, self.node)

    @property
    def persistent(self) -> int:
        """Return the pages that nr_hugepages sets. Surplus pages disappear when their users release them."""
        return self.total - self.surplus

    def as_dict(self) -> dict[str, object]:
        return {
            "knob": self.name,
            "size": format_size(self.size_bytes),
            "size_bytes": self.size_bytes,
            "node": self.node,
            "total": self.total,
            "free": self.free,
            "reserved": self.reserved,
            "surplus": self.surplus,
            "overcommit": self.overcommit,
        }


def pool_name(size_bytes: int, node: int | None = None) -> str:
    """Return `hugepages.2M` or `hugepages.node1.2M`."""
    return f"hugepages.{'' if node is None else f'node{node}.'}{format_size(size_bytes)}"


def parse_pool_name(name: str, count: int) -> PoolSpec:
    """Return the pool that a name in the form of `pool_name` means, with a count."""
    _, *node, size = name.split(".")
    return PoolSpec(parse_size(size), count, int(node[0][len("node") :]) if node else None)


def pool_folder(size_bytes: int, node: int | None = None) -> str:
    """Return the pool's sysfs folder."""
    base = HUGEPAGES if node is None else f"{NODES}/node{node}/hugepages"
    return f"{base}/hugepages-{size_bytes // 1024}kB"


def read_pool(host: Host, size_bytes: int, node: int | None = None) -> Pool:
    """Return one pool's counts; OSError where the kernel has no such pool."""
    folder = pool_folder(size_bytes, node)

    def count(name: str) -> int:
        text = host.read(f"{folder}/{name}").strip()
        if not is_number(text):
            raise ParseError(f"{folder}/{name}", "a whole number", text)
        return int(text)

    whole = node is None
    return Pool(
        size_bytes=size_bytes,
        node=node,
        total=count("nr_hugepages"),
        free=count("free_hugepages"),
        surplus=count("surplus_hugepages"),
        reserved=count("resv_hugepages") if whole else None,
        overcommit=count("nr_overcommit_hugepages") if whole else None,
    )


def pool_sizes(host: Host) -> list[int]:
    """Return the page sizes for which this kernel has pools, in bytes, ascending."""
    return sorted(int(match[1]) * 1024 for match in map(_FOLDER.fullmatch, host.names(HUGEPAGES)) if match)


def pool_nodes(host: Host) -> list[int]:
    """Return the NUMA nodes with pool folders; none where the kernel was built without NUMA."""
    nodes = (int(match[1]) for match in map(_NODE.fullmatch, host.names(NODES)) if match)
    return sorted(node for node in nodes if host.exists(f"{NODES}/node{node}/hugepages"))


def read_pools(host: Host) -> list[Pool]:
    """Return every pool: each size as a whole, then by node."""
    sizes = pool_sizes(host)
    return [
        read_pool(host, size, node)
        for size in sizes
        for node in (None, *pool_nodes(host))
        if host.exists(pool_folder(size, node))
    ]


def pool_spread(host: Host, size_bytes: int) -> dict[int, int]:
    """Return the persistent pages of one size by node; empty without NUMA folders."""
    return {
        node: read_pool(host, size_bytes, node).persistent
        for node in pool_nodes(host)
        if host.exists(pool_folder(size_bytes, node))
    }


def default_page_bytes(host: Host) -> int:
    """Return the default huge page size in bytes: Hugepagesize of /proc/meminfo, else the smallest pool's."""
    match = re.search(r"^Hugepagesize:\s+([0-9]+) kB$", host.read_or_none("/proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else min(pool_sizes(host), default=2 << 20)
