"""The host's prior state, stored durably before the first change.

The document holds what every kind of setting could ever change, and each file and folder that the tuning names. It is
written once and only extended: when the tuning names a new mount path, or a newer kernel or a newer version of this
project brings new knobs. It also stores what is ours, which transaction.py writes before and after each change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...host.errors import SettingError, os_problem
from ...host.files import Host, missing_folders, temporary_name
from ...host.lease import boot_id
from ...host.machine import machine_key
from ...host.paths import ARCHIVE, SNAPSHOT, STATE, SWEEP_PRIOR
from ...host.systemd import UNITS
from ..boot.mount_units import our_units, wants_of
from ..boot.tmpfiles import TMPFILES
from ..kinds.kind import Kind, PriorState
from ..kinds.registry import KINDS, Wanted, every_kind
from ..state.changes import Change
from ..state.files import FileState, file_state
from ..state.json_fields import absolute, text
from ..state.ownership import FILES, Ours

SCHEMA_VERSION = 3

_SEALED = re.compile(rb'\{\n "checksum": "([0-9a-f]{64})",\n(.*)', re.DOTALL)
_KEYS_OF_VERSION_1 = {"thp": "knobs", "pools": "pools", "mounts": "mounts"}


@dataclass(frozen=True)
class Snapshot:
    """Prior state: what each kind recorded, by kind and by key, files (None: absent), folders that did not exist.

    `ours` is what our changes moved since, `attempts` the incomplete rollbacks. `machine` is the machine on which it
    was taken (`machine_key`), None in a document that is older than this field.
    """

    taken_at: str
    run_id: str
    kinds: Mapping[str, Mapping[str, PriorState]] = field(default_factory=dict)
    files: Mapping[str, FileState | None] = field(default_factory=dict)
    missing_folders: list[str] = field(default_factory=list)
    ours: Ours = field(default_factory=Ours)
    attempts: Sequence[Mapping[str, Any]] = ()
    machine: str | None = ""

    def of(self, key: str) -> Mapping[str, Any]:
        """Return what a kind recorded; nothing for a kind newer than this snapshot."""
        return self.kinds.get(key, {})

    def to_json(self) -> bytes:
        document = {
            "schema_version": SCHEMA_VERSION,
            "taken_at": self.taken_at,
            "run_id": self.run_id,
            "kinds": {
                key: {name: state.to_json() for name, state in recorded.items()} for key, recorded in self.kinds.items()
            },
            "files": {path: state.to_json() if state else None for path, state in self.files.items()},
            "missing_folders": self.missing_folders,
            "ours": self.ours.to_json(),
            **({"attempts": list(self.attempts)} if self.attempts else {}),
            "machine": self.machine,
        }
        return sealed(document)

    def completed_by(self, later: Snapshot) -> Snapshot:
        """Return this state, extended by what only the later one has."""
        return replace(self, kinds={key: {**later.of(key), **self.of(key)} for key in {**self.kinds, **later.kinds}})

    def names(self) -> frozenset[str]:
        """Return every knob and file in the snapshot."""
        return frozenset({*self.values(), *self.files})

    def only(self, names: Container[str]) -> Snapshot:
        """Return the snapshot with only these knobs and files; a pool counts as a whole."""
        kinds = {
            key: {name: state for name, state in recorded.items() if any(knob in names for knob in state.values())}
            for key, recorded in self.kinds.items()
        }
        files = {path: state for path, state in self.files.items() if path in names}
        return replace(self, kinds=kinds, files=files)

    def values(self) -> dict[str, str]:
        """Return knob names and prior values as text, for reports."""
        states = [state for recorded in self.kinds.values() for state in recorded.values()]
        return {name: value for state in states for name, value in state.values().items()}


def sealed(document: Mapping[str, Any]) -> bytes:
    """Return a document in its stored form: JSON, whose first field is the checksum of every byte after it."""
    # Not sorted: within a kind the order is that of a restore.
    content = json.dumps(document, indent=1).encode()[2:] + b"\n"
    return b'{\n "checksum": "%s",\n%s' % (hashlib.sha256(content).hexdigest().encode(), content)


def plan_kind(host: Host, kind: Kind, snapshot: Snapshot | None) -> list[Change]:
    """Return the changes for one kind of setting, on a host with this snapshot; see `Kind.plan`."""
    return kind.plan(host, snapshot.of(kind.key), snapshot.ours) if snapshot else kind.plan(host, {})


def parse_snapshot(source: str, text: bytes) -> Snapshot:
    """Parse a stored snapshot; SettingError for a damaged or newer one: never overwritten, never half restored."""

    def corrupt(found: str) -> SettingError:
        return SettingError(
            source,
            f"a snapshot of schema version 1 to {SCHEMA_VERSION}",
            found,
            "Without it the prior state is not known, so nothing is changed or restored.",
            f"look at the file; a copy may be in {ARCHIVE}. Move it away only if this host's prior state may be lost.",
        )

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"a file that is not JSON ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise corrupt("JSON that is no object")
    version = document.get("schema_version")
    if version not in (1, 2, 3) or isinstance(version, bool):
        raise corrupt(f"schema version {version!r}"[:80])
    seal = _SEALED.fullmatch(text)
    if (version == SCHEMA_VERSION or "checksum" in document) and (
        not seal or hashlib.sha256(seal[2]).hexdigest().encode() != seal[1]
    ):
        raise corrupt("a file that its checksum does not match")
    try:
        return _typed(_of_this_version(document, version))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise corrupt(f"a damaged document ({type(error).__name__}: {error})"[:200]) from error


def _of_this_version(document: dict[str, Any], version: int) -> dict[str, Any]:
    """Convert an older document to the current form. Version 1 had each kind under a name of its own.

    Before version 3 nothing recorded what was ours: everything that differs from such a document counts as ours.
    """
    if version == 1:
        document = {**document, "kinds": {key: document[name] for key, name in _KEYS_OF_VERSION_1.items()}}
    if version < SCHEMA_VERSION:
        everything = [*(kind.key for kind in KINDS), FILES]
        document = {**document, "ours": {"values": {}, "unsettled": everything, "boots": {}}}
    return document


def _typed(document: dict[str, Any]) -> Snapshot:
    kinds = {kind.key: kind for kind in KINDS}
    return Snapshot(
        taken_at=text(document["taken_at"]),
        run_id=text(document["run_id"]),
        kinds={
            key: {name: kinds[key].recorded(text(name), value) for name, value in recorded.items()}
            for key, recorded in document["kinds"].items()
        },
        files={
            _file_path(path): None if state is None else FileState.from_json(state)
            for path, state in document["files"].items()
        },
        missing_folders=[absolute(path) for path in document["missing_folders"]],
        ours=Ours.from_json(document["ours"]),
        attempts=tuple(dict(attempt) for attempt in document.get("attempts", ())),
        machine=None if document.get("machine") is None else text(document["machine"]),
    )


def _file_path(value: object) -> str:
    dropins = [path for kind in KINDS for path in kind().places(())[0]]
    if absolute(value) not in dropins and not text(value).startswith(f"{UNITS}/"):
        raise ValueError(f"{value!r} is no file of ours")
    return text(value)


def load(host: Host, path: str = SNAPSHOT) -> Snapshot | None:
    """Read the stored snapshot, None where there is none; SettingError where it cannot be trusted."""
    try:
        stored = host.path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_problem(path, "a readable snapshot", error) from error
    snapshot = parse_snapshot(path, stored)
    ours = snapshot.ours
    if path == SWEEP_PRIOR and snapshot.machine is None:
        # Before this field existed, nothing recorded what a sweep's arms had set: all that differs counts as ours.
        ours = Ours(pending=frozenset({*(kind.key for kind in KINDS), FILES}))
    return replace(snapshot, ours=replace(ours, boot_id=boot_id(host)))


def refuse_other_machine(host: Host, snapshot: Snapshot) -> None:
    """Raise SettingError for the snapshot of another machine, as on a clone of a tuned host."""
    here = machine_key(host)
    if snapshot.machine and here and snapshot.machine != here:
        raise SettingError(
            SNAPSHOT,
            "a snapshot of this machine",
            f"one of another machine, taken at {snapshot.taken_at}",
            "This host is a clone of a tuned one: what it had before is not known, and its values may be others'.",
            "set rollback_force: true to give it that machine's prior values, or remove our files by hand and reboot.",
        )


def take(host: Host, wanted: Wanted, taken_at: str, run_id: str) -> Snapshot:
    """Return the host's current state, including the places that `wanted` names. Reads only."""
    folders = missing_folders(host, TMPFILES) + missing_folders(host, STATE)
    return extended(host, Snapshot(taken_at, run_id, missing_folders=folders, machine=machine_key(host)), wanted)


