"""Pools: strict settings, counts by size and node, and a kernel that gives only a part."""

from __future__ import annotations

import errno
import shutil
import time

import pytest
from ansible.module_utils.slm_baseline.host.errors import NeedsReboot, ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import (
    HUGEPAGES,
    PoolSpec,
    parse_pool_name,
    pool_nodes,
    pool_sizes,
    read_pool,
    read_pools,
)
from ansible.module_utils.slm_baseline.settings.kinds.pools import (
    PoolLayout,
    Pools,
    boot_arguments,
    check_pools,
    parse_pools,
    plan_pools,
    refuse_lost_pages,
    restore_layout,
)
from ansible.module_utils.slm_baseline.settings.state.changes import apply_all
from ansible.module_utils.slm_baseline.settings.state.losses import LossError
from ansible.module_utils.slm_baseline.settings.state.ownership import Ours
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fake_kernel import FakeKernel, add_node
from tests.support.fakes import put

MIB2, GIB = 2 << 20, 1 << 30


@pytest.fixture
def kernel(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Two nodes, and no waiting between attempts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    add_node(fake_host.root)
    return FakeKernel(fake_host.root)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (None, []),
        ([], []),
        ([{"size": "2M", "count": 1024}], [PoolSpec(MIB2, 1024)]),
        ([{"size": 2097152, "count": "1024"}], [PoolSpec(MIB2, 1024)]),
        ([{"size": "2048kB", "count": 0, "node": None}], [PoolSpec(MIB2, 0)]),
        (
            [{"size": "1G", "count": 1, "node": "0"}, {"size": "1G", "count": 2, "node": 1}],
            [PoolSpec(GIB, 1, 0), PoolSpec(GIB, 2, 1)],
        ),
    ],
)
def test_settings_in_every_spelling(settings: object, wanted: list[PoolSpec]) -> None:
    assert parse_pools(settings) == wanted


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"size": "2M", "memory": "4G"}, PoolSpec(MIB2, 2048)),
        ({"size": "1G", "memory": "4096M"}, PoolSpec(GIB, 4)),
        ({"size": "2M", "memory": 4194304}, PoolSpec(MIB2, 2)),
        ({"size": "2M", "memory": "25%"}, PoolSpec(MIB2, 2000)),
        ({"size": "2M", "memory": "12.5 %", "node": 1}, PoolSpec(MIB2, 62, 1)),
        ({"size": "1G", "memory": "100%"}, PoolSpec(GIB, 15)),
        ({"size": "1G", "memory": "1%"}, PoolSpec(GIB, 0)),
    ],
)
def test_a_pool_of_so_much_memory_is_pages(entry: dict[str, object], wanted: PoolSpec) -> None:
    def memory(node: int | None) -> int:
        return 16000 << 20 if node is None else 1000 << 20

    assert parse_pools([entry], memory) == parse_pools(entry, memory) == [wanted]


