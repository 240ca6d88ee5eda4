"""The whole tuning planned: nothing where it is in force, and what is no longer wanted returns to the prior value."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.apply.transaction import carry_out
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path, unit_text
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.kind import Kind
from ansible.module_utils.slm_baseline.settings.kinds.mounts import Mounts
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN, Pools
from ansible.module_utils.slm_baseline.settings.kinds.registry import parse_wanted, values_of
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, THP_DROPIN, Thp, thp_knobs
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import ensure, load, plan_kind, save
from ansible.module_utils.slm_baseline.settings.state.changes import Change
from ansible.module_utils.slm_baseline.settings.state.ownership import Ours

from tests.support.fake_kernel import FakeKernel, add_node
from tests.support.fakes import MOUNTINFO, put

MIB2, GIB = 2 << 20, 1 << 30
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"


@pytest.fixture
def kernel(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Two nodes with 1 and 3 pages, and a snapshot that knows it."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    add_node(fake_host.root)
    kernel = FakeKernel(fake_host.root)
    kernel.write_kernel(NODE.format(0), "1")
    kernel.write_kernel(NODE.format(1), "3")
    ensure(kernel, [Mounts([MountSpec("/mnt/huge", MIB2)])], "t", "run-1")
    return kernel


def plan(kernel: FakeKernel, wanted: Kind) -> list[Change]:
    return plan_kind(kernel, wanted, load(kernel))


def names(changes: list[Change]) -> list[str]:
    return [change.name for change in changes]


def tune(kernel: FakeKernel, wanted: Kind) -> list[str]:
    """One run of a setter; the names of what it changed."""
    changes = plan(kernel, wanted)
    carry_out(kernel, [wanted], changes, "t", "run-1")
    return names(changes)


def thp(kernel: FakeKernel, **wanted: str) -> list[str]:
    return tune(kernel, Thp({f"thp.{name}": value for name, value in wanted.items()}))


def pools(kernel: FakeKernel, *wanted: PoolSpec) -> list[str]:
    done = tune(kernel, Pools(wanted))
    assert plan(kernel, Pools(wanted)) == []
    return done


def test_thp_runtime_then_drop_in_and_a_second_plan_is_empty(kernel: FakeKernel) -> None:
    assert thp(kernel, enabled="always", defrag="never") == ["thp.enabled", "thp.defrag", THP_DROPIN]
    assert kernel.read(THP_DROPIN).splitlines()[1:] == [
        f"w! {THP}/enabled - - - - always",
        f"w! {THP}/defrag - - - - never",
    ]
    assert thp(kernel, enabled="always", defrag="never") == []


def test_a_knob_no_longer_wanted_returns_to_its_prior_value(kernel: FakeKernel) -> None:
    thp(kernel, enabled="always", defrag="never")
    assert thp(kernel, enabled="always") == ["thp.defrag", THP_DROPIN]
    assert thp_knobs(kernel)["thp.defrag"].value == "madvise"
    assert thp(kernel) == ["thp.enabled", THP_DROPIN]
    assert not kernel.exists(THP_DROPIN)
    assert thp(kernel) == []


def test_a_knob_no_longer_wanted_that_somebody_changed_since_is_left(kernel: FakeKernel) -> None:
    thp(kernel, enabled="always", defrag="never")
    kernel.write_kernel(f"{THP}/defrag", "defer")
    assert thp(kernel, enabled="always") == [THP_DROPIN]
    assert thp_knobs(kernel)["thp.defrag"].value == "defer"


def test_a_knob_no_longer_wanted_that_a_newer_kernel_lacks_is_only_dropped(kernel: FakeKernel) -> None:
    thp(kernel, enabled="always", use_zero_page="0")
    kernel.path(f"{THP}/use_zero_page").unlink()
    assert thp(kernel, enabled="always") == [THP_DROPIN]


def test_a_drop_in_deleted_by_hand_is_written_again(kernel: FakeKernel) -> None:
    thp(kernel, enabled="always")
    kernel.path(THP_DROPIN).unlink()
    assert thp(kernel, enabled="always") == [THP_DROPIN]


def test_a_pool_as_a_whole_comes_and_goes(kernel: FakeKernel) -> None:
    assert pools(kernel, PoolSpec(MIB2, 100)) == ["hugepages.2M", POOLS_DROPIN]
    assert sorted(pools(kernel)) == [POOLS_DROPIN, "hugepages.node0.2M", "hugepages.node1.2M"]
    assert kernel.pages(MIB2) == {0: 1, 1: 3}


def test_a_pool_returns_as_a_whole_where_a_node_has_gone_since(kernel: FakeKernel) -> None:
    pools(kernel, PoolSpec(MIB2, 100))
    shutil.rmtree(kernel.path("/sys/devices/system/node/node1"))
    kernel.write_kernel(NODE.format(0), "100")
    assert pools(kernel) == ["hugepages.2M", POOLS_DROPIN]
    assert kernel.pages(MIB2) == {0: 4}


def test_a_node_no_longer_wanted_returns_while_the_other_stays(kernel: FakeKernel) -> None:
    pools(kernel, PoolSpec(MIB2, 50, 0), PoolSpec(MIB2, 60, 1))
    assert pools(kernel, PoolSpec(MIB2, 50, 0)) == ["hugepages.node1.2M", POOLS_DROPIN]
    assert kernel.pages(MIB2) == {0: 50, 1: 3}
    pools(kernel)
    assert kernel.pages(MIB2) == {0: 1, 1: 3}


def test_from_the_whole_to_one_node_gives_the_other_node_back(kernel: FakeKernel) -> None:
    pools(kernel, PoolSpec(MIB2, 100))
    pools(kernel, PoolSpec(MIB2, 50, 0))
    assert kernel.pages(MIB2) == {0: 50, 1: 3}


def test_from_nodes_to_the_whole_the_nodes_are_covered(kernel: FakeKernel) -> None:
    pools(kernel, PoolSpec(MIB2, 50, 0), PoolSpec(MIB2, 60, 1))
    pools(kernel, PoolSpec(MIB2, 100))
    assert sum(kernel.pages(MIB2).values()) == 100


def test_one_size_goes_while_another_comes(kernel: FakeKernel) -> None:
    pools(kernel, PoolSpec(GIB, 2))
    came_and_went = ["hugepages.node0.1G", "hugepages.node1.1G", "hugepages.2M", POOLS_DROPIN]
    assert pools(kernel, PoolSpec(MIB2, 9)) == came_and_went
    assert kernel.pages(GIB) == {0: 0, 1: 0}


def test_a_size_that_is_gone_and_no_longer_wanted_is_only_dropped(kernel: FakeKernel) -> None:
    """As on a virtual machine that moved to a processor without 1G pages."""
    pools(kernel, PoolSpec(GIB, 2), PoolSpec(MIB2, 9))
    for folder in ("/sys/kernel/mm/hugepages", *(NODE.format(node).rsplit("/", 2)[0] for node in (0, 1))):
        shutil.rmtree(kernel.path(f"{folder}/hugepages-1048576kB"))
    assert pools(kernel, PoolSpec(MIB2, 9)) == [POOLS_DROPIN]


def test_a_pool_that_falls_short_leaves_no_drop_in(kernel: FakeKernel) -> None:
    kernel.room.update({(MIB2, 0): 5, (MIB2, 1): 5})
    with pytest.raises(SettingError, match="asked 64, got 10"):
        pools(kernel, PoolSpec(MIB2, 64))
    assert kernel.pages(MIB2) == {0: 1, 1: 3}
    assert not kernel.exists(POOLS_DROPIN)


SPEC = MountSpec("/mnt/huge", MIB2, None, 0o770)


def test_mounts_come_with_their_units(kernel: FakeKernel) -> None:
    planned = plan(kernel, Mounts([SPEC]))
    assert [(change.name, change.before) for change in planned] == [
        ("hugetlbfs./mnt/huge", "not mounted"),
        (unit_path("/mnt/huge"), "absent"),
        ("/etc/systemd/system/local-fs.target.wants/mnt-huge.mount", "absent"),
    ]


def test_a_mount_no_longer_wanted_goes_with_its_unit(kernel: FakeKernel) -> None:
    put(kernel.root, "/proc/self/mountinfo", f"{MOUNTINFO}9 27 0:9 / /mnt/huge rw - hugetlbfs h rw,{SPEC.options}\n")
    put(kernel.root, unit_path("/mnt/huge"), unit_text(SPEC))
    snapshot = load(kernel)
    assert snapshot
    save(kernel, replace(snapshot, ours=Ours({SPEC.name: SPEC.options})))
    planned = plan(kernel, Mounts())
    assert [(change.name, change.after) for change in planned] == [
        ("hugetlbfs./mnt/huge", "not mounted"),
        (unit_path("/mnt/huge"), "absent"),
    ]


def test_changed_options_of_our_mount_are_one_change_and_its_unit(kernel: FakeKernel) -> None:
    put(kernel.root, "/proc/self/mountinfo", f"{MOUNTINFO}9 27 0:9 / /mnt/huge rw - hugetlbfs h rw,pagesize=2M\n")
    put(kernel.root, unit_path("/mnt/huge"), unit_text(MountSpec("/mnt/huge", MIB2)))
    planned = plan(kernel, Mounts([SPEC]))
    assert (planned[0].before, planned[0].after) == ("pagesize=2M,mode=0755,uid=0,gid=0", SPEC.options)


def test_all_that_is_wanted_by_flat_name(fake_host: Host) -> None:
    given = {
        "thp": {"enabled": "madvise"},
        "pools": [{"size": "2M", "count": 3, "node": 0}],
        "mounts": [{"path": "/mnt/huge", "page_size": "2M"}],
    }
    assert values_of(parse_wanted(fake_host, given)) == {
        "thp.enabled": "madvise",
        "hugepages.node0.2M": "3",
        "hugetlbfs./mnt/huge": "pagesize=2M,mode=0755,uid=0,gid=0",
    }
    assert values_of(parse_wanted(fake_host, {})) == {}
