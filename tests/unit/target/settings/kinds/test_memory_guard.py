"""The memory guard: its figures, by NUMA node, under a control group's limit, and over pools that return."""

from __future__ import annotations

import time

import pytest
from ansible.module_utils.slm_baseline.host.cgroup import memory_limit_bytes
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.meminfo import read_meminfo
from ansible.module_utils.slm_baseline.settings.apply.transaction import carry_out
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.settings.kinds.pools import Pools
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import load, plan_kind
from ansible.module_utils.slm_baseline.settings.state.losses import Limits

from tests.support.fake_kernel import FakeKernel, add_node
from tests.support.fakes import MEMINFO, put

MIB2, MIB, GIB = 2 << 20, 1 << 20, 1 << 30
NODE = "/sys/devices/system/node/node{}/meminfo"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


# The fake host: 16384000 kB in all, 14000000 kB available.
def test_the_share_guard_tells_the_figures(fake_host: Host) -> None:
    with pytest.raises(SettingError) as caught:
        Guard(0, 0.5).check(fake_host, [PoolSpec(MIB2, 4096)])
    assert caught.value.wanted == "hugepages.2M=4096 (8.00 GiB, 8.00 GiB more than now)"
    assert caught.value.found == "15.62 GiB of memory, 50% of which is 7.81 GiB"


def test_the_margin_guard_tells_the_figures(fake_host: Host) -> None:
    with pytest.raises(SettingError) as caught:
        Guard(2 * GIB, 1.0).check(fake_host, [PoolSpec(MIB2, 6144)])
    assert caught.value.found == "13.35 GiB available, which would leave 1.35 GiB"
    assert "2.00 GiB" in caught.value.why


def test_the_guard_is_exact_at_its_border(fake_host: Host) -> None:
    available = read_meminfo(fake_host)["MemAvailable"]
    pools = [PoolSpec(MIB2, 1024)]
    Guard(available - 2 * GIB, 0.5).check(fake_host, pools)
    with pytest.raises(SettingError):
        Guard(available - 2 * GIB + 1, 0.5).check(fake_host, pools)


def test_only_growth_is_refused(fake_host: Host) -> None:
    folder = "/sys/kernel/mm/hugepages/hugepages-2048kB"
    put(fake_host.root, f"{folder}/nr_hugepages", "7000\n")
    for count in (6999, 7000):
        Guard(100 * GIB, 0.1).check(fake_host, [PoolSpec(MIB2, count)])
    with pytest.raises(SettingError):
        Guard(100 * GIB, 0.1).check(fake_host, [PoolSpec(MIB2, 7001)])


def test_pools_of_several_sizes_count_together(fake_host: Host) -> None:
    pools = [PoolSpec(MIB2, 2048), PoolSpec(GIB, 4)]
    Guard(0, 0.5).check(fake_host, pools[:1])
    Guard(0, 0.5).check(fake_host, pools[1:])
    with pytest.raises(SettingError, match="hugepages_max_share"):
        Guard(0, 0.5).check(fake_host, pools)


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
        Guard(0, 0.5).check(fake_host, [PoolSpec(MIB2, 1)])


def node_memory(host: Host, node: int, free_kb: int, cache_kb: int = 0) -> None:
    """A node of 1 GiB."""
    fields = {"MemTotal": 1 << 20, "MemFree": free_kb, "Active(file)": cache_kb}
    put(host.root, NODE.format(node), "".join(f"Node {node} {name}: {kb} kB\n" for name, kb in fields.items()))


def test_most_of_a_small_node_is_refused_though_the_host_has_enough(fake_host: Host) -> None:
    node_memory(fake_host, 0, 1 << 20)
    guard = Guard(0, 0.5)
    guard.check(fake_host, [PoolSpec(MIB2, 256, 0)])
    with pytest.raises(SettingError, match=r"found 1\.00 GiB of memory on node 0, 50% of which is 0\.50 GiB"):
        guard.check(fake_host, [PoolSpec(MIB2, 480, 0)])


def test_a_node_gives_what_is_free_and_what_the_page_cache_gives_up(fake_host: Host) -> None:
    node_memory(fake_host, 0, 100 << 10, 100 << 10)
    Guard(0, 0.9).check(fake_host, [PoolSpec(MIB2, 100, 0)])
    with pytest.raises(SettingError, match=r"0\.20 GiB available on node 0"):
        Guard(0, 0.9).check(fake_host, [PoolSpec(MIB2, 101, 0)])


def test_a_node_may_shrink_however_full_it_is(fake_host: Host) -> None:
    node_memory(fake_host, 0, 0)
    put(fake_host.root, POOL.replace("/mm/", "/mm/"), "500\n")
    put(fake_host.root, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "500\n")
    Guard(0, 0.1).check(fake_host, [PoolSpec(MIB2, 400, 0)])


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("", {}, None),
        ("0::/\n", {}, None),
        ("0::/user.slice/a\n", {"/user.slice/a/memory.max": "max", "/user.slice/memory.max": "2147483648"}, 2 * GIB),
        ("0::/a/b\n", {"/a/b/memory.max": "7", "/a/memory.max": "9"}, 7),
        ("0::/../a\n", {"/a/memory.max": "7", "/memory.max": "5"}, 5),
        ("4:memory:/x\n1:cpu:/\n", {"/memory/x/memory.limit_in_bytes": "11"}, 11),
        ("4:memory:/x\n", {"/memory/x/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("3:cpu,memory:/\n0::/\n", {"/memory/memory.limit_in_bytes": "3", "/memory.max": "odd"}, 3),
        ("odd", {}, None),
    ],
)
def test_the_smallest_limit_on_the_way_up(fake_host: Host, own: str, files: dict[str, str], limit: int | None) -> None:
    put(fake_host.root, "/proc/self/cgroup", own)
    for path, text in files.items():
        put(fake_host.root, f"/sys/fs/cgroup{path}", f"{text}\n")
    assert memory_limit_bytes(fake_host) == limit


def test_a_model_that_its_control_group_does_not_let_in_is_refused(fake_host: Host) -> None:
    put(fake_host.root, "/proc/self/cgroup", "0::/user.slice\n")
    put(fake_host.root, "/sys/fs/cgroup/user.slice/memory.max", f"{2 * GIB}\n")
    pools = [PoolSpec(MIB2, 8)]
    Guard.parse("1G", 0.5, 2 * GIB).check(fake_host, pools)
    with pytest.raises(SettingError, match=r"a control group that may use 2\.00 GiB"):
        Guard.parse("1G", 0.5, 2 * GIB + 1).check(fake_host, pools)


def test_a_given_up_pool_grows_back_only_where_the_memory_is_there(
    fake_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    add_node(fake_host.root)
    kernel = FakeKernel(fake_host.root)
    kernel.write_kernel(POOL, "4000")
    guard = Guard(GIB, 0.1)
    for wanted in ([PoolSpec(MIB2, 0)], []):
        kind = Pools(wanted, Limits(frozenset({"hugepages.2M"}), guard))
        if not wanted:
            put(kernel.root, "/proc/meminfo", MEMINFO.replace("14000000", " 9000000"))
            with pytest.raises(SettingError, match=r"which would leave 0\.77 GiB"):
                plan_kind(kernel, kind, load(kernel))
            put(kernel.root, "/proc/meminfo", MEMINFO)
        carry_out(kernel, [kind], plan_kind(kernel, kind, load(kernel)), "t", "run-1")
    assert sum(kernel.pages(MIB2).values()) == 4000