def test_a_share_of_a_node_that_is_not_there_is_refused(kernel: FakeKernel) -> None:
    assert Pools.parse(kernel, [{"size": "2M", "memory": "50%"}]).pools == [
        PoolSpec(MIB2, 16384000 * 1024 // 2 // MIB2)
    ]
    with pytest.raises(SettingError, match=r"the memory of node 7; found no such memory"):
        Pools.parse(kernel, [{"size": "2M", "memory": "50%", "node": 7}])
    put(kernel.root, "/proc/meminfo", "MemFree: 1 kB\n")
    with pytest.raises(SettingError, match=r"the memory of the host; found no such memory"):
        Pools.parse(kernel, [{"size": "2M", "memory": "50%"}])


def test_a_fraction_that_is_whole_says_where_it_comes_from() -> None:
    with pytest.raises(SettingError) as caught:
        parse_pools([{"size": "2M", "count": 16609.0}])
    assert "`| int`" in caught.value.next_step


def test_an_unknown_key_is_named_with_what_was_meant() -> None:
    with pytest.raises(SettingError, match="Unknown: cuont; did you mean count"):
        parse_pools([{"size": "2M", "cuont": 1}])


@pytest.mark.parametrize(
    "count", [True, False, -1, "-1", 1.5, 1024.0, "1.5", "1k", "", None, 2**31, "9" * 5000, "²", []]
)
def test_a_count_that_is_no_whole_number_is_refused(count: object) -> None:
    with pytest.raises(SettingError) as caught:
        parse_pools([{"size": "2M", "count": count}])
    assert caught.value.knob == "hugepages.2M count"
    assert caught.value.found == repr(count)


@pytest.mark.parametrize(
    "settings",
    [
        "2M",
        True,
        [{"size": "2M", "count": 1, "memory": "2M"}],
        [{"size": "2M", "memory": "3M"}],
        [{"size": "2M", "memory": "25"}],
        [{"size": "2M", "memory": 0.25}],
        [{"size": "2M", "memory": "101%"}],
        [{"size": "2M", "memory": "0%"}],
        [{"size": "2M", "memory": "-1%"}],
        [{"size": "2M", "memory": "many"}],
        [{"size": "0", "memory": "2M"}],
        [{"size": "2M", "memory": True}],
        7,
        [None],
        ["2M"],
        [{}],
        [{"size": "2M"}],
        [{"count": 1}],
        [{"size": "2M", "count": 1, "nodes": 0}],
        [{"size": "2M", "count": 1, "node": True}],
        [{"size": "2M", "count": 1, "node": -1}],
        [{"size": True, "count": 1}],
    ],
)
def test_another_form_is_refused(settings: object) -> None:
    with pytest.raises(SettingError, match="hugepages"):
        parse_pools(settings)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"size": "2M", "count": 1}, {"size": "2048kB", "count": 2}),
        ({"size": "2M", "count": 1}, {"size": "2M", "count": 1, "node": 0}),
        ({"size": "2M", "count": 1, "node": 0}, {"size": "2M", "count": 1}),
        ({"size": "2M", "count": 1, "node": 0}, {"size": "2M", "count": 1, "node": "0"}),
    ],
)
def test_two_entries_for_the_same_pages_contradict(first: object, second: object) -> None:
    with pytest.raises(SettingError, match="Both entries set the same pages"):
        parse_pools([first, second])


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "size": st.text() | st.sampled_from(["2M", "1G"]),
                "count": st.text() | st.integers() | st.floats(),
                "node": st.integers() | st.none(),
                "colour": st.text(),
            },
        )
        | st.text()
    )
)
def test_any_settings_give_pools_or_one_typed_error(settings: object) -> None:
    try:
        wanted = parse_pools(settings)
    except SettingError:
        return
    assert len({pool.name for pool in wanted}) == len(wanted)


@given(st.integers(1, 10**9).map(lambda kb: kb * 1024), st.none() | st.integers(0, 1023))
def test_names_read_back(size_bytes: int, node: int | None) -> None:
    spec = PoolSpec(size_bytes, 5, node)
    assert parse_pool_name(spec.name, 5) == spec


def test_every_size_and_node_is_found(kernel: FakeKernel) -> None:
    assert pool_sizes(kernel) == [MIB2, GIB]
    assert pool_nodes(kernel) == [0, 1]
    assert [pool.name for pool in read_pools(kernel)] == [
        "hugepages.2M",
        "hugepages.node0.2M",
        "hugepages.node1.2M",
        "hugepages.1G",
        "hugepages.node0.1G",
        "hugepages.node1.1G",
    ]


def test_arm_sizes_and_a_kernel_without_numa(fake_host: Host) -> None:
    shutil.rmtree(fake_host.path("/sys/devices/system/node"))
    shutil.rmtree(fake_host.path(HUGEPAGES))
    for size_kb in (64, 2048, 524288):
        for name in (
            "nr_hugepages",
            "free_hugepages",
            "surplus_hugepages",
            "resv_hugepages",
            "nr_overcommit_hugepages",
        ):
            put(fake_host.root, f"{HUGEPAGES}/hugepages-{size_kb}kB/{name}", "0\n")
    assert [pool.name for pool in read_pools(fake_host)] == ["hugepages.64K", "hugepages.2M", "hugepages.512M"]
    check_pools(fake_host, [PoolSpec(512 << 20, 3)])


