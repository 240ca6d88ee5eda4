"""What `make test-scale` makes of Ansible's output and of the processes it finds."""

from __future__ import annotations

import json
import os

import pytest

from analysis.documents.schema import validate
from benchmarks.evidence import Document
from benchmarks.scale import Cost, connections, family, parse_arguments, recap, verdicts, wrong
from benchmarks.scale_hosts import Host, address
from benchmarks.tables import scale_table

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
    costs = [cost(100, "ping", 10), cost(100, "audit", 12), cost(1000, "ping", 100), cost(1000, "audit", 121, 1.6)]
    assert verdicts(costs) == [
        "100 hosts, audit: within 1.2 x ping",
        "1000 hosts, ping: within 1.5 GiB",
        "1000 hosts, audit: MISSED: 1.2 x ping",
        "1000 hosts, audit: MISSED: 1.5 GiB",
    ]


def test_the_document_of_a_run_keeps_its_schema_and_its_table_has_every_play() -> None:
    host = {"kernel": "6.18", "arch": "x86_64", "cpus": 2, "gpus": [], "software": {"ansible-core": "2.19.14"}}
    facts = {"forks": 50, "drift_every": 10}
    document = Document("scale", host, facts, taken_at="2026-12-01T04:00:00Z", commit="0123456789ab")
    for hosts, ping_s in ((100, 10), (1000, 100)):
        costs = [cost(hosts, "ping", ping_s), cost(hosts, "audit", 1.25 * ping_s)]
        document.add_block([(each.play, each.to_json()) for each in costs])
    made = json.loads(json.dumps(document.to_json()))
    validate(made, "evidence")
    lines = scale_table(made).split("\n")
    assert lines[0].startswith(
        "scale, 2026-12-01T04:00:00Z, commit 0123456789ab: no GPU, 2 CPUs, ansible-core 2.19.14;"
    )
    assert lines[-3:] == [
        "| 100 | audit | 12.5 | 125 | 1.25 | 1.0 | 1.0 | 0.50 GiB | 2.00 GiB |",
        "| 1,000 | ping | 100.0 | 100 | 1.00 | 1.0 | 1.0 | 0.50 GiB | 2.00 GiB |",
        "| 1,000 | audit | 125.0 | 125 | 1.25 | 1.0 | 1.0 | 0.50 GiB | 2.00 GiB |",
    ]


def test_numbers_of_hosts_are_plain_arguments() -> None:
    assert parse_arguments([]).hosts == [100, 300, 1000]
    assert parse_arguments(["100", "--out", "a.json"]).hosts == [100]
    assert parse_arguments(["--inside", "100", "300"]).hosts == [100, 300]


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_what_is_no_number_of_hosts_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([text])
    assert text in capsys.readouterr().err


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
