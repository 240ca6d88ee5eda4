"""Mount namespaces of a host: which mounts each sees, and what happens to them on unmounting (mount_namespaces(7)).

umount(2) takes a mount away where it stands, and in namespaces that its parent mount propagates to; a copy elsewhere
stays. rmdir(2) of a folder detaches whatever any namespace has mounted on it (fs/namespace.c, detach_mounts).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .errors import ParseError
from .files import Host
from .mountinfo import MountEntry, mounted_at, parse_mountinfo, read_mountinfo

Place = tuple[str, str]
"""A folder as the kernel identifies it: its filesystem's `major:minor`, and the path in that filesystem."""


@dataclass(frozen=True)
class Namespace:
    """The mounts of one namespace, as a process in it sees them; `process` is `name (pid N)`, "" for this one."""

    process: str
    mounts: Sequence[MountEntry]

    def place(self, entry: MountEntry) -> Place | None:
        """Return the folder that a mount stands on; None where its parent is not visible."""
        parent = self.parent(entry)
        return _place_in(parent, entry.path) if parent else None

    def parent(self, entry: MountEntry) -> MountEntry | None:
        return next((other for other in self.mounts if other.mount_id == entry.parent_id), None)


def read_namespaces(host: Host) -> list[Namespace]:
    """Return every mount namespace that a process is in, this process's own first.

    A process with a root folder of its own sees only what is mounted below it, so it is read separately.
    """
    own = _key(host, "self")
    found = {own: Namespace("", read_mountinfo(host))}
    for pid in filter(str.isdigit, host.names("/proc")):
        key = _key(host, pid)
        if key in found or (own[0] and key[0] == own[0]):
            continue
        # The process may end meanwhile, and a zombie has no mounts.
        with contextlib.suppress(OSError, ParseError):
            mounts = parse_mountinfo(host.read(f"/proc/{pid}/mountinfo"))
            if not key[0] and _is_known(mounts, found.values()):
                continue
            name = (host.read_or_none(f"/proc/{pid}/comm") or "?").strip()
            found[key] = Namespace(f"{name} (pid {pid})", mounts)
    return list(found.values())


def _is_known(mounts: Sequence[MountEntry], namespaces: Iterable[Namespace]) -> bool:
    """Return whether these are the mounts of one of the namespaces: no two mounts of a kernel have one id.

    The kernel may hide the name of a process's namespace from root as well (ptrace(2), access mode checking).
    """
    ids = {entry.mount_id for entry in mounts}
    return any(entry.mount_id in ids for namespace in namespaces for entry in namespace.mounts)


def mounts_that_stay(namespaces: Sequence[Namespace], path: str) -> Iterator[tuple[Namespace, MountEntry]]:
    """Yield other mounts of the file system at a path, which umount(2) there leaves in place."""
    own = namespaces[0]
    standing = mounted_at(own.mounts, path)
    if not standing:
        return
    taken = standing[-1]
    parent = own.parent(taken)
    groups = _receiving(namespaces, parent)
    for namespace in namespaces:
        for entry in namespace.mounts:
            if entry.device != taken.device or (namespace is own and entry.mount_id == taken.mount_id):
                continue
            above = namespace.parent(entry)
            is_propagated = above is not None and bool(groups & _groups(above, "shared", "master", "propagate_from"))
            if not (is_propagated and namespace.place(entry) == own.place(taken)):
                yield namespace, entry


def mounts_on_folder(namespaces: Sequence[Namespace], path: str) -> Iterator[tuple[Namespace, MountEntry]]:
    """Yield what any namespace has mounted on a folder of this one: rmdir(2) there would detach it."""
    place = _place_of(namespaces[0], path)
    for namespace in namespaces:
        for entry in namespace.mounts:
            if place is not None and namespace.place(entry) == place:
                yield namespace, entry


def _key(host: Host, pid: str) -> tuple[str, str]:
    links = []
    for name in ("ns/mnt", "root"):
        try:
            links.append(os.readlink(host.path(f"/proc/{pid}/{name}")))
        except OSError:
            links.append("")
    # A process whose namespace cannot be identified counts as a namespace of its own.
    return (links[0], links[1]) if links[0] else ("", pid)


def _place_of(namespace: Namespace, path: str) -> Place | None:
    above = [entry for entry in namespace.mounts if entry.path == "/" or f"{path}/".startswith(f"{entry.path}/")]
    below = [entry for entry in above if entry.path != path]
    # Of several mounts on one path the last one listed is the visible one.
    visible = max(below, key=lambda entry: len(entry.path), default=None)
    tops = [entry for entry in below if visible and entry.path == visible.path]
    return _place_in(tops[-1], path) if tops else None


def _place_in(mount: MountEntry, path: str) -> Place:
    inner = os.path.relpath(path, mount.path)
    return mount.device, os.path.normpath(f"{mount.root.rstrip('/')}/{inner}")


def _groups(entry: MountEntry, *kinds: str) -> set[str]:
    fields = (field.partition(":") for field in entry.propagation)
    return {group for kind, _, group in fields if kind in kinds}


def _receiving(namespaces: Sequence[Namespace], parent: MountEntry | None) -> set[str]:
    """Return the peer groups to which mounts below this one propagate: its own, those of its slaves, and so on."""
    groups = _groups(parent, "shared") if parent else set()
    entries = [entry for namespace in namespaces for entry in namespace.mounts if _groups(entry, "master")]
    grown = True
    while grown:
        more = {
            group for entry in entries if groups & _groups(entry, "master") for group in _groups(entry, "shared")
        } - groups
        groups |= more
        grown = bool(more)
    return groups
