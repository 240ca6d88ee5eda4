"""Arms as data, what a host can do of them, and the order of a block."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.sweep.design import (
    Arm,
    Cell,
    cells,
    feasible_arms,
    glibc_version,
    order,
    parse_arms,
    parse_dtypes,
)
from hypothesis import given
from hypothesis import strategies as st

STOCK: list[dict[str, Any]] = [{"name": "stock"}, {"name": "stock-again"}]
GIB = 1 << 30


@pytest.fixture
def host(tmp_path: Path) -> Host:
    files = {
        "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "/sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never\n",
        "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled": "always inherit madvise [never]\n",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "0\n",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages": "0\n",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages": "0\n",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages": "0\n",
        "/proc/meminfo": f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {8 * GIB // 1024} kB\n",
    }
    for path, text in files.items():
        target = tmp_path / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Host(tmp_path)


def test_an_arm_is_parsed_into_knobs_pools_and_environment() -> None:
    arm = parse_arms(
        [
            *STOCK,
            {
                "name": "pool",
                "thp": {"enabled": "madvise", "sizes": {"64K": "always"}},
                "pool": {"size": "2M", "count": 1024},
                "env": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2", "N": 1},
            },
        ]
    )[2]
    assert arm.settings() == {"thp.enabled": "madvise", "thp.sizes.64kB.enabled": "always", "hugepages.2M": "1024"}
    assert arm.env == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2", "N": "1"}


@pytest.mark.parametrize(
    ("arms", "named"),
    [
        ("stock", "sweep_arms"),
        ([*STOCK, "always"], "sweep_arms"),
        (STOCK[:1], "stock-again"),
        ([{"name": "stock", "thp": {"enabled": "always"}}, STOCK[1]], "stock"),
        ([*STOCK, {"name": "a"}, {"name": "a"}], "each name once"),
        ([*STOCK, {"name": "A B"}], "'A B'"),
        ([*STOCK, {"name": 7}], "7"),
        ([*STOCK, {"name": "a", "evn": {}}], "evn"),
        ([*STOCK, {"name": "a", "thp": {"enabled": True}}], "True"),
        ([*STOCK, {"name": "a", "thp": {"nonsense": "always"}}], "nonsense"),
        ([*STOCK, {"name": "a", "env": ["X=1"]}], "env"),
        ([*STOCK, {"name": "a", "env": {"X=Y": "1"}}], "'X=Y'"),
        ([*STOCK, {"name": "a", "env": {"X": True}}], "True"),
        ([*STOCK, {"name": "a", "env": {"X": "1\n2"}}], "sweep_arms.a.env.X"),
        ([*STOCK, {"name": "a", "pool": {"size": "2M", "count": -1}}], "-1"),
        ([*STOCK, {"name": "a", "about": "x" * 201}], "200"),
        ([*STOCK, {"name": "a", "first_token": {}}], "sweep_arms.a.first_token"),
        ([*STOCK, {"name": "a", "first_token": {"replay": "none"}}], "none"),
        ([*STOCK, {"name": "a", "first_token": {"replay": "both"}}], "both"),
        ([*STOCK, {"name": "a", "first_token": {"bytecode": "yes"}}], "yes"),
        ([*STOCK, {"name": "a", "first_token": {"replays": "ahead"}}], "replays"),
        ([*STOCK, {"name": "a", "first_token": {"replay": ["ahead"]}}], "ahead"),
        ([{"name": "stock", "first_token": {"bytecode": True}}, STOCK[1]], "stock"),
    ],
)
def test_a_bad_arm_is_one_readable_error(arms: object, named: str) -> None:
    with pytest.raises(SettingError) as error:
        parse_arms(arms)
    assert named in str(error.value)


def test_an_arm_survives_its_document() -> None:
    pools = [{"size": "2M", "count": 7}, {"size": "1G", "count": 1, "node": 3}]
    for pool in pools:
        (*_, arm) = parse_arms(
            [*STOCK, {"name": "a", "about": "b", "thp": {"defrag": "never"}, "pool": pool, "env": {"X": "1"}}]
        )
        assert Arm.from_dict(arm.as_dict()) == arm
    for first_token in ({"bytecode": True}, {"replay": "ahead"}, {"bytecode": True, "replay": "together"}):
        (*_, arm) = parse_arms([*STOCK, {"name": "a", "first_token": first_token}])
        assert arm.is_first_token
        assert Arm.from_dict(arm.as_dict()) == arm


@pytest.mark.parametrize("value", ["auto", [], ["auto", "int8"], None, [True], [["auto"]], [{}]])
def test_bad_dtypes_are_refused(value: object) -> None:
    with pytest.raises(SettingError, match="sweep_dtypes"):
        parse_dtypes(value)


def test_what_the_host_cannot_do_is_left_out_and_named(host: Host) -> None:
    arms = parse_arms(
        [
            *STOCK,
            {"name": "always", "thp": {"enabled": "always"}},
            {"name": "sometimes", "thp": {"enabled": "sometimes"}},
            {"name": "mthp-128k", "thp": {"sizes": {"128K": "always"}}},
            {"name": "giant", "pool": {"size": "1G", "count": 1}},
            {"name": "greedy", "pool": {"size": "2M", "count": 5000}},
            {"name": "tunable", "env": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}},
        ]
    )
    possible, left_out = feasible_arms(host, arms, Guard(1 * GIB, 0.5), glibc="2.31")
    assert [arm.name for arm in possible] == ["stock", "stock-again", "always"]
    assert [each["arm"] for each in left_out] == ["sometimes", "mthp-128k", "giant", "greedy", "tunable"]
    assert "128kB" in left_out[1]["why"]
    assert "glibc 2.31" in left_out[4]["why"]
    assert "tunable" in [arm.name for arm in feasible_arms(host, arms, Guard(1 * GIB, 0.5), glibc="2.36")[0]]


def test_an_arm_that_would_be_stock_under_another_name_is_left_out(host: Host) -> None:
    arms = parse_arms(
        [
            *STOCK,
            {"name": "madvise", "thp": {"enabled": "madvise"}},
            {"name": "madvise+torch", "thp": {"enabled": "madvise"}, "env": {"THP_MEM_ALLOC_ENABLE": "1"}},
            {"name": "no-pool", "pool": {"size": "2M", "count": 0}},
            {"name": "pool", "pool": {"size": "2M", "count": 8}},
            {"name": "never", "thp": {"enabled": "never"}},
        ]
    )
    possible, left_out = feasible_arms(host, arms, Guard(1 * GIB, 0.5))
    assert [arm.name for arm in possible] == ["stock", "stock-again", "madvise+torch", "pool", "never"]
    assert [each["arm"] for each in left_out] == ["madvise", "no-pool"]
    assert left_out[0]["why"] == "This host has its settings already: it is stock."


def test_the_glibc_version_is_two_numbers_or_nothing() -> None:
    assert all(part.isdigit() for part in glibc_version().split(".") if part)


CELLS = cells(parse_arms([*STOCK, *({"name": f"arm-{index}"} for index in range(6))]), ["auto", "float32"])


@given(st.integers(), st.integers(1, 1000))
def test_an_order_is_a_permutation_that_seed_and_block_alone_decide(seed: int, block: int) -> None:
    found = order(seed, block, CELLS)
    assert Counter(found) == Counter(CELLS)
    assert order(seed, block, reversed(CELLS)) == found


def test_an_order_never_changes_between_releases() -> None:
    """A sweep that is resumed after an upgrade goes on in the order it was planned in."""
    assert order(1, 1, [Cell("a", "auto"), Cell("b", "auto"), Cell("c", "auto"), Cell("a", "float32")]) == [
        Cell("a", "auto"),
        Cell("a", "float32"),
        Cell("c", "auto"),
        Cell("b", "auto"),
    ]


def test_every_cell_meets_every_position_about_equally_often() -> None:
    blocks = 4000
    first = Counter(order(7, block, CELLS)[0] for block in range(blocks))
    expected = blocks / len(CELLS)
    # Five standard deviations of a binomial count.
    assert all(abs(first[cell] - expected) < 5 * expected**0.5 for cell in CELLS)
