"""A bytecode cache for a target: a folder of the target's own user, filled by the target's own start.

The target is started once with PYTHONPYCACHEPREFIX set to that folder (`sys.pycache_prefix`), so its interpreter stores
there what it compiles: as its own user, in its own sandbox, with the checks of its own importlib. Root compiles
nothing, runs no interpreter of anybody's, and stores no byte of what it compiled.

A later start gets the cache only while it fits (fit.py): none of the sources changed since, and every command line of
the unit runs as the cache's user.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..host.files import Host
from ..host.foreign_files import open_foreign
from .fit import Fit, find_rights_above
from .plan import Plan, PlanFile
from .recorder.unit import Unit
from .target import Target

LEAST_MODULES = 50
"""Fewer modules to compile are not worth a cache: 1,735 took 5.8 s of CPU on a GPU host, so these take 0.2 s."""
_OLDEST_NS = 315_532_800 * 10**9
"""1980: what a zip file can say. Trees that are made alike everywhere (OSTree, Nix) give each file a time before."""
_BYTECODE = re.compile(r"(?P<folder>.*?)/(?P<name>[^/.]+)\.(?P<tag>[a-z]+-\d+(\.opt-\d)?)\.pyc(\.\d+)?")


@dataclass(frozen=True)
class Cache:
    """Where a target's bytecode is. `prefix` is what its interpreter is told, `folder` where that leads on the host.

    `lines` are for the unit's drop-in: what lets the unit write there.
    """

    prefix: str
    folder: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Filled:
    """What a cache got: modules that were compiled at every start, those that had bytecode elsewhere, and the bytes."""

    compiled: int
    copied: int
    bytes: int


def cache_of(target: Target, unit: Unit | None) -> Cache:
    """The cache that a target gets. systemd makes and keeps that of a dynamic user, who has no lasting id."""
    if unit and unit.has_dynamic_user:
        name = f"slm-first-token-{target.name}"
        lines = (f"CacheDirectory={name}", "UnsetEnvironment=CACHE_DIRECTORY")
        return Cache(f"/var/cache/{name}", f"/var/cache/private/{name}", lines)
    # A unit without a mount namespace of its own gets none because of us.
    closed = unit and (unit.fact("ProtectSystem") == "strict" or unit.fact("ReadOnlyPaths"))
    return Cache(target.pycache, target.pycache, (f"ReadWritePaths=-{target.pycache}",) if closed else ())


def find_objection(unit: Unit) -> str:
    """Why a unit must not have a cache, as a sentence; empty where nothing speaks against it."""
    if unit.user in ("", "root", "0") and not unit.has_dynamic_user:
        return "the unit runs as root, whose interpreters would go on writing there; give it a User=."
    if "PYTHONPYCACHEPREFIX=" in unit.fact("Environment"):
        return "the unit has a PYTHONPYCACHEPREFIX of its own."
    if unit.has_dynamic_user and unit.fact("CacheDirectory"):
        return "the unit has a CacheDirectory= of its own, and would be told of two."
    return find_rights_above(dict(unit.facts))


def find_compiled(host: Host, opened: Iterable[str]) -> list[str]:
    """Sources that were opened and have no bytecode beside them that fits: a start compiles each of these."""
    return [path for path in opened if path.endswith(".py") and not has_bytecode(host, path)]


def has_bytecode(host: Host, source: str) -> bool:
    """Whether some interpreter's bytecode beside a source is that of the source, by its header (PEP 552)."""
    folder, name = os.path.split(source)
    try:
        found = os.lstat(host.path(source))
    except OSError:
        return False
    for cached in host.names(f"{folder}/__pycache__"):
        if cached.startswith(f"{name[:-3]}.") and cached.endswith(".pyc"):
            header = _read_header(host, f"{folder}/__pycache__/{cached}")
            # What is not checked by time is checked by its content, or by nobody.
            if len(header) == 16 and (header[4:8] != bytes(4) or header[8:16] == stamp_of(found)):
                return True
    return False


def stamp_of(found: os.stat_result) -> bytes:
    """Time and size of a source, as the header of its bytecode has them."""
    return b"".join((int(value) & 0xFFFFFFFF).to_bytes(4, "little") for value in (found.st_mtime, found.st_size))


def _read_header(host: Host, path: str) -> bytes:
    try:
        descriptor = open_foreign(host.path(path), os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def find_cached(host: Host, folder: str, opened: Sequence[str]) -> dict[str, str]:
    """The bytecode in a cache by its source, for sources that a start asked for, and no others.

    The cache belongs to another user, so it is not listed: a file counts where a source that was opened leads to it.
    """
    tags = {found["tag"] for path in opened if path.startswith(f"{folder}/") and (found := _BYTECODE.fullmatch(path))}
    cached = {}
    for source in opened:
        if not source.endswith(".py"):
            continue
        for tag in sorted(tags):
            path = f"{folder}{source[:-3]}.{tag}.pyc"
            try:
                found_at = os.lstat(host.path(path))
                source_at = os.lstat(host.path(source))
            except OSError:
                continue
            header = _read_header(host, path)
            is_checked = header[4:8] == bytes(4) and header[8:16] == stamp_of(source_at)
            if stat.S_ISREG(found_at.st_mode) and is_checked:
                cached[source] = path
    return cached


def lacks_times(host: Host, sources: Iterable[str]) -> bool:
    """Whether a source has no time of its own: another version of it could have the same time and size."""
    for source in sources:
        try:
            if os.lstat(host.path(source)).st_mtime_ns < _OLDEST_NS:
                return True
        except OSError:
            continue
    return False


def with_cached(plan: Plan, files: Mapping[str, PlanFile]) -> Plan:
    """The plan of a start that reads bytecode where this one compiled: `files` are its files by source."""
    rest = {file.path for file in plan.files}
    more = [file for source, file in files.items() if source not in rest]
    return replace(plan, files=[files.get(file.path, file) for file in plan.files] + more)


def fit_of(host: Host, target: Target, unit: Unit | None, uid: int | None, cache: Cache, sources: Iterable[str]) -> Fit:
    """What this cache was made for; OSError where something of it is gone already."""
    folders, listed = [], []
    for folder in sorted({os.path.dirname(source) for source in sources}):
        found = os.lstat(host.path(folder))
        folders.append((found.st_ino, found.st_mtime_ns, folder))
    for source in sorted(sources):
        found = os.lstat(host.path(source))
        listed.append((found.st_ino, found.st_size, found.st_mtime_ns, source))
    return Fit(
        cache.prefix,
        cache.folder,
        os.lstat(host.path(cache.folder)).st_ino,
        "dynamic" if uid is None else str(uid),
        (unit.name, unit.user) if unit else (),
        tuple(folders),
        tuple(listed),
    )
