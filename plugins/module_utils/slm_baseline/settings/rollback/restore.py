"""Restoring a host: changes from the state found to the one recorded, applied one by one, each failure collected."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...host.errors import SettingError, os_problem
from ...host.files import Host, temporary_name
from ...host.lease import boot_id
from ...host.mountinfo import mounted_at, read_mountinfo
from ...host.paths import SWEEP_PRIOR
from ...host.systemd import UNITS
from ..kinds.kind import PriorState
from ..kinds.registry import KINDS
from ..state.changes import Change, described
from ..state.files import ChangeFile, FileState, file_state
from ..state.ownership import FILES, digest
from .snapshot import Snapshot, load


@dataclass(frozen=True)
class Restored:
    """What a restore did (`knob, before, after`) and what it could not, one typed error each."""

    changes: list[dict[str, str]]
    incomplete: list[SettingError]


def goal_of(host: Host, snapshot: Snapshot, sweep: Snapshot | None = None) -> tuple[Snapshot, list[dict[str, str]]]:
    """What a rollback leads to, and what it leaves: `knob`, `found`, and the value `before` the tuning.

    It restores what we set and what still is as we set it. What others changed since then stays, also where the
    rollback itself would move it. A `sweep` that was cut short set more: what it found counts as found.
    """
    ours = replace(snapshot.ours, boot_id=boot_id(host))
    left: list[dict[str, str]] = []
    kinds: dict[str, dict[str, PriorState]] = {}
    for kind in KINDS:
        kinds[kind.key] = dict(sweep.of(kind.key) if sweep else {})
        for name, state in snapshot.of(kind.key).items():
            try:
                found = kinds[kind.key].pop(name, None) or state.now(host)
            except (OSError, SettingError):
                # It is told when its turn comes.
                kinds[kind.key][name] = state
                continue
            goal = state.rollback_target(found, ours) if found else None
            if goal:
                kinds[kind.key][name] = goal
            left += _left(state, found, goal or found)
    files = {}
    for path, prior in snapshot.files.items():
        with contextlib.suppress(OSError):
            now = file_state(host, path)
            if now != prior and not ours.has(FILES, path, digest(now)):
                left.append({"knob": path, "found": _short(now), "before": _short(prior)})
                continue
        files[path] = prior
    return replace(snapshot, kinds=kinds, files=files), left


def _left(prior: PriorState, found: PriorState | None, goal: PriorState | None) -> list[dict[str, str]]:
    """What differs from the prior state, and stays; a pool that the kernel no longer has is one without pages."""
    now, then = found.values() if found else {}, goal.values() if goal else {}
    return [
        {"knob": name, "found": now.get(name, "absent"), "before": value}
        for name, value in prior.values().items()
        if value not in (now.get(name, "0"), then.get(name))
    ]


def _short(state: FileState | None) -> str:
    if state is None:
        return "absent"
    return f"-> {state.link}" if state.link is not None else f"a file of {len(state.content)} bytes"


def restore(host: Host, snapshot: Snapshot, dry_run: bool = False) -> Restored:
    """Restore everything the snapshot holds and prove it by reading back. Writes only what differs; safe to repeat.

    The kinds go in the reverse of the kernel's order: mounts first, since they hold pages. One item that fails does not
    keep the others from being restored.
    """
    work = _Restore(host, dry_run)
    for kind in reversed(KINDS):
        for name, state in snapshot.of(kind.key).items():
            work.change(name, state.change)
    for path, wanted in sorted(snapshot.files.items(), key=lambda item: item[0].startswith(f"{UNITS}/")):
        work.file(path, wanted)
    for folder in sorted(snapshot.missing_folders, key=len, reverse=True):
        work.folder(folder)
    return Restored(work.changes, work.incomplete)


class _Restore:
    """One restore in progress. Each change is planned when its turn comes, since those before it may move its value."""

    def __init__(self, host: Host, dry_run: bool) -> None:
        self.host = host
        self.dry_run = dry_run
        self.changes: list[dict[str, str]] = []
        self.incomplete: list[SettingError] = []
        self.gone: set[str] = set()

    def change(self, name: str, plan: Callable[[Host], Change | None]) -> None:
        try:
            change = plan(self.host)
            if change is None:
                return
            name = change.name
            self.changes += described([change])
            if not self.dry_run:
                change.apply(self.host)
        except SettingError as error:
            self.incomplete.append(error)
        except OSError as error:
            self.incomplete.append(os_problem(name, "its prior state", error))

    def file(self, path: str, wanted: FileState | None) -> None:
        def plan(host: Host) -> ChangeFile | None:
            leftover = temporary_name(path)
            if os.path.lexists(host.path(leftover)):
                self.gone.add(leftover)
                if not self.dry_run:
                    host.remove_durably(leftover)
            found = file_state(host, path)
            if found != wanted and wanted is None:
                self.gone.add(path)
            return None if found == wanted else ChangeFile(path, found, wanted)

        self.change(path, plan)

    def folder(self, path: str) -> None:
        """Remove a folder that was not there before; one that somebody uses by now stays, as does the archive."""
        target = self.host.path(path)
        if not target.is_dir():
            return
        # What a dry run sees in a mount that goes is not in the folder below it.
        unmounted = any(change["knob"] == f"hugetlbfs.{path}" for change in self.changes)
        if not unmounted and mounted_at(read_mountinfo(self.host), path):
            return
        if not unmounted and any(f"{path}/{name}" not in self.gone for name in self.host.names(path)):
            return
        self.changes.append({"knob": path, "before": "folder", "after": "absent"})
        self.gone.add(path)
        if not self.dry_run:
            try:
                target.rmdir()
            except OSError as error:
                self.incomplete.append(os_problem(path, "absent", error))


def undo_sweep(host: Host) -> list[dict[str, str]]:
    """Restore what an interrupted sweep left behind; the changes (`knob, before, after`) that took."""
    prior = load(host, SWEEP_PRIOR)
    if prior is None:
        return []
    restored = restore(host, prior)
    if restored.incomplete:
        raise restored.incomplete[0]
    host.remove_durably(SWEEP_PRIOR)
    return restored.changes
