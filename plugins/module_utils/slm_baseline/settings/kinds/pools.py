"""Pools: reserved huge pages, by size and, where wanted, by NUMA node.

A write to nr_hugepages can be granted in part and still return success, so only the count that is read back is
reliable (Documentation/admin-guide/mm/hugetlbpage.rst).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...host.errors import NeedsReboot, SettingError, os_problem
from ...host.files import Host
from ...host.meminfo import read_meminfo, read_node_meminfo
from ...host.processes import holders, pool_users
from ...host.sizes import format_size, is_number, size_or
from ...host.validate import Option
from ..boot.tmpfiles import TMPFILES, Line, plan_file, set_at_boot, set_by, tmpfiles_text
from ..kernel.hugetlb import (
    HUGEPAGES,
    NODES,
    PoolSpec,
    default_page_bytes,
    parse_pool_name,
    pool_folder,
    pool_name,
    pool_nodes,
    pool_sizes,
    pool_spread,
    read_pool,
    read_pools,
)
from ..kernel.hugetlbfs import hugetlbfs_mounts
from ..kernel.knobs import check_writable
from ..state.json_fields import decimal, whole
from ..state.losses import NO_LIMITS, OPTION, Limits, refuse_loss
from ..state.ownership import NOTHING, Ours
from .kind import PriorState, Reading

if TYPE_CHECKING:  # An audit compiles no code of changes for a name of a type.
    from ..state.changes import Change

COMPACT_MEMORY = "/proc/sys/vm/compact_memory"
POOLS_DROPIN = f"{TMPFILES}/slm-baseline-hugepages.conf"
ATTEMPTS = 3
"""Writes before a short pool is an error: freeing is asynchronous, so the second write often gets the rest."""

_MAX_COUNT = 2**31 - 1
_SYSCTLS = ("/proc/sys/vm/nr_hugepages", "/proc/sys/vm/nr_hugepages_mempolicy")
_BOOT_SYSCTLS = ("sysctl.vm.nr_hugepages", "sysctl.vm.nr_hugepages_mempolicy")
_FILE = re.compile(
    rf"(?:{HUGEPAGES}|{NODES}/node(?P<node>[0-9]+)/hugepages)/hugepages-(?P<size>[0-9]+)kB/nr_hugepages", re.ASCII
)
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", re.ASCII)


@dataclass(frozen=True)
class PoolLayout:
    """Where the persistent pages of one size are: in total, and by node where the kernel has NUMA."""

    size_bytes: int
    persistent: int
    nodes: Mapping[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return pool_name(self.size_bytes)

    def at(self, node: int | None) -> int:
        """Return the pages on a node, or (None) in total; 0 for an unknown node."""
        return self.persistent if node is None else self.nodes.get(node, 0)

    def values(self) -> dict[str, str]:
        nodes = {pool_name(self.size_bytes, node): str(count) for node, count in self.nodes.items()}
        return {self.name: str(self.persistent), **nodes}

    def to_json(self) -> dict[str, Any]:
        return {"persistent": self.persistent, "nodes": dict(self.nodes)}

    def now(self, host: Host) -> PoolLayout | None:
        return read_layout(host, self.size_bytes) if host.exists(pool_folder(self.size_bytes)) else None

    def by_node(self, found: PoolLayout) -> dict[int, int] | None:
        """Return the pages that each node of the found layout needs for this one; None where that is impossible.

        Nodes may be unknown or removed since; a node added since had no pages.
        """
        if not self.nodes or not set(self.nodes) <= set(found.nodes):
            return None
        return {node: self.nodes.get(node, 0) for node in found.nodes}

    def specs(self, found: PoolLayout) -> list[PoolSpec]:
        """Return the pools to set to turn the found layout into this one, node by node where nodes are known.

        Shrinking pools come first, so that their pages are free for growing ones.
        """
        nodes = self.by_node(found)
        if nodes is None:
            specs = [PoolSpec(self.size_bytes, self.persistent)]
        else:
            specs = [PoolSpec(self.size_bytes, count, node) for node, count in nodes.items()]
        differing = [spec for spec in specs if spec.count != found.at(spec.node)]
        return sorted(differing, key=lambda spec: spec.count - found.at(spec.node))

    def rollback_target(self, found: PoolLayout, ours: Ours) -> PoolLayout | None:
        """Return the layout node by node, where the nodes are the same ones; else in total."""

        def is_ours(node: int | None) -> bool:
            return ours.has(Pools.key, pool_name(self.size_bytes, node), str(found.at(node)))

        if found == self or is_ours(None):
            return self
        if not found.nodes or set(found.nodes) != set(self.nodes):
            return None
        nodes = {node: self.nodes[node] if is_ours(node) else count for node, count in found.nodes.items()}
        return None if nodes == found.nodes else PoolLayout(self.size_bytes, sum(nodes.values()), nodes)

    def change(self, host: Host, limits: Limits = NO_LIMITS) -> ReturnPages | None:
        """Return the change; None for a size that the kernel no longer has (another processor, another base page)."""
        found = self.now(host)
        if found is None:
            return None
        change = ReturnPages(found, self)
        specs = self.specs(found)
        if specs:
            for spec in specs:
                refuse_lost_pages(host, spec, limits.accept)
            if limits.guard:
                limits.guard.check(host, [], specs)
            return change
        change.verify(host)
        return None


def read_layout(host: Host, size_bytes: int) -> PoolLayout:
    """Return a pool's current layout; SettingError where the kernel has no pool of that size."""
    try:
        return PoolLayout(size_bytes, read_pool(host, size_bytes).persistent, pool_spread(host, size_bytes))
    except OSError as error:
        raise os_problem(pool_name(size_bytes), "a pool of this size", error) from error


