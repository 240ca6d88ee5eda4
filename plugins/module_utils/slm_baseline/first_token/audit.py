"""The state of targets on a host, as rows of the audit."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host
from ..host.kernel_caches import MAX_FILES, held_in
from ..host.paths import STOPPED_NOTE, TARGETS
from ..host.systemd import systemd_runs
from .fit import find_kernels_misfit, find_misfit, find_unit_misfit, parse_fit, show_unit
from .places import target_names
from .plan import MAX_BYTES, changed_files, parse_plan
from .target import SWEEP_PREFIX, Target, recorded_targets


def is_set_up(host: Host, target: Target) -> bool:
    """Return whether the host has exactly this target, with nothing stale, missing or changed by others."""
    if not target.is_same_as(recorded_targets(host).get(target.name)):
        return False
    return all(row["verdict"] == "clean" for row in rows_of(host, target.name))


def difference(host: Host, target: Target) -> dict[str, str]:
    """Return what setting this target up changes, as a diff's `before` and `after`: rows, and options that differ.

    A plan has thousands of lines, so the diff only says whether it is current, and why not. Of an environment variable
    it shows only a digest.
    """
    recorded = recorded_targets(host).get(target.name)
    before = {row["knob"]: row["detail"] or row["runtime"] for row in rows_of(host, target.name)}
    plan = f"first_token.{target.name}.plan"
    before.setdefault(plan, "missing")
    after = dict.fromkeys(before, "clean")
    if recorded:
        for name, value in target.to_json().items():
            if value != recorded.to_json()[name]:
                knob = f"first_token.{target.name}.{name}"
                before[knob], after[knob] = str(recorded.to_json()[name]), str(value)
    return {
        side: "".join(f"{knob}: {value}\n" for knob, value in text.items())
        for side, text in (("before", before), ("after", after))
    }


def rows(host: Host, wanted: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the audit rows of every target on the host. A sweep's own recordings are not part of the host's state.

    With the names of the `wanted` targets, a target that is no longer wanted is drift.
    """
    found = []
    if host.exists(STOPPED_NOTE):
        found.append(_stopped_row(host))
    for name in target_names(host):
        if name.startswith(SWEEP_PREFIX):
            continue
        found += rows_of(host, name)
        if wanted is not None and name not in wanted:
            found.append(_orphan_row(name))
    return found


def rows_of(host: Host, name: str) -> list[dict[str, Any]]:
    """Return one target's audit rows, `first_token.NAME.plan`, and for its caches `.bytecode` and `.kernels`.

    There are none where the target is not there.
    """
    if name not in target_names(host):
        return []
    target = recorded_targets(host).get(name)
    if target is None:
        return [_row(name, "plan", "missing", f"{TARGETS}/{name} has no record that can be read")]
    state, detail = _plan_state(host, target)
    if state == "clean":
        state, detail = _units_state(host, target)
    kept = state
    if state == "clean" and target.has_boot_link and not is_linked(host, target):
        kept, detail = "missing", f"{target.boot_link} is gone, so no boot reads ahead"
    found = [_row(name, "plan", state, detail, kept), *_given_rows(host, target)]
    if host.exists(target.fit):
        found += [_row(name, what, state, detail) for what, state, detail in _cache_states(host, target)]
    return found


def is_linked(host: Host, target: Target) -> bool:
    """Return whether the next boot starts our unit."""
    link = host.path(target.boot_link)
    return link.is_symlink() and os.readlink(link) == target.replay_unit


def _plan_state(host: Host, target: Target) -> tuple[str, str]:
    try:
        if host.path(target.plan).stat().st_size > MAX_BYTES:
            return "missing", "the plan is larger than any that is recorded here"
        plan = parse_plan(host.read(target.plan))
    except OSError as error:
        return "missing", f"{target.plan}: {error.strerror}"
    except SettingError as error:
        return "missing", str(error)
    if "image_id" in plan.facts:
        # Most hosts have no such target, and would compile what they import.
        from ..containers.image import find_image_change

        reason = find_image_change(host, plan.facts)
        if reason:
            return "stale", reason
    changed = changed_files(host, plan.files)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return "stale", f"{changed[0]}{more} changed since it was recorded"
    return "clean", ""


