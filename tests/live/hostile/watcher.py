"""Sees every program that is executed on this stage, by whom, before it starts.

fanotify(7) with FAN_OPEN_EXEC_PERM holds each execve(2) until it is answered, so that the user who executes can be read
in time. A process of its own answers: whoever is watched cannot also answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import struct
from pathlib import Path

_CLASS_CONTENT, _CLOEXEC = 0x4, 0x1
_MARK_ADD, _MARK_MOUNT = 0x1, 0x10
_OPEN_EXEC_PERM = 0x00040000
_ALLOW = 1
_EVENT = struct.Struct("=IBBHQii")
_AT_FDCWD = -100


def writable_by(uid: int, path: str) -> str | None:
    """The component of a resolved path by which a user without groups could change what lies there, if there is one.

    Shares no code with what it checks. A sticky folder protects what is another's in it (unlink(2)).
    """
    at = Path(path)
    below: os.stat_result | None = None
    for component in (at, *at.parents):
        status = os.lstat(component)
        is_owner = status.st_uid == uid
        if stat.S_ISDIR(status.st_mode):
            may_write = is_owner or status.st_mode & stat.S_IWOTH
            protects = status.st_mode & stat.S_ISVTX and not is_owner and below is not None and below.st_uid != uid
            if may_write and not protects:
                return str(component)
        elif is_owner or status.st_mode & stat.S_IWOTH:
            return str(component)
        below = status
    return None


class ExecWatch:
    """Programs that root executed though this user could have changed them, noted from start to stop."""

    def __init__(self, uid: int, mounts: list[str]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.fanotify_init(_CLOEXEC | _CLASS_CONTENT, os.O_RDONLY)
        self._check(self._fd, "fanotify_init")
        for mount in mounts:
            done = self._libc.fanotify_mark(
                self._fd, _MARK_ADD | _MARK_MOUNT, ctypes.c_uint64(_OPEN_EXEC_PERM), _AT_FDCWD, mount.encode()
            )
            self._check(done, f"fanotify_mark {mount}")
        # A file, not a pipe: a full pipe would stop the watcher, and with it every program that is to start.
        self._notes = os.memfd_create("notes", os.MFD_CLOEXEC)
        self._read = 0
        self.seen = 0
        self._watcher = os.fork()
        if self._watcher == 0:
            try:
                self._answer(uid, self._notes)
            finally:
                os._exit(1)
        os.close(self._fd)

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")

    def _answer(self, uid: int, out: int) -> None:
        """In the watcher: let every program start, and note it."""
        while True:
            data = os.read(self._fd, 1 << 16)
            at = 0
            while at < len(data):
                length, _, _, _, _, descriptor, pid = _EVENT.unpack_from(data, at)
                at += length
                note: dict[str, object] = {"pid": pid}
                try:
                    path = os.readlink(f"/proc/self/fd/{descriptor}")
                    status = Path(f"/proc/{pid}/status").read_text(errors="replace")
                    ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
                    note |= {"path": path, "uids": ids, "weak": writable_by(uid, path)}
                except (OSError, StopIteration) as error:
                    note |= {"unknown": str(error)}
                os.write(self._fd, struct.pack("=iI", descriptor, _ALLOW))
                os.close(descriptor)
                os.write(out, json.dumps(note).encode() + b"\n")

    def offences(self) -> list[str]:
        """What root executed since the last call though the user could have changed it."""
        if os.waitpid(self._watcher, os.WNOHANG) != (0, 0):
            raise RuntimeError("the watcher has gone")
        data = os.pread(self._notes, os.fstat(self._notes).st_size - self._read, self._read)
        data = data[: data.rfind(b"\n") + 1]
        self._read += len(data)
        notes = [json.loads(line) for line in data.splitlines()]
        self.seen += len(notes)
        return [
            f"{note['path']} executed as root, and {note['weak']} can be written by others"
            for note in notes
            if note.get("weak") and "0" in note["uids"]
        ]
