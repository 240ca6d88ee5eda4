"""A unit is recorded from its first page on, and is left as it was found, whatever comes of it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import unit
from ansible.module_utils.slm_baseline.first_token.recorder.members import systemd_groups
from ansible.module_utils.slm_baseline.first_token.recorder.start import identity_of
from ansible.module_utils.slm_baseline.first_token.recorder.unit import (
    Unit,
    end_replay,
    find_others,
    find_unit,
    put_back,
    start_unit,
    stop_unit,
    users_of,
)
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host

TARGET = Target("app", unit="app.service", ready=Ready("notify", timeout_s=5))
UNIT = Unit("app.service", "notify", "app", "", False, "active", "/system.slice/app.service")
SOON = Deadline.after(3600)


class FakeSystemd:
    """Units by name with their properties; `asked` are the verbs with what they were given.

    `after` are states that a verb leads to, by verb and unit; `failures` what a verb says.
    """

    def __init__(self, **units: dict[str, str]) -> None:
        self.units = {f"{name}.service": {"LoadState": "loaded", **facts} for name, facts in units.items()}
        self.units["system.slice"] = {"ControlGroup": "/system.slice"}
        self.units["-.slice"] = {"ControlGroup": "/"}
        self.asked: list[str] = []
        self.failures: dict[str, str] = {}
        self.after: dict[tuple[str, str], list[dict[str, str]]] = {}

    def show(self, names: Sequence[str], properties: Sequence[str], timeout_s: float = 60) -> dict[str, dict[str, str]]:
        assert timeout_s >= 0
        unknown = {"LoadState": "not-found", "ActiveState": "inactive"}
        known = {name: self.units.get(name, unknown) for name in names}
        return {name: {key: facts[key] for key in properties if key in facts} for name, facts in known.items()}

    def systemctl(self, timeout_s: float, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        assert words[0] == "--", "a unit's name must not be taken for an option"
        self.asked.append(" ".join([verb, *words[1:]]))
        for name in words[1:]:
            states = self.after.get((verb, name), [])
            if states:
                self.units.setdefault(name, {}).update(states.pop(0))
        failure = self.failures.get(verb, "")
        return subprocess.CompletedProcess([], bool(failure), "", failure)


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    app = {"Id": "app.service", "Type": "notify", "User": "app", "ActiveState": "active", "Slice": "system.slice"}
    fake = FakeSystemd(app={**app, "ControlGroup": "/system.slice/app.service"})
    monkeypatch.setattr(unit, "systemctl", fake.systemctl)
    monkeypatch.setattr(unit, "show", fake.show)
    return fake


def same(found: Unit) -> Unit:
    return replace(found, facts=())


def test_an_alias_is_known_by_the_name_of_its_control_group(systemd: FakeSystemd) -> None:
    systemd.units["alias.service"] = systemd.units["app.service"]
    found = find_unit(replace(TARGET, unit="alias.service"))
    assert same(found) == UNIT
    assert found.fact("Type") == "notify"
    assert found.fact("Nothing") == ""


@pytest.mark.parametrize(
    ("name", "slice_name", "group"),
    [
        ("app.service", "system.slice", "/system.slice/app.service"),
        ("app.service", "a-b.slice", "/a.slice/a-b.slice/app.service"),
        ("app.service", "-.slice", "/app.service"),
        ("memory.service", "system.slice", "/system.slice/_memory.service"),
        ("_x.service", "system.slice", "/system.slice/__x.service"),
        ("cpux.service", "system.slice", "/system.slice/cpux.service"),
    ],
)
def test_the_control_group_of_a_unit_that_does_not_run_is_known(
    systemd: FakeSystemd, name: str, slice_name: str, group: str
) -> None:
    facts = {"LoadState": "loaded", "Id": name, "Type": "notify", "ActiveState": "inactive", "Slice": slice_name}
    systemd.units[name] = {**facts, "ControlGroup": ""}
    assert find_unit(replace(TARGET, unit=name)).control_group == group


def test_a_systemd_in_a_container_has_its_groups_below_the_containers(systemd: FakeSystemd) -> None:
    systemd.units["-.slice"]["ControlGroup"] = "/docker/1"
    systemd.units["app.service"] |= {"ControlGroup": "", "Slice": "new.slice"}
    assert find_unit(TARGET).control_group == "/docker/1/new.slice/app.service"


def test_a_unit_that_systemd_does_not_know_is_one_error(systemd: FakeSystemd) -> None:
    with pytest.raises(SettingError, match=r"gone\.service, loaded.*not-found.*nothing was stopped"):
        find_unit(replace(TARGET, unit="gone.service"))


def test_a_unit_that_never_tells_needs_another_rule(systemd: FakeSystemd) -> None:
    systemd.units["app.service"]["Type"] = "simple"
    with pytest.raises(SettingError, match=r"Type=simple.*nothing was stopped"):
        find_unit(TARGET)
    assert find_unit(replace(TARGET, ready=Ready("port", "1"))).type == "simple"


@pytest.mark.parametrize("how", ["RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo"])
def test_who_is_stopped_with_it_is_found_through_others_and_only_if_it_runs(systemd: FakeSystemd, how: str) -> None:
    systemd.units["app.service"] |= {how: "front.service idle.service"}
    systemd.units |= {
        "front.service": {"ActiveState": "active", "BoundBy": "far.service app.service"},
        "far.service": {"ActiveState": "activating"},
        "side.service": {"ActiveState": "active"},
        "idle.service": {"ActiveState": "inactive"},
    }
    assert find_unit(TARGET).others == ("front.service", "far.service")
    assert find_others("app.service", runs=False) == ()


def test_who_is_stopped_with_it_is_found_whatever_its_name(systemd: FakeSystemd) -> None:
    systemd.units["app.service"] |= {"RequiredBy": "a.service z.service"}
    systemd.units |= {
        "a.service": {"ActiveState": "active", "Conflicts": "app.service"},
        "z.service": {"ActiveState": "active", "RequiredBy": "app.service"},
    }
    assert find_others("app.service", runs=True) == ("a.service", "z.service")
    systemd.units["app.service"] |= {"Conflicts": "a.service app.service z.service"}
    assert set(find_others("app.service", runs=False)) == {"a.service", "z.service"}


@pytest.mark.parametrize("how", ["Conflicts", "ConflictedBy"])
def test_who_conflicts_with_its_start_or_with_what_that_starts_is_found(systemd: FakeSystemd, how: str) -> None:
    """blue stayed down, exit 0, after green was recorded."""
    systemd.units["app.service"] |= {"ActiveState": "inactive", "Requires": "helper.service", how: "blue.service"}
    systemd.units |= {
        "blue.service": {"ActiveState": "active", "RequiredBy": "blues-front.service"},
        "blues-front.service": {"ActiveState": "active"},
        "helper.service": {"ActiveState": "inactive", how: "red.service shutdown.target"},
        "red.service": {"ActiveState": "active"},
    }
    assert set(find_unit(TARGET).others) == {"blue.service", "blues-front.service", "red.service"}


def test_what_ran_runs_again_and_what_still_runs_is_left_alone(systemd: FakeSystemd) -> None:
    systemd.units["front.service"] = {"ActiveState": "inactive"}
    systemd.units["side.service"] = {"ActiveState": "active"}
    systemd.after["start", "front.service"] = [{"ActiveState": "active"}]
    assert put_back(TARGET, replace(UNIT, others=("front.service", "side.service"))) == []
    assert systemd.asked == ["start front.service"]


def test_what_is_on_its_way_is_waited_for_and_is_not_taken_for_running(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd.units["app.service"]["ActiveState"] = "activating"
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            systemd.units["app.service"]["ActiveState"] = "active"

    monkeypatch.setattr("time.sleep", nap)
    assert put_back(TARGET, UNIT) == []
    assert len(naps) == 3
    assert min(naps) > 0


def test_what_does_not_come_back_is_tried_once_more_and_told(systemd: FakeSystemd) -> None:
    systemd.units["app.service"]["ActiveState"] = "failed"
    assert put_back(TARGET, UNIT) == ["app.service is failed"]
    assert systemd.asked == ["start app.service", "reset-failed app.service", "start app.service"]
    systemd.asked.clear()
    systemd.after["start", "app.service"] = [{"ActiveState": "failed"}, {"ActiveState": "active"}]
    assert put_back(TARGET, UNIT) == []


def test_what_never_arrives_is_told_when_its_time_is_over(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit, "PUT_BACK_S", 0.0)
    systemd.units["app.service"]["ActiveState"] = "activating"
    assert put_back(replace(TARGET, ready=Ready(timeout_s=0.05)), UNIT) == ["app.service is activating"]
    # It was found so, and is left so.
    assert put_back(TARGET, replace(UNIT, state="activating")) == []
    # What systemd knows nothing of is not on its way.
    systemd.units["app.service"] = {}
    assert put_back(TARGET, replace(UNIT, state="activating")) == ["app.service is unknown"]


def test_a_oneshot_that_was_stopped_has_done_its_work_again(systemd: FakeSystemd) -> None:
    systemd.units["once.service"] = {"ActiveState": "inactive", "Type": "oneshot", "Result": "success"}
    assert put_back(TARGET, replace(UNIT, others=("once.service",))) == []
    assert systemd.asked == ["start once.service"]
    systemd.units["once.service"]["Result"] = "exit-code"
    assert put_back(TARGET, replace(UNIT, others=("once.service",))) == ["once.service is inactive"]


def test_what_did_not_run_is_stopped_and_has_not_failed_and_what_it_stopped_runs(systemd: FakeSystemd) -> None:
    systemd.units["blue.service"] = {"ActiveState": "inactive"}
    systemd.after["start", "blue.service"] = [{"ActiveState": "active"}]
    assert put_back(TARGET, replace(UNIT, state="inactive", others=("blue.service",))) == []
    assert systemd.asked == ["stop app.service", "reset-failed app.service", "start blue.service"]
    systemd.asked.clear()
    put_back(TARGET, replace(UNIT, state="failed"))
    assert systemd.asked == ["stop app.service"]


def test_an_address_that_answers_while_the_unit_is_stopped_is_not_its_own(systemd: FakeSystemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        target = replace(TARGET, ready=Ready("port", str(other.getsockname()[1])))
        with pytest.raises(SettingError, match="Another service has that address"):
            stop_unit(target, UNIT, SOON)
    stop_unit(target, UNIT, SOON)
    assert systemd.asked == ["stop app.service"] * 2


def test_a_unit_that_will_not_stop_is_one_error(systemd: FakeSystemd) -> None:
    systemd.failures["stop"] = "Job for app.service canceled.\nSee journalctl.\n"
    with pytest.raises(SettingError, match=r"Job for app\.service canceled\."):
        stop_unit(TARGET, UNIT, SOON)


def test_a_start_that_fails_is_told_in_its_first_line(systemd: FakeSystemd) -> None:
    systemd.failures["start"] = "Job for app.service failed.\nSee journalctl.\n"
    with pytest.raises(SettingError, match=r"Job for app\.service failed\.") as caught:
        start_unit(TARGET, UNIT, SOON)
    assert "See journalctl" not in str(caught.value)
    assert systemd.asked == ["reset-failed app.service", "start app.service"]


def test_a_unit_that_dies_is_not_waited_for(systemd: FakeSystemd) -> None:
    systemd.units["app.service"]["ActiveState"] = "failed"
    with pytest.raises(SettingError, match="it ended before it was ready"):
        start_unit(replace(TARGET, ready=Ready("port", "1", 60)), UNIT, SOON)


@pytest.mark.parametrize(
    ("substate", "result", "found"),
    [("dead", "exit-code", "it ended with exit-code"), ("running", "success", "still running after 0")],
)
def test_a_unit_that_is_to_end_ends_well_or_is_an_error(
    systemd: FakeSystemd, substate: str, result: str, found: str
) -> None:
    systemd.units["app.service"] |= {"SubState": substate, "Result": result}
    with pytest.raises(SettingError, match=found):
        start_unit(replace(TARGET, ready=Ready("exit", timeout_s=0.2)), UNIT, SOON)


def test_a_unit_that_has_ended_well_is_ready(systemd: FakeSystemd) -> None:
    systemd.units["app.service"] |= {"SubState": "dead", "Result": "success"}
    start_unit(replace(TARGET, ready=Ready("exit")), UNIT, SOON)


def test_a_unit_that_started_in_another_group_was_not_watched(systemd: FakeSystemd) -> None:
    systemd.units["app.service"]["ControlGroup"] = "/other.slice/app.service"
    with pytest.raises(SettingError, match=r"found /other\.slice/app\.service"):
        start_unit(TARGET, UNIT, SOON)


def test_the_whole_recordings_deadline_holds_for_its_start(systemd: FakeSystemd) -> None:
    with pytest.raises(SettingError, match="no answer at 1 within 3600"):
        start_unit(replace(TARGET, ready=Ready("port", "1", 3600)), UNIT, Deadline.after(0.1))


def test_a_replay_is_ended_only_where_there_is_one(systemd: FakeSystemd, fake_host: Host) -> None:
    end_replay(fake_host, TARGET)
    assert systemd.asked == []


def test_a_users_number_is_a_user() -> None:
    ours = pwd.getpwuid(os.getuid())
    assert identity_of(TARGET, str(ours.pw_uid)) == identity_of(TARGET, ours.pw_name)
    with pytest.raises(SettingError, match="no such user"):
        identity_of(TARGET, "slm-no-such-user")


def test_the_users_of_a_control_group_are_those_of_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        groups = systemd_groups(file)
    own = next((group for group in groups if len(group) > 1), None)
    if own is not None:
        assert os.geteuid() in users_of(own)
    assert users_of("/no-such.slice/group") == []


def test_a_simple_service_that_was_started_again_has_to_answer(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd calls it active as soon as its process runs, and it may die in the next moment."""
    target = replace(TARGET, ready=Ready("port", "1", 0.2))
    assert put_back(target, UNIT) == []
    systemd.units["app.service"]["ActiveState"] = "inactive"
    systemd.after["start", "app.service"] = [{"ActiveState": "active"}]
    assert put_back(target, UNIT) == ["app.service is active, and does not answer at 1"]


def test_systemd_is_asked_about_a_starting_unit_once_a_second_at_most(
    systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question runs a program beside the start that is recorded."""
    clock = [1000.0]
    answers = [True, False]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lives = unit._now_and_then(lambda: answers.pop(0))
    assert [lives(), lives()] == [True, True]
    for seconds, answer, left in ((1000.9, True, 2), (1001.1, True, 1), (1002.0, True, 1), (1002.2, False, 0)):
        clock[0] = seconds
        assert (lives(), len(answers)) == (answer, left)
