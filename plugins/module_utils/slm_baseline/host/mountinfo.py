"""/proc/PID/mountinfo: what is mounted where (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ParseError
from .files import Host
from .sizes import is_number

MOUNTINFO = "/proc/self/mountinfo"


_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class MountEntry:
    """One line of mountinfo (proc_pid_mountinfo(5)), escapes decoded.

    `device` is the filesystem's `major:minor`; major 0 is no block device. `root` is the part of it that is mounted,
    `propagation` its optional fields, such as `shared:1` and `master:2`.
    """

    mount_id: int
    path: str
    fstype: str
    source: str
    options: str
    super_options: str
    device: str = "0:0"
    parent_id: int = 0
    root: str = "/"
    propagation: tuple[str, ...] = ()


def parse_mountinfo(text: str) -> list[MountEntry]:
    """Parse /proc/PID/mountinfo; ParseError for a line that does not have the documented form."""
    entries = []
    # Only newlines end a line: the kernel escapes these in paths, but not the other line ends of splitlines().
    for line in filter(None, text.split("\n")):
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not separator or len(before) < 6 or len(after) < 3 or not is_number(before[0]):
            raise ParseError("mountinfo", "`ID PARENT DEV ROOT PATH OPTIONS ... - TYPE SOURCE OPTIONS`", line)
        entries.append(
            MountEntry(
                int(before[0]),
                _unescape(before[4]),
                after[0],
                _unescape(after[1]),
                before[5],
                after[2],
                before[2],
                int(before[1]) if is_number(before[1]) else 0,
                _unescape(before[3]),
                tuple(before[6:]),
            )
        )
    return entries


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def read_mountinfo(host: Host) -> list[MountEntry]:
    return parse_mountinfo(host.read(MOUNTINFO))


def is_of_a_user(mount: MountEntry) -> bool:
    """Return whether an unprivileged user's program serves this mount (FUSE, mount.fuse3(8), `user_id`)."""
    if not mount.fstype.startswith("fuse"):
        return False
    options = dict(option.partition("=")[::2] for option in mount.super_options.split(","))
    return options.get("user_id", "0") != "0"


def mounted_at(entries: Sequence[MountEntry], path: str) -> list[MountEntry]:
    """Return every mount on exactly this path, the visible one last."""
    return [entry for entry in entries if entry.path == path]