def test_persistent_pages_are_total_less_surplus(fake_host: Host) -> None:
    folder = f"{HUGEPAGES}/hugepages-2048kB"
    put(fake_host.root, f"{folder}/nr_hugepages", "12\n")
    put(fake_host.root, f"{folder}/surplus_hugepages", "5\n")
    assert read_pool(fake_host, MIB2).persistent == 7


@pytest.mark.parametrize("text", ["", "many", "-1", "1 2", "²"])
def test_counts_that_are_none_are_a_parse_error(fake_host: Host, text: str) -> None:
    put(fake_host.root, f"{HUGEPAGES}/hugepages-2048kB/nr_hugepages", text)
    with pytest.raises(ParseError, match="nr_hugepages"):
        read_pool(fake_host, MIB2)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (PoolSpec(16 << 20, 1), "a kernel with 2M, 1G"),
        (PoolSpec(0, 1), "a kernel with 2M, 1G"),
        (PoolSpec(MIB2, 1, 7), "nodes 0, 1"),
    ],
)
def test_a_size_or_node_that_is_not_there_lists_what_is(kernel: FakeKernel, spec: PoolSpec, told: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_pools(kernel, [PoolSpec(MIB2, 1), spec])
    assert caught.value.found == told


def test_a_kernel_without_hugetlb_says_so(fake_host: Host) -> None:
    shutil.rmtree(fake_host.path(HUGEPAGES))
    check_pools(fake_host, [])
    with pytest.raises(SettingError, match="built without hugetlb"):
        check_pools(fake_host, [PoolSpec(MIB2, 1)])


def test_a_pool_is_set_and_a_second_plan_is_empty(kernel: FakeKernel) -> None:
    wanted = [PoolSpec(MIB2, 1024), PoolSpec(GIB, 2, 1)]
    apply_all(kernel, plan_pools(kernel, wanted))
    assert read_pool(kernel, MIB2).persistent == 1024
    assert kernel.pages(GIB) == {0: 0, 1: 2}
    assert plan_pools(kernel, wanted) == []


def test_a_partial_grant_says_asked_and_got_and_puts_every_page_back_where_it_was(kernel: FakeKernel) -> None:
    kernel.write_kernel("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "10")
    kernel.room.update({(MIB2, 0): 300, (MIB2, 1): 400})
    with pytest.raises(SettingError) as caught:
        apply_all(kernel, plan_pools(kernel, [PoolSpec(GIB, 1), PoolSpec(MIB2, 1024)]))
    assert (caught.value.knob, caught.value.wanted) == ("hugepages.2M", "1024 pages of 2M")
    assert "asked 1024, got 700" in caught.value.found
    assert not isinstance(caught.value, NeedsReboot)
    assert kernel.pages(MIB2) == {0: 0, 1: 10}
    assert kernel.pages(GIB) == {0: 0, 1: 0}


def test_a_node_that_is_short_is_not_made_up_for_by_another(kernel: FakeKernel) -> None:
    kernel.room[MIB2, 1] = 3
    with pytest.raises(SettingError, match="asked 5, got 3"):
        apply_all(kernel, plan_pools(kernel, [PoolSpec(MIB2, 5, 0), PoolSpec(MIB2, 5, 1)]))
    assert kernel.pages(MIB2) == {0: 0, 1: 0}


def test_attempts_are_bounded_and_compaction_is_by_opt_in(kernel: FakeKernel) -> None:
    kernel.room[MIB2, 0] = kernel.room[MIB2, 1] = 1
    for compact in (False, True):
        kernel.writes.clear()
        with pytest.raises(SettingError, match="after 3 attempts"):
            plan_pools(kernel, [PoolSpec(MIB2, 9)], compact)[0].apply(kernel)
        asked = [path for path, value in kernel.writes if value == "9"]
        assert len(asked) == 3
        assert (("/proc/sys/vm/compact_memory", "1") in kernel.writes) == compact
        assert not any("drop_caches" in path for path, _ in kernel.writes)
        kernel.write_kernel(f"{HUGEPAGES}/hugepages-2048kB/nr_hugepages", "0")


def test_memory_is_compacted_only_where_that_is_asked_for(kernel: FakeKernel) -> None:
    kernel.room[MIB2, 0] = kernel.room[MIB2, 1] = 1
    wanted = [PoolSpec(MIB2, 9)]
    for pools, compacts in ((Pools(wanted), False), (Pools(wanted, compact=True), True)):
        kernel.writes.clear()
        with pytest.raises(SettingError, match="after 3 attempts"):
            pools.plan(kernel, {})[0].apply(kernel)
        assert (("/proc/sys/vm/compact_memory", "1") in kernel.writes) is compacts
        kernel.write_kernel(f"{HUGEPAGES}/hugepages-2048kB/nr_hugepages", "0")


@pytest.mark.parametrize(("count", "is_lost"), [(10, False), (7, False), (6, True), (0, True)])
def test_a_pool_keeps_what_is_in_use_and_what_is_reserved(fake_host: Host, count: int, is_lost: bool) -> None:
    for name, pages in (("nr", 10), ("free", 6), ("resv", 3)):
        put(fake_host.root, f"{HUGEPAGES}/hugepages-2048kB/{name}_hugepages", f"{pages}\n")
    spec = PoolSpec(MIB2, count)
    if not is_lost:
        refuse_lost_pages(fake_host, spec)
        return
    with pytest.raises(LossError, match="10 pages, 4 in use and 3 more reserved"):
        refuse_lost_pages(fake_host, spec)
    refuse_lost_pages(fake_host, spec, ["hugepages.2M"])


def test_a_rollback_gives_back_what_is_ours_node_by_node() -> None:
    before = PoolLayout(MIB2, 3, {0: 1, 1: 2})
    found = PoolLayout(MIB2, 12, {0: 5, 1: 7})
    ours = Ours({"hugepages.node0.2M": "5"})
    assert before.rollback_target(found, ours) == PoolLayout(MIB2, 8, {0: 1, 1: 7})
    assert before.rollback_target(found, Ours({"hugepages.2M": "12"})) == before
    assert before.rollback_target(before, Ours()) == before
    # Others changed all of it, a node came or went since, or there is none.
    assert before.rollback_target(found, Ours()) is None
    for nodes in ({0: 5}, {0: 5, 1: 7, 2: 0}, {}):
        assert before.rollback_target(PoolLayout(MIB2, 12, nodes), ours) is None


def test_gigabyte_pages_that_are_short_give_the_boot_arguments(kernel: FakeKernel) -> None:
    kernel.room[GIB, 0] = kernel.room[GIB, 1] = 0
    with pytest.raises(SettingError) as caught:
        apply_all(kernel, plan_pools(kernel, [PoolSpec(GIB, 4)]))
    assert "`hugepagesz=1G hugepages=4`" in caught.value.next_step


def test_boot_arguments_by_node() -> None:
    assert boot_arguments(PoolSpec(GIB, 4, 1)) == "hugepagesz=1G hugepages=1:4"


def test_an_undo_that_does_not_take_is_told(kernel: FakeKernel) -> None:
    (change,) = plan_pools(kernel, [PoolSpec(MIB2, 8)])
    change.apply(kernel)
    kernel.stuck.update(
        f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages" for node in (0, 1)
    )
    with pytest.raises(SettingError, match="8 pages and 0 surplus pages still in use"):
        change.reverse().apply(kernel)


def test_what_shrinks_goes_first(kernel: FakeKernel) -> None:
    kernel.write_kernel(f"{HUGEPAGES}/hugepages-2048kB/nr_hugepages", "512")
    changes = plan_pools(kernel, [PoolSpec(GIB, 1), PoolSpec(MIB2, 0)])
    assert [change.name for change in changes] == ["hugepages.2M", "hugepages.1G"]


def test_a_read_only_sys_is_one_clear_failure(kernel: FakeKernel) -> None:
    kernel.failing["/sys"] = errno.EROFS
    with pytest.raises(SettingError, match="read-only, as /sys is in most containers"):
        apply_all(kernel, plan_pools(kernel, [PoolSpec(MIB2, 1)]))
    assert kernel.pages(MIB2) == {0: 0, 1: 0}


def test_pages_that_come_back_late_are_asked_for_again(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.room.update({(MIB2, 0): 1, (MIB2, 1): 1})

    def later(seconds: float) -> None:
        """Memory becomes free while this waits."""
        kernel.room[MIB2, 0] += 2
        kernel.room[MIB2, 1] += 2

    monkeypatch.setattr(time, "sleep", later)
    restore_layout(kernel, PoolLayout(MIB2, 8, {0: 4, 1: 4}))
    assert kernel.pages(MIB2) == {0: 4, 1: 4}
    kernel.room.update({(MIB2, 0): 5, (MIB2, 1): 5})
    restore_layout(kernel, PoolLayout(MIB2, 15))
    assert sum(kernel.pages(MIB2).values()) == 15


def test_attempts_to_restore_are_bounded(kernel: FakeKernel) -> None:
    kernel.room[MIB2, 0] = 1
    restore_layout(kernel, PoolLayout(MIB2, 8, {0: 4, 1: 4}))
    assert [value for path, value in kernel.writes if "node0" in path] == ["4"] * 3
    assert kernel.pages(MIB2) == {0: 1, 1: 4}


@given(
    before=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    now=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    used=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_spread_comes_back_from_any_state(
    kernel: FakeKernel, before: tuple[int, int], now: tuple[int, int], used: tuple[int, int]
) -> None:
    for node in (0, 1):
        kernel.used[MIB2, node] = 0
        kernel.write_kernel(
            f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages", str(now[node])
        )
        kernel.used[MIB2, node] = min(used[node], now[node])
    restore_layout(kernel, PoolLayout(MIB2, sum(before), dict(enumerate(before))))
    assert kernel.pages(MIB2) == dict(enumerate(before))
    held = sum(max(0, min(used[node], now[node]) - before[node]) for node in (0, 1))
    assert read_pool(kernel, MIB2).surplus == held


def test_the_files_of_a_pool_name_it() -> None:
    for folder, node in ((HUGEPAGES, ""), ("/sys/devices/system/node/node1/hugepages", "node1.")):
        for size_kb, size in ((2048, "2M"), (1048576, "1G")):
            path = f"{folder}/hugepages-{size_kb}kB/nr_hugepages"
            assert Pools.knob_of(path, 0) == f"hugepages.{node}{size}"
    for sysctl in ("nr_hugepages", "nr_hugepages_mempolicy"):
        assert Pools.knob_of(f"/proc/sys/vm/{sysctl}", GIB) == "hugepages.1G"
    for other in (f"{HUGEPAGES}/hugepages-2048kB/free_hugepages", "/proc/sys/vm/nr_overcommit_hugepages"):
        assert Pools.knob_of(other, MIB2) is None


@pytest.mark.parametrize(
    ("line", "reserved"),
    [
        ("hugepages=4", {"hugepages.2M": "4"}),
        ("hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=8", {"hugepages.1G": "2", "hugepages.2M": "8"}),
        ("hugepages=4 hugepagesz=2M hugepages=8", {"hugepages.2M": "4"}),
        ("hugepagesz=2M hugepages=0:2,1:4", {"hugepages.node0.2M": "2", "hugepages.node1.2M": "4"}),
        ("default_hugepagesz=1G hugepages=3", {"hugepages.1G": "3"}),
        ("hugepagesz=3M hugepages=2", {}),
        ("hugepagesz=2M hugepages=8 hugepages=9", {"hugepages.2M": "8"}),
        ("hugepagesz=2M hugepages=8 hugepagesz=2M hugepages=9", {"hugepages.2M": "8"}),
        ("hugepages=8x", {"hugepages.2M": "8"}),
        ("hugepages=x", {}),
        ("hugepages=0:2,x", {"hugepages.node0.2M": "2"}),
        ("hugepages=8 sysctl.vm.nr_hugepages=3", {"hugepages.2M": "3"}),
        ("hugepages=0:8 sysctl/vm/nr_hugepages=3", {"hugepages.2M": "3"}),
        ("sysctl.vm.nr_hugepages=many", {}),
    ],
)
def test_what_a_command_line_reserves(line: str, reserved: dict[str, str]) -> None:
    words = [(key, value) for key, _, value in (word.partition("=") for word in line.split())]
    assert Pools.boot_values(words, MIB2) == reserved
