"""The life of a tuned host: tune, tune again, reboot, measure, restore."""

from __future__ import annotations

import json

from tests.live.vm.fleet import Fleet, differences
from tests.live.vm.probes import assert_tuned


def test_tuning_survives_a_reboot_and_rollback_leaves_nothing(two_hosts: Fleet) -> None:
    pristine = {machine.name: two_hosts.state(machine.name) for machine in two_hosts}

    first = two_hosts.playbook("baseline.yml", "--tags", "tune").expect(0)
    second = two_hosts.playbook("baseline.yml", "--tags", "tune").expect(0)
    for machine in two_hosts:
        assert_tuned(machine)
        assert first.count(machine.name, "changed") > 0
        assert second.count(machine.name, "changed") == 0

    two_hosts.reboot()
    for machine in two_hosts:
        assert_tuned(machine)
    audit_reports = two_hosts.folder / "audit"
    two_hosts.playbook("audit.yml", audit_reports_dir=str(audit_reports)).expect(0)
    audit = json.loads((audit_reports / "audit.json").read_text())
    assert {name: host["status"] for name, host in audit["hosts"].items()} == {"one": "clean", "two": "clean"}

    two_hosts.playbook("rollback.yml").expect(0)
    for machine in two_hosts:
        assert differences(pristine[machine.name], two_hosts.state(machine.name)) == {}
    again = two_hosts.playbook("rollback.yml").expect(0)
    assert [again.count(machine.name, "changed") for machine in two_hosts] == [0, 0]

    two_hosts.reboot()
    for machine in two_hosts:
        assert differences(pristine[machine.name], two_hosts.state(machine.name)) == {}


def test_check_mode_predicts_the_changes_and_makes_none(one_host: Fleet) -> None:
    pristine = one_host.state("one")
    predicted = one_host.playbook("baseline.yml", "--tags", "tune", "--check", "--diff").expect(0)
    assert differences(pristine, one_host.state("one")) == {}
    done = one_host.playbook("baseline.yml", "--tags", "tune", "--diff").expect(0)
    assert predicted.count("one", "changed") == done.count("one", "changed") > 0
    assert predicted.diffs() == done.diffs() != []
