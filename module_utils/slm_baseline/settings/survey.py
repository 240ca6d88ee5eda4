"""Everything about a host's huge-page memory in one reading: what modules, audit and report start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..host import meminfo
from ..host.errors import SettingError
from ..host.files import Host
from ..host.systemd import systemd_runs
from .drift import drift_rows
from .guard import Guard
from .hugetlb import default_page_bytes, pool_nodes
from .kinds.kind import Kind
from .kinds.pools import Pools
from .other_writers import Competitor, find_competitors
from .registry import KINDS, Wanted, persisted_values, runtime_values, values_of
from .snapshot import SNAPSHOT, SWEEP_PRIOR, load, our_files, recorded_of


def gather(host: Host) -> dict[str, Any]:
    """Facts of a host, JSON-ready. Needs no root; what only root may see (others' processes) is then missing."""
    return {
        **{name: fact for kind in KINDS for name, fact in kind.facts(host).items()},
        "meminfo": meminfo.read_meminfo(host),
        "numa": _numa(host),
        "values": runtime_values(host),
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


def _numa(host: Host) -> list[dict[str, Any]]:
    """Memory of each node in bytes, from nodeN/meminfo."""
    nodes = []
    for node in pool_nodes(host):
        fields = meminfo.read_node_meminfo(host, node)
        nodes.append({"node": node, "total_bytes": fields.get("MemTotal", 0), "free_bytes": fields.get("MemFree", 0)})
    return nodes


def competitors_of(host: Host, wanted: Wanted) -> list[Competitor]:
    """Other writers of the wanted knobs. Looks through every place that could hold one: once a module is enough."""
    return find_competitors(host, values_of(wanted), default_page_bytes(host))


def judge(host: Host, wanted: Wanted, competitors: Sequence[Competitor], tolerate: bool = False) -> dict[str, Any]:
    """The wanted tuning against this host: `rows` and `competitors`, JSON-ready. Tolerated ones make no row drift."""
    return {
        "rows": [asdict(row) for row in drift_rows(host, wanted, () if tolerate else competitors)],
        "competitors": [writer.as_dict() for writer in competitors],
    }


def guarded(wanted: Wanted, guard: Guard) -> list[Kind]:
    """The same with its pools under the memory guard."""
    return [replace(kind, guard=guard) if isinstance(kind, Pools) else kind for kind in wanted]


def preflight(host: Host, wanted: Wanted, competitors: Sequence[Competitor]) -> bool:
    """Whether anything is to be done on this host for the wanted tuning to be in force and kept. Reads only.

    Raises the first reason why it cannot or must not be applied, `competitors` last.
    """
    prior = load(host)
    values = values_of(wanted)
    if not values:
        raise SettingError(
            "tuning",
            "a setting of thp_*, hugepages_pools, hugepages_overcommit or hugetlbfs_mounts",
            "none",
            "Ansible reads group_vars beside the inventory in use, so another one needs its own. A run that wants "
            "nothing would only undo what an earlier one set.",
            "copy inventory/group_vars beside your inventory. To restore the host, run rollback.yml; to measure "
            "alone, add --tags measure,report.",
        )
    for kind in wanted:
        kind.check(host, recorded_of(prior, kind.key))
    if competitors:
        first = competitors[0]
        raise SettingError(
            first.knob,
            values.get(first.knob, "one writer"),
            "; ".join(map(str, competitors)),
            "Of two writers of one knob, the last one to run wins.",
            "remove that setting (for TuneD: switch the profile or override it there), or, if you know that ours runs "
            "last, set tuning_tolerate_competitors: true.",
        )
    is_open = prior is not None and bool(prior.ours.unsettled)
    is_due = any(kind.plan(host, recorded_of(prior, kind.key)) for kind in wanted)
    return is_due or is_open or host.exists(SWEEP_PRIOR)
