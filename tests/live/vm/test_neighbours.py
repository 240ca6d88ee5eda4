"""Neighbours that only systemd and a booted host make: bound services, package upgrades, containers."""

from __future__ import annotations

import pytest

from tests.live.vm.fleet import Fleet, differences
from tests.live.vm.probes import MOUNT_POINT, mounts_at, pages

TUNE = ("baseline.yml", "--tags", "tune")
SERVICE = "[Unit]\nBindsTo=mnt-huge.mount\nAfter=mnt-huge.mount\n[Service]\nExecStart=/bin/sleep infinity\n"
NEW_MODE = [{"path": MOUNT_POINT, "page_size": "2M", "mode": "0700"}]


@pytest.mark.slow_vm
def test_a_service_bound_to_the_mount_is_named_and_runs_again_where_its_stop_is_accepted(one_host: Fleet) -> None:
    machine = one_host["one"]
    one_host.playbook(*TUNE).expect(0)
    machine.check(f"printf '%s' '{SERVICE}' > /etc/systemd/system/db.service")
    machine.check("systemctl daemon-reload && systemctl start db.service")
    refused = one_host.playbook(*TUNE, hugetlbfs_mounts=NEW_MODE).expect(2)
    assert "db.service (BindsTo=" in refused.text
    accept = [f"hugetlbfs.{MOUNT_POINT}"]
    one_host.playbook(*TUNE, hugetlbfs_mounts=NEW_MODE, slm_accept_loss=accept).expect(0)
    assert machine.check("systemctl is-active db.service") == "active"
    assert "mode=700" in mounts_at(machine)[0]
    assert "db.service" in one_host.playbook("rollback.yml").expect(2).text
    assert machine.check("systemctl is-active db.service") == "active"


def test_a_grown_pool_outlives_the_upgrade_of_a_package(one_host: Fleet) -> None:
    machine = one_host["one"]
    one_host.playbook(*TUNE).expect(0)
    machine.check("sysctl --quiet --write vm.nr_hugepages=48 && systemd-tmpfiles --create")
    assert pages(machine) == 48
    one_host.playbook("rollback.yml").expect(0)
    assert pages(machine) == 48


@pytest.mark.slow_vm
def test_a_container_keeps_its_mount_and_its_file(one_host: Fleet) -> None:
    machine, pristine = one_host["one"], one_host.state("one")
    one_host.playbook(*TUNE).expect(0)
    machine.check("systemd-run --quiet --unit=container unshare --mount --propagation private sleep 600")
    for refused in (one_host.playbook("rollback.yml"), one_host.playbook(*TUNE, hugetlbfs_mounts=NEW_MODE)):
        assert "in a mount namespace of its own" in refused.expect(2).text
    assert "mode=770" in machine.check("grep /mnt/huge /proc/$(pgrep --exact sleep)/mountinfo")
    machine.check("systemctl stop container")
    one_host.playbook("rollback.yml").expect(0)
    assert differences(pristine, one_host.state("one")) == {}
