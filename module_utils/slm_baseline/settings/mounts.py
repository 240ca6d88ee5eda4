"""hugetlbfs mounts: parse what is wanted and what is there, mount, unmount, and prove it.

Remounting hugetlbfs with another size, mode, gid or pagesize returns success and changes nothing (fs/hugetlbfs/inode.c
has no reconfigure), and a second mount on a path stacks. So options change by unmounting and mounting, and exactly one
mount must stand on a path afterwards.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..host.errors import ParseError, SettingError
from ..host.files import Host, missing_folders
from ..host.mountinfo import MountEntry, mounted_at, read_mountinfo
from ..host.processes import holders
from ..host.sizes import format_size, is_number, parse_size
from .pools import default_page_bytes, pool_sizes

_KEYS = ("path", "page_size", "size", "mode", "owner", "group")
_MODE = re.compile(r"0?[01]?[0-7]{3}")
_MS_NOSUID, _MS_NODEV = 2, 4
_DEFAULT_MODE = 0o755
"""hugetlbfs prints no mode= where it is this (hugetlbfs_show_options)."""


@dataclass(frozen=True)
class MountSpec:
    """A hugetlbfs mount, wanted or found. Sizes in bytes; `size_bytes` None is no limit."""

    path: str
    page_size_bytes: int
    size_bytes: int | None = None
    mode: int = _DEFAULT_MODE
    uid: int = 0
    gid: int = 0

    @property
    def name(self) -> str:
        return f"hugetlbfs.{self.path}"

    @property
    def options(self) -> str:
        """The mount options in one fixed spelling, as data for mount(2), for a unit, and for people."""
        size = "" if self.size_bytes is None else f",size={self.size_bytes}"
        page = format_size(self.page_size_bytes)
        return f"pagesize={page},mode={self.mode:04o},uid={self.uid},gid={self.gid}{size}"


def parse_options(path: str, options: str, default_page_bytes: int) -> MountSpec:
    """A hugetlbfs mount from its options, however they are spelled: `64M` or `67108864`, `mode=0770` or `mode=770`."""
    fields = dict(item.partition("=")[::2] for item in options.split(",") if item)
    try:
        size = fields.get("size")
        return MountSpec(
            path=path,
            page_size_bytes=parse_size(fields["pagesize"]) if "pagesize" in fields else default_page_bytes,
            size_bytes=None if size is None else parse_size(size),
            mode=int(fields.get("mode", f"{_DEFAULT_MODE:o}"), 8),
            uid=int(fields.get("uid", "0")),
            gid=int(fields.get("gid", "0")),
        )
    except (ValueError, SettingError) as error:
        raise ParseError(f"hugetlbfs options of {path}", "pagesize, size, mode, uid and gid", options) from error


def found_mount(host: Host, path: str) -> MountSpec | None:
    """The one hugetlbfs mount on a path, None where nothing is mounted; SettingError for stacked or other mounts."""
    return _single(host, path, mounted_at(read_mountinfo(host), path))


def hugetlbfs_mounts(host: Host) -> list[MountSpec]:
    """Every hugetlbfs mount of the host, systemd's /dev/hugepages included."""
    default = default_page_bytes(host)
    return [
        parse_options(entry.path, entry.super_options, default)
        for entry in read_mountinfo(host)
        if entry.fstype == "hugetlbfs"
    ]


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


def parse_mounts(host: Host, settings: object) -> list[MountSpec]:
    """The wanted mounts of the user's list; owners are resolved against the host's own passwd and group."""
    if settings is None:
        return []
    if not isinstance(settings, Sequence) or isinstance(settings, str):
        raise SettingError(
            "hugetlbfs_mounts",
            "a list of {path, page_size}",
            repr(settings),
            "Each mount is one entry.",
            "write a list.",
        )
    mounts = [_parse_mount(host, item) for item in settings]
    for index, mount in enumerate(mounts):
        for other in mounts[:index]:
            if (
                mount.path == other.path
                or f"{mount.path}/".startswith(f"{other.path}/")
                or f"{other.path}/".startswith(f"{mount.path}/")
            ):
                raise SettingError(
                    mount.name,
                    mount.options,
                    f"{other.path} ({other.options}) in the same list",
                    "Two mounts on one path, or one under the other, hide each other.",
                    "keep one entry a path.",
                )
    return mounts


