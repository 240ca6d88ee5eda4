"""A rollback as a plan: what it restores, what it leaves to others, and the restore that carries it out.

It restores what we set and what still has the value that we set. What others changed since, or what a file of theirs
relies on, stays, even where the rollback itself would move it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...host.errors import SettingError, os_problem
from ...host.files import Host, temporary_name
from ...host.mountinfo import mounted_at, read_mountinfo
from ...host.paths import SWEEP_PRIOR
from ...host.systemd import UNITS
from ..kernel.hugetlb import default_page_bytes
from ..kinds.kind import Kind, PriorState
from ..kinds.registry import KINDS, persisted_values
from ..state.changes import Change, described
from ..state.files import ChangeFile, FileState, file_state
from ..state.losses import NO_LIMITS, Limits, LossError
from ..state.ownership import FILES, Ours, digest
from .snapshot import Snapshot, load

Entry = dict[str, str]
"""One item that is left: `knob`, the value `found`, the value `before` the tuning, and `why` it is left."""


class Writer(Protocol):
    """Another writer of a knob, such as a file of sysctl.d."""

    @property
    def path(self) -> str: ...
    @property
    def knob(self) -> str: ...
    @property
    def value(self) -> str | None: ...


FindWriters = Callable[[Host, Mapping[str, str], int], Sequence[Writer]]
"""Finds others that write these knobs with other values; the last argument is the default page size in bytes."""

_CHANGED = "changed by others since"


@dataclass(frozen=True)
class Restored:
    """The result of a restore (`knob, before, after`), one typed error for each failure, and the folders that are left.

    `refused` names the knobs that stay unchanged, since others would lose something.
    """

    changes: list[dict[str, str]]
    incomplete: list[SettingError]
    left: list[Entry] = field(default_factory=list)
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RollbackPlan:
    """What a rollback restores (`goal`), and what it leaves. A dry run prints it, a real one carries it out."""

    goal: Snapshot
    left: list[Entry] = field(default_factory=list)
    limits: Limits = NO_LIMITS

    def carry_out(self, host: Host, dry_run: bool = False) -> Restored:
        """Restore everything in the goal and verify it by reading back. Writes only what differs; safe to repeat.

        The kinds are restored in the reverse of the kernel's order: mounts first, since they hold pages. A failed item
        does not stop the others; an item that others would lose keeps its files, and all folders stay until nothing is
        left to restore.
        """
        work = _Restore(host, self.limits, dry_run)
        for kind in reversed(KINDS):
            for key, state in self.goal.of(kind.key).items():
                work.state(kind, key, state)
        for path, wanted in sorted(self.goal.files.items(), key=lambda item: item[0].startswith(f"{UNITS}/")):
            work.file(path, wanted)
        for folder in sorted(self.goal.missing_folders, key=len, reverse=True):
            work.folder(folder)
        return Restored(work.changes, work.incomplete, work.left, frozenset(work.refused))


def plan_rollback(
    host: Host, snapshot: Snapshot, sweep: Snapshot | None = None, limits: Limits = NO_LIMITS
) -> RollbackPlan:
    """Return the rollback plan for a snapshot; reads only. What an interrupted `sweep` set besides is undone first.

    Values that only the sweep recorded, such as a knob of a newer kernel, return to what the sweep found.
    """
    ours = _ours_of(host, snapshot)
    left: list[Entry] = []
    kinds: dict[str, dict[str, PriorState]] = {}
    for kind in KINDS:
        goals: dict[str, PriorState] = {}
        before_sweep = sweep.of(kind.key) if sweep else {}
        # In the snapshot's order, which restores need; what was added since comes first, as in `extended`.
        for key in [*(key for key in before_sweep if key not in snapshot.of(kind.key)), *snapshot.of(kind.key)]:
            recorded = snapshot.of(kind.key).get(key)
            prior: PriorState = recorded or before_sweep[key]
            try:
                found = prior.now(host)
            except (OSError, SettingError):
                # The error is reported when its turn comes.
                goals[key] = prior
                continue
            goal = None
            if found and sweep and key in before_sweep:
                goal = before_sweep[key].rollback_target(found, sweep.ours)
            then = goal or found
            if then and recorded:
                goal = recorded.rollback_target(then, ours) or goal
            if goal:
                goals[key] = goal
            left += _left(prior, then, goal or then)
        kinds[kind.key] = goals
    files, left_files = _plan_files(host, snapshot, ours)
    return RollbackPlan(replace(snapshot, kinds=kinds, files=files), [*left, *left_files], limits)


def plan_force(snapshot: Snapshot, sweep: Snapshot | None, limits: Limits) -> RollbackPlan:
    """Return the plan that restores everything in a snapshot, whoever changed it since."""
    return RollbackPlan(snapshot.completed_by(sweep) if sweep else snapshot, [], limits)


def _ours_of(host: Host, snapshot: Snapshot) -> Ours:
    """Return what is ours now: what we set, and after a reboot also the values that our files set at boot."""
    ours = snapshot.ours
    if not any(ours.rebooted(kind.key) for kind in KINDS):
        return ours
    kept = {}
    for knob, (value, source) in persisted_values(host).items():
        path = source.rpartition(":")[0]
        with contextlib.suppress(OSError):
            if path in snapshot.files and ours.has(FILES, path, digest(file_state(host, path))):
                kept[knob] = value
    return replace(ours, values={**ours.values, **kept})


def _plan_files(host: Host, snapshot: Snapshot, ours: Ours) -> tuple[dict[str, FileState | None], list[Entry]]:
    files, left = {}, []
    for path, prior in snapshot.files.items():
        with contextlib.suppress(OSError):
            now = file_state(host, path)
            if now != prior and not ours.has(FILES, path, digest(now)):
                left.append({"knob": path, "found": _short(now), "before": _short(prior), "why": _CHANGED})
                continue
        files[path] = prior
    return files, left


def leave_relied_on(host: Host, plan: RollbackPlan, snapshot: Snapshot, find: FindWriters) -> RollbackPlan:
    """Return the plan without values that somebody else's file wants unchanged, since somebody relies on them."""
    moved = {kind.key: _moved(host, plan.goal.of(kind.key)) for kind in KINDS}
    before = {name: value for states in moved.values() for name, value in _values(states).items()}
    if not before:
        return plan
    writers = find(host, before, default_page_bytes(host))
    kinds, left = {kind: dict(states) for kind, states in plan.goal.kinds.items()}, list(plan.left)
    for kind in KINDS:
        for key, goal in moved[kind.key].items():
            found = goal.now(host)
            now = found.values() if found else {}
            why = [
                str(writer)
                for writer in writers
                if writer.knob in now
                and (writer.value == now[writer.knob] or writer.knob.startswith("hugetlbfs."))
                and not any(writer.path.startswith(f"{path}.d/") for path in snapshot.files)
            ]
            if why:
                del kinds[kind.key][key]
                prior = snapshot.of(kind.key).get(key) or goal
                left += _left(prior, found, found, "; ".join(why))
    return replace(plan, goal=replace(plan.goal, kinds=kinds), left=left)


