"""What a scenario asks a machine in its own words, past the code under test."""

from __future__ import annotations

from tests.live.vm.machine import Machine

MOUNT_POINT = "/mnt/huge"
SNAPSHOT = "/var/lib/slm-baseline/snapshot.json"


def selected(machine: Machine, name: str) -> str:
    """The choice in brackets of a file of /sys/kernel/mm/transparent_hugepage."""
    text = machine.check(f"cat /sys/kernel/mm/transparent_hugepage/{name}")
    return text.partition("[")[2].partition("]")[0]


def pages(machine: Machine, node: int | None = None) -> int:
    """Pages of 2 MiB in the pool, of the whole host or of one NUMA node."""
    where = "/sys/kernel/mm" if node is None else f"/sys/devices/system/node/node{node}"
    return int(machine.check(f"cat {where}/hugepages/hugepages-2048kB/nr_hugepages"))


def mounts_at(machine: Machine, path: str = MOUNT_POINT) -> list[set[str]]:
    """The options of every file system mounted on a path, the lowest first."""
    lines = (line.split() for line in machine.check("cat /proc/self/mountinfo").splitlines())
    return [set(fields[-1].split(",")) for fields in lines if fields[4] == path]


def has_snapshot(machine: Machine) -> bool:
    """Whether the prior state is on the machine's disk."""
    return machine.ssh(f"test -e {SNAPSHOT}").returncode == 0


def is_working(machine: Machine) -> bool:
    """Whether a task of Ansible is under way on the machine."""
    return machine.ssh("pgrep --full '[A]nsiballZ|python3 *$|sudo .*ansible'").returncode == 0


def assert_tuned(machine: Machine) -> None:
    """The settings that conftest.py asks for are in force."""
    assert selected(machine, "enabled") == "madvise"
    assert selected(machine, "defrag") == "never"
    assert pages(machine) == 32
    (options,) = mounts_at(machine)
    assert {"pagesize=2M", "mode=770"} <= options
