"""Huge page pools: parse what is wanted, read what the kernel has, set it and prove it.

Source: Documentation/admin-guide/mm/hugetlbpage.rst. A write to nr_hugepages can be granted in part and still return
success, so the only answer that counts is the count read back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..host.errors import ParseError, SettingError, os_problem
from ..host.files import Host
from ..host.sizes import format_size, parse_size

HUGEPAGES = "/sys/kernel/mm/hugepages"
NODES = "/sys/devices/system/node"
COMPACT_MEMORY = "/proc/sys/vm/compact_memory"
ATTEMPTS = 3
"""Writes tried before a short pool is a failure: freeing is asynchronous, so the second one often gets the rest."""

_FOLDER = re.compile(r"hugepages-([0-9]+)kB")
_NODE = re.compile(r"node([0-9]+)")
_KEYS = ("size", "count", "node")
_MAX_COUNT = 2**31 - 1


class NeedsReboot(SettingError):
    """A pool that can be had at boot only; `boot_arguments` is what to add to the kernel command line."""

    def __init__(self, short: SettingError, boot_arguments: str) -> None:
        super().__init__(
            short.knob,
            short.wanted,
            short.found,
            short.why,
            f"reserve them at boot: add `{boot_arguments}` to the kernel command line and reboot.",
        )
        self.boot_arguments = boot_arguments


@dataclass(frozen=True)
class PoolSpec:
    """A wanted pool: `count` persistent pages of `size_bytes`, on one NUMA node or (None) wherever the kernel likes."""

    size_bytes: int
    count: int
    node: int | None = None

    @property
    def name(self) -> str:
        return pool_name(self.size_bytes, self.node)


@dataclass(frozen=True)
class Pool:
    """A pool as the kernel has it, in pages. `total` includes `surplus`; per-node pools have no `reserved`."""

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
        """Pages the administrator asked for: what nr_hugepages sets. Surplus pages go when their users do."""
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
    """`hugepages.2M` or `hugepages.node1.2M`."""
    return f"hugepages.{'' if node is None else f'node{node}.'}{format_size(size_bytes)}"


def parse_pool_name(name: str, count: int) -> PoolSpec:
    """The pool that a name of `pool_name`'s form means, with a count."""
    _, *node, size = name.split(".")
    return PoolSpec(parse_size(size), count, int(node[0][len("node") :]) if node else None)


def pool_folder(size_bytes: int, node: int | None = None) -> str:
    """The pool's sysfs folder."""
    base = HUGEPAGES if node is None else f"{NODES}/node{node}/hugepages"
    return f"{base}/hugepages-{size_bytes // 1024}kB"


def parse_pools(settings: object) -> list[PoolSpec]:
    """The wanted pools of the user's list of `{size, count, node}`; SettingError for anything odd in it.

    Two entries contradict when they set one pool twice, or set one size both as a whole and by node.
    """
    if settings is None:
        return []
    if not isinstance(settings, Sequence) or isinstance(settings, str):
        raise SettingError(
            "hugepages_pools",
            "a list of {size, count}",
            repr(settings),
            "Each pool is one entry.",
            "write a YAML list.",
        )
    pools = [_parse_pool(item) for item in settings]
    for index, pool in enumerate(pools):
        for other in pools[:index]:
            if pool.size_bytes == other.size_bytes and (pool.node == other.node or None in (pool.node, other.node)):
                raise SettingError(
                    pool.name,
                    f"{pool.count} pages",
                    f"{other.count} pages for {other.name} in the same list",
                    "Both entries set the same pages.",
                    "keep one entry a pool: either one for the whole host, or one for each node.",
                )
    return pools


def _parse_pool(item: object) -> PoolSpec:
    if not isinstance(item, Mapping):
        raise SettingError(
            "hugepages_pools", "{size, count}", repr(item), "A pool is a mapping.", "give it a size and a count."
        )
    unknown = sorted(set(map(str, item)) - set(_KEYS))
    if unknown or "size" not in item or "count" not in item:
        raise SettingError(
            "hugepages_pools",
            "size and count, and optionally node",
            ", ".join(map(str, item)) or "nothing",
            f"Unknown: {', '.join(unknown)}." if unknown else "A pool needs both size and count.",
            "correct the entry.",
        )
    size_bytes = parse_size(item["size"], "hugepages_pools.size")
    name = f"hugepages.{format_size(size_bytes)}"
    node = None if item.get("node") is None else _whole(f"{name} node", item["node"])
    return PoolSpec(size_bytes, _whole(f"{name} count", item["count"]), node)


