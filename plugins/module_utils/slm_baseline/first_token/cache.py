"""Folders of a target's own user, in which one start keeps what the next one wants: bytecode, compiled GPU kernels.

The target itself fills them: as its own user, in its own sandbox. Nobody else may read or write them. A start is told
of a folder only while it is still the one that was made, and all that runs in it is its owner's (fit.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..host.files import Host
from ..host.rmtree import remove_tree
from .fit import find_rights_above
from .recorder.start import Identity
from .recorder.unit import Unit


@dataclass(frozen=True)
class Cache:
    """Where a target's cache is. `path` is what the target is told, `folder` where that path is on the host.

    `lines` are for the unit's drop-in: they let the unit write there.
    """

    path: str
    folder: str
    lines: tuple[str, ...] = ()


def cache_at(unit: Unit | None, place: str, name: str, below: Sequence[str] = ()) -> Cache:
    """Return the cache in our folder `place`, with the folders `below` it.

    systemd creates and keeps that of a dynamic user, whose user id does not last, under this name (CacheDirectory=).
    """
    if unit and unit.has_dynamic_user:
        names = " ".join([name, *(f"{name}/{each}" for each in below)])
        lines = (f"CacheDirectory={names}", "UnsetEnvironment=CACHE_DIRECTORY")
        return Cache(f"/var/cache/{name}", f"/var/cache/private/{name}", lines)
    # Do not give a mount namespace to a unit that has none of its own.
    closed = unit and (unit.fact("ProtectSystem") == "strict" or unit.fact("ReadOnlyPaths"))
    return Cache(place, place, (f"ReadWritePaths=-{place}",) if closed else ())


def find_cache_objection(unit: Unit) -> str:
    """Return why a unit must not have a cache of any kind, as a sentence; empty where it may."""
    if unit.user in ("", "root", "0") and not unit.has_dynamic_user:
        return "the unit runs as root, whose interpreters would go on writing there; give it a User=."
    if unit.has_dynamic_user and unit.fact("CacheDirectory"):
        return "the unit has a CacheDirectory= of its own, and would be told of two."
    return find_rights_above(dict(unit.facts))


@contextlib.contextmanager
def in_making(host: Host, folders: Iterable[tuple[str, Sequence[str]]], identity: Identity | None) -> Iterator[None]:
    """Make new caches in place of former ones, within the block. If the block fails, restore the former ones.

    `folders` are paths, each with the folders below it. systemd makes those of a dynamic user, who has no `identity`.
    """
    made: list[str] = []
    try:
        for folder, below in folders:
            remove_tree(host.path(f"{folder}.former"))
            with contextlib.suppress(FileNotFoundError):
                os.rename(host.path(folder), host.path(f"{folder}.former"))
            made.append(folder)
            if identity:
                make_cache(host, folder, identity, below)
        yield
    except BaseException:
        for folder in made:
            remove_tree(host.path(folder))
            with contextlib.suppress(FileNotFoundError):
                os.rename(host.path(f"{folder}.former"), host.path(folder))
        raise
    for folder in made:
        remove_tree(host.path(f"{folder}.former"))


def make_cache(host: Host, folder: str, identity: Identity, below: Sequence[str] = ()) -> None:
    """Create the folder of a cache and those below it, accessible to its user alone: code of that user lies in it.

    The user gets the outermost one last: until then nobody else can put a link in our way.
    """
    os.mkdir(host.path(folder), mode=0o700)
    descriptor = os.open(host.path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in below:
            os.mkdir(name, mode=0o700, dir_fd=descriptor)
            os.chown(name, identity.uid, identity.gid, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, identity.uid, identity.gid)
    finally:
        os.close(descriptor)