@dataclass(frozen=True)
class PoolGoals:
    """What a wanted tuning does with the pools: those to `set`, those to `keep` at boot, and those `left` to others.

    `left` maps the knob to the reason.
    """

    set: Sequence[PoolSpec]
    keep: Sequence[PoolSpec]
    left: Mapping[str, str]


@dataclass(frozen=True)
class Pools:
    """The wanted pools, and how far they may go.

    `limits` keep enough memory for the host, and name pools that may shrink although others rely on their pages.
    `compact` allows one memory compaction where pages are short; drop_caches is never used.
    """

    pools: Sequence[PoolSpec] = ()
    limits: Limits = NO_LIMITS
    compact: bool = False
    key: ClassVar[str] = "pools"

    @classmethod
    def parse(cls, host: Host, given: object) -> Pools:
        return cls(parse_pools(given, lambda node: memory_of(host, node)))

    @classmethod
    def recorded(cls, key: str, value: Any) -> PoolLayout:
        nodes = {decimal(node): whole(count) for node, count in value["nodes"].items()}
        return PoolLayout(decimal(key), whole(value["persistent"]), nodes)

    @classmethod
    def knob_of(cls, target: str, default_page_bytes: int) -> str | None:
        if target in _SYSCTLS:
            return pool_name(default_page_bytes)
        match = _FILE.fullmatch(target)
        if not match:
            return None
        return pool_name(int(match["size"]) * 1024, int(match["node"]) if match["node"] else None)

    @classmethod
    def boot_values(cls, words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
        """Return what is reserved at boot, by `parse_reservations`; `sysctl.vm.nr_hugepages=` is applied last."""
        default = next((size_or(value, 0) for key, value in words if key == "default_hugepagesz"), 0)
        values = parse_reservations(words, default_page_bytes)
        for key, value in words:
            if key.replace("/", ".") in _BOOT_SYSCTLS and is_number(value):
                whole_pool = pool_name(default or default_page_bytes)
                values = {name: count for name, count in values.items() if not _is_part_of(name, whole_pool)}
                values[whole_pool] = value
        return values

    @classmethod
    def persisted(cls, host: Host, lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
        default = default_page_bytes(host)
        return set_at_boot(lines, lambda target: cls.knob_of(target, default))

    @classmethod
    def facts(cls, host: Host) -> dict[str, Any]:
        pools = read_pools(host)
        in_use = any(pool.total > pool.free for pool in pools)
        return {"pools": [pool.as_dict() for pool in pools], "pool_users": pool_users(host) if in_use else []}

    def values(self) -> dict[str, str]:
        return {pool.name: str(pool.count) for pool in self.pools}

    def check(self, host: Host, prior: Mapping[str, PoolLayout], ours: Ours = NOTHING) -> None:
        check_pools(host, self.pools)
        self._check_goals(host, self.goals(host, prior, ours), prior, ours)

    def _check_goals(self, host: Host, goals: PoolGoals, prior: Mapping[str, PoolLayout], ours: Ours) -> None:
        if self.limits.guard:
            self.limits.guard.check(host, goals.keep, [spec for spec in goals.set if spec not in goals.keep])
        for spec in goals.set:
            refuse_lost_pages(host, spec, self.limits.accept)

    def plan(self, host: Host, prior: Mapping[str, PoolLayout], ours: Ours = NOTHING) -> list[Change]:
        """Return the changes of the pools, then that of their drop-in."""
        check_pools(host, self.pools)
        goals = self.goals(host, prior, ours)
        self._check_goals(host, goals, prior, ours)
        text = tmpfiles_text(
            {f"{pool_folder(pool.size_bytes, pool.node)}/nr_hugepages": str(pool.count) for pool in goals.keep}
        )
        pools = plan_pools(host, goals.set, self.compact, self.limits.accept)
        return [*pools, *plan_file(host, POOLS_DROPIN, text)]

    def goals(self, host: Host, prior: Mapping[str, PoolLayout], ours: Ours = NOTHING) -> PoolGoals:
        """Return what to set, keep at boot, and leave: a wanted count never takes pages that we did not add.

        A pool that is left keeps the pages that are not ours, and no line of ours sets it at the next boot.
        """
        layouts = {size: read_layout(host, size) for size in {pool.size_bytes for pool in self.pools}}
        to_set, keep, left = [], [], {}
        for spec in self.pools:
            found = layouts[spec.size_bytes].at(spec.node)
            before = prior.get(str(spec.size_bytes))
            is_ours = ours.has(self.key, spec.name, str(found))
            theirs = min(found, before.at(spec.node) if before else 0) if is_ours else found
            if spec.count < theirs and spec.name not in self.limits.accept:
                to_set.append(replace(spec, count=theirs))
                left[spec.name] = (
                    f"{spec.name} has {found} pages, {theirs} of which are not ours; they stay, though {spec.count} "
                    f"are wanted ({OPTION}: [{spec.name}] takes them)"
                )
            else:
                to_set.append(spec)
                keep.append(spec)
        return PoolGoals([*to_set, *self._dropped(host, prior, ours)], keep, left)

    def may_be_left(self, host: Host) -> bool:
        """Return whether a pool has more pages than wanted, so that their owner matters."""
        return any(
            host.exists(pool_folder(spec.size_bytes, spec.node))
            and read_pool(host, spec.size_bytes, spec.node).persistent > spec.count
            for spec in self.pools
        )

    def _dropped(self, host: Host, prior: Mapping[str, PoolLayout], ours: Ours) -> list[PoolSpec]:
        """Return our drop-in's pools that are no longer wanted, with prior counts; what others changed since stays.

        A size that is wanted in total covers its nodes; one wanted by node gives the other nodes their pages back.
        Pages return to the nodes they were on, where these are known and still exist.
        """
        default = default_page_bytes(host)
        kept = {(pool.size_bytes, pool.node) for pool in self.pools}
        dropped: dict[tuple[int, int | None], PoolSpec] = {}
        for name in set_by(host, POOLS_DROPIN, lambda target: self.knob_of(target, default)):
            pool = parse_pool_name(name, 0)
            before = prior.get(str(pool.size_bytes))
            if name in self.values() or before is None or not host.exists(pool_folder(pool.size_bytes, pool.node)):
                continue
            found = read_layout(host, pool.size_bytes)
            goal = before.rollback_target(found, ours)
            specs = goal.specs(found) if goal else []
            if goal and pool.node is None and len(found.nodes) == 1 and specs:
                # With a single node, which no setting names, the pool as a whole is the same pages.
                specs = [PoolSpec(pool.size_bytes, goal.persistent)]
            for spec in specs:
                is_asked = pool.node is None or spec.node == pool.node
                if is_asked and not kept & {(spec.size_bytes, None), (spec.size_bytes, spec.node)}:
                    dropped[spec.size_bytes, spec.node] = spec
        return list(dropped.values())

    def read(self, host: Host) -> dict[str, Reading]:
        return {pool.name: str(pool.persistent) for pool in read_pools(host)}

    def capture(self, host: Host, known: Container[str] = ()) -> dict[str, PriorState]:
        return {str(size): read_layout(host, size) for size in pool_sizes(host) if str(size) not in known}

    def places(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        return [POOLS_DROPIN], []


def parse_reservations(words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
    """Return pages by pool as a kernel command line reserves them: `hugepages_setup` and the like in mm/hugetlb.c.

    `hugepages=` counts pages of the `hugepagesz=` before it, else of the default size. A second count for one size, a
    second `hugepagesz=` of one size, and the count behind it are ignored. `0:2,1:4` counts by node.
    """
    default = default_page_bytes
    counted: dict[int | None, dict[int | None, str]] = {}
    seen: set[int] = set()
    # `size` is the last valid one; `last` is what was counted last, None for a count before any size.
    size, is_valid, has_default = 0, True, False
    last: int | None = -1
    for key, value in words:
        if key == "default_hugepagesz":
            is_valid = not has_default and _is_page_size(value)
            if is_valid:
                size = default = size_or(value, 0)
                has_default = True
                seen.add(size)
                if None in counted:
                    counted[size] = counted.pop(None)
        elif key == "hugepagesz":
            given = size_or(value, 0)
            # The default size may be named once more, as long as it has no count yet.
            is_new = given not in seen or (has_default and given == default and given not in counted)
            is_valid = _is_page_size(value) and is_new
            if is_valid:
                size = given
                seen.add(size)
        elif key == "hugepages":
            target = size if seen else None
            counts = _counts(value) if is_valid and target != last else {}
            if counts:
                counted[target], last = counts, target
            is_valid = True
    # A count before any size is the default size's, and wins over an explicit one.
    if None in counted:
        counted[default] = counted.pop(None)
    return {pool_name(size, node): count for size, counts in counted.items() if size for node, count in counts.items()}


def _count(knob: str, given: object) -> int:
    """Return a pool's count; SettingError that says where an amount of memory belongs."""
    text = str(given).strip()
    if isinstance(given, str) and not is_number(text) and (text.endswith("%") or size_or(text, 0)):
        raise SettingError(
            knob,
            f"a whole number from 0 to {_MAX_COUNT}",
            repr(given),
            "That is an amount of memory, and a count is one of pages.",
            f"write memory: {text} in its place.",
        )
    return Option(knob, given).integer(_MAX_COUNT)


def _is_page_size(text: str) -> bool:
    size = size_or(text, 0)
    return size > 0 and not size & (size - 1)


def _counts(text: str) -> dict[int | None, str]:
    """Return a count, or counts by node: the digits at the beginning of a text; none where it begins otherwise."""
    if ":" not in text:
        match = re.match(r"[0-9]{1,19}", text, re.ASCII)
        return {None: str(int(match[0]))} if match else {}
    counts: dict[int | None, str] = {}
    for item in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,19})", item, re.ASCII)
        if not match:
            break
        counts[int(match[1])] = str(int(match[2]))
    return counts


def _is_part_of(name: str, whole_pool: str) -> bool:
    return name.rpartition(".")[2] == whole_pool.rpartition(".")[2]


def parse_pools(settings: object, memory_of_node: Callable[[int | None], int] | None = None) -> list[PoolSpec]:
    """Parse the user's list of `{size, count or memory, node}` into pools; SettingError for anything invalid in it.

    `memory` is a size such as 4G, or a share such as 25% of the bytes that `memory_of_node` returns for a node, or for
    the host (None). A single entry needs no list. Two entries contradict when they set one pool twice, or set one size
    both in total and by node.
    """
    pools = []
    listed = [settings] if isinstance(settings, Mapping) else settings
    for entry in Option("hugepages_pools", listed).entries(("size",), ("count", "memory", "node")):
        size_bytes = Option("hugepages_pools.size", entry["size"]).size()
        knob = f"hugepages.{format_size(size_bytes)}"
        node = None if entry.get("node") is None else Option(f"{knob} node", entry["node"]).integer(_MAX_COUNT)
        if ("count" in entry) == ("memory" in entry):
            raise Option("hugepages_pools", settings).error(
                "size and count, or size and memory, and optionally node",
                ", ".join(entry),
                why="A pool is so many pages, or so much memory.",
                next_step="give it one of both, as in {size: 2M, count: 1024} or {size: 2M, memory: 25%}.",
            )
        if "count" in entry:
            count = _count(f"{knob} count", entry["count"])
        else:
            count = count_pages(f"{knob} memory", entry["memory"], size_bytes, node, memory_of_node)
        pools.append(PoolSpec(size_bytes, count, node))
    for index, pool in enumerate(pools):
        for other in pools[:index]:
            if pool.size_bytes == other.size_bytes and (pool.node == other.node or None in (pool.node, other.node)):
                raise SettingError(
                    pool.name,
                    f"{pool.count} pages",
                    f"{other.name} in the same list again, with {other.count}",
                    "Both entries set the same pages.",
                    "keep one entry a pool: either one for the whole host, or one for each node.",
                )
    return pools


def count_pages(
    knob: str,
    memory: object,
    page_bytes: int,
    node: int | None,
    memory_of_node: Callable[[int | None], int] | None = None,
) -> int:
    """Return the pages in a size such as 4G, which must be whole pages, or in a share such as 25%, rounded down."""
    option = Option(knob, memory)
    share = _SHARE.fullmatch(memory.strip()) if isinstance(memory, str) else None
    if share is None:
        size_bytes = option.size()
        if not page_bytes or size_bytes % page_bytes or size_bytes // page_bytes > _MAX_COUNT:
            raise option.error(
                f"whole pages of {format_size(page_bytes)}",
                why="A page is had whole or not at all.",
                next_step=f"choose a multiple of {format_size(page_bytes)}.",
            )
        return size_bytes // page_bytes
    if memory_of_node is None or not page_bytes or not 0 < float(share[1]) <= 100:
        raise option.error(
            "a size such as 4G, or a share of the memory above 0% and up to 100%",
            why="Pages are reserved from the memory that is there.",
        )
    return int(memory_of_node(node) * float(share[1]) / 100) // page_bytes


def memory_of(host: Host, node: int | None) -> int:
    """Return the bytes of the host's memory, or of a node's; SettingError where they are unknown."""
    memory = read_meminfo(host) if node is None else read_node_meminfo(host, node)
    if "MemTotal" not in memory:
        place = "the host" if node is None else f"node {node}"
        raise SettingError(
            "hugepages_pools",
            f"a share of the memory of {place}",
            "no such memory",
            f"There is no MemTotal of {place}.",
            "choose a node that the host has, or give the pool's memory as a size.",
        )
    return memory["MemTotal"]


def check_pools(host: Host, wanted: Sequence[PoolSpec]) -> None:
    """Raise SettingError, before anything is written, for a page size or node that this host lacks."""
    if wanted:
        check_writable(host, HUGEPAGES)
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
    """A change of one pool's persistent pages.

    `prior` is where the pages of its size were before, so that undoing restores their nodes and not only their number.
    `surplus` is the surplus pages before, and `may_add` whether there may be more afterwards. `compact` allows one
    memory compaction between attempts.
    """

    spec: PoolSpec
    prior: PoolLayout
    surplus: int = 0
    compact: bool = False
    may_add: bool = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def before(self) -> str:
        return str(self.prior.at(self.spec.node))

    @property
    def after(self) -> str:
        return str(self.spec.count)

    @property
    def growth_bytes(self) -> int:
        return (self.spec.count - int(self.before)) * self.spec.size_bytes

    def apply(self, host: Host) -> None:
        got = 0
        for attempt in range(ATTEMPTS):
            self._write(host)
            got = read_pool(host, self.spec.size_bytes, self.spec.node).persistent
            if got == self.spec.count:
                self._refuse_surplus(host)
                return
            if attempt == 0 and self.compact:
                host.write_kernel(COMPACT_MEMORY, "1")
            time.sleep(0.1 * attempt)
        raise self._short(got)

    def reverse(self) -> ReturnPages:
        return ReturnPages(PoolLayout(self.spec.size_bytes, self.spec.count), self.prior, self.surplus)

    def _refuse_surplus(self, host: Host) -> None:
        """Raise LossError where used pages became surplus: the pool shrank, but has no page free for a program."""
        surplus = read_pool(host, self.spec.size_bytes).surplus
        if surplus > self.surplus and not self.may_add and self.spec.count < int(self.before):
            refuse_loss(
                self.name,
                f"{self.spec.count} pages",
                f"{surplus - self.surplus} pages that became surplus",
                f"{_holders(host)}They came into use meanwhile: the pool returns to what it was.",
                "stop what uses them",
            )

    def _write(self, host: Host) -> None:
        try:
            host.write_kernel(f"{pool_folder(self.spec.size_bytes, self.spec.node)}/nr_hugepages", str(self.spec.count))
        except OSError as error:
            raise os_problem(self.name, f"{self.spec.count} pages", error) from error

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
    """Return the kernel command line that reserves this pool at boot."""
    count = str(spec.count) if spec.node is None else f"{spec.node}:{spec.count}"
    return f"hugepagesz={format_size(spec.size_bytes)} hugepages={count}"


def refuse_lost_pages(host: Host, spec: PoolSpec, accept: Container[str] = ()) -> None:
    """Raise LossError where a pool would become smaller than its pages in use or reserved.

    The kernel keeps such pages as surplus, which their users give back one by one (set_max_huge_pages of mm/hugetlb.c):
    the pool then has nothing free for a program that starts meanwhile and relies on it.
    """
    pool = read_pool(host, spec.size_bytes, spec.node)
    reserved = pool.reserved or 0
    if spec.count >= pool.persistent or spec.count >= pool.total - pool.free + reserved:
        return
    if pool_name(spec.size_bytes) in accept:
        return
    refuse_loss(
        spec.name,
        f"{spec.count} pages",
        f"{pool.persistent} pages, {pool.total - pool.free} in use and {reserved} more reserved",
        f"{_holders(host)}What is in use would become surplus pages, and the next program that asks would get none.",
        "stop what uses them",
        accept,
    )


def _holders(host: Host) -> str:
    users = _users_of_pages(host)
    return f"Held by {users}. " if users else ""


def _users_of_pages(host: Host) -> str:
    """Return the processes and mounts that use a pool's pages, in words; empty where none is visible."""
    users = [f"{user['name']} (pid {user['pid']})" for user in pool_users(host)] + [
        f"files on {mount.path}"
        for mount in hugetlbfs_mounts(host)
        if host.names(mount.path) or holders(host, mount.path, most=1)
    ]
    return ", ".join(users)


def plan_pools(
    host: Host, wanted: Sequence[PoolSpec], compact: bool = False, accept: Collection[str] = ()
) -> list[SetPool]:
    """Return the changes of the pools that differ from the wanted counts, shrinking ones first."""
    changes = []
    for spec in wanted:
        pool = read_pool(host, spec.size_bytes, spec.node)
        if pool.persistent != spec.count:
            surplus = read_pool(host, spec.size_bytes).surplus
            may_add = bool({spec.name, pool_name(spec.size_bytes)} & set(accept))
            changes.append(SetPool(spec, read_layout(host, spec.size_bytes), surplus, compact, may_add))
    return sorted(changes, key=lambda change: change.growth_bytes)


@dataclass(frozen=True)
class ReturnPages:
    """A change that gives a size its recorded pages back, node by node where nodes are known.

    `surplus` is how many pages beyond these may stay; the host's own overcommit may add more.
    """

    found: PoolLayout
    goal: PoolLayout
    surplus: int = 0

    @property
    def name(self) -> str:
        return self.goal.name

    @property
    def before(self) -> str:
        return str(self.found.persistent)

    @property
    def after(self) -> str:
        return str(self.goal.persistent)

    def apply(self, host: Host) -> None:
        try:
            restore_layout(host, self.goal)
        except OSError as error:
            raise os_problem(self.name, f"{self.goal.persistent} pages", error) from error
        self.verify(host)

    def reverse(self) -> ReturnPages:
        return ReturnPages(self.goal, self.found, self.surplus)

    def verify(self, host: Host) -> None:
        """Raise SettingError where pages are missing, on the wrong node, or still held beyond the recorded ones."""
        size = self.goal.size_bytes
        pool, found = read_pool(host, size), read_layout(host, size)
        nodes = self.goal.by_node(found) or {}
        pages = {pool_name(size, node): (asked, found.at(node)) for node, asked in nodes.items()}
        pages[self.name] = (self.goal.persistent, pool.persistent)
        left = max(0, pool.surplus - max(self.surplus, pool.overcommit or 0))
        if any(got < asked for asked, got in pages.values()):
            raise self._short(pages)
        if left or any(got > asked for asked, got in pages.values()):
            raise self._held(host, pool.persistent, left)

    def _held(self, host: Host, persistent: int, surplus: int) -> SettingError:
        return SettingError(
            self.name,
            f"{self.goal.persistent} pages",
            f"{persistent} pages and {surplus} surplus pages still in use",
            f"Held by {_users_of_pages(host) or 'a user that cannot be seen from here'}; freed when it releases them.",
            "stop it or remove its files, then run the rollback again: the snapshot is kept until then.",
        )

    def _short(self, pages: Mapping[str, tuple[int, int]]) -> SettingError:
        """Return the error for too few pages; `pages` has the wanted and actual pages of the pool and its nodes."""
        asked, got = pages[self.name]
        nodes = [
            f"{node} has {got} of {asked}" for node, (asked, got) in pages.items() if node != self.name and got != asked
        ]
        return SettingError(
            self.name,
            f"{asked} pages",
            f"{got} pages" + (f" ({', '.join(nodes)})" if nodes else ""),
            f"The kernel could not find enough contiguous memory for the rest in {ATTEMPTS} attempts.",
            "free memory, or reboot, then run the rollback again: the snapshot is kept until then.",
        )


def restore_layout(host: Host, goal: PoolLayout) -> None:
    """Restore the old pages of a size, node by node where nodes are known; write only what differs.

    Tries as often as `SetPool`, for the same reason. The caller must read back whether the pages came.
    """
    for attempt in range(ATTEMPTS):
        specs = goal.specs(read_layout(host, goal.size_bytes))
        if not specs:
            return
        for spec in specs:
            host.write_kernel(f"{pool_folder(spec.size_bytes, spec.node)}/nr_hugepages", str(spec.count))
        time.sleep(0.1 * attempt)
