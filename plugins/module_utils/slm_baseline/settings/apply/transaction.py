"""Applying changes: prior state and ownership are stored durably before the first change, and updated after the last.

What a change moves is only known afterwards: a pool moves the pages of its nodes, khugepaged min_free_kbytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...host.errors import SettingError
from ...host.files import Host
from ...host.lease import boot_id
from ...host.paths import SNAPSHOT
from ..kinds.kind import PriorState
from ..kinds.registry import KINDS, Wanted
from ..rollback.snapshot import Snapshot, load, predict, save
from ..state.changes import Change, apply_all
from ..state.files import file_state
from ..state.ownership import FILES, Ours, digest

Values = Mapping[str, Mapping[str, str]]
"""Values by a kind's key, or `FILES`, then by flat knob name or path."""


def carry_out(host: Host, wanted: Wanted, changes: Sequence[Change], taken_at: str, run_id: str) -> SettingError | None:
    """Record the prior state, apply all changes or none, and record what they moved; SettingError where that fails.

    A returned error means that only the last step failed: all changes were applied, and until a later run records what
    they moved, whatever is found there counts as ours. This also completes the records of an interrupted run, even
    where nothing is to change.
    """
    groups = {*(kind.key for kind in wanted), FILES}
    if not changes:
        stored = load(host)
        is_open = stored and any(group in stored.ours.pending for group in groups)
        return _record(host, stored, groups, _base(host, stored)) if stored and is_open else None
    snapshot, _ = predict(host, wanted, taken_at, run_id)
    return apply_recorded(host, snapshot, changes, groups)


def apply_recorded(
    host: Host, snapshot: Snapshot, changes: Sequence[Change], groups: set[str], path: str = SNAPSHOT
) -> SettingError | None:
    """Apply changes of these `groups` whole or not at all, and record what they move in the snapshot stored at `path`.

    Errors as of `carry_out`.
    """
    base = _base(host, snapshot)
    ours = replace(snapshot.ours, boot_id=boot_id(host))
    under_way = replace(snapshot, ours=ours.opened(frozenset(groups), groups))
    save(host, under_way, path)
    try:
        apply_all(host, changes)
    except SettingError:
        _record(host, under_way, groups, base, path)
        raise
    return _record(host, under_way, groups, base, path)


def _record(
    host: Host, snapshot: Snapshot, groups: set[str], base: Values, path: str = SNAPSHOT
) -> SettingError | None:
    """Store what has changed since `base`; return the error where the disk does not accept it."""
    values, boots = dict(snapshot.ours.values), dict(snapshot.ours.boots)
    found = _found(host, snapshot)
    for group in groups:
        values |= {name: value for name, value in found[group].items() if value != base[group].get(name)}
        boots[group] = boot_id(host)
    settled = groups.union(*(found[group] for group in groups))
    try:
        save(host, replace(snapshot, ours=Ours(values, snapshot.ours.pending - settled, boots, boot_id(host))), path)
    except SettingError as error:
        return error
    return None


def _base(host: Host, snapshot: Snapshot) -> Values:
    """Return the values before a change: those found, or the prior ones where an earlier change was interrupted."""
    prior = {key: _flat(states) for key, states in snapshot.kinds.items()}
    prior[FILES] = {path: digest(state) for path, state in snapshot.files.items()}
    ours = snapshot.ours
    return {
        group: {name: prior[group].get(name, value) if ours.is_unsettled(group, name) else value for name, value in now}
        for group, now in ((group, values.items()) for group, values in _found(host, snapshot).items())
    }


def _found(host: Host, snapshot: Snapshot) -> dict[str, dict[str, str]]:
    """Return the current values of everything in the snapshot that can be read."""
    found: dict[str, dict[str, str]] = {kind.key: {} for kind in KINDS}
    found[FILES] = {}
    for kind in KINDS:
        for state in snapshot.of(kind.key).values():
            with contextlib.suppress(OSError, SettingError):
                now = state.now(host)
                found[kind.key] |= now.values() if now else {}
    for path in snapshot.files:
        with contextlib.suppress(OSError):
            found[FILES][path] = digest(file_state(host, path))
    return found


def _flat(states: Mapping[str, PriorState]) -> dict[str, str]:
    return {name: value for state in states.values() for name, value in state.values().items()}
