"""What `make test-scale` makes of Ansible's output and of the processes it finds."""

from __future__ import annotations

import os

from benchmarks.scale import Cost, connections, family, recap, table, wrong
from benchmarks.scale_hosts import Host, address

RECAP = """\
PLAY RECAP *********
host-0000                  : ok=1    changed=0    unreachable=0    failed=0    skipped=0
host-0001                  : ok=0    changed=0    unreachable=1    failed=0    skipped=0
"""


def cost(hosts: int, play: str, wall_s: float, gib: float = 0.5) -> Cost:
    return Cost(hosts, play, wall_s, 1.0, 1.0, int(gib * 2**30), 2**31)


def test_every_host_has_an_address_of_its_own() -> None:
    assert (address(0), address(255), address(999)) == ("127.16.0.1", "127.16.1.0", "127.16.3.232")
    assert len({Host(number).variables["ansible_host"] for number in range(1000)}) == 1000


def test_a_host_that_did_not_answer_is_wrong() -> None:
    assert recap(RECAP)["host-0000"]["ok"] == 1
    hosts = [Host(number) for number in range(3)]
    found = wrong(RECAP, hosts, lambda host: {"ok": 1, "failed": 0})
    assert [line.partition(":")[0] for line in found] == ["host-0001", "host-0002"]
    assert "no answer" in found[1]


def test_a_run_is_held_to_the_ping_of_as_many_hosts() -> None:
    costs = [cost(100, "ping", 10), cost(100, "audit", 11.4), cost(1000, "ping", 100), cost(1000, "audit", 120, 1.6)]
    rows = table(costs).splitlines()[2:]
    assert "1.14 |" in rows[1]
    assert rows[1].endswith("| within 1.15 x ping |")
    assert rows[3].endswith("| MISSED: 1.15 x ping, MISSED: 1.5 GiB |")


def test_the_control_node_is_ansible_with_its_children_and_what_ssh_keeps() -> None:
    init = os.getpid()
    processes = {
        10: ("ansible-playboo", init),
        11: ("python3", 10),
        12: ("ssh", 11),
        20: ("ssh", init),
        30: ("sshd", init),
        31: ("python3", 30),
    }
    assert family(processes, 10) == {10, 11, 12}
    assert connections(processes) == {20}
