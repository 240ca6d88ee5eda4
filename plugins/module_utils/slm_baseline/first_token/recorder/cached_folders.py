"""Folders that a start searched without opening them: their entries are cached, so listing them needs no disk read.

A program that asks whether files exist (`importlib.metadata`: whether all that a package has installed does) opens
neither file nor folder, so fanotify does not report it. What it read is in memory all the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...host.deadline import Deadline
from ...host.files import Host
from ...host.link_free import LinkFree
from ...host.mountinfo import is_of_a_user, read_mountinfo

MOST_FOLDERS = 20_000
LONGEST_S = 10.0
"""The time limit: checking a folder that the start did not search costs a read from the disk."""


def find_cached_folders(host: Host, listed: Sequence[str], deadline: Deadline) -> list[str]:
    """Return the folders below the listed ones whose entries are in memory; call this right after a cold start.

    It descends into a folder only where that is in memory too, since a lookup passes through every folder above. Mounts
    below a folder are left out, as are folders beyond the limits. Returns none where the kernel does not count what a
    thread reads (CONFIG_TASK_IO_ACCOUNTING).
    """
    mounts = read_mountinfo(host)
    mounted = {entry.path for entry in mounts}
    foreign = tuple(f"{entry.path}/" for entry in mounts if is_of_a_user(entry))
    paths = LinkFree(Host())
    known = set(listed)
    found: list[str] = []
    waiting = [path for path in reversed(listed) if not f"{path}/".startswith(foreign)]
    until = Deadline.after(deadline.left_s(LONGEST_S))
    try:
        counters = os.open(host.path("/proc/thread-self/io"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        for _ in range(MOST_FOLDERS):
            if not waiting or until.is_over:
                break
            path = waiting.pop()
            before = _read_bytes(counters)
            try:
                below = _subfolders(paths, path)
            except OSError:
                continue
            if path not in known:
                if _read_bytes(counters) != before:
                    continue
                known.add(path)
                found.append(path)
            waiting += [folder for folder in below if folder not in known and folder not in mounted]
    finally:
        os.close(counters)
    return found


def _subfolders(paths: LinkFree, path: str) -> list[str]:
    """Return the folders in a folder by the entry types in its listing, so that no inode is read; OSError."""
    with paths.folder(path) as descriptor, os.scandir(descriptor) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [f"{path.rstrip('/')}/{name}" for name in names]


def _read_bytes(counters: int) -> int:
    """Return the bytes that the kernel has read from disk for this thread (proc_pid_io(5))."""
    text = os.pread(counters, 512, 0)
    return int(text.partition(b"read_bytes: ")[2].split()[0])
