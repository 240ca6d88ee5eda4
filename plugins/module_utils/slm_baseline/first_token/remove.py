"""Removing what a target has on a host: the files in its record, or those with our mark where there is no record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping

from ..host.errors import SettingError
from ..host.files import Host
from ..host.paths import FIRST_TOKEN, FIT, PROGRAMS, STOPPED_NOTE, TARGETS
from ..host.rmtree import remove_folder_if_empty, remove_tree
from ..host.systemd import UNITS, reload_units
from .audit import is_linked
from .given import find_containers_with, folders_in
from .places import DROP_IN, MARK, QUADLETS, names_in, quadlet_drop_ins, target_names
from .plan import parse_plan
from .recorder.interruption import make_good
from .recorder.unit import end_replay
from .removed import Removal
from .target import Target, recorded_targets

_NO_DIGEST = ""
"""The digest of a file that is in no record: only its mark shows that it is ours."""


def remove_all(host: Host, names: Iterable[str], force: bool = False, dry_run: bool = False) -> Removal:
    """Remove what these targets have on the host, as `remove` does; a target that cannot be removed stops no other.

    Starts first what an interrupted recording has stopped. SettingError where that does not run again.
    """
    started = [] if dry_run else make_good(host)
    removed: list[str] = []
    left: list[str] = []
    problems: list[str] = []
    for name in names:
        try:
            gone, kept = remove(host, name, force, dry_run)
            removed += gone
            left += kept
        except OSError as error:
            problems.append(f"first_token.{name}: {error.strerror} on {error.filename}")
    return Removal(removed, left, started, problems)


def remove(host: Host, name: str, force: bool = False, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Remove what a target has on the host; return what was removed, and what is left since others changed it.

    With `force` what others changed is removed too; with `dry_run` nothing is, and the result is the same. The unit
    keeps running; its next start is as it was before us. Units are removed before folders, which another user may have
    filled. OSError.
    """
    target = recorded_targets(host).get(name) or Target(name)
    gone, left = _classify(host, read_hashes(host, name), force)
    if not force and _is_in_use(host, target):
        # Its container would not start without them: the user removes it, or makes it anew without our options.
        return _remove_all_but_given(host, target, gone, left, dry_run)
    if is_linked(host, target):
        gone.append(target.boot_link)
    folders = [path for path in (target.folder, *_caches_of(host, target)) if os.path.lexists(host.path(path))]
    if dry_run:
        return [*gone, *folders], left
    end_replay(host, target)
    _remove_paths(host, gone)
    # A task that was cut short may have removed the only file in them.
    for path in (target.boot_link, target.drop_in) if target.unit else ():
        remove_folder_if_empty(host.path(path).parent)
    host.path(target.fit_environment).unlink(missing_ok=True)
    if gone:
        reload_units(host)
    for path in folders:
        remove_tree(host.path(path))
    _leave_no_trace(host)
    return [*gone, *folders], left


def _is_in_use(host: Host, target: Target) -> bool:
    """Return whether a container of the user's has our folders mounted. A Quadlet's is made anew without them."""
    try:
        document = json.loads(host.read(target.record))
        is_quadlets = any(path.startswith(f"{QUADLETS}/") for path in document["files"])
        folders = folders_in(document.get("given"))
        facts = parse_plan(host.read(target.plan)).facts if folders and not is_quadlets else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SettingError):
        return False
    return bool(folders) and bool(find_containers_with(host, facts, folders))


def _remove_all_but_given(
    host: Host, target: Target, gone: list[str], left: list[str], dry_run: bool
) -> tuple[list[str], list[str]]:
    """Remove what a target has but for the folders that a container has mounted, and the record that says so."""
    if is_linked(host, target):
        gone = [*gone, target.boot_link]
    # The override file gives the folders: it goes with them.
    gone = [path for path in gone if path != target.override]
    if not dry_run:
        end_replay(host, target)
        _remove_paths(host, gone)
        if gone:
            reload_units(host)
    return gone, [*left, target.given]


def remove_files(host: Host, hashes: Mapping[str, str]) -> None:
    """Remove files of ours that nobody has changed since; OSError."""
    _remove_paths(host, _classify(host, hashes, force=False)[0])


def read_hashes(host: Host, name: str) -> dict[str, str]:
    """Return a target's files of ours with their digests: those in its record, and those found by our mark."""
    try:
        hashes = dict(json.loads(host.read(f"{TARGETS}/{name}/target.json"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        hashes = {}
    target = Target(name)
    places = [f"{UNITS}/{folder}/{DROP_IN}" for folder in host.names(UNITS) if folder.endswith(".service.d")]
    for path in (*places, *quadlet_drop_ins(host), target.replay_unit, target.fit_unit):
        text = host.read_or_none(path) or ""
        is_units = path in (target.replay_unit, target.fit_unit)
        is_named = name in names_in(text) or f"{TARGETS}/{name}/" in text
        # A file without our mark belongs to somebody by now, and is listed as such.
        if path not in hashes and text and (is_units or is_named):
            hashes[path] = _NO_DIGEST
    return hashes


def _classify(host: Host, hashes: Mapping[str, str], force: bool) -> tuple[list[str], list[str]]:
    """Return which of these files are removed, and which stay since others changed them."""
    gone: list[str] = []
    left: list[str] = []
    for path, recorded in hashes.items():
        text = host.read_or_none(path)
        if text is None:
            continue
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        is_ours = text.startswith(MARK) and recorded in (_NO_DIGEST, digest)
        (gone if force or is_ours else left).append(path)
    return gone, left


def _caches_of(host: Host, target: Target) -> list[str]:
    """Return where systemd keeps the caches of a dynamic user: links, and the folders that they lead to."""
    names = (f"slm-first-token-{target.name}", f"slm-kernels-{target.name}")
    paths = [
        path
        for name in names
        for path in (f"/var/cache/private/{name}", f"/var/cache/private/{name}.former", f"/var/cache/{name}")
    ]
    return [path for path in paths if os.path.lexists(host.path(path))]


def _remove_paths(host: Host, paths: Iterable[str]) -> None:
    for path in paths:
        host.remove_durably(path)
        if os.path.dirname(path) != UNITS:
            remove_folder_if_empty(host.path(path).parent)


def _leave_no_trace(host: Host) -> None:
    """Remove the programs and the folders with the last target."""
    if target_names(host) or host.exists(STOPPED_NOTE):
        return
    for path in (TARGETS, PROGRAMS):
        remove_tree(host.path(path))
    for path in (FIRST_TOKEN, os.path.dirname(FIRST_TOKEN), FIT):
        remove_folder_if_empty(host.path(path))