def _whole(knob: str, value: object) -> int:
    """A whole number from 0; text of digits counts, since Ansible templates to text. Booleans and fractions do not."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
        return value
    raise SettingError(
        knob,
        f"a whole number from 0 to {_MAX_COUNT}",
        repr(value),
        "Anything else would be rounded or refused by the kernel.",
        "correct the number.",
    )


def read_pool(host: Host, size_bytes: int, node: int | None = None) -> Pool:
    """One pool's counts; OSError where the kernel has no such pool."""
    folder = pool_folder(size_bytes, node)

    def count(name: str) -> int:
        text = host.read(f"{folder}/{name}").strip()
        if not (text.isascii() and text.isdigit() and len(text) < 20):
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
    """Page sizes this kernel has pools for, in bytes, ascending."""
    return sorted(int(match[1]) * 1024 for match in map(_FOLDER.fullmatch, host.names(HUGEPAGES)) if match)


def pool_nodes(host: Host) -> list[int]:
    """NUMA nodes with pool folders; none where the kernel was built without NUMA."""
    nodes = (int(match[1]) for match in map(_NODE.fullmatch, host.names(NODES)) if match)
    return sorted(node for node in nodes if host.exists(f"{NODES}/node{node}/hugepages"))


def read_pools(host: Host) -> list[Pool]:
    """Every pool: each size as a whole, then by node."""
    sizes = pool_sizes(host)
    return [
        read_pool(host, size, node)
        for size in sizes
        for node in (None, *pool_nodes(host))
        if host.exists(pool_folder(size, node))
    ]


def check_pools(host: Host, wanted: Sequence[PoolSpec]) -> None:
    """Raise SettingError, before anything is written, for a page size or node that this host lacks."""
    sizes, nodes = pool_sizes(host), pool_nodes(host)
    for spec in wanted:
        if not sizes:
            raise SettingError(
                spec.name,
                f"{spec.count} pages",
                f"no pools under {HUGEPAGES}",
                "This kernel was built without hugetlb, or /sys is not mounted.",
                "set hugepages_pools: [] for this host.",
            )
        if spec.size_bytes not in sizes:
            raise SettingError(
                spec.name,
                f"pages of {format_size(spec.size_bytes)}",
                f"a kernel with {', '.join(map(format_size, sizes))}",
                "The processor or kernel has no pages of that size.",
                "choose one of these sizes.",
            )
        if spec.node is not None and spec.node not in nodes:
            raise SettingError(
                spec.name,
                f"node {spec.node}",
                f"nodes {', '.join(map(str, nodes)) or 'none'}",
                "There is no such NUMA node with pools.",
                "choose one of these nodes, or leave node out.",
            )


