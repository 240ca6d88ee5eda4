"""The page cache as a stated condition: how much of a set of files is resident, evicted, or read in.

Only root may ask: an unprivileged mincore(2) reports everything as resident, and an unprivileged cachestat(2) gives
EPERM (mm/mincore.c and mm/filemap.c, `can_do_mincore`, `can_do_cachestat`).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Union

from ...host import libc
from ...host.caches import drop_host_caches as drop_host_caches
from ...host.errors import SettingError
from ...host.foreign_files import open_foreign
from ...host.mincore import page_vectors

PathLike = Union[str, "os.PathLike[str]"]
_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Residency:
    """How much of some files is in the page cache, and the system call that reported it (`cachestat` or `mincore`)."""

    file_bytes: int
    resident_bytes: int
    by: str

    @property
    def share(self) -> float:
        """Return the fraction 0..1; empty files count as resident."""
        return self.resident_bytes / self.file_bytes if self.file_bytes else 1.0


class CachestatUnavailable(Exception):
    """This kernel, or the sandbox around us, has no cachestat(2) for this file."""


def residency(paths: Iterable[PathLike]) -> Residency:
    """Return the residency of whole files; SettingError where the kernel would not tell this user the truth.

    A file that vanished since it was listed counts for nothing. Opening follows symbolic links, so a hub snapshot's
    links count as the blobs they lead to.
    """
    if os.geteuid() != 0:
        raise SettingError(
            "page cache",
            "a verified state of the page cache",
            f"user id {os.geteuid()}",
            "The kernel shows page cache residency to root alone.",
            "run with become: true.",
        )
    return measured_residency(list(paths), resident_by_cachestat, resident_by_mincore)


def measured_residency(
    files: Sequence[PathLike], cachestat: Callable[[int, int], int], mincore: Callable[[int, int], int]
) -> Residency:
    """Measure residency by cachestat, or by mincore for all files where cachestat is unavailable for any.

    Both take a descriptor and the file's size in bytes and return resident bytes.
    """
    for name, verifier in (("cachestat", cachestat), ("mincore", mincore)):
        total = resident = 0
        try:
            for path in files:
                descriptor = _open(path)
                if descriptor is None:
                    continue
                try:
                    size = os.fstat(descriptor).st_size
                    total += size
                    # The last page is counted whole, so the count is limited to the size.
                    resident += min(size, verifier(descriptor, size)) if size else 0
                finally:
                    os.close(descriptor)
        except CachestatUnavailable:
            continue
        return Residency(total, resident, name)
    raise AssertionError("mincore never raises CachestatUnavailable")


def resident_by_cachestat(descriptor: int, size: int) -> int:
    """Return resident bytes by cachestat(2) (mm/filemap.c, Linux 6.5); CachestatUnavailable where it cannot be used."""
    try:
        return libc.cachestat(descriptor, size) * mmap.PAGESIZE
    except OSError as error:
        # EPERM comes from seccomp filters that do not know the call, EOPNOTSUPP from hugetlbfs.
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
            raise CachestatUnavailable(error.strerror) from error
        raise


def resident_by_mincore(descriptor: int, size: int) -> int:
    """Return resident bytes by mincore(2)."""
    return sum(vector.count(1) for vector in page_vectors(descriptor, size)) * mmap.PAGESIZE


def evict(paths: Iterable[PathLike]) -> None:
    """Drop the files' clean pages. Pages that a live process maps stay: fadvise(2) cannot evict these."""
    for path in paths:
        descriptor = _open(path)
        if descriptor is None:
            continue
        try:
            # Dirty pages cannot be dropped, so they are written first.
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def warm(paths: Iterable[PathLike]) -> int:
    """Read the files from front to back; return the bytes read."""
    buffer = bytearray(_READ_BYTES)
    total = 0
    for path in paths:
        descriptor = _open(path)
        if descriptor is None:
            continue
        with open(descriptor, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def _open(path: PathLike) -> int | None:
    """Open a regular file for reading; None where it vanished since it was listed, as during a package upgrade."""
    try:
        return open_foreign(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        # Not a plain file: a pipe or a device has replaced it.
        if error.errno == errno.EINVAL:
            return None
        raise
