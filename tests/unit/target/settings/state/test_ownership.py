"""A rollback restores what we set and what still is as we set it; what others changed since is left and listed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import SNAPSHOT
from ansible.module_utils.slm_baseline.settings.apply import transaction as carry_out_module
from ansible.module_utils.slm_baseline.settings.apply.transaction import carry_out
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.kind import Kind
from ansible.module_utils.slm_baseline.settings.kinds.overcommit import Overcommit
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN, Pools
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, THP_DROPIN, Thp, thp_knobs
from ansible.module_utils.slm_baseline.settings.rollback.rollback import RollbackOutcome, roll_back
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import load, plan_kind, save, sealed
from ansible.module_utils.slm_baseline.settings.state.changes import Change, apply_all
from ansible.module_utils.slm_baseline.settings.state.losses import Limits
from ansible.module_utils.slm_baseline.settings.state.ownership import Ours

from tests.support.fake_kernel import MIN_FREE, FakeKernel, add_node
from tests.support.fakes import put
from tests.support.killed_sweep import leave_arm

MIB2 = 2 << 20
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
BOOT = "/proc/sys/kernel/random/boot_id"


@pytest.fixture
def kernel(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    add_node(fake_host.root)
    return FakeKernel(fake_host.root)


def tune(kernel: FakeKernel, *wanted: Kind) -> None:
    """One run of each setter."""
    for kind in wanted:
        carry_out(kernel, [kind], plan_kind(kernel, kind, load(kernel)), "t", "run-1")


def left(done: RollbackOutcome) -> dict[str, tuple[str, str]]:
    return {entry["knob"]: (entry["found"], entry["before"]) for entry in done.left}


def value(kernel: FakeKernel, name: str) -> str:
    return thp_knobs(kernel)[name].value


def test_what_we_never_set_is_left_and_listed(kernel: FakeKernel) -> None:
    """We set thp.enabled alone; the owner then sets another selector, a khugepaged number, pages and min_free."""
    tune(kernel, Thp({"thp.enabled": "never"}))
    kernel.write_kernel(f"{THP}/shmem_enabled", "advise")
    kernel.write_kernel(f"{THP}/khugepaged/scan_sleep_millisecs", "77")
    kernel.write_kernel(NODE.format(1).replace("2048kB", "1048576kB"), "2")
    kernel.write_kernel(MIN_FREE, "99999")
    predicted = roll_back(kernel, dry_run=True)
    done = roll_back(kernel)
    assert done.status == "restored"
    # That khugepaged would move min_free_kbytes, and it would be put back, no dry run knows.
    assert predicted.changes == [change for change in done.changes if change["knob"] != "vm.min_free_kbytes"]
    assert value(kernel, "thp.enabled") == "madvise"
    assert not kernel.exists(THP_DROPIN)
    assert (
        left(done)
        == left(predicted)
        == {
            "thp.shmem_enabled": ("advise", "never"),
            "thp.khugepaged.scan_sleep_millisecs": ("77", "10000"),
            "vm.min_free_kbytes": ("99999", "67584"),
            "hugepages.1G": ("2", "0"),
            "hugepages.node1.1G": ("2", "0"),
        }
    )
    assert value(kernel, "thp.shmem_enabled") == "advise"
    assert kernel.read(MIN_FREE) == "99999\n"
    assert kernel.pages(1 << 30) == {0: 0, 1: 2}


def test_force_restores_the_snapshots_values_all_the_same(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}))
    kernel.write_kernel(f"{THP}/shmem_enabled", "advise")
    done = roll_back(kernel, force=True)
    assert (done.left, value(kernel, "thp.shmem_enabled")) == ([], "never")


def test_a_value_of_ours_that_somebody_changed_since_is_left(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never", "thp.defrag": "never"}), Overcommit({MIB2: 8}))
    kernel.write_kernel(f"{THP}/defrag", "always")
    done = roll_back(kernel)
    assert left(done) == {"thp.defrag": ("always", "madvise")}
    assert (value(kernel, "thp.defrag"), value(kernel, "thp.enabled")) == ("always", "madvise")


def test_min_free_kbytes_that_khugepaged_moved_for_us_comes_back_and_the_owners_stays(kernel: FakeKernel) -> None:
    kernel.write_kernel(f"{THP}/enabled", "never")
    tune(kernel, Thp({"thp.enabled": "always"}))
    assert kernel.read(MIN_FREE) == "112640\n"
    assert (roll_back(kernel).left, kernel.read(MIN_FREE)) == ([], "67584\n")


def test_the_rollback_itself_does_not_move_an_owners_min_free(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}))
    kernel.write_kernel(MIN_FREE, "99999")
    assert left(roll_back(kernel)) == {"vm.min_free_kbytes": ("99999", "67584")}
    assert kernel.read(MIN_FREE) == "99999\n"


def test_pages_are_taken_back_node_by_node(kernel: FakeKernel) -> None:
    kernel.write_kernel(NODE.format(0), "1")
    tune(kernel, Pools([PoolSpec(MIB2, 8, 0)]))
    kernel.write_kernel(NODE.format(1), "5")
    done = roll_back(kernel)
    assert kernel.pages(MIB2) == {0: 1, 1: 5}
    assert left(done) == {"hugepages.2M": ("13", "1"), "hugepages.node1.2M": ("5", "0")}


def test_a_whole_pool_that_is_ours_returns_whole(kernel: FakeKernel) -> None:
    kernel.write_kernel(NODE.format(1), "3")
    tune(kernel, Pools([PoolSpec(MIB2, 64)]))
    assert roll_back(kernel).left == []
    assert kernel.pages(MIB2) == {0: 0, 1: 3}


def test_pages_of_others_in_use_do_not_make_a_rollback_incomplete(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}))
    kernel.write_kernel(NODE.format(0), "8")
    kernel.used[MIB2, 0] = 3
    kernel.write_kernel(NODE.format(0), "2")
    assert roll_back(kernel).status == "restored"
    assert kernel.pages(MIB2) == {0: 2, 1: 0}


def reboot(kernel: FakeKernel) -> None:
    put(kernel.root, BOOT, "another\n")


def test_a_reboot_makes_nothing_ours(kernel: FakeKernel) -> None:
    """A pool and min_free_kbytes that an administrator lowered since; the rest boots with what our files say."""
    tune(kernel, Thp({"thp.enabled": "never"}), Thp({"thp.enabled": "always"}), Pools([PoolSpec(MIB2, 64)]))
    assert kernel.read(MIN_FREE) == "112640\n"
    reboot(kernel)
    kernel.write_kernel(MIN_FREE, "99999")
    kernel.write_kernel(NODE.format(1), "0")
    assert (
        left(roll_back(kernel))
        == {
            "vm.min_free_kbytes": ("99999", "67584"),
            "hugepages.2M": ("32", "0"),
            "hugepages.node1.2M": ("0", "0"),
        }
        or left(roll_back(kernel, dry_run=True)) == {}
    )
    assert kernel.read(MIN_FREE) == "99999\n"


def test_what_a_run_cut_short_wrote_for_the_next_boot_is_ours_after_it(
    kernel: FakeKernel, killed: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Cut):
        tune(kernel, Pools([PoolSpec(MIB2, 64)]))
    reboot(kernel)
    kernel.write_kernel(f"{THP}/defrag", "always")
    assert left(roll_back(kernel)) == {"thp.defrag": ("always", "madvise")}
    assert kernel.pages(MIB2) == {0: 0, 1: 0}


def test_a_drop_in_that_somebody_rewrote_is_left(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}), Pools([PoolSpec(MIB2, 8)]))
    put(kernel.root, THP_DROPIN, "# mine now\n")
    done = roll_back(kernel)
    assert left(done) == {THP_DROPIN: ("a file of 11 bytes", "absent")}
    assert kernel.read(THP_DROPIN) == "# mine now\n"
    assert not kernel.exists(POOLS_DROPIN)


def test_another_mode_does_not_make_our_file_somebody_elses(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}))
    os.chmod(kernel.path(THP_DROPIN), 0o600)
    assert roll_back(kernel).left == []
    assert not kernel.exists(THP_DROPIN)


def test_a_later_run_of_ours_on_a_value_that_the_owner_set_still_returns_to_the_first(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.defrag": "never"}))
    kernel.write_kernel(f"{THP}/defrag", "always")
    tune(kernel, Thp({"thp.defrag": "never"}))
    assert roll_back(kernel).left == []
    assert value(kernel, "thp.defrag") == "madvise"


class Cut(BaseException):
    """The process is killed."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The changes take, and then the process is killed before it can tell so."""

    def cut(host: Host, changes: Sequence[Change]) -> None:
        apply_all(host, changes)
        raise Cut

    monkeypatch.setattr(carry_out_module, "apply_all", cut)
    return monkeypatch