def _parse_mount(host: Host, item: object) -> MountSpec:
    if not isinstance(item, Mapping):
        raise SettingError(
            "hugetlbfs_mounts",
            "{path, page_size}",
            repr(item),
            "A mount is a mapping.",
            "give it a path and a page_size.",
        )
    unknown = sorted(set(map(str, item)) - set(_KEYS))
    if unknown or "path" not in item or "page_size" not in item:
        raise SettingError(
            "hugetlbfs_mounts",
            "path and page_size, and optionally size, mode, owner, group",
            ", ".join(map(str, item)) or "nothing",
            f"Unknown: {', '.join(unknown)}." if unknown else "A mount needs both path and page_size.",
            "correct the entry.",
        )
    path = _path(item["path"])
    knob = f"hugetlbfs.{path}"
    page_size_bytes = parse_size(item["page_size"], f"{knob} page_size")
    return MountSpec(
        path=path,
        page_size_bytes=page_size_bytes,
        size_bytes=None if item.get("size") is None else _limit(f"{knob} size", item["size"], page_size_bytes),
        mode=_mode(knob, item.get("mode", f"{_DEFAULT_MODE:04o}")),
        uid=_id(host, knob, "owner", item.get("owner", "root")),
        gid=_id(host, knob, "group", item.get("group", "root")),
    )


def _path(value: object) -> str:
    text = str(value)
    plain = isinstance(value, str) and text.startswith("/") and os.path.normpath(text) == text and text.isprintable()
    if not plain or text == "/" or text.startswith("//") or not text.isascii() or set(text) & set("\\\"'%$,:# "):
        raise SettingError(
            "hugetlbfs_mounts.path",
            "an absolute path such as /mnt/huge",
            repr(value),
            "It must be absolute and plain: no `..`, no trailing slash, no blanks, quotes or %, : , $ #.",
            "correct the path.",
        )
    if text == "/dev/hugepages":
        raise SettingError(
            "hugetlbfs./dev/hugepages",
            "a mount of our own",
            "systemd's dev-hugepages.mount",
            "That path belongs to systemd.",
            "choose another path.",
        )
    return text


def _limit(knob: str, value: object, page_size_bytes: int) -> int:
    """The mount's size limit in bytes: whole pages, since the kernel rounds anything else down without a word."""
    size_bytes = parse_size(value, knob)
    if size_bytes == 0 or page_size_bytes == 0 or size_bytes % page_size_bytes:
        raise SettingError(
            knob,
            f"a multiple of the page size, {format_size(page_size_bytes)}",
            repr(value),
            "The kernel counts the limit in whole pages.",
            "correct the size, or leave it out for no limit.",
        )
    return size_bytes


def _mode(knob: str, value: object) -> int:
    if isinstance(value, str) and _MODE.fullmatch(value):
        return int(value, 8)
    raise SettingError(
        knob,
        'a mode such as "0770"',
        repr(value),
        "YAML reads an unquoted 0770 as the number 504."
        if isinstance(value, int)
        else "hugetlbfs takes permissions and the sticky bit, and drops any other.",
        "write four octal digits in quotes.",
    )


def _id(host: Host, knob: str, what: str, value: object) -> int:
    """A uid or gid from a name in the host's passwd or group file, or a number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1:
        return value
    if isinstance(value, str):
        if is_number(value) and int(value) < 2**32 - 1:
            return int(value)
        known = _id_of(host, what, value)
        if known is not None:
            return known
    raise SettingError(
        knob,
        f"{what} {value!r}",
        "no such name on this host",
        f"The {what} is resolved on the host, when it is mounted and at boot.",
        f"create the {what} first, or use a number.",
    )


def _id_of(host: Host, what: str, name: str) -> int | None:
    """A name's uid (`owner`) or gid (`group`) on the host, or None."""
    if host.is_live:
        # Directory services count too, and many of them answer for a name without listing all they know.
        import grp
        import pwd

        try:
            return pwd.getpwnam(name).pw_uid if what == "owner" else grp.getgrnam(name).gr_gid
        except (KeyError, ValueError):
            return None
    file = "/etc/passwd" if what == "owner" else "/etc/group"
    rows = (line.split(":") for line in (host.read_or_none(file) or "").splitlines())
    return next((int(row[2]) for row in rows if len(row) > 2 and row[0] == name and is_number(row[2])), None)


