"""The runtime settings that a measurement runs under."""

from __future__ import annotations

from collections.abc import Mapping

from ...host.files import Host
from ..kernel.hugetlb import pool_name, pool_sizes, read_pool
from .thp import thp_knobs


def effective_settings(host: Host) -> dict[str, str]:
    """Return every THP knob and pool, by flat name."""
    knobs = {name: knob.value for name, knob in thp_knobs(host).items()}
    return {**knobs, **{pool_name(size): str(read_pool(host, size).persistent) for size in pool_sizes(host)}}


def changed_settings(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return what changed, in words; empty where nothing did."""
    different = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} from {before.get(name)} to {after.get(name)}" for name in different)