def test_what_a_killed_run_set_is_taken_back(kernel: FakeKernel, killed: pytest.MonkeyPatch) -> None:
    kernel.write_kernel(f"{THP}/enabled", "never")
    with pytest.raises(Cut):
        tune(kernel, Thp({"thp.enabled": "always"}))
    assert roll_back(kernel).left == []
    assert (value(kernel, "thp.enabled"), kernel.read(MIN_FREE)) == ("never", "67584\n")


def test_the_next_run_settles_what_a_killed_one_set(kernel: FakeKernel, killed: pytest.MonkeyPatch) -> None:
    with pytest.raises(Cut):
        tune(kernel, Thp({"thp.enabled": "never"}))
    killed.undo()
    tune(kernel, Thp({"thp.enabled": "never"}))
    stored = load(kernel)
    assert stored
    assert (stored.ours.pending, stored.ours.values["thp.enabled"]) == (frozenset(), "never")
    kernel.write_kernel(f"{THP}/defrag", "always")
    assert set(left(roll_back(kernel))) == {"thp.defrag"}
    assert value(kernel, "thp.enabled") == "madvise"


def test_a_run_that_fails_and_is_undone_owns_only_what_khugepaged_moved(kernel: FakeKernel) -> None:
    kernel.stuck.add(f"{THP}/defrag")
    with pytest.raises(SettingError):
        tune(kernel, Thp({"thp.enabled": "never", "thp.defrag": "never"}))
    stored = load(kernel)
    assert stored
    assert (stored.ours.values, stored.ours.pending) == ({"vm.min_free_kbytes": "112640"}, frozenset())


