"""Looking at paths that other users can change: no link on the way is followed, no user's FUSE mount is entered.

A recorded path has no link in it, since the kernel told it. If one is there now, somebody has swapped a folder: for a
way to files that are not his, or to a file system that never answers. A link that leads to a FUSE mount would hold
lstat(2) until that mount's program answers, which may be never.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from .files import Host
from .mountinfo import MOUNTINFO, is_of_a_user, parse_mountinfo

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinkFree:
    """Looks at absolute paths of a host. The folder of the last path stays open, since the next is often in it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._served = tuple(
            f"{mount.path.rstrip('/')}/"
            for mount in parse_mountinfo(host.read_or_none(MOUNTINFO) or "")
            if is_of_a_user(mount)
        )
        self._folder, self._descriptor = "", -1

    def __del__(self) -> None:
        self._close()

    def lstat(self, path: str) -> os.stat_result:
        """Return lstat(2) of a path; OSError, ENOTDIR for a link on the way, EACCES below a user's FUSE mount."""
        folder, name = os.path.split(path)
        self._enter(folder, path)
        return os.stat(name or ".", dir_fd=self._descriptor, follow_symlinks=False)

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[int]:
        """Open a folder for reading; OSError as `lstat`, and ENOTDIR for anything else."""
        self._enter(path, path)
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _enter(self, folder: str, path: str) -> None:
        if f"{path}/".startswith(self._served):
            raise OSError(errno.EACCES, "It lies on a mount that another user's program answers for", path)
        if folder == self._folder and self._descriptor >= 0:
            return
        self._close()
        self._descriptor, self._folder = open_way(self._host.name("/"), folder), folder

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def open_way(root: str, folder: str) -> int:
    """Return a descriptor (O_PATH) of a folder below `root`, entered part by part; OSError, ENOTDIR for a link."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, folder.split("/")):
            following = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = following
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
