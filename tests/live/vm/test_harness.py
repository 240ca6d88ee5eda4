"""The harness keeps its own promises: what the scenarios build on."""

from __future__ import annotations

from tests.live.vm.fleet import Fleet, differences


def test_a_restored_host_equals_its_pristine_state(two_hosts: Fleet) -> None:
    for machine in two_hosts:
        pristine = two_hosts.state(machine.name)
        machine.check("echo never > /sys/kernel/mm/transparent_hugepage/enabled; sysctl -qw vm.nr_hugepages=8")
        machine.check("touch /etc/tmpfiles.d/mine.conf; mount -t hugetlbfs none /mnt; mount -t hugetlbfs none /mnt")
        found = differences(pristine, two_hosts.state(machine.name))
        assert {
            "/etc/tmpfiles.d/mine.conf",
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "mount /mnt",
            "mount /mnt (on top)",
        } <= found.keys()
        machine.kill()
        machine.restore()
        assert differences(pristine, two_hosts.state(machine.name)) == {}
