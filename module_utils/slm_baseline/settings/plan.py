"""The whole wanted tuning of a host, planned as changes: the one place where settings meet the machine.

Untouched means as it was before us: a knob, pool or mount that an earlier run of ours set and that is no longer wanted
returns to its value in the snapshot.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from ..host.files import Host
from .changes import Change
from .knobs import thp_knobs
from .mounts import ChangeMount, MountSpec, check_mounts, found_mount, parse_mounts
from .other_writers import knob_of
from .persistence import (
    POOLS_DROPIN,
    THP_DROPIN,
    our_units,
    parse_tmpfiles,
    parse_unit,
    plan_files,
    plan_unit,
    pools_file,
    thp_file,
)
from .pools import (
    PoolSpec,
    check_pools,
    default_page_bytes,
    parse_pool_name,
    parse_pools,
    plan_pools,
    pool_spread,
    spread_goal,
)
from .snapshot import Snapshot
from .thp import parse_thp, plan_knobs


@dataclass(frozen=True)
class Wanted:
    """The user's tuning, parsed: THP values by knob name, pools, mounts."""

    thp: dict[str, str] = field(default_factory=dict)
    pools: list[PoolSpec] = field(default_factory=list)
    mounts: list[MountSpec] = field(default_factory=list)

    def values(self) -> dict[str, str]:
        """Flat knob names and wanted values as text."""
        return {
            **self.thp,
            **{pool.name: str(pool.count) for pool in self.pools},
            **{mount.name: mount.options for mount in self.mounts},
        }


def parse_wanted(host: Host, thp: object, pools: object, mounts: object) -> Wanted:
    """Parse all three kinds of settings; the first bad one raises SettingError."""
    return Wanted(parse_thp(thp), parse_pools(pools), parse_mounts(host, mounts))


def our_lines(host: Host, dropin: str) -> dict[str, str]:
    """What a drop-in of ours sets: flat knob name -> value."""
    lines = parse_tmpfiles(dropin, host.read_or_none(dropin) or "")
    names = ((knob_of(line.target, default_page_bytes(host)), line.value) for line in lines)
    return {name: value for name, value in names if name}


def our_mount_paths(host: Host) -> list[str]:
    """Paths that units of ours mount."""
    units = (parse_unit(host.read_or_none(unit) or "", default_page_bytes(host)) for unit in our_units(host))
    return [unit.path for unit in units if unit]


def plan_thp(host: Host, wanted: dict[str, str], prior: Snapshot | None) -> list[Change]:
    """Runtime values first, in the kernel's order, then the drop-in that keeps them."""
    offered = thp_knobs(host)
    dropped = _dropped(our_lines(host, THP_DROPIN), wanted, prior.knobs if prior else {})
    dropped = {name: value for name, value in dropped.items() if name in offered}
    kept = {knob.path: wanted[name] for name, knob in offered.items() if name in wanted}
    return [*plan_knobs(host, {**dropped, **wanted}), *plan_files(host, thp_file(kept))]


def plan_all_pools(
    host: Host, wanted: Sequence[PoolSpec], prior: Snapshot | None, compact: bool = False
) -> list[Change]:
    """Pools first, then their drop-in."""
    check_pools(host, wanted)
    returned = _returned_pools(host, wanted, prior) if prior else []
    return [*plan_pools(host, [*wanted, *returned], compact), *plan_files(host, pools_file(wanted))]


def _returned_pools(host: Host, wanted: Sequence[PoolSpec], prior: Snapshot) -> list[PoolSpec]:
    """Pools of our drop-in that are no longer wanted, with their prior counts.

    A size that is wanted as a whole covers its nodes; one wanted by node gives the other nodes their pages back. Pages
    return to the nodes they were on, where the snapshot knows these and the host has them yet.
    """
    kept = {(pool.size_bytes, pool.node) for pool in wanted}
    returned: dict[tuple[int, int | None], PoolSpec] = {}
    for name, count in _dropped(our_lines(host, POOLS_DROPIN), {pool.name for pool in wanted}, prior.values()).items():
        pool = parse_pool_name(name, int(count))
        pools = [pool]
        goal = spread_goal(pool_spread(host, pool.size_bytes), prior.pools[pool.size_bytes].nodes)
        if pool.node is None and goal is not None:
            pools = [PoolSpec(pool.size_bytes, pages, node) for node, pages in goal.items()]
        for one in pools:
            if not kept & {(one.size_bytes, None), (one.size_bytes, one.node)}:
                returned[one.size_bytes, one.node] = one
    return list(returned.values())


def plan_mounts(host: Host, wanted: Sequence[MountSpec], prior: Snapshot | None) -> list[Change]:
    """Mounts that are no longer wanted go, then each wanted one is mounted and its unit written."""
    ours = ours_to_mount(host, prior)
    check_mounts(host, wanted, ours)
    changes: list[Change] = []
    for path in our_mount_paths(host):
        if path not in {mount.path for mount in wanted}:
            back = prior.mounts.get(path) if prior else None
            found = found_mount(host, path)
            changes += [ChangeMount(path, found, back)] if found != back else []
            changes += plan_unit(host, path, None)
    for mount in wanted:
        found = found_mount(host, mount.path)
        if found != mount:
            changes.append(ChangeMount(mount.path, found, mount))
        changes += plan_unit(host, mount.path, mount)
    return changes


def ours_to_mount(host: Host, prior: Snapshot | None) -> list[str]:
    """Paths whose mounts are this project's: those the snapshot saw unmounted, and those a unit of ours mounts."""
    unmounted = [path for path, mount in prior.mounts.items() if mount is None] if prior else []
    return [*unmounted, *our_mount_paths(host)]


def _dropped(ours: dict[str, str], wanted: Container[str], prior: dict[str, str]) -> dict[str, str]:
    """Knobs of ours that are no longer wanted, with their prior values."""
    return {name: prior[name] for name in ours if name not in wanted and name in prior}
