"""hugetlbfs mounts as the kernel reads and writes them: options, mountinfo, mount(2), umount2(2).

Remounting hugetlbfs with another size, mode, gid or pagesize returns success and changes nothing (fs/hugetlbfs/inode.c
has no reconfigure), and a second mount on a path stacks. So options change by unmounting and mounting, and exactly one
mount must be on a path afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...host.errors import ParseError, SettingError
from ...host.files import Host
from ...host.mountinfo import MountEntry, mounted_at, read_mountinfo
from ...host.processes import holders
from ...host.sizes import format_size, is_number, parse_size
from .hugetlb import default_page_bytes

_MS_NOSUID, _MS_NODEV = 2, 4
_UMOUNT_NOFOLLOW = 8
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
DEFAULT_MODE = 0o755
"""hugetlbfs prints no mode= for this value (hugetlbfs_show_options)."""


@dataclass(frozen=True)
class MountSpec:
    """A hugetlbfs mount, wanted or found. Sizes in bytes; None as `size_bytes` is no limit."""

    path: str
    page_size_bytes: int
    size_bytes: int | None = None
    mode: int = DEFAULT_MODE
    uid: int = 0
    gid: int = 0

    @property
    def name(self) -> str:
        return f"hugetlbfs.{self.path}"

    @property
    def options(self) -> str:
        """Return the mount options in one fixed spelling for people: sizes as people write them."""
        return self._spelled("" if self.size_bytes is None else format_size(self.size_bytes))

    @property
    def data(self) -> str:
        """Return the mount options for mount(2) and for a unit: the size in bytes, as in units of earlier releases."""
        return self._spelled("" if self.size_bytes is None else str(self.size_bytes))

    def _spelled(self, size: str) -> str:
        page = format_size(self.page_size_bytes)
        limit = f",size={size}" if size else ""
        return f"pagesize={page},mode={self.mode:04o},uid={self.uid},gid={self.gid}{limit}"


def parse_options(path: str, options: str, default_page_bytes: int) -> MountSpec:
    """Parse a hugetlbfs mount's options in any spelling: `64M` or `67108864`, `mode=0770` or `mode=770`."""
    fields = dict(item.partition("=")[::2] for item in options.split(",") if item)
    try:
        size = fields.get("size")
        return MountSpec(
            path=path,
            page_size_bytes=parse_size(fields["pagesize"]) if "pagesize" in fields else default_page_bytes,
            # The kernel prints up to 64 bits of bytes, more than a size that a user may give.
            size_bytes=None if size is None else int(size) if is_number(size) else parse_size(size),
            mode=int(fields.get("mode", f"{DEFAULT_MODE:o}"), 8),
            uid=int(fields.get("uid", "0")),
            gid=int(fields.get("gid", "0")),
        )
    except (ValueError, SettingError) as error:
        raise ParseError(f"hugetlbfs options of {path}", "pagesize, size, mode, uid and gid", options) from error


def found_mount(host: Host, path: str) -> MountSpec | None:
    """Return the one hugetlbfs mount on a path, None for no mount; SettingError for stacked or other mounts."""
    return _single(host, path, mounted_at(read_mountinfo(host), path))


def hugetlbfs_mounts(host: Host) -> list[MountSpec]:
    """Return every hugetlbfs mount of the host whose options can be read, including systemd's /dev/hugepages."""
    return [mount for mount in _each_mount(host).values() if isinstance(mount, MountSpec)]


def unreadable_mounts(host: Host) -> dict[str, SettingError]:
    """Return the errors of unreadable hugetlbfs mounts by knob name: no reason to stop unless they are wanted."""
    return {f"hugetlbfs.{path}": why for path, why in _each_mount(host).items() if isinstance(why, SettingError)}


def _each_mount(host: Host) -> dict[str, MountSpec | SettingError]:
    default = default_page_bytes(host)
    mounts: dict[str, MountSpec | SettingError] = {}
    for entry in read_mountinfo(host):
        if entry.fstype == "hugetlbfs":
            try:
                mounts[entry.path] = parse_options(entry.path, entry.super_options, default)
            except SettingError as error:
                mounts[entry.path] = error
    return mounts


def _single(host: Host, path: str, entries: Sequence[MountEntry]) -> MountSpec | None:
    if not entries:
        return None
    if len(entries) > 1 or entries[0].fstype != "hugetlbfs":
        raise SettingError(
            f"hugetlbfs.{path}",
            "one hugetlbfs mount",
            " over ".join(f"{entry.fstype} ({entry.source})" for entry in reversed(entries)),
            "Something else is mounted there, and mounting over it would hide it.",
            f"unmount {path} by hand, or choose another path.",
        )
    return parse_options(path, entries[0].super_options, default_page_bytes(host))


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
            # Imported late: a host compiles everything that is imported, and an audit removes no mount.
            from .mount_guard import refuse_lost_mount

            refuse_lost_mount(host, self.path, self.new.options if self.new else None, self.accept)

    def apply(self, host: Host) -> None:
        wanted = self.new
        found = found_mount(host, self.path)
        if found == wanted:
            return
        bound: list[str] = []
        if found is not None:
            from ...host.unit_users import bound_services

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
        from ...host.unit_users import start_again

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
