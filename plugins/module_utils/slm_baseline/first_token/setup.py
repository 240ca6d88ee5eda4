"""Set a target up, tell how it stands, and take all of it away again."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..host.caches import drop_host_caches
from ..host.errors import SettingError, os_problem
from ..host.files import Host
from ..host.mountinfo import read_mountinfo
from ..host.paths import FIRST_TOKEN, PROGRAMS, TARGETS
from ..host.rmtree import remove_folder_if_empty, remove_tree
from ..host.systemd import UNITS, reload_units
from ..host.trust import require_trusted
from .bytecode import Filled, fill, make_cache, sources_of
from .plan import MAX_BYTES, Plan, changed_files, parse_plan, to_text
from .recorder.fanotify import in_tree, in_unit
from .recorder.record import Recording, record
from .recorder.start import identity_of, start_command
from .recorder.unit import Unit, end_replay, find_unit, put_back, start_unit, stop_unit
from .removed import Removal
from .target import SWEEP_PREFIX, Target, recorded_targets
from .unit_files import COMPILER, MARK, STARTER, STARTER_TEXT, drop_in, mount_units, wanted_files

LEAST_COMPILE_S = 0.2
"""CPU seconds of compiling at every start below which a bytecode cache is not worth its files."""
WRITTEN_TELLS = 10
"""A start that wrote more files than this (bytecode, compiled kernels) is none of those that follow: they read them."""
UNATTRIBUTED_TELLS = 10
"""More than one opened file in so many without a process to ask is told."""
_OUT_OF_REACH = (
    "bytecode: the start does not look into a cache of ours (python -I or -E, PYTHONPYCACHEPREFIX in its environment"
    " file, or a file system of its own), so there is none."
)


@dataclass
class Outcome:
    """What setting up did. `notes` are plain sentences; `plan` and `bytecode` are None where there is none."""

    changed: bool
    plan: Plan | None = None
    bytecode: Filled | None = None
    starts: int = 0
    notes: list[str] = field(default_factory=list)

    def summary(self, target: Target) -> str:
        """One line for people: what was recorded, what is replayed, and how to start a command with it."""
        plan = self.plan or Plan({"page_bytes": "4096"})
        words = [
            f"{target.name}: a start reads {plan.bytes_of(False) / 1e6:.0f} MB of imports and"
            f" {plan.bytes_of(True) / 1e6:.0f} MB of weights in {len(plan.files)} files"
        ]
        if self.bytecode:
            words.append(
                f"{self.bytecode.compiled} modules were compiled at every start ({self.bytecode.compile_s:.1f} s)"
            )
        if target.command:
            words.append(f"start it with {STARTER} {target.name} -- {target.command[0]} ...")
        return "; ".join([*words, *self.notes])

    def to_json(self) -> dict[str, Any]:
        plan = self.plan and {
            "files": len(self.plan.files),
            "folders": len(self.plan.folders),
            "imports_bytes": self.plan.bytes_of(weights=False),
            "weights_bytes": self.plan.bytes_of(weights=True),
        }
        filled = self.bytecode
        bytecode = filled and {
            "compiled": filled.compiled,
            "copied": filled.copied,
            "failed": filled.failed,
            "compile_s": filled.compile_s,
            "bytes": filled.bytes,
        }
        return {
            "changed": self.changed,
            "plan": plan,
            "bytecode": bytecode,
            "starts": self.starts,
            "notes": self.notes,
        }


def is_set_up(host: Host, target: Target) -> bool:
    """Whether the host has this very target, with nothing stale, missing or changed by others."""
    if recorded_targets(host).get(target.name) != target:
        return False
    return all(row["verdict"] == "clean" for row in rows_of(host, target.name))


def set_up(host: Host, target: Target, programs: Mapping[str, bytes]) -> Outcome:
    """Record the target's start and put plan, bytecode and units in place; SettingError, with nothing left behind.

    `programs` are the sources of the replayer and the compiler by path. The target is started once or twice, cold:
    the whole host's page cache is dropped before each. A unit runs afterwards if it did before.
    """
    unit = find_unit(target) if target.unit else None
    _user(target, unit)
    _refuse_foreign(host, target)
    remove(host, target.name)
    try:
        return _set_up(host, target, programs, unit)
    except BaseException:
        remove(host, target.name)
        raise
    finally:
        if unit:
            put_back(unit)


def _user(target: Target, unit: Unit | None) -> dict[str, Any]:
    """subprocess's arguments for the user that the target runs as; root only where the unit itself has none."""
    if unit is None:
        return identity_of(target, target.user)
    return identity_of(target, unit.user or "root", unit.group, unit.has_dynamic_user)