def check_mounts(host: Host, wanted: Sequence[MountSpec], ours: Sequence[str]) -> None:
    """Raise SettingError, before anything is done, for a mount that this host cannot or should not have.

    `ours` are the paths that this project mounted earlier: only these may change their options.
    """
    sizes = pool_sizes(host)
    for spec in wanted:
        if spec.page_size_bytes not in sizes:
            raise SettingError(
                spec.name,
                f"pages of {format_size(spec.page_size_bytes)}",
                f"a kernel with {', '.join(map(format_size, sizes)) or 'no hugetlb at all'}",
                "hugetlbfs mounts have the page size of a pool.",
                "choose one of these sizes, or set hugetlbfs_mounts: [].",
            )
        if not host.is_symlink_free(spec.path):
            raise SettingError(
                spec.name,
                "a folder",
                "a symbolic link on the way",
                "The mount would stand somewhere else, and a link can be turned after the check.",
                "give the path that the link leads to.",
            )
        found = found_mount(host, spec.path)
        if found is None:
            _check_mount_point(host, spec)
        elif found != spec and spec.path not in ours:
            raise SettingError(
                spec.name,
                spec.options,
                found.options,
                "That hugetlbfs was mounted by somebody else.",
                f"unmount {spec.path} by hand, or choose another path.",
            )


def _check_mount_point(host: Host, spec: MountSpec) -> None:
    folder = host.path(spec.path)
    if folder.is_dir():
        if host.names(spec.path):
            raise SettingError(
                spec.name,
                "an empty folder",
                f"{len(host.names(spec.path))} entries in {spec.path}",
                "Mounting would hide them.",
                "empty the folder, or choose another path.",
            )
    elif os.path.lexists(folder):
        raise SettingError(
            spec.name,
            "a folder",
            "a file",
            "hugetlbfs is mounted on a folder.",
            "remove the file, or choose another path.",
        )


def mount(host: Host, spec: MountSpec) -> None:
    """mount(2) with nosuid and nodev, the folder made where it is missing; OSError as the kernel gave it."""
    for folder in missing_folders(host, spec.path):
        os.mkdir(host.path(folder), 0o755)
    _libc_call(
        "mount",
        spec.path,
        b"hugetlbfs",
        spec.path.encode(),
        b"hugetlbfs",
        _MS_NOSUID | _MS_NODEV,
        spec.options.encode(),
    )


def unmount(path: str) -> None:
    """umount(2), never lazily: a lazy unmount would leave the pages in use and unseen."""
    _libc_call("umount2", path, path.encode(), 0)


def _libc_call(function: str, path: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


@dataclass(frozen=True)
class ChangeMount:
    """From one mount (or none) to another (or none) on one path."""

    path: str
    old: MountSpec | None
    new: MountSpec | None

    @property
    def name(self) -> str:
        return f"hugetlbfs.{self.path}"

    @property
    def before(self) -> str:
        return self.old.options if self.old else "not mounted"

    @property
    def after(self) -> str:
        return self.new.options if self.new else "not mounted"

    def apply(self, host: Host) -> None:
        self._turn(host, self.new)

    def undo(self, host: Host) -> None:
        self._turn(host, self.old)

    def _turn(self, host: Host, wanted: MountSpec | None) -> None:
        found = found_mount(host, self.path)
        if found == wanted:
            return
        if found is not None:
            try:
                unmount(self.path)
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
                "The mount succeeded, but mountinfo reads otherwise.",
                "look for another writer of this mount (an automounter, a unit, fstab).",
            )
