"""A unit is recorded from its first page on, and is left as it was found, whatever comes of it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from dataclasses import replace

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import unit
from ansible.module_utils.slm_baseline.first_token.recorder.start import identity_of
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit, find_unit, put_back, start_unit, stop_unit
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.host.errors import SettingError

TARGET = Target("app", unit="app.service", ready="notify", timeout_s=5)
UNIT = Unit("app.service", "notify", "app", "", False, "active")


class FakeSystemd:
    """Units by name with their properties; `asked` are the verbs with what they were given, `show` left out."""

    def __init__(self, **units: dict[str, str]) -> None:
        self.units = {f"{name}.service": {"LoadState": "loaded", **facts} for name, facts in units.items()}
        self.asked: list[str] = []
        self.failures: dict[str, str] = {}

    def __call__(self, timeout_s: float, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        if verb == "show":
            facts = self.units.get(words[1], {"LoadState": "not-found"})
            listed = [f"{name}={facts.get(name, '')}" for name in words[0].partition("=")[2].split(",")]
            return subprocess.CompletedProcess([], 0, "\n".join(listed), "")
        self.asked.append(" ".join([verb, *words]))
        failure = self.failures.get(verb, "")
        return subprocess.CompletedProcess([], bool(failure), "", failure)


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    fake = FakeSystemd(app={"Id": "app.service", "Type": "notify", "User": "app", "ActiveState": "active"})
    monkeypatch.setattr(unit, "_systemctl", fake)
    return fake


def test_an_alias_is_known_by_the_name_of_its_control_group(systemd: FakeSystemd) -> None:
    systemd.units["alias.service"] = systemd.units["app.service"]
    assert find_unit(replace(TARGET, unit="alias.service")) == UNIT


def test_a_unit_that_systemd_does_not_know_is_one_error(systemd: FakeSystemd) -> None:
    with pytest.raises(SettingError, match=r"gone\.service, loaded.*not-found"):
        find_unit(replace(TARGET, unit="gone.service"))


def test_a_unit_that_never_tells_needs_another_rule(systemd: FakeSystemd) -> None:
    systemd.units["app.service"]["Type"] = "simple"
    with pytest.raises(SettingError, match="Type=simple"):
        find_unit(TARGET)
    assert find_unit(replace(TARGET, ready="port", ready_at="1")).type == "simple"


def test_who_is_stopped_with_it_is_found_through_others_and_only_if_it_runs(systemd: FakeSystemd) -> None:
    systemd.units["app.service"] |= {"RequiredBy": "front.service idle.service", "ConsistsOf": "side.service"}
    systemd.units |= {
        "front.service": {"ActiveState": "active", "BoundBy": "far.service app.service"},
        "far.service": {"ActiveState": "active"},
        "side.service": {"ActiveState": "active"},
        "idle.service": {"ActiveState": "inactive"},
    }
    assert set(find_unit(TARGET).dependents) == {"front.service", "far.service", "side.service"}


def test_what_ran_runs_again_and_what_still_runs_is_left_alone(systemd: FakeSystemd) -> None:
    systemd.units["front.service"] = {"ActiveState": "inactive"}
    systemd.units["side.service"] = {"ActiveState": "active"}
    put_back(replace(UNIT, dependents=("front.service", "side.service")))
    assert systemd.asked == ["start --no-block front.service"]


def test_what_did_not_run_is_stopped_and_has_not_failed(systemd: FakeSystemd) -> None:
    put_back(replace(UNIT, state="inactive"))
    assert systemd.asked == ["stop app.service", "reset-failed app.service"]
    systemd.asked.clear()
    put_back(replace(UNIT, state="failed"))
    assert systemd.asked == ["stop app.service"]


def test_an_address_that_answers_while_the_unit_is_stopped_is_not_its_own(systemd: FakeSystemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        target = replace(TARGET, ready="port", ready_at=str(other.getsockname()[1]))
        with pytest.raises(SettingError, match="Another service has that address"):
            stop_unit(target, UNIT)
    stop_unit(target, UNIT)


def test_a_unit_that_will_not_stop_is_one_error(systemd: FakeSystemd) -> None:
    systemd.failures["stop"] = "Job for app.service canceled.\nSee journalctl.\n"
    with pytest.raises(SettingError, match=r"Job for app\.service canceled\."):
        stop_unit(TARGET, UNIT)


def test_a_start_that_fails_is_told_in_its_first_line(systemd: FakeSystemd) -> None:
    systemd.failures["start"] = "Job for app.service failed.\nSee journalctl.\n"
    with pytest.raises(SettingError, match=r"Job for app\.service failed\.") as caught:
        start_unit(TARGET, UNIT)
    assert "See journalctl" not in str(caught.value)


def test_a_unit_that_dies_is_not_waited_for(systemd: FakeSystemd) -> None:
    systemd.units["app.service"]["ActiveState"] = "failed"
    with pytest.raises(SettingError, match="it ended before it was ready"):
        start_unit(replace(TARGET, ready="port", ready_at="1", timeout_s=60), UNIT)


@pytest.mark.parametrize(
    ("substate", "result", "found"),
    [("dead", "exit-code", "it ended with exit-code"), ("running", "success", "still running after 0")],
)
def test_a_unit_that_is_to_end_ends_well_or_is_an_error(
    systemd: FakeSystemd, substate: str, result: str, found: str
) -> None:
    systemd.units["app.service"] |= {"SubState": substate, "Result": result}
    with pytest.raises(SettingError, match=found):
        start_unit(replace(TARGET, ready="exit", timeout_s=0.2), UNIT)


def test_a_unit_that_has_ended_well_is_ready(systemd: FakeSystemd) -> None:
    systemd.units["app.service"] |= {"SubState": "dead", "Result": "success"}
    start_unit(replace(TARGET, ready="exit"), UNIT)


def test_a_users_number_is_a_user_and_a_dynamic_one_is_nobody() -> None:
    ours = pwd.getpwuid(os.getuid())
    assert identity_of(TARGET, str(ours.pw_uid)) == identity_of(TARGET, ours.pw_name)
    assert identity_of(TARGET, "slm-no-such-user", is_dynamic=True)["user"] == 65534
    with pytest.raises(SettingError, match="no such user"):
        identity_of(TARGET, "slm-no-such-user")
