"""The whole rollback of a host: restore, verify, archive; repeatable until nothing is left to do."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace

from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import SWEEP_PRIOR
from ...host.systemd import UNITS, reload_units
from .restore import goal_of, restore
from .snapshot import Snapshot, archive, load, our_files, prior_unknown, remove_leftovers, save


@dataclass(frozen=True)
class RollbackOutcome:
    """`status` is `restored`, `nothing` or `incomplete`; `archive` is the snapshot's path after a complete restore.

    `left` is what others changed since: `knob`, `found`, `before`. A `warning` is about what no setting depends on.
    """

    status: str
    changes: list[dict[str, str]] = field(default_factory=list)
    problems: list[SettingError] = field(default_factory=list)
    left: list[dict[str, str]] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    archive: str | None = None
    warning: str | None = None


def roll_back(host: Host, dry_run: bool = False, force: bool = False) -> RollbackOutcome:
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
        return RollbackOutcome("nothing")
    before = prior.values()
    left: list[dict[str, str]] = []
    if snapshot and not force:
        prior, left = goal_of(host, snapshot, sweep)
        if not dry_run:
            _begin(host, snapshot, {entry["knob"] for entry in left})
    restored = restore(host, prior, dry_run)
    warning = None
    if not dry_run and any(change["knob"].startswith(UNITS) for change in restored.changes):
        warning = reload_units(host)
    if restored.incomplete:
        return RollbackOutcome("incomplete", restored.changes, restored.incomplete, left, before, warning=warning)
    path = None
    if not dry_run:
        host.remove_durably(SWEEP_PRIOR)
        path = archive(host, snapshot) if snapshot else None
    return RollbackOutcome("restored", restored.changes, [], left, before, path, warning)


def _begin(host: Host, snapshot: Snapshot, left: set[str]) -> None:
    """Note what is being restored, so that the next try knows it, however far this one comes.

    A full disk does not keep a host from being restored.
    """
    names = frozenset({*snapshot.values(), *snapshot.files} - left)
    if not names <= snapshot.ours.pending:
        with contextlib.suppress(SettingError):
            save(host, replace(snapshot, ours=replace(snapshot.ours, pending=snapshot.ours.pending | names)))
