"""hugetlbfs mounts as the kernel shows them: options and mountinfo. What changes them is in mount_change.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...host.errors import ParseError, SettingError
from ...host.files import Host
from ...host.mountinfo import MountEntry, mounted_at, read_mountinfo
from ...host.sizes import format_size, is_number, parse_size
from .hugetlb import default_page_bytes

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
