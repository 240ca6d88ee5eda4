"""Mounting and unmounting hugetlbfs: mount(2), umount2(2), and the change from one mount of a path to another.

Remounting hugetlbfs with another size, mode, gid or pagesize returns success and changes nothing (fs/hugetlbfs/inode.c
has no reconfigure), and a second mount on a path stacks. So options change by unmounting and mounting, and exactly one
mount must be on a path afterwards. Apart from hugetlbfs.py, because an audit changes no mount, and every host compiles
what it imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...host.errors import SettingError
from ...host.files import Host
from ...host.mountinfo import mounted_at, read_mountinfo
from ...host.processes import holders
from ...host.unit_users import bound_services, start_again
from .hugetlbfs import MountSpec, found_mount
from .mount_guard import refuse_lost_mount

_MS_NOSUID, _MS_NODEV = 2, 4
_UMOUNT_NOFOLLOW = 8
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def mount(host: Host, spec: MountSpec) -> None:
    """Mount with nosuid and nodev, and make a missing folder; OSError as the kernel raised it.

    The path is opened without following a link, and the mount is made on the opened folder: a user who swaps a folder
    for a link meanwhile gets an error. A user who moves it away gets no mount either.
    """
    with _walked(host, os.path.dirname(spec.path), make=True) as parent:
        name = os.path.basename(spec.path)
        with _opened(parent, name, make=True) as folder:
            _libc_call(
                "mount",
                spec.path,
                b"hugetlbfs",
                _by_descriptor(folder).encode(),
                b"hugetlbfs",
                _MS_NOSUID | _MS_NODEV,
                spec.data.encode(),
            )
        if not mounted_at(read_mountinfo(host), spec.path):
            _unmount_in(parent, name, spec.path)
            raise _moved(spec.path)


def unmount(host: Host, path: str) -> None:
    """Unmount, never lazily: a lazy unmount would leave the pages in use and hidden. Follows no link either."""
    with _walked(host, os.path.dirname(path)) as parent:
        _unmount_in(parent, os.path.basename(path), path)


def _unmount_in(parent: int, name: str, path: str) -> None:
    _libc_call("umount2", path, f"{_by_descriptor(parent)}/{name}".encode(), _UMOUNT_NOFOLLOW)


@contextlib.contextmanager
def _walked(host: Host, path: str, make: bool = False) -> Iterator[int]:
    """Open the folder at a path without following any link; yield its descriptor."""
    with contextlib.ExitStack() as held:
        folder = os.open(host.root, _FOLDER)
        held.callback(os.close, folder)
        for name in filter(None, path.split("/")):
            folder = held.enter_context(_opened(folder, name, make))
        yield folder


@contextlib.contextmanager
def _opened(parent: int, name: str, make: bool) -> Iterator[int]:
    try:
        try:
            folder = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(f"{_by_descriptor(parent)}/{name}", 0o755)
            folder = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _moved(f"{os.readlink(_by_descriptor(parent))}/{name}") from error
        raise
    try:
        yield folder
    finally:
        os.close(folder)


def _by_descriptor(folder: int) -> str:
    return f"/proc/self/fd/{folder}"


def _moved(path: str) -> SettingError:
    return SettingError(
        f"hugetlbfs.{path}",
        "a folder that stays where it is",
        "a symbolic link, or another folder",
        "Somebody replaced it during the mount.",
        "choose a path on which root alone can write.",
    )


def _libc_call(function: str, path: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


@dataclass(frozen=True)
class ChangeMount:
    """A change from one mount (or none) to another (or none) on one path; `accept` names the accepted losses."""

    path: str
    old: MountSpec | None
    new: MountSpec | None
    accept: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"hugetlbfs.{self.path}"

    @property
    def before(self) -> str:
        return self.old.options if self.old else "not mounted"

    @property
    def after(self) -> str:
        return self.new.options if self.new else "not mounted"

    def refuse_losses(self, host: Host) -> None:
        """Raise LossError where this removes a mount on which others rely."""
        if self.old is not None:
            refuse_lost_mount(host, self.path, self.new.options if self.new else None, self.accept)

    def apply(self, host: Host) -> None:
        wanted = self.new
        found = found_mount(host, self.path)
        if found == wanted:
            return
        bound: list[str] = []
        if found is not None:
            replace(self, old=found).refuse_losses(host)
            bound = bound_services(host, self.path) if wanted else []
            try:
                unmount(host, self.path)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise SettingError(
                    self.name,
                    wanted.options if wanted else "not mounted",
                    f"busy: {', '.join(holders(host, self.path)) or 'the kernel does not say by whom'}",
                    "hugetlbfs changes its options only by unmounting, and it is in use.",
                    "stop what uses it, then run again.",
                ) from error
        if wanted is not None:
            mount(host, wanted)
        settled = found_mount(host, self.path)
        if settled != wanted:
            raise SettingError(
                self.name,
                wanted.options if wanted else "not mounted",
                settled.options if settled else "not mounted",
                "The mount succeeded, but mountinfo shows other options.",
                "look for another writer of this mount (an automounter, a unit, fstab).",
            )
        if bound:
            self._start_again(host, bound)

    def _start_again(self, host: Host, bound: list[str]) -> None:
        """Start these units again: the user has accepted that they stop with the mount, not that they stay down."""
        down = start_again(host, bound)
        if down:
            raise SettingError(
                self.name,
                f"{', '.join(bound)} running again",
                f"{', '.join(down)} not running",
                "It is bound to the mount, stopped with it, and does not start again.",
                "look at its log; the mount returns to what it was.",
            )

    def reverse(self) -> ChangeMount:
        return ChangeMount(self.path, self.new, self.old, self.accept)
