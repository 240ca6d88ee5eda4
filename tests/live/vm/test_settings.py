"""Settings that only a real kernel can grant, shorten, ignore or refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.vm.fleet import Fleet, differences
from tests.live.vm.machine import Machine
from tests.live.vm.probes import MOUNT_POINT, has_snapshot, mounts_at, pages, selected

TUNE = ("baseline.yml", "--tags", "tune")


def test_pools_by_node_are_set_and_kept_on_each_node(numa_host: Fleet) -> None:
    machine, pristine = numa_host["two"], numa_host.state("two")
    pools = [{"size": "2M", "count": 8, "node": 0}, {"size": "2M", "count": 24, "node": 1}]
    numa_host.playbook(*TUNE, hugepages_pools=pools).expect(0)
    assert [pages(machine, node) for node in (0, 1)] == [8, 24]
    machine.reboot()
    assert [pages(machine, node) for node in (0, 1)] == [8, 24]
    assert numa_host.playbook(*TUNE, hugepages_pools=pools).expect(0).count("two", "changed") == 0
    numa_host.playbook("rollback.yml").expect(0)
    assert differences(pristine, numa_host.state("two")) == {}


def test_a_pool_that_its_node_cannot_give_is_refused_before_anything_changes(numa_host: Fleet) -> None:
    machine = numa_host["two"]
    machine.check("echo 4 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages")
    # Half of the memory is on the node, and its kernel and page cache hold some of that for good.
    pools = [{"size": "2M", "count": 250, "node": 1}]
    for _ in range(2):
        failed = numa_host.playbook(*TUNE, hugepages_pools=pools, hugepages_max_share=0.9).expect(2)
        assert "hugepages.node1.2M" in failed.text
        assert "on node 1" in failed.text
        assert [pages(machine, node) for node in (0, 1)] == [0, 4]
    assert failed.count("two", "changed") == 0


def test_a_pool_beyond_the_guard_is_refused_before_anything_changes(one_host: Fleet) -> None:
    pristine = one_host.state("one")
    refused = one_host.playbook(*TUNE, hugepages_pools=[{"size": "2M", "count": 700}]).expect(2)
    assert "hugepages.2M" in refused.text
    assert not has_snapshot(one_host["one"])
    assert differences(pristine, one_host.state("one")) == {}


def test_changed_mount_options_take_effect_at_once(one_host: Fleet) -> None:
    machine, pristine = one_host["one"], one_host.state("one")
    one_host.playbook(*TUNE).expect(0)
    mount = {"path": MOUNT_POINT, "page_size": "2M", "mode": "0700", "size": "16M"}
    one_host.playbook(*TUNE, hugetlbfs_mounts=[mount]).expect(0)
    (options,) = mounts_at(machine)
    assert {"pagesize=2M", "mode=700"} <= options
    assert machine.check(f"stat --format=%a {MOUNT_POINT}") == "700"
    # 16 MiB are 8 pages of 2 MiB: the limit is in force, not just printed.
    assert machine.check(f"stat --file-system --format=%b {MOUNT_POINT}") == "8"
    machine.reboot()
    assert mounts_at(machine) == [options]
    one_host.playbook("rollback.yml").expect(0)
    assert differences(pristine, one_host.state("one")) == {}


def test_a_busy_mount_is_left_alone_and_its_user_is_named(one_host: Fleet) -> None:
    machine = one_host["one"]
    one_host.playbook(*TUNE).expect(0)
    before = mounts_at(machine)
    machine.check(f"systemd-run --quiet --unit=holder --working-directory={MOUNT_POINT} sleep 600")
    mount = {"path": MOUNT_POINT, "page_size": "2M", "mode": "0700"}
    busy = one_host.playbook(*TUNE, hugetlbfs_mounts=[mount]).expect(2)
    assert f"hugetlbfs.{MOUNT_POINT}" in busy.text
    assert "sleep" in busy.text
    assert mounts_at(machine) == before

    incomplete = one_host.playbook("rollback.yml").expect(2)
    # systemd requires the mount of a unit's working directory, so unmounting would stop this one for good.
    assert "holder.service" in incomplete.text
    machine.check("systemctl stop holder")
    one_host.playbook("rollback.yml").expect(0)
    assert mounts_at(machine) == []


def test_a_rollout_stops_once_too_many_hosts_have_failed(two_hosts: Fleet) -> None:
    two_hosts.playbook(*TUNE).expect(0)
    two_hosts["one"].check(f"systemd-run --quiet --unit=holder --working-directory={MOUNT_POINT} sleep 600")
    before = mounts_at(two_hosts["two"])
    mounts = [{"path": MOUNT_POINT, "page_size": "2M", "mode": "0700"}]
    # Ansible reads these two before it knows any host, so a group's variables are too late for them.
    limits = ("-e", "baseline_serial=1", "-e", "baseline_max_fail_percentage=0")
    stopped = two_hosts.playbook(*TUNE, *limits, hugetlbfs_mounts=mounts).expect(2)
    assert stopped.count("one", "failed") == 1
    assert mounts_at(two_hosts["two"]) == before
    # The failed task has given its host back: nobody has to wait for a lease.
    two_hosts["one"].check("test ! -e /run/slm-baseline/lease.json && systemctl stop holder")
    two_hosts.playbook(*TUNE, hugetlbfs_mounts=mounts).expect(0)
    assert mounts_at(two_hosts["two"]) != before


def audited(fleet: Fleet, returncode: int) -> dict[str, Any]:
    """What an audit says of the host `one`."""
    reports = fleet.folder / "audit"
    fleet.playbook("audit.yml", audit_reports_dir=str(reports)).expect(returncode)
    found: dict[str, Any] = json.loads((reports / "audit.json").read_text())["hosts"]["one"]
    return found


OURS = ["[main]", "include=virtual-guest", "[variables]", "thp=always", "[vm]", "transparent_hugepages=${thp}"]
"""A profile of an administrator's that contradicts, by a variable."""


