"""The host's prior state, durable before the first change, and its exact restore.

The document holds every knob this project could ever write, every pool by node, and each mount path, file and folder
that the tuning names. It is written once; it only grows, when the tuning names a new mount path or a newer kernel has
new knobs and pools.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..host.errors import SettingError, os_problem
from ..host.files import Host, missing_folders, temporary_name
from ..host.lease import FOLDER as RUN_FOLDER
from ..host.processes import holders, pool_users
from .knobs import MIN_FREE, THP, Knob, WriteKnob, read_knob, thp_knobs
from .mounts import ChangeMount, MountSpec, found_mount, hugetlbfs_mounts
from .persistence import POOLS_DROPIN, THP_DROPIN, TMPFILES, UNITS, WANTS, our_files, unit_path, wants_path
from .pools import ATTEMPTS, pool_name, pool_sizes, pool_spread, read_pool, restore_spread, spread_goal

STATE = "/var/lib/slm-baseline"
SNAPSHOT = f"{STATE}/snapshot.json"
SWEEP_PRIOR = f"{RUN_FOLDER}/sweep-prior.json"
"""What a sweep found before its arms changed anything; the same document, and gone when the sweep has restored it.

In /run, since arms set run-time values alone: a reboot undoes these, and must take their prior state with them. On disk
it would wait there to put old values over whatever was set since.
"""
ARCHIVE = f"{STATE}/archive"
SCHEMA_VERSION = 1

_MIN_FREE_KNOB = "vm.min_free_kbytes"
_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)
_MAX_MODE = 0o7777
_MAX_ID = 2**32 - 2
"""The largest uid and gid: the one above means "leave as it is" to chown(2)."""


@dataclass(frozen=True)
class PoolState:
    """A pool's persistent pages, as a whole and by node."""

    persistent: int
    nodes: dict[int, int]


@dataclass(frozen=True)
class FileState:
    """A file's bytes and ownership, or a symlink's target."""

    mode: int = 0
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    link: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """Prior state. `mounts` and `files` hold None for what was not there; `missing_folders` did not exist either."""

    taken_at: str
    run_id: str
    knobs: dict[str, str]
    paths: dict[str, str]
    pools: dict[int, PoolState]
    mounts: dict[str, MountSpec | None]
    files: dict[str, FileState | None]
    missing_folders: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        document: dict[str, Any] = asdict(self)
        for state in document["files"].values():
            if state is not None:
                state["content"] = base64.b64encode(state["content"]).decode()
        return json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=1, sort_keys=True).encode() + b"\n"

    def completed_by(self, later: Snapshot) -> Snapshot:
        """This state, and of a later one the knobs and pools that this one does not know."""
        return replace(
            self,
            knobs={**later.knobs, **self.knobs},
            paths={**later.paths, **self.paths},
            pools={**later.pools, **self.pools},
        )

    def values(self) -> dict[str, str]:
        """Knob names and prior values as text, for reports."""
        pools: dict[str, str] = {}
        for size, pool in self.pools.items():
            pools[pool_name(size)] = str(pool.persistent)
            pools |= {pool_name(size, node): str(count) for node, count in pool.nodes.items()}
        mounts = {f"hugetlbfs.{path}": spec.options if spec else "not mounted" for path, spec in self.mounts.items()}
        return {**self.knobs, **pools, **mounts}


