"""A command that is started to be recorded: whatever it does, the answer comes in time, and it is one error."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import start
from ansible.module_utils.slm_baseline.first_token.recorder.ready import Answer
from ansible.module_utils.slm_baseline.first_token.recorder.start import Identity, identity_of, start_command
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host

from tests.support.ourselves import Ourselves

SHELL = Target("app", command=("/bin/sh", "-c", "exit 0"), user=getpass.getuser(), ready=Ready(timeout_s=20))


@pytest.fixture(autouse=True)
def as_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "identity_of", lambda target, user: Ourselves())


def running(script: str, **more: object) -> Target:
    return replace(SHELL, command=("/bin/sh", "-c", script), **more)  # type: ignore[arg-type]


def test_a_command_that_ends_well_is_ready() -> None:
    start_command(SHELL, {})


@pytest.mark.parametrize("before", ["", "head -c 300000 /dev/zero >&2; echo >&2; "])
def test_a_failure_is_told_with_its_last_line_however_much_it_wrote(before: str) -> None:
    script = f"{before}echo the reason >&2; exit 3"
    with pytest.raises(SettingError, match="exit status 3: the reason"):
        start_command(running(script), {})


def test_a_service_that_fills_its_stderr_is_not_held_up() -> None:
    script = "head -c 300000 /dev/zero >&2; echo done; exit 0"
    with pytest.raises(SettingError, match="it ended before it was ready"):
        start_command(running(script, ready=Ready("port", "1", 20)), {})


def test_a_text_that_no_process_can_get_is_one_error() -> None:
    with pytest.raises(SettingError, match="null byte"):
        start_command(replace(SHELL, environment=(("A", "\0"),)), {})


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(SettingError, match="still running after 0"):
        start_command(running("sleep 600", ready=Ready(timeout_s=0.3)), {})


@pytest.mark.parametrize("how", ["exit 0", "exit 3", "sleep 600"])
def test_what_left_its_session_and_its_parent_ends_with_the_recording(how: str, tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    script = f"setsid sh -c 'sleep 600 & echo $! > {noted}.new; mv {noted}.new {noted}; wait' & "
    script += f"until [ -e {noted} ]; do sleep 0.01; done; {how}"
    with contextlib.suppress(SettingError):
        start_command(running(script, ready=Ready(timeout_s=1)), {})
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)


def test_a_unit_runs_in_its_own_group_by_name_or_number() -> None:
    unit = Target("vllm", unit="vllm.service")
    assert identity_of(unit, "nobody", "daemon").gid == grp.getgrnam("daemon").gr_gid
    assert identity_of(unit, "65534", "7") == Identity(65534, 7)
    for user, group in (("no-such-user", ""), ("nobody", "no-such-group"), ("99999999999", "")):
        with pytest.raises(SettingError, match="no such user or group"):
            identity_of(unit, user, group)


def test_a_command_gets_its_own_user_alone_and_root_is_none() -> None:
    with pytest.raises(SettingError, match="an unprivileged user"):
        identity_of(SHELL, "root")
    assert Identity(5, 6).arguments == {"user": 5, "group": 6, "extra_groups": []}


def test_what_a_command_says_without_an_end_is_taken_and_not_kept(tmp_path: Path) -> None:
    """1.1 GiB of stderr filled root's temporary folder; a pipe that nobody reads would hold the command up."""
    script = f"head -c 20000000 /dev/zero >&2; touch {tmp_path}/went-on; echo >&2; echo the end >&2; exit 1"
    with pytest.raises(SettingError, match="exit status 1: the end"):
        start_command(running(script), {})
    assert (tmp_path / "went-on").exists()


def test_a_process_that_holds_the_pipe_of_a_dead_command_holds_nobody_up() -> None:
    with pytest.raises(SettingError, match="exit status 4"):
        start_command(running("setsid sleep 600 & exit 4"), {})


def test_an_answer_of_another_users_listener_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "ask_ready", lambda *asked: Answer(False, 4242))
    target = running("sleep 600", ready=Ready("port", "1", 0.2))
    with pytest.raises(SettingError, match="a process of user id 4242 listens there"):
        start_command(target, {})


def test_who_may_listen_for_a_command_is_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def ask(host: Host, ready: Ready, deadline: Deadline, users: Callable[[], list[int]], *more: object) -> Answer:
        asked.append(users())
        return Answer(True)

    monkeypatch.setattr(start, "ask_ready", ask)
    start_command(running("sleep 600", ready=Ready("port", "1", 20)), {})
    assert asked == [[os.getuid()]]


def test_a_command_that_is_not_ready_yet_is_asked_again_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Answer(True), Answer(False), Answer(False)]
    monkeypatch.setattr(start, "ask_ready", lambda *asked: answers.pop())
    start_command(running("sleep 600", ready=Ready("port", "1", 20)), {})
    assert answers == []
