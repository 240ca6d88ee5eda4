"""The whole rollback of a host: restore, verify, archive; repeatable until nothing is left to restore."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...host.errors import SettingError
from ...host.files import Host
from ...host.lease import boot_id
from ...host.paths import SWEEP_PRIOR
from ...host.systemd import UNITS, reload_units
from ..kinds.registry import KINDS
from ..state.losses import NO_LIMITS, Limits
from .restore import FindWriters, Restored, RollbackPlan, leave_relied_on, plan_force, plan_rollback
from .snapshot import (
    Snapshot,
    archive,
    latest_archived,
    load,
    our_files,
    prior_unknown,
    refuse_other_machine,
    remove_leftovers,
    save,
)


@dataclass(frozen=True)
class RollbackOutcome:
    """The result. `status` is `restored`, `nothing` or `incomplete`; `archive` is the snapshot's path once complete.

    `left` is what others changed since or rely on: `knob`, `found`, `before`, `why`. A `warning` concerns something on
    which no setting depends. `attempts` are earlier incomplete rollbacks; `note` says why there is nothing to restore.
    """

    status: str
    changes: list[dict[str, str]] = field(default_factory=list)
    problems: list[SettingError] = field(default_factory=list)
    left: list[dict[str, str]] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    archive: str | None = None
    warning: str | None = None
    attempts: Sequence[Mapping[str, Any]] = ()
    note: str = ""


@dataclass(frozen=True)
class Rollback:
    """How far a rollback goes (`limits`), how it finds other writers (`find_writers`), and its run."""

    limits: Limits = NO_LIMITS
    find_writers: FindWriters | None = None
    run_id: str = ""
    began_at: str = ""


ANY_ROLLBACK = Rollback()


def roll_back(
    host: Host, dry_run: bool = False, force: bool = False, asked: Rollback = ANY_ROLLBACK
) -> RollbackOutcome:
    """Restore what we set and what still has that value; with `force`, everything that differs from the snapshot.

    Also restores what an unfinished sweep left. Where both exist, the sweep's prior state is the later one: the
    snapshot takes precedence, and the sweep's adds what a kernel newer than the snapshot brought. Not even `force`
    takes files, pages in use or mounts from others. `asked` names accepted losses, and finds who else wants the current
    value; such values are left.
    """
    if not dry_run:
        remove_leftovers(host)
    snapshot, sweep = load(host), load(host, SWEEP_PRIOR)
    if snapshot and not force:
        refuse_other_machine(host, snapshot)
    first = snapshot or sweep
    if first is None:
        ours = our_files(host)
        if ours:
            raise prior_unknown(ours, "Without the snapshot the prior values are not known.")
        return _restore_what_was_left(host, dry_run, force, asked.limits)
    before = (snapshot.completed_by(sweep) if snapshot and sweep else first).values()
    attempts = snapshot.attempts if snapshot else ()
    later = sweep if snapshot else None
    plan = plan_force(first, later, asked.limits) if force else plan_rollback(host, first, later, asked.limits)
    if asked.find_writers and not force:
        plan = leave_relied_on(host, plan, first, asked.find_writers)
    left = {entry["knob"] for entry in plan.left}
    noted = _begin(host, snapshot, left) if snapshot and not dry_run else snapshot
    restored = plan.carry_out(host, dry_run)
    outcome = RollbackOutcome(
        "incomplete" if restored.incomplete else "restored",
        restored.changes,
        restored.incomplete,
        [*plan.left, *restored.left],
        before,
        None,
        _reload(host, restored, dry_run),
        attempts,
    )
    if restored.incomplete:
        if snapshot and noted and not dry_run:
            if restored.refused:
                # If somebody changes a refused value later, theirs stays until the loss is accepted.
                noted = _begin(host, snapshot, left | restored.refused)
            _note_attempt(host, noted, outcome, asked)
        return outcome
    if dry_run:
        return outcome
    host.remove_durably(SWEEP_PRIOR)
    return replace(outcome, archive=archive(host, snapshot) if snapshot else None)


def _restore_what_was_left(host: Host, dry_run: bool, force: bool, limits: Limits) -> RollbackOutcome:
    """Restore what a complete rollback left because others had changed it, if `force` is set; else restore nothing.

    What it restored has been the host's own since then, and is never touched again.
    """
    path = latest_archived(host)
    archived = load(host, path) if path else None
    if path is None or archived is None:
        return RollbackOutcome(
            "nothing", note="nothing to restore: this host has no snapshot, so nothing was ever set here"
        )
    left = archived.only(archived.names() - archived.ours.pending)
    plan = RollbackPlan(left, limits=limits)
    changes = plan.carry_out(host, dry_run=True).changes if left.names() else []
    if not changes:
        return RollbackOutcome("nothing", note=f"nothing to restore: an earlier rollback has restored all of {path}")
    if not force:
        knobs = ", ".join(change["knob"] for change in changes)
        return RollbackOutcome(
            "nothing",
            note=f"nothing to restore: an earlier rollback left what others had changed ({knobs}). "
            "Next: -e rollback_force=true restores that, too",
        )
    restored = plan.carry_out(host, dry_run)
    warning, before = _reload(host, restored, dry_run), left.values()
    if restored.incomplete:
        return RollbackOutcome("incomplete", restored.changes, restored.incomplete, [], before, None, warning)
    if not dry_run:
        save(host, _all_pending(host, archived, set()), path)
    return RollbackOutcome("restored", restored.changes, [], [], before, path, warning)


def _reload(host: Host, restored: Restored, dry_run: bool) -> str | None:
    if not dry_run and any(change["knob"].startswith(UNITS) for change in restored.changes):
        return reload_units(host)
    return None


def _begin(host: Host, snapshot: Snapshot, left: set[str]) -> Snapshot:
    """Record what is being restored, so that the next attempt knows it wherever this one ends; return that snapshot.

    What is `left` is not recorded: if somebody changes it until then, it stays. A full disk does not prevent the
    restore.
    """
    noted = _all_pending(host, snapshot, left)
    with contextlib.suppress(SettingError):
        if noted != load(host):
            save(host, noted)
    return noted


def _all_pending(host: Host, snapshot: Snapshot, left: set[str]) -> Snapshot:
    ours = replace(snapshot.ours, boot_id=boot_id(host))
    names = frozenset(snapshot.names() - left)
    return replace(snapshot, ours=ours.opened(names, (kind.key for kind in KINDS)))


def _note_attempt(host: Host, snapshot: Snapshot, outcome: RollbackOutcome, asked: Rollback) -> None:
    """Record the result of an incomplete rollback, for the report of the one that completes it."""
    attempt = {
        "run_id": asked.run_id,
        "began_at": asked.began_at,
        "changes": outcome.changes,
        "left": outcome.left,
        "problems": [str(problem) for problem in outcome.problems],
    }
    with contextlib.suppress(SettingError):
        save(host, replace(snapshot, attempts=(*snapshot.attempts, attempt)))
