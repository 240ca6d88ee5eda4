"""What a recording stops is noted before, runs again after, and is started by whoever comes next."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import interruption
from ansible.module_utils.slm_baseline.first_token.recorder.interruption import (
    GUARD,
    GUARD_LINK,
    GUARD_UNIT,
    RESTARTER,
    make_good,
    promised,
    read_note,
)
from ansible.module_utils.slm_baseline.first_token.recorder.members import own_identity
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import RECORDING, STOPPED_NOTE

TARGET = Target("app", unit="app.service", ready=Ready("port", "1"))
UNIT = Unit("app.service", "notify", "app", "", False, "active", others=("front.service",))


class World:
    """What was asked of systemd, and what stays down."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = ""
        self.down: list[str] = []
        self.put_back: list[Unit] = []

    def systemctl(self, timeout_s: float, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(" ".join([verb, *words[1:]]))
        return subprocess.CompletedProcess([], bool(self.refuses), "", self.refuses)

    def back(self, target: Target, unit: Unit) -> list[str]:
        self.put_back.append(unit)
        return self.down


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(interruption, "systemctl", world.systemctl)
    monkeypatch.setattr(interruption, "put_back", world.back)
    return world


@pytest.fixture
def host(fake_host: Host) -> Host:
    for folder in (os.path.dirname(STOPPED_NOTE), os.path.dirname(GUARD_UNIT), "/proc/sys/kernel/random"):
        os.makedirs(fake_host.path(folder), exist_ok=True)
    fake_host.path("/proc/sys/kernel/random/boot_id").write_text("boot\n")
    return fake_host


def files(host: Host) -> set[str]:
    paths = (STOPPED_NOTE, GUARD_UNIT, GUARD_LINK, RECORDING, TARGET.recording_drop_in)
    return {path for path in paths if os.path.lexists(host.path(path))}


def test_before_anything_is_stopped_the_promise_is_on_the_disk_and_afterwards_nothing(host: Host, world: World) -> None:
    with promised(host, TARGET, UNIT):
        assert files(host) == {STOPPED_NOTE, GUARD_UNIT, GUARD_LINK, RECORDING}
        note = read_note(host)
        pid, started = own_identity()
        assert note == {
            "schema_version": 1,
            "target": "app",
            "start": ["app.service", "front.service"],
            "stop": [],
            "remove": [RECORDING, TARGET.recording_drop_in],
            "boot_id": "boot",
            "pid": pid,
            "started": started,
        }
        assert host.path(STOPPED_NOTE).stat().st_mode & 0o077 == 0
        assert os.readlink(host.path(GUARD_LINK)) == GUARD_UNIT
        assert host.path(GUARD_LINK).parent.stat().st_mode & 0o777 == 0o755
        assert f"ConditionPathExists={STOPPED_NOTE}" in host.read(GUARD_UNIT)
        assert world.asked == [f"start {GUARD}"]
        assert world.put_back == []
        host.path(TARGET.recording_drop_in).parent.mkdir(parents=True)
        host.path(TARGET.recording_drop_in).write_text("x")
    assert files(host) == set()
    assert not host.path(TARGET.recording_drop_in).parent.exists()
    assert world.put_back == [UNIT]
    assert world.asked == [f"start {GUARD}"]


def test_a_unit_that_did_not_run_is_stopped_by_who_comes_next(host: Host, world: World) -> None:
    idle = Unit("app.service", "notify", "app", "", False, "inactive", others=("blue.service",))
    with promised(host, TARGET, idle):
        note = read_note(host) or {}
        assert (note["start"], note["stop"]) == (["blue.service"], ["app.service"])


def test_without_who_waits_nothing_is_stopped(host: Host, world: World) -> None:
    world.refuses = "Unit is masked.\nSee its status.\n"
    with (
        pytest.raises(SettingError, match=r"Unit is masked\.\. .*nothing was stopped"),
        promised(host, TARGET, UNIT),
    ):
        pytest.fail("the block began")
    assert files(host) == set()
    assert world.put_back == []


def test_what_does_not_run_again_is_an_error_and_stays_noted(host: Host, world: World) -> None:
    world.down = ["front.service is failed"]
    with pytest.raises(SettingError, match=r"found front\.service is failed"), promised(host, TARGET, UNIT):
        pass
    assert STOPPED_NOTE in files(host)
    with (
        pytest.raises(SettingError, match=r"front\.service is failed; before that: it broke"),
        promised(host, TARGET, UNIT),
    ):
        raise RuntimeError("it broke")


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt(), SystemExit(3)])
def test_whatever_ends_the_block_all_runs_again(host: Host, world: World, error: BaseException) -> None:
    with pytest.raises(type(error)), promised(host, TARGET, UNIT):
        raise error
    assert files(host) == set()
    assert world.put_back == [UNIT]


