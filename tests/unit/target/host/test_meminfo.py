"""/proc/meminfo and the guard's figures."""

from __future__ import annotations

import contextlib

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.meminfo import parse_meminfo, read_meminfo
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard, check_guard
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import put

MIB, GIB = 1 << 20, 1 << 30
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


# The fake host: 16384000 kB in all, 14000000 kB available.
def test_the_share_guard_tells_the_figures(fake_host: Host) -> None:
    with pytest.raises(SettingError) as caught:
        check_guard(fake_host, [PoolSpec(2 * MIB, 4096)], 0, 0.5)
    assert caught.value.wanted == "hugepages.2M=4096 (8.00 GiB, 8.00 GiB more than now)"
    assert caught.value.found == "15.62 GiB of memory, 50% of which is 7.81 GiB"


def test_the_margin_guard_tells_the_figures(fake_host: Host) -> None:
    with pytest.raises(SettingError) as caught:
        check_guard(fake_host, [PoolSpec(2 * MIB, 6144)], 2 * GIB, 1.0)
    assert caught.value.found == "13.35 GiB available, which would leave 1.35 GiB"
    assert "2.00 GiB" in caught.value.why


def test_the_guard_is_exact_at_its_border(fake_host: Host) -> None:
    available = read_meminfo(fake_host)["MemAvailable"]
    pools = [PoolSpec(2 * MIB, 1024)]
    check_guard(fake_host, pools, available - 2 * GIB, 0.5)
    with pytest.raises(SettingError):
        check_guard(fake_host, pools, available - 2 * GIB + 1, 0.5)


def test_only_growth_is_refused(fake_host: Host) -> None:
    folder = "/sys/kernel/mm/hugepages/hugepages-2048kB"
    put(fake_host.root, f"{folder}/nr_hugepages", "7000\n")
    for count in (6999, 7000):
        check_guard(fake_host, [PoolSpec(2 * MIB, count)], 100 * GIB, 0.1)
    with pytest.raises(SettingError):
        check_guard(fake_host, [PoolSpec(2 * MIB, 7001)], 100 * GIB, 0.1)


def test_pools_of_several_sizes_count_together(fake_host: Host) -> None:
    pools = [PoolSpec(2 * MIB, 2048), PoolSpec(GIB, 4)]
    check_guard(fake_host, pools[:1], 0, 0.5)
    check_guard(fake_host, pools[1:], 0, 0.5)
    with pytest.raises(SettingError, match="hugepages_max_share"):
        check_guard(fake_host, pools, 0, 0.5)


@pytest.mark.parametrize("value", [float("nan"), "nan", "inf", 0, -0.5, 1.01, "half", "", True, None, [0.5], 10**400])
def test_a_share_that_would_switch_the_guard_off_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match="hugepages_max_share"):
        Guard.parse("1G", value)


@pytest.mark.parametrize(("value", "share"), [(0.5, 0.5), ("0.99", 0.99), (1, 1.0)])
def test_shares_as_numbers_and_text(value: object, share: float) -> None:
    assert Guard.parse("1G", value, 5) == Guard(GIB + 5, share, 5)


def test_a_meminfo_without_what_the_guard_needs_is_a_typed_error(fake_host: Host) -> None:
    put(fake_host.root, "/proc/meminfo", "MemTotal: 1 kB\n")
    with pytest.raises(ParseError, match="MemAvailable"):
        check_guard(fake_host, [PoolSpec(2 * MIB, 1)], 0, 0.5)