def test_a_disk_that_fills_up_before_settling_is_told_and_the_values_stay_ours(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Thp({"thp.enabled": "never"})
    saves = []

    def full(host: Host, *stored: object) -> None:
        saves.append(stored)
        if len(saves) == 2:
            raise SettingError(SNAPSHOT, "a durable snapshot", "No space", "The disk is full.", "free some space.")
        save(host, *stored)  # type: ignore[arg-type]

    monkeypatch.setattr(carry_out_module, "save", full)
    told = carry_out(kernel, [kind], kind.plan(kernel, {}), "t", "run-1")
    assert "The disk is full" in str(told)
    assert roll_back(kernel).left == []
    assert value(kernel, "thp.enabled") == "madvise"


def test_a_rollback_that_was_incomplete_knows_its_own_at_the_next_try(kernel: FakeKernel) -> None:
    kernel.write_kernel(NODE.format(0), "4")
    kernel.write_kernel(NODE.format(1), "4")
    tune(kernel, Pools([PoolSpec(MIB2, 0)], Limits(frozenset({"hugepages.2M"}))))
    kernel.room.update({(MIB2, 0): 1, (MIB2, 1): 4})
    assert roll_back(kernel).status == "incomplete"
    kernel.room.clear()
    done = roll_back(kernel)
    assert (done.status, done.left, kernel.pages(MIB2)) == ("restored", [], {0: 4, 1: 4})


def test_what_an_unfinished_sweep_set_goes_and_what_the_owner_set_before_it_stays(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}))
    kernel.write_kernel(f"{THP}/defrag", "always")
    leave_arm(kernel, {"thp.enabled": "always", "thp.defrag": "defer"})
    done = roll_back(kernel)
    assert left(done) == {"thp.defrag": ("always", "madvise")}
    assert (value(kernel, "thp.enabled"), value(kernel, "thp.defrag")) == ("madvise", "always")


def test_a_page_size_that_is_gone_is_no_obstacle(kernel: FakeKernel) -> None:
    tune(kernel, Thp({"thp.enabled": "never"}))
    stored = json.loads(kernel.read(SNAPSHOT))
    del stored["checksum"]
    stored["kinds"]["pools"]["16777216"] = {"persistent": 0, "nodes": {"0": 0}}
    stored["kinds"]["pools"]["33554432"] = {"persistent": 4, "nodes": {}}
    put(kernel.root, SNAPSHOT, sealed(stored).decode())
    done = roll_back(kernel)
    assert (done.status, left(done)) == ("restored", {"hugepages.32M": ("absent", "4")})


@pytest.mark.parametrize("key", ["unsettled", "pending"])
def test_what_was_under_way_is_read_under_both_names_that_it_had(key: str) -> None:
    read = Ours.from_json({"values": {}, key: ["thp"], "boots": {}})
    assert read.pending == frozenset({"thp"})
    assert read.to_json() == {"values": {}, "unsettled": ["thp"], "boots": {}}


def test_a_mount_that_an_earlier_release_recorded_in_bytes_is_still_ours() -> None:
    """The size of a mount is told as 256M; earlier releases wrote its bytes."""
    recorded = "pagesize=2M,mode=0755,uid=0,gid=0,size=268435456"
    read = Ours.from_json({"values": {"hugetlbfs./m": recorded, "/etc/x": recorded}, "unsettled": [], "boots": {}})
    mount = MountSpec("/m", MIB2, 256 << 20)
    assert read.has("mounts", mount.name, mount.options)
    assert read.values["/etc/x"] == recorded
    assert mount.options.endswith(",size=256M")
    assert mount.data == recorded
