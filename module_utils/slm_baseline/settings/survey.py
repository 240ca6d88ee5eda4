"""Everything about a host's huge-page memory in one reading: what modules, audit and report start from."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..host import meminfo
from ..host.errors import SettingError, os_problem
from ..host.files import Host
from ..host.mountinfo import mounted_at, read_mountinfo
from ..host.processes import pool_users
from ..host.systemd import systemd_runs
from .drift import compare, persisted_values, runtime_values
from .guard import check_guard
from .knobs import THP, effective_size_policy, pmd_size_bytes, thp_knobs
from .mounts import check_mounts, hugetlbfs_mounts
from .other_writers import Competitor, find_competitors
from .persistence import our_files
from .plan import Wanted, ours_to_mount
from .pools import HUGEPAGES, NODES, check_pools, default_page_bytes, pool_nodes, read_pools
from .snapshot import SNAPSHOT, SWEEP_PRIOR, load
from .thp import check_thp


def gather(host: Host) -> dict[str, Any]:
    """Facts of a host, JSON-ready. Needs no root; what only root may see (others' processes) is then missing."""
    pools = read_pools(host)
    return {
        "thp": _thp(host),
        "pools": [pool.as_dict() for pool in pools],
        "pool_users": pool_users(host) if any(pool.total > pool.free for pool in pools) else [],
        "mounts": [
            {**asdict(mount), "options": mount.options, "stacked": len(mounted_at(read_mountinfo(host), mount.path))}
            for mount in hugetlbfs_mounts(host)
        ],
        "meminfo": meminfo.read_meminfo(host),
        "numa": _numa(host),
        "values": {
            **runtime_values(host),
            **{mount.name: mount.options for mount in hugetlbfs_mounts(host)},
        },
        "persisted": {
            knob: {"value": value, "source": source} for knob, (value, source) in persisted_values(host).items()
        },
        "our_files": our_files(host),
        "systemd": systemd_runs(host),
        "cmdline": (host.read_or_none("/proc/cmdline") or "").strip(),
        "snapshot": host.exists(SNAPSHOT),
        "before": _before(host),
        "unfinished_sweep": host.exists(SWEEP_PRIOR),
    }


def _before(host: Host) -> dict[str, str]:
    """The snapshot's values; none where there is no snapshot, or none that this user can read and trust."""
    try:
        snapshot = load(host)
    except SettingError:
        return {}
    return snapshot.values() if snapshot else {}


def _thp(host: Host) -> dict[str, Any]:
    knobs = thp_knobs(host)
    enabled = knobs.get("thp.enabled")
    sizes = {
        name.split(".")[2]: {
            "enabled": knob.value,
            "effective": effective_size_policy(enabled.value if enabled else "never", knob.value),
        }
        for name, knob in knobs.items()
        if name.startswith("thp.sizes.") and name.endswith(".enabled")
    }
    return {
        "supported": enabled is not None,
        "pmd_size_bytes": pmd_size_bytes(host),
        "knobs": {name: {"value": knob.value, "choices": list(knob.choices)} for name, knob in knobs.items()},
        "sizes": sizes,
    }


def _numa(host: Host) -> list[dict[str, Any]]:
    """Memory of each node in bytes, from nodeN/meminfo."""
    nodes = []
    for node in pool_nodes(host):
        text = host.read_or_none(f"{NODES}/node{node}/meminfo") or ""
        fields = meminfo.parse_meminfo("\n".join(line.partition(f"Node {node} ")[2] for line in text.splitlines()))
        nodes.append({"node": node, "total_bytes": fields.get("MemTotal", 0), "free_bytes": fields.get("MemFree", 0)})
    return nodes


def competitors_of(host: Host, wanted: Wanted) -> list[Competitor]:
    """Other writers of the wanted knobs. Looks through every place that could hold one: once a module is enough."""
    return find_competitors(host, wanted.values(), default_page_bytes(host))


def judge(host: Host, wanted: Wanted, competitors: Sequence[Competitor], tolerate: bool = False) -> dict[str, Any]:
    """The wanted tuning against this host: `rows` and `competitors`, JSON-ready. Tolerated ones make no row drift."""
    return {
        "rows": [asdict(row) for row in compare(host, wanted, () if tolerate else competitors)],
        "competitors": [writer.as_dict() for writer in competitors],
    }


def _check_sys_writable(host: Host) -> None:
    """Raise SettingError where /sys is mounted read-only, as in most containers: root alone does not help there."""
    for path in (THP, HUGEPAGES):
        if host.exists(path) and os.statvfs(host.path(path)).f_flag & os.ST_RDONLY:
            raise os_problem("/sys", "a writable /sys", OSError(errno.EROFS, os.strerror(errno.EROFS), path))


def preflight(host: Host, wanted: Wanted, keep_bytes: int, max_share: float, competitors: Sequence[Competitor]) -> None:
    """Raise the first reason why the wanted tuning cannot or must not be applied, `competitors` last. Reads only."""
    prior = load(host)
    if not wanted.values():
        raise SettingError(
            "tuning",
            "a setting at least: thp_enabled and its like, hugepages_pools or hugetlbfs_mounts",
            "none",
            "Ansible reads group_vars beside the inventory in use, so another one needs its own. A run that wants "
            "nothing would only take back what an earlier one set.",
            "copy inventory/group_vars beside your inventory. To give the host back, run rollback.yml; to measure "
            "alone, add --tags measure,report.",
        )
    if wanted.thp or wanted.pools:
        _check_sys_writable(host)
    check_thp(host, wanted.thp)
    check_pools(host, wanted.pools)
    check_mounts(host, wanted.mounts, ours_to_mount(host, prior))
    check_guard(host, wanted.pools, keep_bytes, max_share)
    if competitors:
        first = competitors[0]
        raise SettingError(
            first.knob,
            wanted.values().get(first.knob, "one writer"),
            "; ".join(map(str, competitors)),
            "Two writers of one knob would flip-flop: whichever runs last wins.",
            "remove that setting (for TuneD: switch the profile or override it there), or, if you know that ours runs "
            "last, set tuning_tolerate_competitors: true.",
        )
