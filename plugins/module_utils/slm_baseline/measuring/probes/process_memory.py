"""One process's memory as the kernel counts it, its page sizes, and the kernel's THP counters.

Sources: Documentation/filesystems/proc.rst (smaps_rollup, status) and mm/vmstat.c (vmstat).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...host.errors import ParseError
from ...host.files import Host

_KB_LINE = re.compile(r"(?P<name>\w+):\s+(?P<kb>[0-9]{1,20}) kB")
_COUNT_LINE = re.compile(r"(?P<name>\w+):? (?P<count>[0-9]{1,20})")
_THP_COUNTERS = ("thp_", "compact_")


@dataclass(frozen=True)
class MemoryReading:
    """Memory of one process in bytes. hugetlb pages count in neither RSS nor PSS, as in the kernel."""

    rss_bytes: int
    vsz_bytes: int
    pss_bytes: int
    anon_bytes: int
    anon_huge_bytes: int
    shmem_pmd_bytes: int
    file_pmd_bytes: int
    hugetlb_bytes: int
    swap_bytes: int = 0


def parse_kb_fields(source: str, text: str) -> dict[str, int]:
    """Parse lines `Name: number kB` of smaps_rollup or status to bytes by field; kB there means KiB."""
    fields = {match["name"]: int(match["kb"]) * 1024 for match in _KB_LINE.finditer(text)}
    if not fields:
        raise ParseError(source, "lines such as `Rss: 1024 kB`", text)
    return fields


def parse_memory(smaps_rollup: str, status: str) -> MemoryReading:
    """Parse a process's two files. Fields that an older kernel lacks (FilePmdMapped) count as 0."""
    rollup = parse_kb_fields("smaps_rollup", smaps_rollup)
    sizes = parse_kb_fields("status", status)
    for source, fields, name in (
        ("smaps_rollup", rollup, "Rss"),
        ("smaps_rollup", rollup, "Pss"),
        ("status", sizes, "VmSize"),
    ):
        if name not in fields:
            raise ParseError(source, f"a line `{name}: number kB`", " ".join(fields))
    return MemoryReading(
        rss_bytes=rollup["Rss"],
        vsz_bytes=sizes["VmSize"],
        pss_bytes=rollup["Pss"],
        anon_bytes=rollup.get("Anonymous", 0),
        anon_huge_bytes=rollup.get("AnonHugePages", 0),
        shmem_pmd_bytes=rollup.get("ShmemPmdMapped", 0),
        file_pmd_bytes=rollup.get("FilePmdMapped", 0),
        hugetlb_bytes=rollup.get("Private_Hugetlb", 0) + rollup.get("Shared_Hugetlb", 0),
        swap_bytes=rollup.get("Swap", 0),
    )


def parse_counters(source: str, text: str) -> dict[str, int]:
    """Parse `name number` or `name: number` lines, as in /proc/vmstat and /proc/PID/io."""
    counters = {}
    for line in text.splitlines():
        match = _COUNT_LINE.fullmatch(line)
        if not match:
            raise ParseError(source, "lines of a name and a number", line)
        counters[match["name"]] = int(match["count"])
    return counters


def read_memory(host: Host, pid: int) -> MemoryReading:
    """Read a live process's memory; OSError where it is gone. Slow for a large process: never in measured time."""
    return parse_memory(host.read(f"/proc/{pid}/smaps_rollup"), host.read(f"/proc/{pid}/status"))


def read_thp_counters(host: Host) -> dict[str, int]:
    """Read the host's thp_* and compact_* event counters (a gauge or two among them), since boot."""
    counters = parse_counters("/proc/vmstat", host.read("/proc/vmstat"))
    return {name: value for name, value in counters.items() if name.startswith(_THP_COUNTERS)}


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return differences of the counters present in both, without those that did not change."""
    return {name: after[name] - before[name] for name in before if name in after and after[name] != before[name]}