def leave_note(host: Host, **more: Any) -> None:
    note = {"target": "app", "start": ["app.service"], "boot_id": "boot", "pid": 1, "started": 1, **more}
    host.path(STOPPED_NOTE).write_text(json.dumps(note))
    host.path(GUARD_UNIT).write_text("x")


def test_who_comes_next_makes_good_what_was_cut_short(host: Host, world: World) -> None:
    assert make_good(host) == []
    leave_note(host)
    assert make_good(host) == ["app.service"]
    # On a test's tree nothing is started; the real program is tried in tests/live.
    assert GUARD_UNIT not in files(host)


@pytest.mark.parametrize("ours", [1, 1 << 22])
def test_a_recording_that_is_under_way_is_not_disturbed(
    host: Host, world: World, monkeypatch: pytest.MonkeyPatch, ours: int
) -> None:
    parent = os.getppid()
    monkeypatch.setattr(os, "getpid", lambda: ours)
    from ansible.module_utils.slm_baseline.first_token.recorder.members import identity

    found = identity(parent)
    assert found
    leave_note(host, pid=parent, started=found[1])
    with pytest.raises(SettingError, match="one of app, by process"):
        make_good(host)
    # Its id in use by another, or another boot's.
    for more in ({"started": found[1] + 1}, {"boot_id": "other"}, {"pid": "odd"}):
        leave_note(host, **{"pid": parent, "started": found[1], **more})
        assert make_good(host) == ["app.service"]


def test_a_guard_without_a_note_is_taken_away(host: Host, world: World) -> None:
    host.path(GUARD_UNIT).write_text("x")
    assert make_good(host) == []
    assert files(host) == set()


@pytest.mark.parametrize("text", ["", "[]", "{", "{}"])
def test_a_note_that_cannot_be_read_names_nothing(host: Host, world: World, text: str) -> None:
    host.path(STOPPED_NOTE).write_text(text)
    assert read_note(host) == {}
    assert make_good(host) == []


def test_a_program_that_fails_is_one_error_with_its_last_line(
    host: Host, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave_note(host)
    monkeypatch.setattr(Host, "is_live", property(lambda self: True))
    monkeypatch.setattr(interruption, "PYTHON", "/bin/false")
    with pytest.raises(SettingError, match=r"app\.service, running again.*found exit status 1"):
        make_good(host)
    monkeypatch.setattr(interruption, "PYTHON", "/no/such/python")
    with pytest.raises(SettingError, match="No such file"):
        make_good(host)
    assert STOPPED_NOTE in files(host)


def test_who_waits_is_read_anew_before_it_is_started(host: Host, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill systemd knew it as a unit without a file, and started none (Device or resource busy)."""
    monkeypatch.setattr(interruption, "reload_units", lambda host: world.asked.append("reload"))
    with promised(host, TARGET, UNIT):
        assert world.asked == ["reload", f"start {GUARD}"]


def test_a_guard_that_waits_is_stopped_and_has_not_failed(
    host: Host, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "is_live", property(lambda self: True))
    monkeypatch.setattr(interruption, "reload_units", lambda host: world.asked.append("reload"))
    for left in (GUARD_UNIT, GUARD_LINK):
        world.asked.clear()
        host.path(left).parent.mkdir(parents=True, exist_ok=True)
        host.path(left).write_text("x")
        assert make_good(host) == []
        assert world.asked == [f"stop {GUARD}", f"reset-failed {GUARD}", "reload"]
        assert files(host) == set()
    assert not host.path(GUARD_LINK).parent.exists()
    assert make_good(host) == []
    assert len(world.asked) == 3


def test_a_program_that_starts_all_again_is_given_the_note(
    host: Host, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave_note(host, start=["app.service", "front.service"])
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    script.chmod(0o755)
    monkeypatch.setattr(Host, "is_live", property(lambda self: True))
    monkeypatch.setattr(interruption, "PYTHON", str(script))
    monkeypatch.setattr(interruption, "reload_units", lambda host: None)
    assert make_good(host) == ["app.service", "front.service"]
    assert (tmp_path / "asked").read_text() == f"-IS {host.path(RESTARTER)} {STOPPED_NOTE}\n"
    assert GUARD_UNIT not in files(host)


def test_what_a_program_that_fails_said_last_is_the_reason(
    host: Host, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave_note(host)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first >&2\necho the reason >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(Host, "is_live", property(lambda self: True))
    monkeypatch.setattr(interruption, "PYTHON", str(script))
    with pytest.raises(SettingError, match="running again") as caught:
        make_good(host)
    assert caught.value.found == "the reason"


def test_our_own_note_is_no_recording_beside_us(host: Host, world: World) -> None:
    pid, started = own_identity()
    leave_note(host, pid=pid, started=started)
    assert make_good(host) == ["app.service"]
