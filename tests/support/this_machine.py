"""What the tests that run on this machine's real kernel must leave as it was."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

KERNEL_FILES = ("/sys/kernel/mm/transparent_hugepage", "/sys/kernel/mm/hugepages", "/proc/sys/vm/min_free_kbytes")
WATCHED = (
    "/etc/tmpfiles.d",
    "/etc/systemd/system",
    *(f"/var/lib/slm-baseline/{name}" for name in ("snapshot.json", "archive")),
    "/run/slm-baseline/sweep-prior.json",
)
_SETTINGS = ("enabled", "defrag", "shmem_enabled", "scan_sleep_millisecs", "nr_hugepages", "min_free_kbytes")


def fingerprint() -> dict[str, str]:
    """The settings of this machine, and every file where the tuning writes files."""
    state = {}
    for folder in KERNEL_FILES:
        for path in [Path(folder), *sorted(Path(folder).rglob("*"))]:
            if path.is_file() and path.name in _SETTINGS:
                state[str(path)] = path.read_text()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    state["mounts"] = "\n".join(line.split(" ", 3)[3] for line in mounts)
    for watched in WATCHED:
        for path in [Path(watched), *sorted(Path(watched).rglob("*"))]:
            if os.path.lexists(path):
                status = path.lstat()
                link = os.readlink(path) if path.is_symlink() else ""
                content = path.read_bytes() if stat.S_ISREG(status.st_mode) else link.encode()
                digest = hashlib.sha256(content).hexdigest()[:16]
                state[str(path)] = f"{status.st_mode:o} {status.st_uid} {status.st_gid} {digest}"
    state["/mnt"] = " ".join(sorted(os.listdir("/mnt")))
    return state