def extended(host: Host, snapshot: Snapshot, wanted: Wanted) -> Snapshot:
    """Return the snapshot extended by the state that it lacks; the same object where it is complete.

    New are mount paths that the tuning names, what a kernel newer than the snapshot has, and kinds of settings newer
    than it. None of them can hold a value of ours yet, since this runs before every change.
    """
    kinds, files, folders = dict(snapshot.kinds), dict(snapshot.files), list(snapshot.missing_folders)
    for kind in every_kind(wanted):
        known = snapshot.of(kind.key)
        new = kind.capture(host, known)
        # New ones first: what must be restored last was last in the original snapshot, and stays last.
        kinds[kind.key] = {**new, **known}
        its_files, its_folders = kind.places(new)
        new_files = [path for path in its_files if path not in files]
        files |= {path: file_state(host, path) for path in new_files}
        for folder in [*its_folders, *map(os.path.dirname, new_files)]:
            folders += [missing for missing in missing_folders(host, folder) if missing not in folders]
    grown = replace(snapshot, kinds=kinds, files=files, missing_folders=folders)
    return snapshot if grown == snapshot else grown


def our_files(host: Host) -> list[str]:
    """Return every file of ours that is on the host, whatever its content."""
    dropins = [path for kind in KINDS for path in kind().places(())[0] if host.exists(path)]
    units = our_units(host)
    return dropins + units + [link for link in map(wants_of, units) if os.path.lexists(host.path(link))]