def start_tuned(machine: Machine, profile: str) -> None:
    """Start TuneD with one of its stock profiles, or with the administrator's own."""
    written = "\\n".join(OURS)
    machine.check(f"mkdir -p /etc/tuned/ours && printf '{written}\\n' > /etc/tuned/ours/tuned.conf")
    machine.check(f"systemctl enable --now tuned && tuned-adm profile {profile}", timeout_s=240)


def test_a_stock_profile_of_tuned_is_no_obstacle_and_one_that_contradicts_is_named(one_host: Fleet) -> None:
    machine = one_host["one"]
    start_tuned(machine, "ours")
    theirs = one_host.state("one")
    refused = one_host.playbook(*TUNE).expect(2)
    assert "TuneD profile ours sets thp.enabled to always at /etc/tuned/ours/tuned.conf:6" in refused.text
    assert not has_snapshot(machine)
    assert differences(theirs, one_host.state("one")) == {}

    start_tuned(machine, "throughput-performance")
    one_host.playbook(*TUNE).expect(0)
    assert audited(one_host, 0)["competitors"] == []


@pytest.mark.slow_vm
def test_profiles_of_tuned_over_a_reboot(one_host: Fleet) -> None:
    machine = one_host["one"]
    one_host.playbook(*TUNE).expect(0)
    start_tuned(machine, "virtual-guest")
    machine.reboot()
    assert selected(machine, "enabled") == "madvise"
    assert audited(one_host, 0)["competitors"] == []

    # Who goes on all the same finds after the next boot what was foretold.
    start_tuned(machine, "ours")
    machine.reboot()
    # It starts late, and in emulation its Python may take minutes.
    machine.check("timeout 600 sh -c 'until tuned-adm active | grep ours; do sleep 5; done'", timeout_s=700)
    host = audited(one_host, 2)
    assert selected(machine, "enabled") == "always"
    assert [(one["path"], one["line"], one["value"]) for one in host["competitors"]] == [
        ("/etc/tuned/ours/tuned.conf", 6, "always")
    ]


def test_a_users_own_dropin_that_competes_is_named_with_its_line(one_host: Fleet) -> None:
    machine = one_host["one"]
    line = "w /sys/kernel/mm/transparent_hugepage/enabled - - - - always"
    machine.check(f"printf '# ours\\n{line}\\n' > /etc/tmpfiles.d/zz-team.conf")
    machine.check("printf 'vm.nr_hugepages = 7\\n' > /etc/sysctl.d/90-team.conf")
    theirs = one_host.state("one")
    refused = one_host.playbook(*TUNE).expect(2)
    assert "/etc/tmpfiles.d/zz-team.conf:2" in refused.text
    assert "/etc/sysctl.d/90-team.conf:1" in refused.text
    assert differences(theirs, one_host.state("one")) == {}

    machine.check("rm /etc/tmpfiles.d/zz-team.conf /etc/sysctl.d/90-team.conf")
    one_host.playbook(*TUNE).expect(0)
    assert selected(machine, "enabled") == "madvise"
