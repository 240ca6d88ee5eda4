"""Prints what a host is set to as one flat JSON object, so that two states of it can be compared key by key.

Runs on the host itself (`python3 - < host_state.py`), as root, on the standard library alone. It reads the machine in
its own way and shares no code with what it checks.
"""

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

TREES = (
    "/etc",
    "/mnt",
    "/opt",
    "/srv",
    "/usr/local",
    "/usr/lib/tmpfiles.d",
    "/usr/lib/systemd",
    "/usr/lib/sysctl.d",
    "/var/lib",
)
# What a running Debian itself rewrites, and the archive that a rollback leaves on purpose.
EXCEPT = {
    "/opt/slm-engine",
    "/opt/slm-python",
    "/var/lib/dpkg",
    "/var/lib/private",
    "/var/lib/slm-baseline",
    "/var/lib/sudo",
    "/var/lib/systemd",
}
SYSCTLS = ("vm/min_free_kbytes", "vm/nr_overcommit_hugepages", "vm/hugetlb_shm_group", "vm/compaction_proactiveness")
# Numbers the kernel or systemd makes up anew on every boot.
UNSTABLE_MOUNT_OPTIONS = ("fd=", "pgrp=", "pipe_ino=", "size=", "nr_inodes=")


def files() -> dict[str, str]:
    """Type, mode, owner and content of everything in the trees that a setting could live in."""
    found = {}
    for tree in TREES:
        for folder, folders, names in os.walk(tree):
            folders[:] = [name for name in folders if f"{folder}/{name}" not in EXCEPT]
            for name in folders + names:
                found[f"{folder}/{name}"] = describe(f"{folder}/{name}")
    return found


def describe(path: str) -> str:
    status = os.lstat(path)
    owner = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{owner} -> {os.readlink(path)}"
    if stat.S_ISREG(status.st_mode):
        return f"{owner} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    return owner


def kernel() -> dict[str, str]:
    """Every THP selector and every pool, whole and per node, and the sysctls beside them."""
    paths = [f"/proc/sys/{name}" for name in SYSCTLS]
    for pattern in (
        "kernel/mm/transparent_hugepage/*",
        "kernel/mm/transparent_hugepage/hugepages-*/enabled",
        "kernel/mm/transparent_hugepage/hugepages-*/shmem_enabled",
        "kernel/mm/transparent_hugepage/khugepaged/[admps]*",
        "kernel/mm/hugepages/hugepages-*/*",
        "devices/system/node/node*/hugepages/hugepages-*/*",
    ):
        paths += [str(path) for path in Path("/sys").glob(pattern) if path.is_file()]
    # pages_collapsed and its like count events; they are no settings.
    return {path: text for path in paths if "/khugepaged/pages_" not in path and (text := read(path)) is not None}


def read(path: str) -> "str | None":
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def mounts() -> dict[str, str]:
    """Every mount, stacked ones numbered, less what differs from boot to boot."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point, options = left.split()[4:6]
        kind, source, more = right.split()
        if kind == "binfmt_misc" or point.startswith("/run/credentials"):
            continue
        stable = sorted({o for o in f"{options},{more}".split(",") if not o.startswith(UNSTABLE_MOUNT_OPTIONS)})
        key = f"mount {point}"
        while key in found:
            key += " (on top)"
        found[key] = f"{kind} {source} {','.join(stable)}"
    return found


def units() -> dict[str, str]:
    """Unit files and whether they are enabled, and the units that failed."""
    listed = systemctl("list-unit-files")
    found = {f"unit {name}": state for name, state, *_ in (line.split() for line in listed)}
    failed = systemctl("list-units", "--state=failed", "--plain")
    found["failed units"] = " ".join(sorted(line.split()[0] for line in failed))
    return found


def systemctl(*arguments: str) -> list[str]:
    command = ["systemctl", "--no-legend", "--no-pager", "--full", *arguments]
    # An emulated machine's systemd may need longer to list its files than the 25 seconds of the bus.
    patient = {**os.environ, "SYSTEMD_BUS_TIMEOUT": "240s"}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=patient).stdout.splitlines()


if __name__ == "__main__":
    print(json.dumps({**files(), **kernel(), **mounts(), **units()}))
