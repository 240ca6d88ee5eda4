"""Opening files as root that another user may have put there, or whose file system another user's program serves.

Opening a pipe waits for its other end, opening a device may act on it, and every request to a FUSE mount waits for its
owner's program. So the file is checked first (O_PATH, open(2)), and opening has a deadline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import stat
import threading
from collections.abc import Callable
from typing import Union

from .files import Host
from .link_free import open_way
from .mountinfo import is_of_a_user, read_mountinfo

PATIENCE_S = 5.0
"""The time limit for opening one file. A disk answers in milliseconds, a network in a second."""
PathLike = Union[str, "os.PathLike[str]"]


def open_foreign(path: PathLike, flags: int = 0, patience_s: float = PATIENCE_S) -> int:
    """Return a descriptor for reading a plain file; `flags` may add O_NOFOLLOW or O_DIRECT.

    With O_NOFOLLOW an absolute path is not followed through a link on its way either.

    OSError: EINVAL for anything but a plain file, EACCES on a FUSE mount of another user, ETIMEDOUT where the file
    system does not answer in time.
    """
    worker = _worker()
    return worker.open(os.fspath(path), flags, patience_s)


def _open(path: str, flags: int) -> int:
    place = _find(path, flags)
    try:
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "No plain file", path)
        # Only file systems without a device of their own can belong to a user.
        if not os.major(found.st_dev) and _lies_with_a_user(place):
            raise OSError(errno.EACCES, "It lies on a mount that another user's program answers for", path)
        # Open the very file that was checked, whatever its name leads to now.
        wanted = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (flags & os.O_DIRECT)
        try:
            return os.open(f"/proc/self/fd/{place}", wanted)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(place)


def _find(path: str, flags: int) -> int:
    if not flags & os.O_NOFOLLOW or not path.startswith("/"):
        return os.open(path, os.O_PATH | os.O_CLOEXEC | (flags & os.O_NOFOLLOW))
    folder, name = os.path.split(path)
    way = open_way("/", folder)
    try:
        return os.open(name, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=way)
    finally:
        os.close(way)


def _lies_with_a_user(descriptor: int) -> bool:
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        text = file.read()
    mount_id = int(text.partition("mnt_id:")[2].split()[0])
    return any(mount.mount_id == mount_id and is_of_a_user(mount) for mount in read_mountinfo(Host()))


class _Worker:
    """A thread that opens files: one that a file system blocks cannot be ended, but it can be abandoned."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._asked: queue.SimpleQueue[Callable[[], int]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.is_left = False
        threading.Thread(target=self._run, name="foreign files", daemon=True).start()

    def open(self, path: str, flags: int, patience_s: float) -> int:
        self._asked.put(lambda: _open(path, flags))
        try:
            answer = self._answers.get(timeout=max(patience_s, 0.001))
        except queue.Empty:
            self._leave()
            raise OSError(errno.ETIMEDOUT, "The file system does not answer", path) from None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _leave(self) -> None:
        with self._lock:
            self.is_left = True
            # Nobody waits any more for an answer that came at the last moment.
            with contextlib.suppress(queue.Empty):
                self._drop(self._answers.get_nowait())

    def _run(self) -> None:
        while True:
            work = self._asked.get()
            answer: int | OSError
            try:
                answer = work()
            except OSError as error:
                answer = error
            with self._lock:
                if self.is_left:
                    self._drop(answer)
                    return
                self._answers.put(answer)

    @staticmethod
    def _drop(answer: int | OSError) -> None:
        if isinstance(answer, int):
            os.close(answer)


_current: list[_Worker] = []


def _worker() -> _Worker:
    """Return the current thread: a new one after a fork, or where the last one was blocked."""
    if not _current or _current[0].is_left or _current[0].pid != os.getpid():
        _current[:] = [_Worker()]
    return _current[0]
