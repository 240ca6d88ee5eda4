"""Whether a wanted tuning can be applied to a host, and whether anything must change for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import SWEEP_PRIOR
from ..audit.conflicts.conflict import Conflict
from ..kinds.kind import Kind
from ..kinds.mounts import Mounts
from ..kinds.pools import Pools
from ..kinds.registry import Wanted, values_of
from ..rollback.snapshot import load, plan_kind
from ..state.changes import Change, no_longer_wanted
from ..state.losses import Limits
from ..state.ownership import NOTHING
from ..state.persistence import refuse_temporary
from .edited_files import refuse_edited


def limited(wanted: Wanted, limits: Limits) -> list[Kind]:
    """Return the wanted kinds with these limits: the memory guard for pools, and the losses that the user accepts."""
    limited: list[Kind] = []
    for kind in wanted:
        if isinstance(kind, Pools):
            limited.append(replace(kind, limits=limits))
        elif isinstance(kind, Mounts):
            limited.append(replace(kind, accept=limits.accept))
        else:
            limited.append(kind)
    return limited


def preflight(host: Host, wanted: Wanted, conflicts: Sequence[Conflict], accept: frozenset[str] = frozenset()) -> bool:
    """Return whether anything on this host must change to make the wanted tuning active and persistent. Reads only.

    Raises the first reason why it cannot or must not be applied. Certain `conflicts` come last; possible ones do not
    count.
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
    ours = prior.ours if prior else NOTHING
    for kind in wanted:
        kind.check(host, prior.of(kind.key) if prior else {}, ours)
    refuse_temporary(host, accept)
    certain = [conflict for conflict in conflicts if conflict.certain]
    if certain:
        first = certain[0]
        raise SettingError(
            first.knob,
            values.get(first.knob, "one writer"),
            "; ".join(map(str, certain)),
            "Of two writers of one knob, the last one to run wins.",
            "remove that setting (for TuneD: switch the profile or override it there), or, if you know that ours runs "
            "last, set tuning_tolerate_competitors: true.",
        )
    is_open = prior is not None and bool(prior.ours.pending)
    changes = [change for kind in wanted for change in plan_kind(host, kind, prior)]
    refuse_edited(host, changes, ours, accept)
    return bool(changes) or is_open or host.exists(SWEEP_PRIOR)


def find_dropped(host: Host, wanted: Wanted) -> list[Change]:
    """Return what the setters will restore to its prior value: an earlier run set it, and it is no longer wanted."""
    prior = load(host)
    changes = [change for kind in wanted for change in plan_kind(host, kind, prior)]
    return no_longer_wanted(changes, values_of(wanted))
