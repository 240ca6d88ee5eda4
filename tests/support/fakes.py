"""A small fake host: the /sys, /proc and /etc files that the tuning reads and writes, as a 6.x kernel lays them out."""

from __future__ import annotations

from pathlib import Path

MEMINFO = """\
MemTotal:       16384000 kB
MemFree:        12000000 kB
MemAvailable:   14000000 kB
HugePages_Total:       0
HugePages_Free:        0
Hugepagesize:       2048 kB
"""
MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
"""
THP_FILES = {
    "enabled": "always [madvise] never\n",
    "defrag": "always defer defer+madvise [madvise] never\n",
    "shmem_enabled": "always within_size advise [never] deny force\n",
    "use_zero_page": "1\n",
    "khugepaged/scan_sleep_millisecs": "10000\n",
    "khugepaged/defrag": "1\n",
    "hugepages-64kB/enabled": "always inherit madvise [never]\n",
    "hugepages-2048kB/enabled": "always [inherit] madvise never\n",
}
POOL_FILES = {
    "nr_hugepages": "0\n",
    "free_hugepages": "0\n",
    "surplus_hugepages": "0\n",
    "resv_hugepages": "0\n",
    "nr_overcommit_hugepages": "0\n",
}


def put(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    """One file of the fake host."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def build_host(root: Path) -> Path:
    """A host with THP, 2M and 1G pools on one node, no swap, and nothing of ours."""
    thp = "/sys/kernel/mm/transparent_hugepage"
    for name, text in THP_FILES.items():
        put(root, f"{thp}/{name}", text)
    put(root, f"{thp}/hpage_pmd_size", "2097152\n", 0o444)
    put(root, f"{thp}/khugepaged/pages_collapsed", "0\n", 0o444)
    for size_kb in (2048, 1048576):
        for name, text in POOL_FILES.items():
            put(root, f"/sys/kernel/mm/hugepages/hugepages-{size_kb}kB/{name}", text)
        for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
            put(root, f"/sys/devices/system/node/node0/hugepages/hugepages-{size_kb}kB/{name}", "0\n")
    put(root, "/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 16384000 kB\nNode 0 MemFree: 12000000 kB\n")
    put(root, "/proc/meminfo", MEMINFO)
    put(root, "/proc/self/mountinfo", MOUNTINFO)
    put(root, "/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 quiet\n")
    put(root, "/proc/sys/vm/min_free_kbytes", "67584\n")
    put(root, "/proc/sys/kernel/random/boot_id", "5f2a0d1e-0000-4000-8000-000000000001\n")
    put(root, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nserving:x:990:980::/:/bin/false\n")
    put(root, "/etc/group", "root:x:0:\nserving:x:980:\n")
    for folder in ("etc/tmpfiles.d", "etc/systemd/system", "var/lib", "run", "mnt"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root
