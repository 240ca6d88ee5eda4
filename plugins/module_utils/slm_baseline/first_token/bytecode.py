"""A bytecode cache for a target: a folder of the target's own user, filled by the target's own start.

The target is started once with PYTHONPYCACHEPREFIX set to that folder (`sys.pycache_prefix`), so its interpreter
writes compiled modules there: as its own user, in its own sandbox, with its own importlib's checks. Root compiles
nothing, runs no interpreter of another user's, and writes none of the compiled bytes.

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
from .cache import Cache, cache_at, find_cache_objection
from .fit import Fit
from .plan import Plan, PlanFile
from .recorder.unit import Unit
from .target import Target

LEAST_MODULES = 50
"""A cache for fewer modules is not worthwhile: 1,735 took 5.8 s of CPU on a GPU host, so these take 0.2 s."""
_OLDEST_NS = 315_532_800 * 10**9
"""1980, the earliest time in a zip file. Reproducible trees (OSTree, Nix) give each file an earlier time."""
_BYTECODE = re.compile(r"(?P<folder>.*?)/(?P<name>[^/.]+)\.(?P<tag>[a-z]+-\d+(\.opt-\d)?)\.pyc(\.\d+)?")


@dataclass(frozen=True)
class Filled:
    """The content of a filled cache: modules compiled at every start, those with bytecode elsewhere, and the bytes."""

    compiled: int
    copied: int
    bytes: int


def cache_of(target: Target, unit: Unit | None) -> Cache:
    """Return the target's bytecode cache."""
    return cache_at(unit, target.pycache, f"slm-first-token-{target.name}")


def find_objection(unit: Unit) -> str:
    """Return why a unit must not have a bytecode cache, as a sentence; empty where it may."""
    if "PYTHONPYCACHEPREFIX=" in unit.fact("Environment"):
        return "the unit has a PYTHONPYCACHEPREFIX of its own."
    return find_cache_objection(unit)


def find_compiled(host: Host, opened: Iterable[str]) -> list[str]:
    """Return the opened sources without valid bytecode beside them: each start compiles these."""
    return [path for path in opened if path.endswith(".py") and not has_bytecode(host, path)]


def has_bytecode(host: Host, source: str) -> bool:
    """Return whether any interpreter's bytecode beside a source belongs to it, by its header (PEP 552)."""
    folder, name = os.path.split(source)
    try:
        found = os.lstat(host.path(source))
    except OSError:
        return False
    for cached in host.names(f"{folder}/__pycache__"):
        if cached.startswith(f"{name[:-3]}.") and cached.endswith(".pyc"):
            header = _read_header(host, f"{folder}/__pycache__/{cached}")
            # Bytecode that is not checked by time is checked by content, or not at all.
            if len(header) == 16 and (header[4:8] != bytes(4) or header[8:16] == stamp_of(found)):
                return True
    return False


def stamp_of(found: os.stat_result) -> bytes:
    """Return the time and size of a source in the form of its bytecode's header."""
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
    """Return the bytecode files in a cache by source, only for sources that a start opened.

    The cache belongs to another user, so it is not listed: a file counts only if an opened source leads to its path.
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
    """Return whether a source has no time of its own: another version of it could have the same time and size."""
    for source in sources:
        try:
            if os.lstat(host.path(source)).st_mtime_ns < _OLDEST_NS:
                return True
        except OSError:
            continue
    return False


def with_cached(plan: Plan, files: Mapping[str, PlanFile]) -> Plan:
    """Return the plan of a start that reads bytecode instead of compiling: `files` are its files by source."""
    rest = {file.path for file in plan.files}
    more = [file for source, file in files.items() if source not in rest]
    return replace(plan, files=[files.get(file.path, file) for file in plan.files] + more)


def fit_of(
    host: Host, target: Target, unit: Unit | None, uid: int | None, cache: Cache | None, sources: Iterable[str]
) -> Fit:
    """Return what this cache was made for, or nothing but whose it is; OSError where part of it no longer exists."""
    folders, listed = [], []
    for folder in sorted({os.path.dirname(source) for source in sources}):
        found = os.lstat(host.path(folder))
        folders.append((found.st_ino, found.st_mtime_ns, folder))
    for source in sorted(sources):
        found = os.lstat(host.path(source))
        listed.append((found.st_ino, found.st_size, found.st_mtime_ns, source))
    return Fit(
        cache.path if cache else "",
        cache.folder if cache else "",
        os.lstat(host.path(cache.folder)).st_ino if cache else 0,
        "dynamic" if uid is None else str(uid),
        (unit.name, unit.user) if unit else (),
        tuple(folders),
        tuple(listed),
    )
