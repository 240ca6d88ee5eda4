"""Whether a folder survives a reboot, judged by its file system."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from .errors import ParseError
from .files import Host
from .mountinfo import MountEntry, read_mountinfo

_IN_MEMORY = ("tmpfs", "ramfs", "rootfs")


def volatile_reason(host: Host, path: str) -> str:
    """Return why a folder does not survive a reboot, such as `a tmpfs`; empty where it does, or where that is unknown.

    An overlay lasts as long as its upper folder; one whose upper folder is on no visible disk does not last.
    """
    entries: Sequence[MountEntry] = ()
    with contextlib.suppress(OSError, ParseError):
        entries = read_mountinfo(host)
    entry = _under(entries, path)
    if entry is None:
        return ""
    if entry.fstype in _IN_MEMORY:
        return f"a {entry.fstype} ({entry.path})"
    if entry.fstype != "overlay":
        return ""
    options = dict(option.partition("=")[::2] for option in entry.super_options.split(","))
    upper = options.get("upperdir", "")
    below = _under([other for other in entries if other.mount_id != entry.mount_id], upper) if upper else None
    if below is not None and not below.device.startswith("0:"):
        return ""
    return f"an overlay ({entry.path}) whose upper folder {upper or 'is missing and'} is on no disk in sight"


def _under(entries: Sequence[MountEntry], path: str) -> MountEntry | None:
    """Return the mount that a path is on: the longest match, and of several on one folder the last."""
    found = None
    for entry in entries:
        covers = entry.path == "/" or f"{path}/".startswith(f"{entry.path}/")
        if covers and (found is None or len(entry.path) >= len(found.path)):
            found = entry
    return found
