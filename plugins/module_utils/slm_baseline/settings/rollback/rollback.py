"""The whole rollback of a host: restore, verify, archive; repeatable until nothing is left to do."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import SWEEP_PRIOR
from ...host.systemd import UNITS, reload_units
from .restore import Restored, goal_of, restore
from .snapshot import Snapshot, archive, latest_archived, load, our_files, prior_unknown, remove_leftovers, save


@dataclass(frozen=True)
class RollbackOutcome:
    """`status` is `restored`, `nothing` or `incomplete`; `archive` is the snapshot's path after a complete restore.

    `left` is what others changed since: `knob`, `found`, `before`. A `warning` is about what no setting depends on.
    `attempts` are earlier rollbacks that did not come to an end, `note` says why there is nothing to restore.
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


def roll_back(
    host: Host, dry_run: bool = False, force: bool = False, run_id: str = "", began_at: str = ""
) -> RollbackOutcome:
    """Restore what we set and what still is as we set it; with `force`, all that differs from the snapshot.

    What an unfinished sweep left is restored too. Where both are there, the sweep's prior state is the later one: the
    snapshot has the last word, and the sweep's adds what a kernel newer than the snapshot brought.
    """
    if not dry_run:
        remove_leftovers(host)
    snapshot, sweep = load(host), load(host, SWEEP_PRIOR)
    prior = snapshot.completed_by(sweep) if snapshot and sweep else snapshot or sweep
    if prior is None:
        ours = our_files(host)
        if ours:
            raise prior_unknown(ours, "Without the snapshot the prior values are not known.")
        return _restore_what_was_left(host, dry_run, force)
    before, attempts = prior.values(), snapshot.attempts if snapshot else ()
    left: list[dict[str, str]] = []
    if snapshot and not force:
        prior, left = goal_of(host, snapshot, sweep)
    if snapshot and not dry_run:
        snapshot = _begin(host, snapshot, {entry["knob"] for entry in left})
    restored = restore(host, prior, dry_run)
    warning = _reload(host, restored, dry_run)
    if restored.incomplete:
        outcome = RollbackOutcome(
            "incomplete", restored.changes, restored.incomplete, left, before, None, warning, attempts
        )
        if snapshot and not dry_run:
            _note_attempt(host, snapshot, outcome, run_id, began_at)
        return outcome
    path = None
    if not dry_run:
        host.remove_durably(SWEEP_PRIOR)
        path = archive(host, snapshot) if snapshot else None
    return RollbackOutcome("restored", restored.changes, [], left, before, path, warning, attempts)


def _restore_what_was_left(host: Host, dry_run: bool, force: bool) -> RollbackOutcome:
    """After a complete rollback: with `force`, what that one left because others had changed it; else nothing.

    What it restored has been the host's own since then, and is never touched again.
    """
    path = latest_archived(host)
    archived = load(host, path) if path else None
    if path is None or archived is None:
        return RollbackOutcome(
            "nothing", note="nothing to restore: this host has no snapshot, so nothing was ever set here"
        )
    left = archived.only(archived.names() - archived.ours.pending)
    changes = restore(host, left, dry_run=True).changes if left.names() else []
    if not changes:
        return RollbackOutcome("nothing", note=f"nothing to restore: an earlier rollback has restored all of {path}")
    if not force:
        knobs = ", ".join(change["knob"] for change in changes)
        return RollbackOutcome(
            "nothing",
            note=f"nothing to restore: an earlier rollback left what others had changed ({knobs}). "
            "Next: -e rollback_force=true restores that, too",
        )
    restored = restore(host, left, dry_run)
    warning, before = _reload(host, restored, dry_run), left.values()
    if restored.incomplete:
        return RollbackOutcome("incomplete", restored.changes, restored.incomplete, [], before, None, warning)
    if not dry_run:
        save(host, _all_pending(archived, set()), path)
    return RollbackOutcome("restored", restored.changes, [], [], before, path, warning)


def _reload(host: Host, restored: Restored, dry_run: bool) -> str | None:
    if not dry_run and any(change["knob"].startswith(UNITS) for change in restored.changes):
        return reload_units(host)
    return None


def _begin(host: Host, snapshot: Snapshot, left: set[str]) -> Snapshot:
    """Note what is being restored, so that the next try knows it, however far this one comes; the snapshot as noted.

    A full disk does not keep a host from being restored.
    """
    noted = _all_pending(snapshot, left)
    if noted != snapshot:
        with contextlib.suppress(SettingError):
            save(host, noted)
    return noted


def _all_pending(snapshot: Snapshot, left: set[str]) -> Snapshot:
    pending = snapshot.ours.pending | (snapshot.names() - left)
    return replace(snapshot, ours=replace(snapshot.ours, pending=pending))


def _note_attempt(host: Host, snapshot: Snapshot, outcome: RollbackOutcome, run_id: str, began_at: str) -> None:
    """Keep what a rollback did that did not come to an end, for the page of the one that does."""
    attempt = {
        "run_id": run_id,
        "began_at": began_at,
        "changes": outcome.changes,
        "left": outcome.left,
        "problems": [str(problem) for problem in outcome.problems],
    }
    with contextlib.suppress(SettingError):
        save(host, replace(snapshot, attempts=(*snapshot.attempts, attempt)))
