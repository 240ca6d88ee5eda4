"""A command that is started to be recorded: whatever it does, the answer comes in time, and it is one error."""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import start
from ansible.module_utils.slm_baseline.first_token.recorder.start import identity_of, start_command
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.host.errors import SettingError

SHELL = Target("app", command=("/bin/sh", "-c", "exit 0"), user=getpass.getuser(), timeout_s=20)


@pytest.fixture(autouse=True)
def as_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "identity_of", lambda target, user: {})


def running(script: str, **more: object) -> Target:
    return replace(SHELL, command=("/bin/sh", "-c", script), **more)  # type: ignore[arg-type]


def test_a_command_that_ends_well_is_ready() -> None:
    start_command(SHELL, {})


def test_a_failure_is_told_with_its_last_line_however_much_it_wrote() -> None:
    script = "head -c 300000 /dev/zero >&2; echo >&2; echo the reason >&2; exit 3"
    with pytest.raises(SettingError, match="exit status 3: the reason"):
        start_command(running(script), {})


def test_a_service_that_fills_its_stderr_is_not_held_up() -> None:
    script = "head -c 300000 /dev/zero >&2; echo done; exit 0"
    with pytest.raises(SettingError, match="it ended before it was ready"):
        start_command(running(script, ready="port", ready_at="1"), {})


def test_a_text_that_no_process_can_get_is_one_error() -> None:
    with pytest.raises(SettingError, match="null byte"):
        start_command(replace(SHELL, environment=(("A", "\0"),)), {})


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(SettingError, match="still running after 0"):
        start_command(running("sleep 600", timeout_s=0.3), {})


@pytest.mark.parametrize("how", ["exit 0", "exit 3", "sleep 600"])
def test_what_left_its_session_and_its_parent_ends_with_the_recording(how: str, tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    script = f"setsid sh -c 'sleep 600 & echo $! > {noted}.new; mv {noted}.new {noted}; wait' & "
    script += f"until [ -e {noted} ]; do sleep 0.01; done; {how}"
    with contextlib.suppress(SettingError):
        start_command(running(script, timeout_s=1), {})
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)


def test_a_unit_runs_in_its_own_group_by_name_or_number() -> None:
    unit = Target("vllm", unit="vllm.service")
    assert identity_of(unit, "nobody", "daemon")["group"] == grp.getgrnam("daemon").gr_gid
    assert identity_of(unit, "65534", "7") == {"user": 65534, "group": 7, "extra_groups": []}
    for user, group in (("no-such-user", ""), ("nobody", "no-such-group"), ("99999999999", "")):
        with pytest.raises(SettingError, match="no such user or group"):
            identity_of(unit, user, group)
