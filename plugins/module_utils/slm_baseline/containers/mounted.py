"""Which file of the host a file is that a process opened in a mount namespace of its own.

A bind mount or a volume is another way to a folder of the host: device and root of the mount lead to it. A file of an
overlay lies in one of its layers. Paths are compared with what was opened, so a wrong guess is none at all.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..host.errors import ParseError
from ..host.files import Host
from ..host.link_free import LinkFree
from ..host.mountinfo import MountEntry, parse_mountinfo
from .overlay import LayerEntry, LayerStack, parse_overlay, with_real_layers

_INODE_BITS = 0xFFFFFFFF
"""overlayfs may put the number of a layer above the bits of an inode (`xino`)."""


@dataclass(frozen=True)
class Place:
    """An opened file or folder as its process has it: the mount, the path in that namespace, and what stat(2) told."""

    mount: MountEntry
    path: str
    inode: int
    size_bytes: int
    mtime_ns: int

    @property
    def within(self) -> str:
        """Return the path from the mount's own folder on, beginning with `/`."""
        below = self.path[len(self.mount.path.rstrip("/")) :]
        return below or "/"


@dataclass(frozen=True)
class HostFile:
    """A file or folder of the host. `layer` counts from the top of an overlay; it is -1 for none."""

    path: str
    layer: int = -1


@dataclass
class HostPaths:
    """Finds the files of places. `mounts` are the host's, `lower` the layers that a runtime names for a cut list."""

    host: Host
    mounts: Sequence[MountEntry]
    lower: Sequence[str] = ()
    _stacks: dict[str, LayerStack | None] = field(default_factory=dict, repr=False)
    _paths: LinkFree = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._paths = LinkFree(self.host)

    def find_file(self, place: Place) -> HostFile | None:
        """Return the file of the host; None where it is not the one that was opened, or lies where nobody can say."""
        if place.mount.fstype == "overlay":
            stack = self.stack_of(place.mount)
            entries = stack.file(place.within) if stack else []
            if not entries or not _is_same(entries, place):
                return None
            # The last one has the content. A copy of attributes alone in the upper layer changes nothing in that.
            return HostFile(entries[-1].path, entries[-1].number)
        for path in self.outside(place):
            try:
                found = self._paths.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and _is_inode(found, place):
                return HostFile(path)
        return None

    def find_folders(self, place: Place) -> list[HostFile]:
        """Return the folders of the host that the opened folder consists of."""
        if place.mount.fstype == "overlay":
            stack = self.stack_of(place.mount)
            return [HostFile(entry.path, entry.number) for entry in (stack.folders(place.within) if stack else [])]
        for path in self.outside(place):
            try:
                found = self._paths.lstat(path)
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode) and found.st_ino == place.inode:
                return [HostFile(path)]
        return []

    def outside(self, place: Place) -> list[str]:
        """Return the paths at which the host may have a file of a bind mount or a volume, the closest mount first."""
        inner = os.path.normpath(f"{place.mount.root.rstrip('/')}/{place.within.lstrip('/')}")
        found = [
            (len(mount.root), os.path.normpath(f"{mount.path.rstrip('/')}/{os.path.relpath(inner, mount.root)}"))
            for mount in self.mounts
            if mount.device == place.mount.device and _is_at_or_below(inner, mount.root)
        ]
        return list(dict.fromkeys(path for _, path in sorted(found, reverse=True)))

    def stack_of(self, mount: MountEntry) -> LayerStack | None:
        """Return the layers of an overlay; None for another mount, and where they cannot be found."""
        if mount.fstype != "overlay":
            return None
        # Neither the device nor the id of a mount says which it is: both are used again at once.
        if mount.super_options not in self._stacks:
            self._stacks[mount.super_options] = self._find_stack(mount)
        return self._stacks[mount.super_options]

    def _find_stack(self, mount: MountEntry) -> LayerStack | None:
        # Whoever mounts an overlay in a namespace of his own chooses the names of its layers.
        if not any(other.super_options == mount.super_options for other in self.mounts if other.fstype == "overlay"):
            return None
        try:
            overlay = parse_overlay(mount.super_options)
        except ParseError:
            return None
        places = [other.path for other in self.mounts if other.super_options == mount.super_options]
        real = with_real_layers(self.host, overlay, places)
        if real is None and self.lower:
            # Old kernels cut the list at a page (show_options in fs/overlayfs/super.c).
            whole = "lowerdir=" + ":".join(path.replace("\\", "\\\\").replace(",", "\\054") for path in self.lower)
            upper = f",upperdir={overlay.upper}" if overlay.upper else ""
            real = with_real_layers(self.host, parse_overlay(whole + upper), places)
        return LayerStack(self.host, real) if real else None


def _is_at_or_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _is_inode(found: os.stat_result, place: Place) -> bool:
    return (found.st_ino, found.st_size, found.st_mtime_ns) == (place.inode, place.size_bytes, place.mtime_ns)


def _is_same(entries: Sequence[LayerEntry], place: Place) -> bool:
    """Return whether this is what was opened: size and time of the topmost file, and the inode of one of them."""
    top = entries[0].status
    inodes = {entry.status.st_ino & _INODE_BITS for entry in entries}
    # A file that was copied up keeps the number that it had before.
    is_known = place.inode & _INODE_BITS in inodes or entries[0].number == 0
    return (top.st_size, top.st_mtime_ns) == (place.size_bytes, place.mtime_ns) and is_known


class MountTables:
    """The mounts of other namespaces, by the id of a mount; read when a process is seen, since it may end at once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[tuple[str, int], MountEntry] = {}
        self._texts: dict[str, str] = {}

    def find(self, pid: int, mount_id: int, path: str) -> MountEntry | None:
        """Return the mount through which a process has opened that path; None where it cannot be told any more."""
        key = (self._namespace(pid), mount_id)
        former = self._known.get(key)
        # Read each time: a runtime copies all mounts of the host and unmounts them before the container begins, and ids
        # are used again at once, so that a model's mount has the id that a copy of `/` had.
        with contextlib.suppress(OSError, ParseError):
            text = self._host.read(f"/proc/{pid}/mountinfo")
            if text != self._texts.get(key[0]):
                self._known.update({(key[0], entry.mount_id): entry for entry in parse_mountinfo(text)})
                self._texts[key[0]] = text
        # An event may have waited while mounts have changed.
        found = (self._known.get(key), former)
        return next((entry for entry in found if entry and _is_at_or_below(path, entry.path)), None)

    def _namespace(self, pid: int) -> str:
        try:
            return os.readlink(self._host.name(f"/proc/{pid}/ns/mnt"))
        except OSError:
            return ""
