"""All facts about a host's huge-page memory in one reading: the input of a report."""

from __future__ import annotations

from typing import Any

from ...host import meminfo
from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import SNAPSHOT, SWEEP_PRIOR
from ...host.systemd import systemd_runs
from ..kernel.hugetlb import pool_nodes
from ..kinds.registry import KINDS, persisted_values, runtime_values
from ..rollback.snapshot import load, our_files


def gather(host: Host) -> dict[str, Any]:
    """Return the facts of a host, JSON-ready. Needs no root, but then lacks what only root sees (others' processes)."""
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
    """Return the snapshot's values; none where there is no snapshot, or none that this user can read and trust."""
    try:
        snapshot = load(host)
    except SettingError:
        return {}
    return snapshot.values() if snapshot else {}


def _numa(host: Host) -> list[dict[str, Any]]:
    """Return the memory of each node in bytes, from nodeN/meminfo."""
    nodes = []
    for node in pool_nodes(host):
        fields = meminfo.read_node_meminfo(host, node)
        nodes.append({"node": node, "total_bytes": fields.get("MemTotal", 0), "free_bytes": fields.get("MemFree", 0)})
    return nodes
