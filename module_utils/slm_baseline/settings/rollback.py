"""The whole rollback of a host: restore, verify, archive; repeatable until nothing is left to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..host.errors import SettingError
from ..host.files import Host
from ..host.systemd import reload_units
from .restore import restore
from .snapshot import SNAPSHOT, SWEEP_PRIOR, archive, load, our_files, remove_leftovers
from .units import UNITS


@dataclass(frozen=True)
class Outcome:
    """`status` is `restored`, `nothing` or `incomplete`; `archive` is the snapshot's path after a complete restore.

    A `warning` is about what no setting depends on.
    """

    status: str
    changes: list[dict[str, str]] = field(default_factory=list)
    problems: list[SettingError] = field(default_factory=list)
    before: dict[str, str] = field(default_factory=dict)
    archive: str | None = None
    warning: str | None = None


def roll_back(host: Host, dry_run: bool = False) -> Outcome:
    """Restore the snapshot, and what an unfinished sweep left.

    Where both are there, the sweep's prior state is the later one: the snapshot has the last word, and the sweep's adds
    what a kernel newer than the snapshot brought.
    """
    if not dry_run:
        remove_leftovers(host)
    snapshot, sweep = load(host), load(host, SWEEP_PRIOR)
    prior = snapshot.completed_by(sweep) if snapshot and sweep else snapshot or sweep
    if prior is None:
        ours = our_files(host)
        if ours:
            raise SettingError(
                SNAPSHOT,
                "the state before slm-baseline",
                f"no snapshot, but files of ours: {', '.join(ours)}",
                "Without the snapshot the prior values are not known.",
                "put the snapshot back from a copy, or remove these files and reboot.",
            )
        return Outcome("nothing")
    restored = restore(host, prior, dry_run)
    warning = None
    if not dry_run and any(change["knob"].startswith(UNITS) for change in restored.changes):
        warning = reload_units(host)
    if restored.incomplete:
        return Outcome("incomplete", restored.changes, restored.incomplete, prior.values(), warning=warning)
    path = None
    if not dry_run:
        host.remove_durably(SWEEP_PRIOR)
        path = archive(host, snapshot) if snapshot else None
    return Outcome("restored", restored.changes, [], prior.values(), path, warning)