@dataclass(frozen=True)
class SetPool:
    """Set one pool's persistent pages.

    `spread` is the count of pages per node before, so that undoing restores where pages were, not only how many.
    `compact` allows one memory compaction between attempts; drop_caches is never used.
    """

    spec: PoolSpec
    pool: Pool
    spread: Mapping[int, int]
    compact: bool = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def before(self) -> str:
        return str(self.pool.persistent)

    @property
    def after(self) -> str:
        return str(self.spec.count)

    def apply(self, host: Host) -> None:
        got = self.pool.persistent
        for attempt in range(ATTEMPTS):
            self._write(host, self.spec.node, self.spec.count)
            got = read_pool(host, self.spec.size_bytes, self.spec.node).persistent
            if got == self.spec.count:
                return
            if attempt == 0 and self.compact:
                host.write_kernel(COMPACT_MEMORY, "1")
            time.sleep(0.1 * attempt)
        raise self._short(got)

    def undo(self, host: Host) -> None:
        restore_spread(host, self.spec.size_bytes, self.spread, self.pool.persistent)
        got = read_pool(host, self.spec.size_bytes, self.spec.node).persistent
        if got != self.pool.persistent:
            raise SettingError(
                self.name,
                f"{self.before} pages, as before",
                f"{got} pages",
                "The kernel did not give the earlier pages back.",
                "free memory.",
            )

    def _write(self, host: Host, node: int | None, count: int) -> None:
        try:
            host.write_kernel(f"{pool_folder(self.spec.size_bytes, node)}/nr_hugepages", str(count))
        except OSError as error:
            raise os_problem(self.name, f"{count} pages", error) from error

    def _short(self, got: int) -> SettingError:
        short = SettingError(
            self.name,
            f"{self.spec.count} pages of {format_size(self.spec.size_bytes)}",
            f"{got} pages after {ATTEMPTS} attempts (asked {self.spec.count}, got {got})",
            f"The kernel could not find enough contiguous memory, so the pool returns to {self.before} pages.",
            "ask for fewer, set hugepages_compact: true, or reboot and run this first.",
        )
        return NeedsReboot(short, boot_arguments(self.spec)) if self.spec.size_bytes >= 1 << 30 else short


def boot_arguments(spec: PoolSpec) -> str:
    """The kernel command line that reserves this pool at boot."""
    count = str(spec.count) if spec.node is None else f"{spec.node}:{spec.count}"
    return f"hugepagesz={format_size(spec.size_bytes)} hugepages={count}"


def pool_spread(host: Host, size_bytes: int) -> dict[int, int]:
    """Persistent pages of one size by node; empty without NUMA folders."""
    return {
        node: read_pool(host, size_bytes, node).persistent
        for node in pool_nodes(host)
        if host.exists(pool_folder(size_bytes, node))
    }


def restore_spread(host: Host, size_bytes: int, spread: Mapping[int, int], persistent: int) -> None:
    """Give a size its old pages back, node by node where nodes are known; writes only what differs.

    As often as `SetPool` tries, and for the same reason. Whether the pages came is for the caller to read.
    """
    for attempt in range(ATTEMPTS):
        nodes = pool_spread(host, size_bytes)
        goal = spread_goal(nodes, spread)
        wanted: dict[int | None, int] = {}
        if goal is None:
            if read_pool(host, size_bytes).persistent != persistent:
                wanted[None] = persistent
        else:
            # What shrinks goes first, so that the pages are there for what grows.
            order = sorted(goal, key=lambda node: goal[node] - nodes[node])
            wanted |= {node: goal[node] for node in order if goal[node] != nodes[node]}
        if not wanted:
            return
        for node, count in wanted.items():
            host.write_kernel(f"{pool_folder(size_bytes, node)}/nr_hugepages", str(count))
        time.sleep(0.1 * attempt)


def spread_goal(nodes: Mapping[int, int], spread: Mapping[int, int]) -> dict[int, int] | None:
    """What each of the nodes of now must have for an earlier spread to be back; None where that cannot be had.

    Nodes may be unknown, or have gone since; one that has come since had no pages.
    """
    if not spread or not set(spread) <= set(nodes):
        return None
    return {node: spread.get(node, 0) for node in nodes}


def plan_pools(host: Host, wanted: Sequence[PoolSpec], compact: bool = False) -> list[SetPool]:
    """The pools that differ from what is wanted, those that shrink first."""
    changes = []
    for spec in wanted:
        pool = read_pool(host, spec.size_bytes, spec.node)
        if pool.persistent != spec.count:
            changes.append(SetPool(spec, pool, pool_spread(host, spec.size_bytes), compact))
    return sorted(changes, key=lambda change: (change.spec.count - change.pool.persistent) * change.spec.size_bytes)


def default_page_bytes(host: Host) -> int:
    """The default huge page size in bytes: /proc/meminfo's Hugepagesize, else the smallest pool's."""
    match = re.search(r"^Hugepagesize:\s+([0-9]+) kB$", host.read_or_none("/proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else min(pool_sizes(host), default=2 << 20)
