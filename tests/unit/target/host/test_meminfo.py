"""/proc/meminfo: the kernel's text, and any other."""

from __future__ import annotations

import contextlib

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.meminfo import parse_meminfo
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
GOLDEN = """\
MemTotal:       24683656 kB
MemAvailable:   24234088 kB
Active(anon):       1234 kB
HugePages_Total:    1024
HugePages_Rsvd:        0
Hugepagesize:       2048 kB
DirectMap1G:    14680064 kB
"""


def test_golden_text() -> None:
    assert parse_meminfo(GOLDEN) == {
        "MemTotal": 24683656 * 1024,
        "MemAvailable": 24234088 * 1024,
        "Active(anon)": 1234 * 1024,
        "HugePages_Total": 1024,
        "HugePages_Rsvd": 0,
        "Hugepagesize": 2 * MIB,
        "DirectMap1G": 14680064 * 1024,
    }


@pytest.mark.parametrize("text", ["MemTotal", "MemTotal: many kB", "MemTotal: 1 MB", ": 1 kB", "MemTotal: -1 kB"])
def test_another_form_is_a_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_meminfo(text)


@given(st.text())
def test_any_text_gives_fields_or_one_typed_error(text: str) -> None:
    with contextlib.suppress(ParseError):
        assert all(value >= 0 for value in parse_meminfo(text).values())


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z_()0-9]{0,20}", fullmatch=True), st.integers(0, 2**50)))
def test_what_the_kernel_prints_is_read_back(fields: dict[str, int]) -> None:
    text = "".join(f"{name}: {number:>8} kB\n" for name, number in fields.items())
    assert parse_meminfo(text) == {name: number * 1024 for name, number in fields.items()}