def _units_state(host: Host, target: Target) -> tuple[str, str]:
    """Return whether our units for the target are as we wrote them: state and detail."""
    for path, recorded in json.loads(host.read(target.record)).get("files", {}).items():
        text = host.read_or_none(path)
        if text is None:
            return "missing", f"{path} is gone"
        if hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() != recorded:
            return "stale", f"{path} was changed by others since"
    return "clean", ""


def _cache_states(host: Host, target: Target) -> list[tuple[str, str, str]]:
    """Return for each of the target's caches whether the next start gets it: what it holds, state and detail."""
    try:
        fit = parse_fit(host.read(target.fit))
    except OSError as error:
        return [("bytecode", "missing", f"{target.fit}: {error.strerror}")]
    except SettingError as error:
        return [("bytecode", "stale", str(error))]
    facts = show_unit(fit.unit[0]) if fit.unit and host.is_live and systemd_runs(host) else None
    misfit = find_unit_misfit(fit.unit, facts) if facts is not None else ""
    reasons = []
    if fit.prefix:
        reasons.append(("bytecode", find_misfit(host, fit) or misfit))
    if fit.kernels:
        reasons.append(("kernels", misfit or find_kernels_misfit(host, fit, facts) or _overfull(host, fit.kernels[0])))
    return [
        (what, "stale", f"{reason}, so no start gets it") if reason else (what, "clean", "") for what, reason in reasons
    ]


def _given_rows(host: Host, target: Target) -> list[dict[str, Any]]:
    """Return the row for what a container is given: whether the folders are those that were made, within bounds."""
    try:
        given = json.loads(host.read(target.record)).get("given")
        if not given:
            return []
        folder, made = str(given["folder"]), (given["inode"], given["uid"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    try:
        found = os.lstat(host.path(folder))
    except OSError as error:
        return [_row(target.name, "given", "missing", f"{folder}: {error.strerror}")]
    if not stat.S_ISDIR(found.st_mode) or (found.st_ino, found.st_uid) != made:
        return [_row(target.name, "given", "stale", f"{folder} is not the folder that was made")]
    reason = _overfull(host, folder)
    return [_row(target.name, "given", "stale" if reason else "clean", reason)]


def _overfull(host: Host, folder: str) -> str:
    """Return that a folder of kernels holds too much to be kept; empty where it does not."""
    held = held_in(str(host.path(folder)))
    if not held.is_too_large:
        return ""
    much = f"{held.bytes / 1e9:.0f} GB" if held.is_whole else f"more than {MAX_FILES} files"
    return f"{folder} holds {much}, and a recording makes it anew"


def _orphan_row(name: str) -> dict[str, Any]:
    knob = f"first_token.{name}"
    return {
        "knob": knob,
        "desired": "absent",
        "runtime": "present",
        "persisted": "present",
        "boot": None,
        "source": f"{TARGETS}/{name}",
        "verdict": "drift",
        "detail": f"{knob} is on the host, and first_token_targets does not name it; add it there, or take it away with"
        f" {{name: {name}, state: absent}}",
    }


def _stopped_row(host: Host) -> dict[str, Any]:
    try:
        note = json.loads(host.read(STOPPED_NOTE))
        names = ", ".join(
            [*map(str, note["start"]), *(f"container {each['name']}" for each in note.get("containers", []))]
        )
    except (OSError, ValueError, KeyError, TypeError):
        names = "a service"
    return {
        "knob": "first_token.stopped",
        "desired": "none",
        "runtime": names,
        "persisted": names,
        "boot": None,
        "source": STOPPED_NOTE,
        "verdict": "drift",
        "detail": f"a recording that was cut short stopped {names}; first_token.yml or rollback.yml starts it again",
    }


def _row(name: str, what: str, state: str, detail: str, kept: str | None = None) -> dict[str, Any]:
    """Return a row. `state` is what a start finds now, `kept` what the next boot finds: the same unless it is given."""
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