def _set_up(host: Host, target: Target, programs: Mapping[str, bytes], unit: Unit | None) -> Outcome:
    outcome = Outcome(changed=True)
    user = _user(target, unit)
    try:
        require_trusted(host, os.path.dirname(os.path.dirname(FIRST_TOKEN)), f"first_token.{target.name}")
        for folder in (PROGRAMS, target.folder):
            os.makedirs(host.path(folder), mode=0o755, exist_ok=True)
        for path, content in {**programs, STARTER: STARTER_TEXT.encode()}.items():
            host.write_durably(path, content, mode=0o755)
        recording = _recorded(host, target, unit, {})
        outcome.starts = 1
        if target.bytecode:
            filled = _fill(host, target, recording, user)
            if filled and filled.compile_s >= LEAST_COMPILE_S:
                recording = _recorded_with_bytecode(host, target, unit)
                outcome.starts = 2
                if any(file.path.startswith(f"{target.pycache}/") for file in recording.plan.files):
                    outcome.bytecode = filled
                else:
                    outcome.notes.append(_OUT_OF_REACH)
            else:
                outcome.notes.append("bytecode: nothing to gain; the modules that it imports are compiled already.")
            if not outcome.bytecode:
                _remove_bytecode(host, target)
        if outcome.starts == 1 and recording.written > WRITTEN_TELLS:
            outcome.notes.append(
                f"plan: the first start wrote {recording.written} files, so one that reads them is recorded, too."
            )
            recording = _recorded(host, target, unit, {})
            outcome.starts = 2
        has_bytecode = outcome.bytecode is not None
        outcome.plan = recording.plan
        outcome.notes += notes_of(recording)
        # Names of files that others may not list: for root, who replays a unit's plan, and a command's own group.
        text = to_text(recording.plan).encode("utf-8", "surrogateescape")
        host.write_durably(target.plan, text, mode=0o640, gid=0 if target.unit else user["group"])
        files = wanted_files(target, has_bytecode, mount_units(recording.plan, read_mountinfo(host)))
        _write(host, files)
        if target.has_boot_link:
            _link(host, target)
        hashes = {path: _digest(text) for path, text in files.items()}
        document = {"schema_version": 1, "target": target.to_json(), "files": hashes}
        host.write_durably(target.record, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
        reload_units(host)
    except OSError as error:
        raise os_problem(f"first_token.{target.name}", "its files in place", error) from error
    return outcome


def _recorded(host: Host, target: Target, unit: Unit | None, environment: Mapping[str, str]) -> Recording:
    if unit:
        # What a running process has mapped stays in memory, and would pass for read by the start.
        stop_unit(target, unit)
        drop_host_caches(host)
        return record(host, in_unit(unit.name), lambda: start_unit(target, unit))
    drop_host_caches(host)
    return record(host, in_tree(os.getpid()), lambda: start_command(target, environment))


def _recorded_with_bytecode(host: Host, target: Target, unit: Unit | None) -> Recording:
    """A second start, with the cache there: the plan has its files then."""
    host.write_durably(f"{target.folder}/bytecode", b"\n")
    if unit:
        _write(host, {target.drop_in: drop_in(target, True)})
        reload_units(host)
    return _recorded(host, target, unit, {"PYTHONPYCACHEPREFIX": target.pycache})


def _remove_bytecode(host: Host, target: Target) -> None:
    if host.exists(f"{target.folder}/bytecode"):
        host.remove_durably(f"{target.folder}/bytecode")
    if host.exists(target.pycache):
        remove_tree(host.path(target.pycache))


def _fill(host: Host, target: Target, recording: Recording, user: Mapping[str, Any]) -> Filled | None:
    """Bytecode for what was imported, by each interpreter of the target; None where none was seen."""
    make_cache(host.path(target.pycache), user["group"])
    filled = []
    for program, sources in sources_of(recording.seen.opened.values()).items():
        if user["user"] == 0:
            require_trusted(host, program, f"first_token.{target.name}.bytecode")
        filled.append(fill([program, "-IS", COMPILER], sources, target.pycache, user))
    if not filled:
        return None
    return Filled(
        sum(one.compiled for one in filled),
        sum(one.copied for one in filled),
        sum(one.failed for one in filled),
        sum(one.compile_s for one in filled),
        sum(one.bytes for one in filled),
    )


def notes_of(recording: Recording) -> list[str]:
    """What is to be known of a recording, as plain sentences."""
    notes = []
    if not recording.plan.files:
        notes.append("plan: nothing to replay; the start left nothing in the page cache (O_DIRECT, or no disk below).")
    if recording.plan.facts["spinning"] == "1":
        notes.append("plan: the disk has to seek, so one reader replays it, in the order of the start.")
    if recording.seen.overflowed:
        notes.append("plan: the kernel dropped events, so the plan is not complete.")
    if recording.seen.elsewhere * UNATTRIBUTED_TELLS > len(recording.seen.opened):
        notes.append(
            f"plan: {recording.seen.elsewhere} opened files lie where only the unit sees them (a container's, or mounts"
            " of its own), and are not in the plan."
        )
    # On a busy host these are mostly processes of others; only many of them can leave a hole in the plan.
    if recording.seen.unattributed * UNATTRIBUTED_TELLS > len(recording.seen.opened):
        notes.append(
            f"plan: {recording.seen.unattributed} opened files belong to processes that ended before they could be"
            " asked who they are; those of the target among them are missing."
        )
    return notes


def _refuse_foreign(host: Host, target: Target) -> None:
    """SettingError where a file in our place is somebody else's."""
    for path in wanted_files(target, True):
        text = host.read_or_none(path)
        if text is not None and not text.startswith(MARK):
            raise SettingError(
                f"first_token.{target.name}",
                f"{path} to be ours",
                "a file that somebody else wrote",
                "It would be overwritten now, and removed by a rollback.",
                "move it away, or choose another name.",
            )


def _write(host: Host, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        os.makedirs(host.path(path).parent, mode=0o755, exist_ok=True)
        host.write_durably(path, text.encode())


def _link(host: Host, target: Target) -> None:
    link = host.path(target.boot_link)
    os.makedirs(link.parent, mode=0o755, exist_ok=True)
    if not os.path.lexists(link):
        os.symlink(target.replay_unit, link)


def remove_all(host: Host, names: Iterable[str], force: bool = False, dry_run: bool = False) -> Removal:
    """Remove what these targets have on the host, as `remove` does. OSError."""
    done = [remove(host, name, force, dry_run) for name in names]
    return Removal([path for paths, _ in done for path in paths], [path for _, paths in done for path in paths])


def remove(host: Host, name: str, force: bool = False, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Remove what a target has on the host: what was removed, and what others changed since and is therefore left.

    With `force` what others changed goes too; with `dry_run` nothing does, and the answer is the same. The unit keeps
    running as it is; its next start is as it was before us. OSError.
    """
    target = recorded_targets(host).get(name) or Target(name)
    try:
        hashes = json.loads(host.read(target.record))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        # Cut short before the record was written: what begins with our mark is ours.
        hashes = {}
        for folder in host.names(UNITS):
            path = f"{UNITS}/{folder}/slm-first-token.conf"
            if f"{TARGETS}/{name}/" in (host.read_or_none(path) or ""):
                hashes[path] = ""
        if host.exists(target.replay_unit):
            hashes[target.replay_unit] = ""
    removed: list[str] = []
    left: list[str] = []
    for path, recorded in hashes.items():
        text = host.read_or_none(path)
        if text is None:
            continue
        if force or (text.startswith(MARK) and recorded in ("", _digest(text))):
            removed.append(path)
        else:
            left.append(path)
    if _is_linked(host, target):
        removed.append(target.boot_link)
    if host.exists(target.folder):
        removed.append(target.folder)
    if dry_run:
        return removed, left
    end_replay(host, target)
    for path in removed:
        if path == target.folder:
            remove_tree(host.path(path))
        else:
            host.remove_durably(path)
        if path.endswith("/slm-first-token.conf") or path == target.boot_link:
            remove_folder_if_empty(host.path(path).parent)
    if not host.names(TARGETS):
        for path in (TARGETS, PROGRAMS):
            remove_tree(host.path(path))
        for path in (FIRST_TOKEN, os.path.dirname(FIRST_TOKEN)):
            remove_folder_if_empty(host.path(path))
    if any(path.startswith(UNITS) for path in removed):
        reload_units(host)
    return removed, left


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_linked(host: Host, target: Target) -> bool:
    """Whether the next boot starts our unit."""
    link = host.path(target.boot_link)
    return link.is_symlink() and os.readlink(link) == target.replay_unit


def difference(host: Host, target: Target) -> dict[str, str]:
    """What setting this target up changes, as a diff's `before` and `after`: rows, and options asked otherwise.

    A plan has thousands of lines, which nobody reads; what counts is whether it fits, and why not.
    """
    recorded = recorded_targets(host).get(target.name)
    before = {row["knob"]: row["detail"] or row["runtime"] for row in rows_of(host, target.name)}
    plan = f"first_token.{target.name}.plan"
    before.setdefault(plan, "missing")
    after = dict.fromkeys(before, "clean")
    if recorded and recorded != target:
        for name, value in target.to_json().items():
            if value != recorded.to_json()[name]:
                knob = f"first_token.{target.name}.{name}"
                before[knob], after[knob] = str(recorded.to_json()[name]), str(value)
    return {
        side: "".join(f"{knob}: {value}\n" for knob, value in text.items())
        for side, text in (("before", before), ("after", after))
    }


def rows(host: Host) -> list[dict[str, Any]]:
    """Audit rows of every target on the host; what a sweep has recorded for itself is no state of the host's."""
    names = [name for name in recorded_targets(host) if not name.startswith(SWEEP_PREFIX)]
    return [row for name in names for row in rows_of(host, name)]


def rows_of(host: Host, name: str) -> list[dict[str, Any]]:
    """Audit rows of one target: `first_token.NAME.plan` and `.bytecode`, in the form of all rows; none without it."""
    targets = recorded_targets(host)
    if name not in targets:
        return []
    target = targets[name]
    if target is None:
        return [_row(name, "plan", "missing", f"{TARGETS}/{name} has no record that can be read")]
    plan, state, detail = _plan_state(host, target)
    if state == "clean":
        state, detail = _units_state(host, target)
    kept = state
    if state == "clean" and target.has_boot_link and not _is_linked(host, target):
        kept, detail = "missing", f"{target.boot_link} is gone, so no boot reads ahead"
    found = [_row(name, "plan", state, detail, kept)]
    if host.exists(f"{target.folder}/bytecode"):
        found.append(_row(name, "bytecode", *_bytecode_state(host, target, plan)))
    return found


def _plan_state(host: Host, target: Target) -> tuple[Plan | None, str, str]:
    try:
        if host.path(target.plan).stat().st_size > MAX_BYTES:
            return None, "missing", "the plan is larger than any that is recorded here"
        plan = parse_plan(host.read(target.plan))
    except OSError as error:
        return None, "missing", f"{target.plan}: {error.strerror}"
    except SettingError as error:
        return None, "missing", str(error)
    changed = changed_files(host, plan.files)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return plan, "stale", f"{changed[0]}{more} changed since it was recorded"
    return plan, "clean", ""


def _units_state(host: Host, target: Target) -> tuple[str, str]:
    """Whether our units beside the target's are as we wrote them."""
    for path, recorded in json.loads(host.read(target.record)).get("files", {}).items():
        text = host.read_or_none(path)
        if text is None:
            return "missing", f"{path} is gone"
        if _digest(text) != recorded:
            return "stale", f"{path} was changed by others since"
    return "clean", ""


def _bytecode_state(host: Host, target: Target, plan: Plan | None) -> tuple[str, str]:
    """Whether each bytecode file of the plan still is that of its source, by the times in its header (PEP 552)."""
    for file in plan.files if plan else ():
        if not file.path.startswith(f"{target.pycache}/"):
            continue
        source = re.sub(r"\.[a-z]+-\d+(\.opt-\d)?\.pyc$", ".py", file.path[len(target.pycache) :])
        try:
            with open(host.path(file.path), "rb") as stream:
                header = stream.read(16)
            found = host.path(source).stat()
        except OSError:
            return "stale", f"{source} or its bytecode is gone"
        expected = b"".join(
            (int(value) & 0xFFFFFFFF).to_bytes(4, "little") for value in (found.st_mtime, found.st_size)
        )
        if header[4:8] == bytes(4) and header[8:16] != expected:
            return "stale", f"{source} changed since it was compiled"
    return "clean", ""


def _row(name: str, what: str, state: str, detail: str, kept: str | None = None) -> dict[str, Any]:
    """`state` is what a start now finds, `kept` what the next boot finds: the same unless it is given."""
    kept = kept or state
    worst = state if state != "clean" else kept
    knob = f"first_token.{name}.{what}"
    return {
        "knob": knob,
        "desired": "clean",
        "runtime": state,
        "persisted": kept,
        "boot": None,
        "source": f"{TARGETS}/{name}/plan",
        "verdict": "clean" if worst == "clean" else "drift",
        "detail": detail and f"{knob} is {worst}: {detail}; record it again with first_token.yml",
    }
