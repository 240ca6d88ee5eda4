"""What the kernel says of a process, as golden texts of Linux 6.18 and as whatever else might come."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.probes.process_memory import (
    moved,
    parse_counters,
    parse_kb_fields,
    parse_memory,
    read_memory,
    read_thp_counters,
)
from hypothesis import given
from hypothesis import strategies as st

SMAPS_ROLLUP = """\
55d4a4a00000-7ffd5a9f6000 ---p 00000000 00:00 0                          [rollup]
Rss:             1414116 kB
Pss:             1408502 kB
Pss_Dirty:        345780 kB
Pss_Anon:         345780 kB
Pss_File:        1062722 kB
Pss_Shmem:             0 kB
Shared_Clean:       7268 kB
Shared_Dirty:          0 kB
Private_Clean:   1061068 kB
Private_Dirty:    345780 kB
Referenced:      1414116 kB
Anonymous:        345780 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:      4096 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:    167936 kB
Shared_Hugetlb:     2048 kB
Private_Hugetlb:  137216 kB
Swap:                 12 kB
SwapPss:               0 kB
Locked:                0 kB
"""
STATUS = """\
Name:\tpython
Umask:\t0022
State:\tS (sleeping)
Uid:\t65534\t65534\t65534\t65534
Groups:\t 
VmPeak:\t 2022452 kB
VmSize:\t 1974788 kB
VmRSS:\t 1414116 kB
HugetlbPages:\t  139264 kB
Threads:\t5
"""  # noqa: W291  the kernel ends an empty list of groups with a space
IO = """\
rchar: 98243001
wchar: 1021
syscr: 9120
syscw: 12
read_bytes: 1466953728
write_bytes: 0
cancelled_write_bytes: 0
"""
VMSTAT = "nr_free_pages 12345\nthp_fault_alloc 79\nthp_fault_fallback 0\ncompact_stall 3\npgfault 99\n"


def test_memory_of_a_process_that_holds_a_model() -> None:
    kb = 1024
    assert asdict(parse_memory(SMAPS_ROLLUP, STATUS)) == {
        "rss_bytes": 1414116 * kb,
        "vsz_bytes": 1974788 * kb,
        "pss_bytes": 1408502 * kb,
        "anon_bytes": 345780 * kb,
        "anon_huge_bytes": 4096 * kb,
        "shmem_pmd_bytes": 0,
        "file_pmd_bytes": 167936 * kb,
        "hugetlb_bytes": (2048 + 137216) * kb,
        "swap_bytes": 12 * kb,
    }


def test_a_kernel_without_file_pmd_mapped_has_none() -> None:
    old = "".join(line for line in SMAPS_ROLLUP.splitlines(True) if not line.startswith("FilePmd"))
    assert parse_memory(old, STATUS).file_pmd_bytes == 0


@pytest.mark.parametrize(("rollup", "status"), [("", STATUS), (SMAPS_ROLLUP, "Name:\tkthread\n"), (STATUS, STATUS)])
def test_texts_without_the_figures_are_refused(rollup: str, status: str) -> None:
    with pytest.raises(ParseError):
        parse_memory(rollup, status)


def test_counters_of_io_and_vmstat() -> None:
    assert parse_counters("io", IO)["read_bytes"] == 1466953728
    assert parse_counters("vmstat", VMSTAT)["compact_stall"] == 3
    with pytest.raises(ParseError):
        parse_counters("io", "read_bytes: many\n")


@given(st.text())
def test_any_text_is_fields_or_a_parse_error(text: str) -> None:
    for parse in (parse_kb_fields, parse_counters):
        try:
            fields = parse("text", text)
        except ParseError:
            continue
        assert all(value >= 0 for value in fields.values())


def test_only_counters_of_huge_pages_are_read(tmp_path: object) -> None:
    host = Host(tmp_path)  # type: ignore[arg-type]
    host.path("/proc").mkdir()
    host.path("/proc/vmstat").write_text(VMSTAT)
    assert read_thp_counters(host) == {"thp_fault_alloc": 79, "thp_fault_fallback": 0, "compact_stall": 3}


def test_what_stood_still_or_came_later_is_left_out() -> None:
    assert moved({"a": 1, "b": 2, "gone": 3}, {"a": 1, "b": 5, "new": 1}) == {"b": 3}


def test_this_very_process_can_be_read() -> None:
    memory = read_memory(Host(), os.getpid())
    assert 0 < memory.pss_bytes <= memory.rss_bytes <= memory.vsz_bytes