def _moved(host: Host, goals: Mapping[str, PriorState]) -> dict[str, PriorState]:
    """Return the goals that differ from the current state."""
    moved = {}
    for key, goal in goals.items():
        with contextlib.suppress(OSError, SettingError):
            found = goal.now(host)
            if found is not None and found != goal:
                moved[key] = goal
    return moved


def _values(states: Mapping[str, PriorState]) -> dict[str, str]:
    return {name: value for state in states.values() for name, value in state.values().items()}


def _left(prior: PriorState, found: PriorState | None, goal: PriorState | None, why: str = _CHANGED) -> list[Entry]:
    """Return what differs from the prior state and stays; a pool that the kernel no longer has counts as empty."""
    now, then = found.values() if found else {}, goal.values() if goal else {}
    return [
        {"knob": name, "found": now.get(name, "absent"), "before": value, "why": why}
        for name, value in prior.values().items()
        if value not in (now.get(name, "0"), then.get(name))
    ]


def _short(state: FileState | None) -> str:
    if state is None:
        return "absent"
    return f"-> {state.link}" if state.link is not None else f"a file of {len(state.content)} bytes"


class _Restore:
    """One restore in progress. Each change is planned when its turn comes, since earlier ones may move its value."""

    def __init__(self, host: Host, limits: Limits, dry_run: bool) -> None:
        self.host = host
        self.limits = limits
        self.dry_run = dry_run
        self.changes: list[dict[str, str]] = []
        self.incomplete: list[SettingError] = []
        self.left: list[Entry] = []
        self.gone: set[str] = set()
        self.kept: set[str] = set()
        self.refused: set[str] = set()

    def state(self, kind: type[Kind], key: str, state: PriorState) -> None:
        """Restore one state. Keep all of what others would lose: also the files that set it at the next boot."""
        known = len(self.incomplete)
        self.change(key, lambda host: state.change(host, self.limits))
        if any(isinstance(error, LossError) for error in self.incomplete[known:]):
            self.kept |= set(kind().places([key])[0])
            self.refused |= {*state.values(), *self.kept}

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
        if path in self.kept:
            return

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
        """Remove a folder that was not there before; one that is in use by now stays, as does the archive.

        None is removed while anything is left to restore: that would detach whatever others have mounted on it.
        """
        target = self.host.path(path)
        if self.incomplete or not target.is_dir():
            return
        # In a dry run, what is visible in a mount to be removed is not in the folder below it.
        unmounted = any(change["knob"] == f"hugetlbfs.{path}" for change in self.changes)
        if not unmounted and mounted_at(read_mountinfo(self.host), path):
            return
        if not unmounted and any(f"{path}/{name}" not in self.gone for name in self.host.names(path)):
            return
        if self._is_mounted_on(path, unmounted):
            return
        self.changes.append({"knob": path, "before": "folder", "after": "absent"})
        self.gone.add(path)
        if not self.dry_run:
            try:
                target.rmdir()
            except OSError as error:
                self.incomplete.append(os_problem(path, "absent", error))

    def _is_mounted_on(self, path: str, unmounted: bool) -> bool:
        """Return whether others have something mounted on the folder, and record it: removal would detach it."""
        from ..kernel.mount_guard import users_of_folder

        if f"hugetlbfs.{path}" in self.limits.accept or (self.dry_run and unmounted):
            return False
        users = users_of_folder(self.host, path)
        if users:
            self.left.append({"knob": path, "found": "folder", "before": "absent", "why": "; ".join(users)})
        return bool(users)


def undo_sweep(host: Host) -> list[dict[str, str]]:
    """Restore what an interrupted sweep left and nobody changed since; return the applied changes."""
    prior = load(host, SWEEP_PRIOR)
    if prior is None:
        return []
    restored = plan_rollback(host, prior).carry_out(host)
    if restored.incomplete:
        raise restored.incomplete[0]
    host.remove_durably(SWEEP_PRIOR)
    return restored.changes
