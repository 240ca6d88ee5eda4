"""Which files some processes open, in order: fanotify(7) on whole file systems, filtered by process.

Only root may watch a file system (CAP_SYS_ADMIN). A container's overlay is a file system of its own, mounted as the
container starts, so new mounts are watched as they appear. fanotify does not report names that do not exist, reads of
metadata, or which bytes of a file were read; page residency shows the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...containers.mounted import MountTables, Place
from ...host.deadline import Deadline
from ...host.errors import SettingError
from ...host.files import Host
from ...host.link_free import LinkFree
from ...host.mountinfo import MOUNTINFO, MountEntry, is_of_a_user, read_mountinfo
from .members import Belongs

# include/uapi/linux/fanotify.h
_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_MARK_ADD, _MARK_FLUSH, _MARK_FILESYSTEM = 0x1, 0x80, 0x100
_OPEN, _QUEUE_OVERFLOW, _ON_DIRECTORY = 0x20, 0x4000, 0x40000000
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")
EVENTS_A_READ = 256
"""Each event comes with a file descriptor. A process may have 1,024, and loses events beyond these."""
_WAIT_MS = 200
DRAIN_S = 10.0
"""The time limit for reading the events that are queued at the end: a million events."""

_BEGIN_S = 1.0

_IN_MEMORY = frozenset(
    {
        "autofs",
        "bpf",
        "binfmt_misc",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "ramfs",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sysfs",
        "tmpfs",
        "tracefs",
    }
)
"""File systems without a disk below: their files cannot be prefetched."""


@dataclass(frozen=True)
class Opened:
    """One file or folder that a process opened. `place` is set, and `path` is the process's own, until it is placed.

    `inside` is the path in the process's own mount namespace, where the host has the file at another one.
    """

    path: str
    is_folder: bool
    inside: str = ""
    place: Place | None = None
    pid: int = 0


@dataclass
class Seen:
    """What a watch has seen so far.

    `opened` has files of the host by path, and others by `MOUNT:path` until they are placed. `unattributed` counts
    events of processes that had ended before they were identified. `elsewhere` counts files of the watched processes
    that cannot be found on the host. `unwatched` are mounts that the kernel does not let root watch, with the reason.
    `mounts` are all that were there at some time.
    """

    opened: dict[str, Opened] = field(default_factory=dict)
    unattributed: int = 0
    elsewhere: int = 0
    overflowed: bool = False
    unwatched: list[str] = field(default_factory=list)
    mounts: list[MountEntry] = field(default_factory=list)

    @property
    def folders(self) -> list[str]:
        """Return the folders that were listed, in order of their first opening."""
        return [opened.path for opened in self.opened.values() if opened.is_folder]


class Watch:
    """An active watch. Events before `begin` are not collected."""

    def __init__(self, descriptor: int, belongs: Belongs, marks: Marks) -> None:
        self._marks = marks
        self._collector = Collector(descriptor, belongs)
        self._collector.start()

    def begin(self) -> None:
        """Start collecting: only what is opened from here on counts."""
        self._collector.begin()

    def end(self, deadline: Deadline) -> Seen:
        """Stop watching and return what was seen. No new event is queued, so the queue drains; the deadline holds."""
        # However busy others are: without marks there are no new events.
        self._marks.flush()
        seen = self._collector.stop(deadline.left_s(DRAIN_S))
        seen.unwatched, seen.mounts = self._marks.unwatched, list(self._marks.mounts)
        return seen


class Marks(threading.Thread):
    """A thread that marks each file system as it is mounted; the kernel tells when the mounts have changed.

    A runtime mounts two overlays one after the other, and both may get the same device and the same mount id. So a
    mount is known by all that mountinfo has of it. A container that is started again gets its overlay with the very
    same entry; its mark went with the mount before, so overlays are marked at each change: a mark twice is one.
    """

    def __init__(self, host: Host, descriptor: int) -> None:
        super().__init__(name="mounts", daemon=True)
        self._host = host
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._is_over = False
        # Before the mounts are read: no change may fall between.
        self._changes = os.open(host.path(MOUNTINFO), os.O_RDONLY | os.O_CLOEXEC)
        self.mounts: dict[MountEntry, None] = {}
        try:
            found = read_mountinfo(host)
            self.mounts.update(dict.fromkeys(found))
            self.unwatched = _mark_all(descriptor, watched_mounts(found))
        except BaseException:
            os.close(self._changes)
            raise

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._changes, select.POLLPRI | select.POLLERR)
        try:
            while not self._is_over:
                if poll.poll(_WAIT_MS):
                    self.mark_new()
        finally:
            os.close(self._changes)

    def mark_new(self) -> None:
        """Mark what is mounted since the last look. A mount that is gone again is no loss."""
        with contextlib.suppress(OSError, SettingError):
            new = [
                mount for mount in read_mountinfo(self._host) if mount not in self.mounts or mount.fstype == "overlay"
            ]
            with self._lock:
                if not self._is_over:
                    self.mounts.update(dict.fromkeys(new))
                    for mount in watched_mounts(new):
                        if not is_of_a_user(mount):
                            _mark(self._descriptor, mount)

    def flush(self) -> None:
        """Remove all marks, and add none any more."""
        # A file system that does not answer may hold the thread for ever.
        is_locked = self._lock.acquire(timeout=_BEGIN_S)
        self._is_over = True
        _libc().fanotify_mark(self._descriptor, _MARK_FLUSH | _MARK_FILESYSTEM, 0, _AT_FDCWD, None)
        if is_locked:
            self._lock.release()


@contextlib.contextmanager
def watching(host: Host, belongs: Belongs) -> Iterator[Watch]:
    """Watch every file system that has a disk below it; SettingError where the kernel supports no watch at all."""
    descriptor = _open_group()
    try:
        marks = Marks(host, descriptor)
        watch = Watch(descriptor, belongs, marks)
        marks.start()
        try:
            yield watch
        finally:
            watch.end(Deadline.after(0))
            # It uses the group's descriptor, whose number must not be another file's before it has ended.
            marks.join(_BEGIN_S)
    finally:
        os.close(descriptor)


def watched_mounts(mounts: Sequence[MountEntry]) -> list[MountEntry]:
    """Return one mount of each file system that has a disk or a network below it."""
    by_device: dict[str, MountEntry] = {}
    for mount in mounts:
        if mount.fstype not in _IN_MEMORY:
            by_device.setdefault(mount.device, mount)
    return list(by_device.values())


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "fanotify_mark"):
        libc.fanotify_mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)
    return libc


def _open_group() -> int:
    libc = _libc()
    if not hasattr(libc, "fanotify_init"):
        raise _unavailable("this C library has no fanotify")
    descriptor = libc.fanotify_init(
        _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE | os.O_NONBLOCK
    )
    if descriptor < 0:
        raise _unavailable(os.strerror(ctypes.get_errno()))
    return int(descriptor)


def _unavailable(found: str) -> SettingError:
    return SettingError(
        "first_token",
        "fanotify, to see what a start reads",
        found,
        "The kernel tells it to a root with CAP_SYS_ADMIN, where it was built with CONFIG_FANOTIFY.",
        "run it on the host itself, not in a container without that capability; nothing was stopped or changed.",
    )


def _mark_all(descriptor: int, mounts: Sequence[MountEntry]) -> list[str]:
    """Mark these mounts; return those that cannot be watched, with the reason. SettingError where none can."""
    unwatched = []
    for mount in mounts:
        # Opening a file there would need its owner's program to answer, and nothing here waits for that.
        reason = "another user's program answers for it" if is_of_a_user(mount) else _mark(descriptor, mount)
        if reason:
            unwatched.append(f"{mount.path} ({mount.fstype}): {reason}")
    if mounts and len(unwatched) == len(mounts):
        raise _unavailable(unwatched[0])
    return unwatched


def _mark(descriptor: int, mount: MountEntry) -> str | None:
    if not _libc().fanotify_mark(
        descriptor, _MARK_ADD | _MARK_FILESYSTEM, _OPEN | _ON_DIRECTORY, _AT_FDCWD, os.fsencode(mount.path)
    ):
        return None
    return os.strerror(ctypes.get_errno())


class Collector(threading.Thread):
    """A thread that reads events as they come, since a process can be identified only while it is alive."""

    def __init__(self, descriptor: int, belongs: Belongs) -> None:
        super().__init__(name="fanotify", daemon=True)
        self.descriptor = descriptor
        self.belongs = belongs
        self.seen = Seen()
        self._known: set[tuple[int, str]] = set()
        self._tables = MountTables(Host())
        self._paths = LinkFree(Host())
        self._lock = threading.Lock()
        self._has_begun = False
        self._ending = threading.Event()
        self._until = Deadline.after(0)

    def begin(self) -> None:
        # What is queued now was opened before. Others may open files faster than these are read.
        until = Deadline.after(_BEGIN_S)
        with self._lock:
            while self._read() and not until.is_over:
                pass
            self.seen = Seen()
            self._has_begun = True

    def stop(self, most_s: float) -> Seen:
        self._until = Deadline.after(most_s)
        self._ending.set()
        self.join(most_s + 1)
        if self.is_alive():
            # Blocked by a file system; what it has seen so far counts.
            self.seen.overflowed = True
        return self.seen

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while True:
            is_ending = self._ending.is_set()
            if poll.poll(0 if is_ending else _WAIT_MS):
                with self._lock:
                    data = self._read()
                    self.take(data)
            elif is_ending:
                return
            if is_ending and self._until.is_over:
                self.seen.overflowed = True
                return

    def _read(self) -> bytes:
        """Read some events, b"" where there are none; before `begin`, discard them at once."""
        try:
            data = os.read(self.descriptor, EVENTS_A_READ * _EVENT.size)
        except OSError:
            return b""
        if self._has_begun:
            return data
        for file in descriptors_of(data):
            os.close(file)
        return b"" if not data else b"\0"

    def take(self, data: bytes) -> None:
        offset = 0
        while offset + _EVENT.size <= len(data):
            length, _, _, _, mask, file, pid = _EVENT.unpack_from(data, offset)
            offset += max(length, _EVENT.size)
            if mask & _QUEUE_OVERFLOW:
                self.seen.overflowed = True
            if file >= 0:
                try:
                    self.note(file, pid)
                finally:
                    os.close(file)

    def note(self, file: int, pid: int) -> None:
        # A process of another pid namespace has no id here, and neither systemd nor this process started it.
        if pid in (0, os.getpid()):
            return
        path = _path_of(file)
        if path is None:
            self.seen.elsewhere += bool(self.belongs(pid))
            return
        # A container may have another file at a path of the host.
        mount_id = _mount_id(file)
        if (mount_id, path) in self._known:
            return
        belongs = self.belongs(pid)
        if belongs is None:
            self.seen.unattributed += 1
        if not belongs:
            return
        found = os.fstat(file)
        if not found.st_nlink:
            # Deleted since, such as a temporary file: no later start reads it.
            return
        is_here = self._is_at(path, found)
        if not is_here:
            # Bytecode is written under another name, and has its own by the time that the process was asked who it is.
            path = _path_of(file) or path
            is_here = self._is_at(path, found)
        # A group without file identifiers does not report in the event whether it was a folder (fanotify(7)).
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_here:
            self._known.add((mount_id, path))
            self.seen.opened.setdefault(path, Opened(path, is_folder, pid=pid))
            return
        mount = self._tables.find(pid, mount_id, path)
        if mount is None:
            self.seen.elsewhere += 1
            return
        self._known.add((mount_id, path))
        place = Place(mount, path, found.st_ino, found.st_size, found.st_mtime_ns)
        self.seen.opened[f"{mount_id}:{path}"] = Opened(path, is_folder, path, place, pid)

    def _is_at(self, path: str, found: os.stat_result) -> bool:
        """Return whether the host itself has the opened file at that path, which may be a container's own."""
        try:
            return os.path.samestat(self._paths.lstat(path), found)
        except OSError:
            return False


def descriptors_of(data: bytes) -> list[int]:
    """Return the file descriptors that came with some events."""
    found, offset = [], 0
    while offset + _EVENT.size <= len(data):
        length, _, _, _, _, file, _ = _EVENT.unpack_from(data, offset)
        offset += max(length, _EVENT.size)
        if file >= 0:
            found.append(file)
    return found


def _path_of(file: int) -> str | None:
    """Return the path that an open file has by now; None where it is deeper than a path may be long (ENAMETOOLONG)."""
    try:
        return os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        return None


def _mount_id(file: int) -> int:
    """Return the id of the mount through which a file was opened; 0 where the kernel does not tell it."""
    try:
        with open(f"/proc/self/fdinfo/{file}", "rb") as stream:
            return int(stream.read().partition(b"mnt_id:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return 0
