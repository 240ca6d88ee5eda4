"""A fleet in which things go wrong: hosts down, cut off, without power, or tuned by two people at once."""

from __future__ import annotations

import json
import os
import random

from tests.live.vm.fleet import Fleet, differences
from tests.live.vm.probes import has_snapshot, is_working, selected

TUNE = ("baseline.yml", "--tags", "tune")
POWER_CUTS = int(os.environ.get("SLM_VM_POWER_CUTS", "4"))


def test_a_host_that_is_down_is_named_and_the_others_finish(two_hosts: Fleet) -> None:
    two_hosts["two"].kill()
    result = two_hosts.playbook(*TUNE).expect(4)
    assert result.count("two", "unreachable") == 1
    assert result.count("one", "failed") == 0
    assert selected(two_hosts["one"], "enabled") == "madvise"

    audit_reports = two_hosts.folder / "audit"
    two_hosts.playbook("audit.yml", audit_reports_dir=str(audit_reports)).expect(4)
    audit = json.loads((audit_reports / "audit.json").read_text())
    assert {name: host["status"] for name, host in audit["hosts"].items()} == {"one": "clean", "two": "unreachable"}

    result = two_hosts.playbook("rollback.yml").expect(4)
    assert result.count("two", "unreachable") == 1
    assert selected(two_hosts["one"], "enabled") == "always"


def test_a_host_cut_off_in_the_middle_converges_and_rolls_back_later(two_hosts: Fleet) -> None:
    pristine = {machine.name: two_hosts.state(machine.name) for machine in two_hosts}
    two = two_hosts["two"]
    with two_hosts.begin(*TUNE) as play:
        two.wait_for(lambda: has_snapshot(two), "the snapshot")
        two.disconnect()
        result = play.finish()
    two.connect()
    two.hang_up()
    assert result.expect(4).count("two", "unreachable") == 1
    assert result.count("one", "failed") == 0

    two_hosts.playbook(*TUNE).expect(0)
    assert two_hosts.playbook(*TUNE).expect(0).count("two", "changed") == 0
    two_hosts.playbook("rollback.yml").expect(0)
    for machine in two_hosts:
        assert differences(pristine[machine.name], two_hosts.state(machine.name)) == {}


def test_a_second_run_is_refused_while_the_first_is_between_two_tasks(one_host: Fleet) -> None:
    one = one_host["one"]
    with one_host.begin(*TUNE) as first:
        one.wait_for(lambda: has_snapshot(one), "the snapshot")
        first.pause()
        one.wait_for(lambda: not is_working(one), "the end of the task that was under way")
        second = one_host.playbook(*TUNE).expect(2)
        first.resume()
        first.finish().expect(0)
    assert "run lock" in second.text
    assert f"pid {first.process.pid}" in second.text
    assert second.count("one", "changed") == 0
    assert one_host.playbook(*TUNE).expect(0).count("one", "changed") == 0


def test_a_run_that_was_killed_keeps_nobody_out(one_host: Fleet) -> None:
    one, pristine = one_host["one"], one_host.state("one")
    with one_host.begin(*TUNE) as first:
        one.wait_for(lambda: has_snapshot(one), "the snapshot")
        first.stop()
    one.wait_for(lambda: not is_working(one), "the end of the task that was under way")
    one_host.playbook(*TUNE).expect(0)
    one_host.playbook("rollback.yml").expect(0)
    assert differences(pristine, one_host.state("one")) == {}


def test_power_lost_at_any_moment_never_costs_the_prior_state(one_host: Fleet) -> None:
    one, pristine = one_host["one"], one_host.state("one")
    whole = one_host.playbook(*TUNE).expect(0).seconds
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    for cut in range(POWER_CUTS):
        one.restore()
        # One cut in each equal part of the run, so that a few of them cover it.
        after_s = whole * (cut + moments.random()) / POWER_CUTS
        with one_host.begin(*TUNE) as play:
            play.let_work(after_s)
            one.kill()
        one.boot()
        one_host.playbook("rollback.yml").expect(0)
        left = differences(pristine, one_host.state("one"))
        assert left == {}, f"power lost after {after_s:.1f} s of {whole:.1f} s (seed {seed})"
