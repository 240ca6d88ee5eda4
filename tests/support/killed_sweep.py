"""A sweep as SIGKILL leaves it: an arm's settings in force, and what was there before them on the host's /run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import SWEEP_PRIOR
from ansible.module_utils.slm_baseline.settings.apply.transaction import apply_recorded
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kinds.pools import Pools, plan_pools
from ansible.module_utils.slm_baseline.settings.kinds.thp import Thp, plan_knobs
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import take
from ansible.module_utils.slm_baseline.settings.state.changes import Change


def leave_arm(host: Host, thp: Mapping[str, str] | None = None, pools: Sequence[PoolSpec] = ()) -> None:
    """Enter an arm that sets these, and go no further."""
    changes: list[Change] = [*plan_knobs(host, thp or {}), *plan_pools(host, pools)]
    prior = take(host, [], "2031-01-02T03:04:05Z", "sweep")
    assert apply_recorded(host, prior, changes, {Thp.key, Pools.key}, SWEEP_PRIOR) is None