def parse_snapshot(source: str, text: bytes) -> Snapshot:
    """A stored snapshot, or one SettingError: corrupt and newer ones are never overwritten and never half restored."""

    def corrupt(found: str) -> SettingError:
        return SettingError(
            source,
            f"a snapshot of schema version {SCHEMA_VERSION}",
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
    version = document.pop("schema_version", None)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise corrupt(f"schema version {version!r}"[:80])
    try:
        return _typed(document)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise corrupt(f"a damaged document ({type(error).__name__}: {error})"[:200]) from error


def _typed(document: dict[str, Any]) -> Snapshot:
    """Field by field, since a wrong type found half-way through a restore would be too late."""

    def text(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
        if "\0" in value:
            raise ValueError(f"{value!r} holds a NUL")
        os.fsencode(value)
        return value

    def whole(value: object, most: int = 2**63 - 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise TypeError(f"{value!r} is no whole number from 0 to {most}")
        return value

    def absolute(value: object) -> str:
        if not os.path.isabs(text(value)) or os.path.normpath(text(value)) != value:
            raise ValueError(f"{value!r} is no absolute path")
        return text(value)

    def knob_value(value: object) -> str:
        if not text(value).isascii() or not text(value).strip():
            raise ValueError(f"{value!r} is no knob's value")
        return text(value)

    def knob_path(value: object) -> str:
        if absolute(value) != MIN_FREE and not text(value).startswith(f"{THP}/"):
            raise ValueError(f"{value!r} is no knob of ours")
        return text(value)

    def file_path(value: object) -> str:
        if absolute(value) not in (THP_DROPIN, POOLS_DROPIN) and not text(value).startswith(f"{UNITS}/"):
            raise ValueError(f"{value!r} is no file of ours")
        return text(value)

    def decimal(value: object) -> int:
        if not _DECIMAL.fullmatch(text(value)):
            raise ValueError(f"{value!r} is no whole number")
        return int(text(value))

    def mount(path: str, value: Any) -> MountSpec | None:
        if value is None:
            return None
        size = value["size_bytes"]
        return MountSpec(
            absolute(path),
            whole(value["page_size_bytes"]),
            None if size is None else whole(size),
            whole(value["mode"], _MAX_MODE),
            whole(value["uid"], _MAX_ID),
            whole(value["gid"], _MAX_ID),
        )

    def file(value: Any) -> FileState | None:
        if value is None:
            return None
        content = base64.b64decode(text(value["content"]), validate=True)
        link = None if value["link"] is None else text(value["link"])
        mode, uid, gid = whole(value["mode"], _MAX_MODE), whole(value["uid"], _MAX_ID), whole(value["gid"], _MAX_ID)
        return FileState(mode, uid, gid, content, link)

    if set(document["knobs"]) != set(document["paths"]):
        raise ValueError("knobs and paths differ")
    return Snapshot(
        taken_at=text(document["taken_at"]),
        run_id=text(document["run_id"]),
        knobs={text(name): knob_value(value) for name, value in document["knobs"].items()},
        paths={text(name): knob_path(value) for name, value in document["paths"].items()},
        pools={
            decimal(size): PoolState(
                whole(pool["persistent"]), {decimal(node): whole(count) for node, count in pool["nodes"].items()}
            )
            for size, pool in document["pools"].items()
        },
        mounts={absolute(path): mount(path, value) for path, value in document["mounts"].items()},
        files={file_path(path): file(value) for path, value in document["files"].items()},
        missing_folders=[absolute(path) for path in document["missing_folders"]],
    )


def load(host: Host, path: str = SNAPSHOT) -> Snapshot | None:
    """The stored snapshot, None where there is none; SettingError where it cannot be trusted."""
    try:
        text = host.path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_problem(path, "a readable snapshot", error) from error
    return parse_snapshot(path, text)


def take(host: Host, mount_paths: Iterable[str], taken_at: str, run_id: str) -> Snapshot:
    """The host's state now. Reads only."""
    empty = Snapshot(
        taken_at=taken_at,
        run_id=run_id,
        knobs={},
        paths={},
        pools={},
        mounts={},
        files={path: _file_state(host, path) for path in (THP_DROPIN, POOLS_DROPIN)},
        missing_folders=missing_folders(host, TMPFILES) + missing_folders(host, STATE),
    )
    return extended(host, empty, mount_paths)


def extended(host: Host, snapshot: Snapshot, mount_paths: Iterable[str]) -> Snapshot:
    """The snapshot with the state of what it does not know yet; the same object where it knows everything.

    New are mount paths that the tuning names, and the knobs and page sizes of a kernel newer than the snapshot. None of
    them can hold a value of ours yet, since this comes before every change.
    """
    knobs = {name: knob for name, knob in _all_knobs(host).items() if name not in snapshot.knobs}
    sizes = [size for size in pool_sizes(host) if size not in snapshot.pools]
    paths = [path for path in mount_paths if path not in snapshot.mounts]
    if not (knobs or sizes or paths):
        return snapshot
    files, folders = dict(snapshot.files), list(snapshot.missing_folders)
    for path in paths:
        files |= {file: _file_state(host, file) for file in (unit_path(path), wants_path(path))}
        for folder in (path, UNITS, WANTS):
            folders += [missing for missing in missing_folders(host, folder) if missing not in folders]
    return replace(
        snapshot,
        knobs={**snapshot.knobs, **{name: knob.value for name, knob in knobs.items()}},
        paths={**snapshot.paths, **{name: knob.path for name, knob in knobs.items()}},
        pools={**snapshot.pools, **{size: _pool_state(host, size) for size in sizes}},
        mounts={**snapshot.mounts, **{path: found_mount(host, path) for path in paths}},
        files=files,
        missing_folders=folders,
    )


def _all_knobs(host: Host) -> dict[str, Knob]:
    """Every knob that the tuning, or the kernel on its behalf, could move."""
    knobs = thp_knobs(host)
    if host.exists(MIN_FREE):
        knobs[_MIN_FREE_KNOB] = read_knob(host, _MIN_FREE_KNOB, MIN_FREE)
    return knobs


def _pool_state(host: Host, size_bytes: int) -> PoolState:
    return PoolState(read_pool(host, size_bytes).persistent, pool_spread(host, size_bytes))


def ensure(host: Host, mount_paths: Iterable[str], taken_at: str, run_id: str) -> tuple[Snapshot, bool]:
    """The durable snapshot, taken or extended now where needed, and whether that wrote it.

    Values of our own are never taken for prior state: an unfinished sweep is restored first, and drop-ins of ours with
    no snapshot beside them are an error.
    """
    undo_sweep(host)
    wanted, is_new = foresee(host, mount_paths, taken_at, run_id)
    if is_new:
        save(host, wanted)
    return wanted, is_new


def foresee(host: Host, mount_paths: Iterable[str], taken_at: str, run_id: str) -> tuple[Snapshot, bool]:
    """What `ensure` returns, or its SettingError, with nothing written."""
    refuse_unfinished_sweep(host)
    stored = load(host)
    ours = our_files(host) if stored is None else []
    if ours:
        raise SettingError(
            SNAPSHOT,
            "the state before slm-baseline",
            f"no snapshot, but files of ours: {', '.join(ours)}",
            "The values in force may be our own, so they must not be recorded as the host's.",
            f"put the snapshot back (see {ARCHIVE}), or remove these files and reboot.",
        )
    wanted = extended(host, stored, mount_paths) if stored else take(host, mount_paths, taken_at, run_id)
    return wanted, wanted is not stored


def save(host: Host, snapshot: Snapshot, path: str = SNAPSHOT) -> None:
    """Write a snapshot durably, root's alone; SettingError where the disk will not take it."""
    try:
        folder = host.path(path).parent
        os.makedirs(folder, mode=0o755, exist_ok=True)
        host.sync_folder(folder.parent)
        host.write_durably(path, snapshot.to_json(), mode=0o600)
    except OSError as error:
        raise os_problem(path, "a durable snapshot before the first change", error) from error


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


def refuse_unfinished_sweep(host: Host) -> None:
    """SettingError where a sweep was cut short: for a dry run, which cannot restore the host before it looks."""
    if host.exists(SWEEP_PRIOR):
        raise SettingError(
            "sweep",
            "the host's own values, to tell what would change",
            f"those of a sweep that was cut short ({SWEEP_PRIOR})",
            "The real run restores the host first, so nothing can be foretold from the values in force.",
            "run it without --check, or restore the host first with rollback.yml.",
        )


def remove_leftovers(host: Host) -> None:
    """Remove what an interrupted recording left: temporary files, and the state folder if nothing else is in it."""
    for path in (SNAPSHOT, SWEEP_PRIOR):
        host.path(temporary_name(path)).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        host.path(STATE).rmdir()


def _file_state(host: Host, path: str) -> FileState | None:
    target = host.path(path)
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return FileState(mode, status.st_uid, status.st_gid, b"", os.readlink(target))
    return FileState(mode, status.st_uid, status.st_gid, target.read_bytes())


@dataclass(frozen=True)
class Restored:
    """What a restore did (`knob, before, after`) and what it could not, one typed error each."""

    changes: list[dict[str, str]]
    incomplete: list[SettingError]


def restore(host: Host, snapshot: Snapshot, dry_run: bool = False) -> Restored:
    """Put back everything the snapshot holds and prove it by reading back. Writes only what differs; safe to repeat.

    Mounts go first, since they hold pages; knobs follow in the order of the kernel's side effects; min_free_kbytes is
    last, since khugepaged moves it. One item that fails does not keep the others from being restored.
    """
    work = _Restore(host, dry_run)
    for path, mount in snapshot.mounts.items():
        work.mount(path, mount)
    for path, state in sorted(snapshot.files.items(), key=lambda item: item[0].startswith(UNITS + "/")):
        work.file(path, state)
    for folder in sorted(snapshot.missing_folders, key=len, reverse=True):
        work.folder(folder)
    for name in thp_knobs(host):
        if name in snapshot.knobs:
            work.knob(name, snapshot.paths[name], snapshot.knobs[name])
    for size, pool in snapshot.pools.items():
        work.pool(size, pool)
    if _MIN_FREE_KNOB in snapshot.knobs:
        work.knob(_MIN_FREE_KNOB, snapshot.paths[_MIN_FREE_KNOB], snapshot.knobs[_MIN_FREE_KNOB])
    return Restored(work.changes, work.incomplete)


class _Restore:
    """One restore in progress: collects what changed and what failed."""

    def __init__(self, host: Host, dry_run: bool) -> None:
        self.host = host
        self.dry_run = dry_run
        self.changes: list[dict[str, str]] = []
        self.incomplete: list[SettingError] = []
        self.gone: set[str] = set()
        self.unmounted: set[str] = set()

    @contextlib.contextmanager
    def _item(self, name: str, before: str, after: str) -> Any:
        self.changes.append({"knob": name, "before": before, "after": after})
        try:
            yield
        except SettingError as error:
            self.incomplete.append(error)
        except OSError as error:
            self.incomplete.append(os_problem(name, after, error))

    def mount(self, path: str, wanted: MountSpec | None) -> None:
        try:
            found = found_mount(self.host, path)
        except SettingError as error:
            self.incomplete.append(error)
            return
        if found == wanted:
            return
        change = ChangeMount(path, found, wanted)
        with self._item(change.name, change.before, change.after):
            if not self.dry_run:
                change.apply(self.host)
            elif wanted is None:
                self.unmounted.add(path)

    def file(self, path: str, wanted: FileState | None) -> None:
        leftover = temporary_name(path)
        try:
            if os.path.lexists(self.host.path(leftover)):
                self.gone.add(leftover)
                if not self.dry_run:
                    self.host.remove_durably(leftover)
            found = _file_state(self.host, path)
        except OSError as error:
            self.incomplete.append(os_problem(path, _told(wanted), error))
            return
        if found == wanted:
            return
        with self._item(path, _told(found), _told(wanted)):
            if wanted is None:
                self.gone.add(path)
            if self.dry_run:
                return
            _put_file(self.host, path, wanted)
            settled = _file_state(self.host, path)
            if settled != wanted:
                raise SettingError(
                    path,
                    _told(wanted),
                    _told(settled),
                    "The write succeeded, but the file reads back otherwise.",
                    "look for another writer of this file, then run the rollback again.",
                )

    def folder(self, path: str) -> None:
        target = self.host.path(path)
        if not target.is_dir():
            return
        if path not in self.unmounted and any(f"{path}/{name}" not in self.gone for name in self.host.names(path)):
            return  # A folder that somebody else uses by now stays theirs, and the state folder keeps the archive.
        with self._item(path, "folder", "absent"):
            self.gone.add(path)
            if not self.dry_run:
                target.rmdir()

    def knob(self, name: str, path: str, wanted: str) -> None:
        try:
            knob = read_knob(self.host, name, path)
        except SettingError as error:
            self.incomplete.append(error)
            return
        if knob.value == wanted:
            return
        with self._item(name, knob.value, wanted):
            if not self.dry_run:
                WriteKnob(knob, wanted).apply(self.host)

    def pool(self, size: int, wanted: PoolState) -> None:
        name = pool_name(size)
        try:
            before = read_pool(self.host, size)
            spread = pool_spread(self.host, size)
        except OSError as error:
            self.incomplete.append(os_problem(name, f"{wanted.persistent} pages", error))
            return
        if before.persistent != wanted.persistent or spread_goal(spread, wanted.nodes) not in (None, spread):
            with self._item(name, str(before.persistent), str(wanted.persistent)):
                if not self.dry_run:
                    restore_spread(self.host, size, wanted.nodes, wanted.persistent)
        if self.dry_run:
            return
        after, spread = read_pool(self.host, size), pool_spread(self.host, size)
        goal = spread_goal(spread, wanted.nodes) or {}
        pages = {pool_name(size, node): (asked, spread[node]) for node, asked in goal.items()}
        pages[name] = (wanted.persistent, after.persistent)
        # Surplus that the host's own overcommit allows is its business; any other is memory that did not come back.
        left = max(0, after.surplus - (after.overcommit or 0))
        if any(got < asked for asked, got in pages.values()):
            self.incomplete.append(_pages_short(name, pages))
        elif left or any(got > asked for asked, got in pages.values()):
            self.incomplete.append(self._pages_held(name, wanted.persistent, after.persistent, left))

    def _pages_held(self, name: str, wanted: int, persistent: int, surplus: int) -> SettingError:
        users = [f"{user['name']} (pid {user['pid']})" for user in pool_users(self.host)] + [
            f"files on {mount.path}"
            for mount in hugetlbfs_mounts(self.host)
            if self.host.names(mount.path) or holders(self.host, mount.path, most=1)
        ]
        return SettingError(
            name,
            f"{wanted} pages",
            f"{persistent} pages and {surplus} surplus pages still in use",
            f"Held by {', '.join(users) or 'a user that cannot be seen from here'}; they are freed when it lets go.",
            "stop it or remove its files, then run the rollback again: the snapshot is kept until then.",
        )


def _pages_short(name: str, pages: Mapping[str, tuple[int, int]]) -> SettingError:
    """Too few pages came; `pages` has what was asked and got of the pool (`name`) and of its nodes."""
    asked, got = pages[name]
    nodes = [f"{node} has {got} of {asked}" for node, (asked, got) in pages.items() if node != name and got != asked]
    return SettingError(
        name,
        f"{asked} pages",
        f"{got} pages" + (f" ({', '.join(nodes)})" if nodes else ""),
        f"The kernel could not find enough contiguous memory for the rest in {ATTEMPTS} attempts.",
        "free memory, or reboot, then run the rollback again: the snapshot is kept until then.",
    )


def _put_file(host: Host, path: str, wanted: FileState | None) -> None:
    if wanted is None:
        host.remove_durably(path)
        return
    os.makedirs(host.path(path).parent, mode=0o755, exist_ok=True)
    if wanted.link is None:
        host.write_durably(path, wanted.content, wanted.mode, wanted.uid, wanted.gid)
    else:
        host.remove_durably(path)
        os.symlink(wanted.link, host.path(path))
        os.lchown(host.path(path), wanted.uid, wanted.gid)
        host.sync_folder(host.path(path).parent)


def _told(state: FileState | None) -> str:
    if state is None:
        return "absent"
    return f"-> {state.link}" if state.link is not None else f"{len(state.content)} bytes, mode {state.mode:04o}"


def archive(host: Host, snapshot: Snapshot) -> str:
    """Move the snapshot of a complete restore into the archive; its path there."""
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