def ensure(host: Host, wanted: Wanted, taken_at: str, run_id: str) -> tuple[Snapshot, bool]:
    """Take or extend the durable snapshot where needed; return it, and whether it was written.

    Values of our own are never recorded as prior state: drop-ins of ours without a snapshot are an error, and so is an
    unfinished sweep, which `restore.undo_sweep` undoes.
    """
    snapshot, is_new = predict(host, wanted, taken_at, run_id)
    if is_new:
        save(host, snapshot)
    return snapshot, is_new


def predict(host: Host, wanted: Wanted, taken_at: str, run_id: str) -> tuple[Snapshot, bool]:
    """Return what `ensure` would return, or raise its SettingError, without writing anything."""
    refuse_unfinished_sweep(host)
    stored = load(host)
    ours = our_files(host) if stored is None else []
    if ours:
        raise prior_unknown(ours, "The values in force may be our own, so they must not be recorded as the host's.")
    snapshot = extended(host, stored, wanted) if stored else take(host, wanted, taken_at, run_id)
    return snapshot, snapshot is not stored


def prior_unknown(ours: Sequence[str], why: str) -> SettingError:
    """Return the error for a host with files of ours and no snapshot."""
    return SettingError(
        SNAPSHOT,
        "the state before slm-baseline",
        f"no snapshot, but files of ours: {', '.join(ours)}",
        why,
        f"restore the snapshot (see {ARCHIVE}), or remove these files and reboot.",
    )


def save(host: Host, snapshot: Snapshot, path: str = SNAPSHOT) -> None:
    """Write a snapshot durably, readable by root alone; SettingError where the disk does not accept it."""
    try:
        folder = host.path(path).parent
        os.makedirs(folder, mode=0o755, exist_ok=True)
        host.sync_folder(folder.parent)
        host.write_durably(path, snapshot.to_json(), mode=0o600)
    except OSError as error:
        raise os_problem(path, "a durable snapshot before the first change", error) from error


def refuse_unfinished_sweep(host: Host) -> None:
    """Raise SettingError where a sweep was interrupted: for a dry run, which cannot restore the host first."""
    if host.exists(SWEEP_PRIOR):
        raise SettingError(
            "sweep",
            "the host's own values, to predict what would change",
            f"those of a sweep that was cut short ({SWEEP_PRIOR})",
            "The real run restores the host first, so nothing can be predicted from the values in force.",
            "run it without --check, or restore the host first with rollback.yml.",
        )


def remove_leftovers(host: Host) -> None:
    """Remove what an interrupted save left: temporary files, and the state folder if nothing else is in it."""
    for path in (SNAPSHOT, SWEEP_PRIOR):
        host.path(temporary_name(path)).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        host.path(STATE).rmdir()


def archive(host: Host, snapshot: Snapshot) -> str:
    """Move the snapshot of a complete restore into the archive; return its path there."""
    folder = host.path(ARCHIVE)
    folder.mkdir(mode=0o700, exist_ok=True)
    stamp = "".join(char if char.isalnum() else "-" for char in snapshot.taken_at)
    path = f"{ARCHIVE}/snapshot-{stamp}.json"
    number = 1
    while host.exists(path):
        number += 1
        path = f"{ARCHIVE}/snapshot-{stamp}-{number}.json"
    os.rename(host.path(SNAPSHOT), host.path(path))
    host.sync_folder(folder)
    host.sync_folder(host.path(STATE))
    return path


def latest_archived(host: Host) -> str | None:
    """Return the path of the latest archived snapshot; None where there is none."""
    paths = [f"{ARCHIVE}/{name}" for name in host.names(ARCHIVE) if name.endswith(".json")]
    return max(paths, key=lambda path: (host.path(path).stat().st_mtime_ns, path), default=None)
