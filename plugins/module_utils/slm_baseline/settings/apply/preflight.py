"""Whether a wanted tuning can be applied to a host, and whether there is anything to do for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import SWEEP_PRIOR
from ..audit.conflicts.conflict import Conflict
from ..kinds.kind import Kind
from ..kinds.memory_guard import Guard
from ..kinds.pools import Pools
from ..kinds.registry import Wanted, values_of
from ..rollback.snapshot import load, recorded_of
from ..state.changes import Change, no_longer_wanted


def guarded(wanted: Wanted, guard: Guard) -> list[Kind]:
    """The same with its pools under the memory guard."""
    return [replace(kind, guard=guard) if isinstance(kind, Pools) else kind for kind in wanted]


def preflight(host: Host, wanted: Wanted, conflicts: Sequence[Conflict]) -> bool:
    """Whether anything is to be done on this host for the wanted tuning to be in force and kept. Reads only.

    Raises the first reason why it cannot or must not be applied; certain `conflicts` come last, the others are none.
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
    is_due = any(kind.plan(host, recorded_of(prior, kind.key)) for kind in wanted)
    return is_due or is_open or host.exists(SWEEP_PRIOR)


def find_dropped(host: Host, wanted: Wanted) -> list[Change]:
    """What the setters will give its prior value back, since an earlier run set it and this one does not ask for it."""
    prior = load(host)
    changes = [change for kind in wanted for change in kind.plan(host, recorded_of(prior, kind.key))]
    return no_longer_wanted(changes, values_of(wanted))
