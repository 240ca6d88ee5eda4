"""Sizes: exact, binary, and one typed error for everything else."""

from __future__ import annotations

import contextlib

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.sizes import format_size, parse_size, tell_size
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("2M", 2 << 20),
        ("2MiB", 2 << 20),
        ("2 MB", 2 << 20),
        ("2048kB", 2 << 20),
        ("2097152", 2 << 20),
        (2097152, 2 << 20),
        ("1G", 1 << 30),
        ("1024m", 1 << 30),
        (" 64K ", 64 << 10),
        ("0", 0),
    ],
)
def test_golden_sizes(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "value",
    [True, False, 1.5, "1.5G", -1, "-1", "", "M", "2X", "1e3", "0x10", "2M2", "٢M", "9" * 16, None, [], {}, 10**30],
)
def test_everything_else_is_one_typed_error(value: object) -> None:
    with pytest.raises(SettingError) as caught:
        parse_size(value, "hugepages_pools.size")
    assert caught.value.knob == "hugepages_pools.size"


@given(st.integers(0, 10**14))
def test_what_is_formatted_reads_back_exactly(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.binary())
def test_any_value_gives_a_size_or_one_typed_error(value: object) -> None:
    with contextlib.suppress(SettingError):
        assert parse_size(value) >= 0


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (4096, "4 KiB"),
        (50 << 20, "50 MiB"),
        ((1 << 30) - (1 << 20), "1023 MiB"),
        (1 << 30, "1.0 GiB"),
        (3435973837, "3.2 GiB"),
        (2 << 40, "2048.0 GiB"),
    ],
)
def test_people_read_no_zero_where_there_is_something(size_bytes: int, told: str) -> None:
    assert tell_size(size_bytes) == told
