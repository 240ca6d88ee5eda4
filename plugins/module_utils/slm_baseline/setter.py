"""Code that setter modules share: plan, snapshot, apply, or predict.

Apart from module.py, because a host compiles at every task whatever the task's module imports.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .host.clock import now
from .host.files import Host
from .host.names import refuse_second_tuning
from .host.systemd import UNITS, reload_units
from .module import leased, require_root, warn
from .settings.apply.edited_files import refuse_edited
from .settings.apply.transaction import carry_out
from .settings.kinds.registry import Wanted, values_of
from .settings.rollback.restore import undo_sweep
from .settings.rollback.snapshot import load, plan_kind, predict, refuse_unfinished_sweep
from .settings.state.changes import Change, no_longer_wanted, outcome, tell_restored
from .settings.state.ownership import NOTHING
from .settings.state.persistence import refuse_temporary


@contextlib.contextmanager
def leased_and_undone(module: AnsibleModule, host: Host) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Hold the lease, undo what an interrupted sweep left set, and yield the run's id and the changes of that undo."""
    with leased(module, host) as run_id:
        yield run_id, undo_sweep(host)


def apply_wanted(
    module: AnsibleModule, host: Host, what: str, wanted: Wanted, accept: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Plan against the kernel, snapshot, apply and verify; in check mode, predict instead.

    `accept` names losses of others that the user accepts.
    """
    require_root(host, what)

    def plan() -> list[Change]:
        prior = load(host)
        changes = [change for kind in wanted for change in plan_kind(host, kind, prior)]
        refuse_edited(host, changes, prior.ours if prior else NOTHING, accept)
        if values_of(wanted):
            refuse_temporary(host, accept)
        return changes

    if module.check_mode:
        refuse_unfinished_sweep(host)
        changes = plan()
        if changes:
            predict(host, wanted, now(), "check")
        dropped = no_longer_wanted(changes, values_of(wanted))
        warn(module, tell_restored(dropped, "will be"))
        return outcome(changes, dropped)
    with leased_and_undone(module, host) as (run_id, undone):
        refuse_second_tuning(host, module.params["run"], values_of(wanted))
        changes = plan()
        dropped = no_longer_wanted(changes, values_of(wanted))
        # Warn before the change, so that the user can read it in time.
        warn(module, tell_restored(dropped, "are"))
        pending = carry_out(host, wanted, changes, now(), run_id)
        if pending:
            warn(module, f"every change took, but is not recorded as settled: {pending}")
        if any(change.name.startswith(UNITS) for change in changes):
            warn(module, reload_units(host))
    told = outcome(changes, dropped, verified=True, undone=undone)
    return {**told, "changed": bool(changes or undone)}
