"""The memory guard: no pool may starve the model or the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..host.errors import ParseError, SettingError
from ..host.files import Host
from ..host.given import Given
from ..host.meminfo import read_meminfo
from .hugetlb import PoolSpec, read_pool


@dataclass(frozen=True)
class Guard:
    """How far pools may go: `keep_bytes` (the model and a margin) stay available beside them, `max_share` is of RAM."""

    keep_bytes: int
    max_share: float

    @staticmethod
    def parse(margin: object, max_share: object, beside_bytes: int = 0) -> Guard:
        """From the user's hugepages_margin and hugepages_max_share; the margin stays beside `beside_bytes`."""
        share = Given("hugepages_max_share", max_share).share(
            "memory", why="Any other number would switch the guard off or refuse every pool."
        )
        return Guard(Given("hugepages_margin", margin).size() + beside_bytes, share)

    def check(self, host: Host, wanted: Sequence[PoolSpec]) -> None:
        check_guard(host, wanted, self.keep_bytes, self.max_share)


def check_guard(host: Host, wanted: Sequence[PoolSpec], keep_bytes: int, max_share: float) -> None:
    """Refuse pools that would take more than `max_share` of RAM or leave less than `keep_bytes` available.

    `keep_bytes` is the model plus a margin. Only growth is refused: a host that is already short may shrink its pools.
    """
    growth = sum(
        (spec.count - read_pool(host, spec.size_bytes, spec.node).persistent) * spec.size_bytes for spec in wanted
    )
    if growth <= 0:
        return
    memory = read_meminfo(host)
    if "MemTotal" not in memory or "MemAvailable" not in memory:
        raise ParseError("/proc/meminfo", "MemTotal and MemAvailable", ", ".join(memory))
    total, available = memory["MemTotal"], memory["MemAvailable"]
    pools = sum(spec.count * spec.size_bytes for spec in wanted)
    names = ", ".join(f"{spec.name}={spec.count}" for spec in wanted)
    wanted_text = f"{names} ({_gib(pools)}, {_gib(growth)} more than now)"
    if pools > total * max_share:
        raise SettingError(
            "hugepages_pools",
            wanted_text,
            f"{_gib(total)} of memory, {max_share:.0%} of which is {_gib(int(total * max_share))}",
            "The pools would take more of the memory than hugepages_max_share allows.",
            "ask for fewer pages, or raise hugepages_max_share.",
        )
    if available - growth < keep_bytes:
        raise SettingError(
            "hugepages_pools",
            wanted_text,
            f"{_gib(available)} available, which would leave {_gib(available - growth)}",
            f"The model and its margin need {_gib(keep_bytes)} outside the pools.",
            "ask for fewer pages, or lower hugepages_margin.",
        )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"
