"""What some processes open, in order, as the kernel tells it: fanotify(7) on whole file systems, filtered by process.

Only root may watch a file system (CAP_SYS_ADMIN). What the kernel does not tell: names that do not exist, reads of
metadata, and which bytes of a file were read; residency answers the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ...host.errors import SettingError, os_problem
from ...host.files import Host
from ...host.mountinfo import MountEntry, read_mountinfo

# include/uapi/linux/fanotify.h
_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_OPEN, _QUEUE_OVERFLOW, _ON_DIRECTORY = 0x20, 0x4000, 0x40000000
_EVENT = struct.Struct("=IBBHQii")
_READ_BYTES = 1 << 18
_WAIT_MS = 200

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
"""File systems without a disk below: nothing of theirs can be read ahead."""


@dataclass(frozen=True)
class Opened:
    """One file or folder that a watched process opened, and the program that opened it first."""

    path: str
    is_folder: bool
    program: str


@dataclass
class Seen:
    """What a watch has seen so far.

    `unattributed` counts events of processes that had ended before they were asked, `elsewhere` files of the watched
    processes that the host has not at that path: a mount namespace may hold another file there, or it is gone again.
    """

    opened: dict[str, Opened] = field(default_factory=dict)
    unattributed: int = 0
    elsewhere: int = 0
    overflowed: bool = False

    @property
    def folders(self) -> list[str]:
        """Folders that were listed, in order of their first opening."""
        return [opened.path for opened in self.opened.values() if opened.is_folder]


def watched_mounts(mounts: Sequence[MountEntry]) -> list[MountEntry]:
    """One mount of each file system that has a disk or a network below it."""
    by_device: dict[str, MountEntry] = {}
    for mount in mounts:
        if mount.fstype not in _IN_MEMORY:
            by_device.setdefault(mount.device, mount)
    return list(by_device.values())


@contextlib.contextmanager
def watching(host: Host, belongs: Callable[[int], bool | None]) -> Iterator[Seen]:
    """Collect, while the block runs, what processes open of which `belongs(pid)` is true; SettingError.

    `belongs` answers None for a process that has ended and cannot be asked.
    """
    descriptor = _open_group()
    try:
        for mount in watched_mounts(read_mountinfo(host)):
            _mark(descriptor, mount)
        collector = _Collector(descriptor, belongs)
        collector.start()
        try:
            yield collector.seen
        finally:
            collector.stop()
    finally:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


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
        "run it on the host itself, not in a container without that capability; nothing was changed.",
    )


def _mark(descriptor: int, mount: MountEntry) -> None:
    libc = _libc()
    libc.fanotify_mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)
    if libc.fanotify_mark(
        descriptor, _MARK_ADD | _MARK_FILESYSTEM, _OPEN | _ON_DIRECTORY, -100, os.fsencode(mount.path)
    ):
        number = ctypes.get_errno()
        raise os_problem(
            f"first_token {mount.path}", "a file system that can be watched", OSError(number, os.strerror(number))
        )


class _Collector(threading.Thread):
    """Reads events as they come, since a process can be asked who it is only while it lives."""

    def __init__(self, descriptor: int, belongs: Callable[[int], bool | None]) -> None:
        super().__init__(name="fanotify", daemon=True)
        self.descriptor = descriptor
        self.belongs = belongs
        self.seen = Seen()
        self.programs: dict[int, str] = {}
        self.ending = threading.Event()

    def stop(self) -> None:
        self.ending.set()
        self.join()

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while True:
            ready = poll.poll(0 if self.ending.is_set() else _WAIT_MS)
            if ready:
                with contextlib.suppress(BlockingIOError):
                    self.take(os.read(self.descriptor, _READ_BYTES))
            elif self.ending.is_set():
                return

    def take(self, data: bytes) -> None:
        offset = 0
        while offset + _EVENT.size <= len(data):
            length, _, _, _, mask, file, pid = _EVENT.unpack_from(data, offset)
            offset += length
            if mask & _QUEUE_OVERFLOW:
                self.seen.overflowed = True
            if file >= 0:
                try:
                    self.note(file, pid)
                finally:
                    os.close(file)

    def note(self, file: int, pid: int) -> None:
        if pid == os.getpid():
            return
        path = os.readlink(f"/proc/self/fd/{file}")
        if path in self.seen.opened:
            return
        belongs = self.belongs(pid)
        if belongs is None:
            self.seen.unattributed += 1
        elif belongs and not _is_at(path, file):
            self.seen.elsewhere += 1
        elif belongs:
            # A group without file identifiers does not tell in the event whether it was a folder (fanotify(7)).
            is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
            # What it ran when it was last asked stands for a process that has ended since.
            self.programs[pid] = program_of(pid) or self.programs.get(pid, "")
            self.seen.opened[path] = Opened(path, is_folder, self.programs[pid])


def _is_at(path: str, file: int) -> bool:
    """Whether the host itself has the opened file at that path."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(file))
    except OSError:
        return False


def program_of(pid: int) -> str:
    """The program that a process runs; empty for one that has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def in_tree(root_pid: int) -> Callable[[int], bool | None]:
    """Whether a process is `root_pid` or descends from it, by its parents in /proc."""
    known: dict[int, bool] = {root_pid: True}

    def belongs(pid: int) -> bool | None:
        chain = []
        current = pid
        while current not in known:
            chain.append(current)
            parent = _parent_of(current)
            if parent is None:
                return None
            if parent <= 1:
                known[current] = False
                break
            current = parent
        answer = known[current]
        known.update(dict.fromkeys(chain, answer))
        return answer

    return belongs


def in_unit(unit: str) -> Callable[[int], bool | None]:
    """Whether a process is in the control group of that unit; the group's path is not known before the unit starts.

    One that was in it once is known from then on: events come late on a busy host, and it may have ended by then.
    """
    members: set[int] = set()

    def belongs(pid: int) -> bool | None:
        if pid in members:
            return True
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                is_member = any(unit in line.rstrip("\n").split(":", 2)[2].split("/") for line in file)
        except (OSError, IndexError):
            return None
        if is_member:
            members.add(pid)
        return is_member

    return belongs


def _parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
