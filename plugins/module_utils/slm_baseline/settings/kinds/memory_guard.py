"""The memory guard: pools must leave enough memory for the model and the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...host.cgroup import memory_limit_bytes
from ...host.errors import ParseError, SettingError
from ...host.files import Host
from ...host.meminfo import read_meminfo, read_node_meminfo
from ...host.validate import Option
from ..kernel.hugetlb import PoolSpec, read_pool


@dataclass(frozen=True)
class Guard:
    """How far pools may go: `keep_bytes` (the model and a margin) stay available beside them, `max_share` is of RAM.

    `model_bytes` is the model alone, for which its control group must have room.
    """

    keep_bytes: int
    max_share: float
    model_bytes: int = 0

    @staticmethod
    def parse(margin: object, max_share: object, beside_bytes: int = 0) -> Guard:
        """Parse the user's hugepages_margin and hugepages_max_share; the margin stays free beside `beside_bytes`."""
        share = Option("hugepages_max_share", max_share).fraction(
            "memory", why="Any other number would switch the guard off or refuse every pool."
        )
        return Guard(Option("hugepages_margin", margin).size() + beside_bytes, share, beside_bytes)

    def check(self, host: Host, wanted: Sequence[PoolSpec], dropped: Sequence[PoolSpec] = ()) -> None:
        """Raise SettingError for pools that take too much of RAM or of a node, or leave too little.

        Pools that are `dropped` return to the owner's counts: they may have any share, but must find the memory. Only
        growth is refused: a host that is already short of memory may shrink its pools.
        """
        grown = [(spec, _growth_bytes(host, spec)) for spec in [*wanted, *dropped]]
        growth = sum(size for _, size in grown)
        for node in sorted({spec.node for spec, size in grown if spec.node is not None and size > 0}):
            on_node = [(spec, size) for spec, size in grown if spec.node == node]
            self._check_node(host, node, on_node, [spec for spec in wanted if spec.node == node])
        if growth <= 0:
            return
        memory = read_meminfo(host)
        if "MemTotal" not in memory or "MemAvailable" not in memory:
            raise ParseError("/proc/meminfo", "MemTotal and MemAvailable", ", ".join(memory))
        total, available = memory["MemTotal"], memory["MemAvailable"]
        text = _wanted_text([spec for spec, _ in grown], growth)
        self._check_share(wanted, total, "memory", text)
        if available - growth < self.keep_bytes:
            raise SettingError(
                "hugepages_pools",
                text,
                f"{_gib(available)} available, which would leave {_gib(available - growth)}",
                f"The model and its margin need {_gib(self.keep_bytes)} outside the pools.",
                "ask for fewer pages, or lower hugepages_margin.",
            )
        limit = memory_limit_bytes(host)
        if limit is not None and self.model_bytes > limit:
            raise SettingError(
                "hugepages_pools",
                text,
                f"a control group that may use {_gib(limit)}",
                f"The model needs {_gib(self.model_bytes)}, and its process cannot use more than its control group.",
                "raise MemoryMax of the session that runs this, or choose a smaller model.",
            )

    def _check_node(
        self, host: Host, node: int, grown: Sequence[tuple[PoolSpec, int]], wanted: Sequence[PoolSpec]
    ) -> None:
        """Check a node's own memory, from which its pages come: what is free there, and reclaimable page cache."""
        memory = read_node_meminfo(host, node)
        if "MemTotal" not in memory or "MemFree" not in memory:
            return
        growth = sum(size for _, size in grown)
        text = _wanted_text([spec for spec, _ in grown], growth)
        self._check_share(wanted, memory["MemTotal"], f"memory on node {node}", text)
        room = sum(memory.get(name, 0) for name in ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable"))
        if growth > room:
            raise SettingError(
                "hugepages_pools",
                text,
                f"{_gib(room)} available on node {node}",
                "The pages of a node come from its own memory.",
                "ask for fewer pages there, or leave node out.",
            )

    def _check_share(self, wanted: Sequence[PoolSpec], total: int, of: str, text: str) -> None:
        if sum(spec.count * spec.size_bytes for spec in wanted) > total * self.max_share:
            raise SettingError(
                "hugepages_pools",
                text,
                f"{_gib(total)} of {of}, {self.max_share:.0%} of which is {_gib(int(total * self.max_share))}",
                "The pools would take more of the memory than hugepages_max_share allows.",
                "ask for fewer pages, or raise hugepages_max_share.",
            )


def _growth_bytes(host: Host, spec: PoolSpec) -> int:
    return (spec.count - read_pool(host, spec.size_bytes, spec.node).persistent) * spec.size_bytes


def _wanted_text(pools: Sequence[PoolSpec], growth: int) -> str:
    names = ", ".join(f"{spec.name}={spec.count}" for spec in pools)
    return f"{names} ({_gib(sum(spec.count * spec.size_bytes for spec in pools))}, {_gib(growth)} more than now)"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"
