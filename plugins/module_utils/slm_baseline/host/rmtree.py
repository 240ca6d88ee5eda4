"""Removing a folder with all its content, whoever filled it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATIENCE_S = 300.0


def remove_tree(path: Path, patience_s: float = _PATIENCE_S) -> None:
    """Remove a file, a link, or a folder with all its content; a missing path is no error.

    Follows no link, and works by descriptors, so nobody can swap a folder for a link meanwhile. Subfolders are moved to
    the top and not descended into, so depth costs neither recursion nor descriptors. Mounts inside stay.
    OSError as the kernel raised it, or ETIMEDOUT where somebody fills the folder faster than it can be emptied.
    """
    deadline = time.monotonic() + patience_s
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if _unlinked(parent, path.name):
            return
        top = os.open(path.name, _OPEN, dir_fd=parent)
        try:
            if _mount_id(top) != _mount_id(parent):
                raise OSError(errno.EBUSY, "Something is mounted there", str(path))
            _empty(top, str(path), deadline)
        finally:
            os.close(top)
        os.rmdir(path.name, dir_fd=parent)
    finally:
        os.close(parent)


def _mount_id(descriptor: int) -> str:
    """Return the id of the mount that an open folder is on; a bind mount has its own id, but the device of its source.

    OSError where /proc does not show it (proc_pid_fdinfo(5)).
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        fields = dict(line.split(":", 1) for line in stream if ":" in line)
    if "mnt_id" not in fields:
        raise OSError(errno.ENOTSUP, "The kernel does not say what is mounted where", str(descriptor))
    return fields["mnt_id"].strip()


def remove_folder_if_empty(path: Path) -> None:
    """Remove an empty folder; one that is in use, a link or missing stays as it is."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _empty(top: int, path: str, deadline: float) -> None:
    while names := os.listdir(top):
        for name in names:
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "It is filled as fast as it is emptied", path)
            if not _unlinked(top, name):
                _dissolve(top, name)


def _dissolve(top: int, name: str) -> None:
    """Remove a folder; its subfolders are moved beside it."""
    # The kernel refuses to rename a mount (EBUSY), so nothing in one is ever touched.
    mine = _lifted(top, name, top)
    folder = os.open(mine, _OPEN, dir_fd=top)
    try:
        for inner in os.listdir(folder):
            if not _unlinked(folder, inner):
                _lifted(folder, inner, top)
    finally:
        os.close(folder)
    # Somebody filled it again meanwhile: the next pass removes that.
    with contextlib.suppress(FileNotFoundError):
        try:
            os.rmdir(mine, dir_fd=top)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def _lifted(folder: int, name: str, top: int) -> str:
    mine = f".{secrets.token_hex(8)}"
    os.rename(name, mine, src_dir_fd=folder, dst_dir_fd=top)
    return mine


def _unlinked(folder: int, name: str) -> bool:
    """Remove anything but a folder; return False for a folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError) as error:
        # For a folder POSIX has EPERM, Linux EISDIR (unlink(2)).
        if isinstance(error, PermissionError) and not _is_folder(folder, name):
            raise
        return False
    return True


def _is_folder(folder: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        os.close(os.open(name, _OPEN, dir_fd=folder))
        return True
    return False
