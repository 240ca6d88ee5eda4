"""Comparing a wanted tuning with a host, in one reading.

Code that only setters, snapshots and facts need is in other files: a host compiles everything that an audit imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...host.errors import SettingError
from ...host.files import Host
from ..kernel.hugetlb import default_page_bytes
from ..kinds.pools import Pools
from ..kinds.registry import Wanted, values_of
from ..state.losses import Limits
from ..state.ownership import NOTHING, Ours
from .conflicts.conflict import Conflict
from .conflicts.find import find_conflicts
from .drift import NOTHING_LEFT, drift_rows


@dataclass(frozen=True)
class Judging:
    """What does not count as drift: knobs `left` to others, accepted losses, and conflicts if they are tolerated."""

    left: Mapping[str, str] = field(default_factory=dict)
    accept: frozenset[str] = frozenset()
    tolerate: bool = False


STRICT = Judging()


def left_to_others(host: Host, wanted: Wanted, accept: frozenset[str] = frozenset()) -> Mapping[str, str]:
    """Return the wanted knobs that stay as others have them, and why: pools with pages that are not ours.

    Without a snapshot that this user can read and trust, no page is ours.
    """
    pools = next((kind for kind in wanted if isinstance(kind, Pools)), Pools())
    if not pools.may_be_left(host):
        return {}
    from ..rollback.snapshot import load

    prior: Mapping[str, Any] = {}
    ours: Ours = NOTHING
    try:
        snapshot = load(host)
    except SettingError:
        snapshot = None
    if snapshot:
        prior, ours = snapshot.of(Pools.key), snapshot.ours
    return replace(pools, limits=Limits(accept)).goals(host, prior, ours).left


def conflicts_of(host: Host, wanted: Wanted, left: Mapping[str, str] = NOTHING_LEFT) -> list[Conflict]:
    """Return other writers of the wanted knobs, except those `left` to them.

    Reads every place that could hold one: call it once a module.
    """
    values = {knob: value for knob, value in values_of(wanted).items() if knob not in left}
    return find_conflicts(host, values, default_page_bytes(host))


def judge(host: Host, wanted: Wanted, conflicts: Sequence[Conflict], judging: Judging = STRICT) -> dict[str, Any]:
    """Compare the wanted tuning with this host; return `rows`, `competitors`, and `possible_writers`, JSON-ready.

    Only certain conflicts are competitors and make a row drift, unless they are tolerated; the others are notes.
    """
    certain = [conflict for conflict in conflicts if conflict.certain]
    counting = () if judging.tolerate else certain
    return {
        "rows": [asdict(row) for row in drift_rows(host, wanted, counting, judging.left, judging.accept)],
        "competitors": [conflict.as_dict() for conflict in certain],
        "possible_writers": [conflict.as_dict() for conflict in conflicts if not conflict.certain],
    }
