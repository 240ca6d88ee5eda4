"""Files and symlinks, found or wanted, and the change between two states of one path."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from typing import Any

from ...host.errors import SettingError
from ...host.files import Host
from .json_fields import MAX_ID, MAX_MODE, text, whole

LINK_MODE = 0o777
"""The mode of every symlink (symlink(7))."""


@dataclass(frozen=True)
class FileState:
    """A file's bytes and ownership, or a symlink's target."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    link: str | None = None

    def to_json(self) -> dict[str, Any]:
        content = base64.b64encode(self.content).decode()
        return {"mode": self.mode, "uid": self.uid, "gid": self.gid, "content": content, "link": self.link}

    @staticmethod
    def from_json(value: Any) -> FileState:
        """Parse a stored state; TypeError, ValueError (also binascii's) or KeyError where the value is damaged."""
        return FileState(
            whole(value["mode"], MAX_MODE),
            whole(value["uid"], MAX_ID),
            whole(value["gid"], MAX_ID),
            base64.b64decode(text(value["content"]), validate=True),
            None if value["link"] is None else text(value["link"]),
        )


def file_state(host: Host, path: str) -> FileState | None:
    """Return the current state of a path, None for nothing; OSError for a folder and the like."""
    target = host.path(path)
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return FileState(mode, status.st_uid, status.st_gid, b"", os.readlink(target))
    return FileState(mode, status.st_uid, status.st_gid, target.read_bytes())


def our_file(content: bytes) -> FileState:
    """Return the state of a plain file that this process writes."""
    return FileState(0o644, os.geteuid(), os.getegid(), content)


def our_link(target: str) -> FileState:
    """Return the state of a symlink that this process makes."""
    return FileState(LINK_MODE, os.geteuid(), os.getegid(), b"", target)


@dataclass(frozen=True)
class ChangeFile:
    """A change from one state of a path (None: absent) to another."""

    path: str
    old: FileState | None
    new: FileState | None

    @property
    def name(self) -> str:
        return self.path

    @property
    def before(self) -> str:
        return _told(self.old, self.new)

    @property
    def after(self) -> str:
        return _told(self.new, self.old)

    def apply(self, host: Host) -> None:
        if file_state(host, self.path) == self.new:
            return
        self._put(host)
        settled = file_state(host, self.path)
        if settled != self.new:
            raise SettingError(
                self.path,
                self.after,
                _told(settled, self.new),
                "The write succeeded, but the file reads back differently.",
                "look for another writer of this file, then run again.",
            )

    def reverse(self) -> ChangeFile:
        return ChangeFile(self.path, self.new, self.old)

    def _put(self, host: Host) -> None:
        if self.new is None:
            host.remove_durably(self.path)
            return
        target = host.path(self.path)
        os.makedirs(target.parent, mode=0o755, exist_ok=True)
        if self.new.link is None:
            host.write_durably(self.path, self.new.content, self.new.mode, self.new.uid, self.new.gid)
        else:
            host.remove_durably(self.path)
            os.symlink(self.new.link, target)
            os.lchown(target, self.new.uid, self.new.gid)
            host.sync_folder(target.parent)


def _told(state: FileState | None, other: FileState | None) -> str:
    """Return the state for people: mode and owner only where nothing else differs."""
    if state is None:
        return "absent"
    if other is not None and (state.content, state.link) == (other.content, other.link):
        return f"mode {state.mode:04o}, owner {state.uid}:{state.gid}"
    return f"-> {state.link}" if state.link is not None else state.content.decode(errors="replace")
