"""A target's systemd unit: what it is, how it is started cold, and how it is left as it was found."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...host.errors import SettingError
from ...host.files import Host
from ...host.systemd import systemd_runs
from ..target import Target
from .start import answers, not_ready, wait_for_answer

_SYSTEMCTL = "/usr/bin/systemctl"
_ASK_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 300
_STEP_S = 0.1
_TELLING_TYPES = ("notify", "notify-reload", "oneshot", "dbus")
"""Types of service that systemd takes for started only once they say so, or have ended."""
_STOPPING_WITH_IT = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf")
"""Whoever has Requires=, Requisite=, BindsTo= or PartOf= of a unit is stopped with it (systemd.unit(5))."""


@dataclass(frozen=True)
class Unit:
    """A unit as it was found. `name` is its own, since an alias has no control group; `user` is empty for root's,
    `group` for the user's own.

    `dependents` are the units that ran and are stopped with it.
    """

    name: str
    type: str
    user: str
    group: str
    has_dynamic_user: bool
    state: str
    dependents: tuple[str, ...] = ()

    @property
    def ran(self) -> bool:
        return _runs(self.state)


def find_unit(target: Target) -> Unit:
    """What systemd knows of the target's unit; SettingError for one that it does not know, or that tells nothing."""
    facts = _show(target.unit, "Id", "LoadState", "Type", "User", "Group", "DynamicUser", "ActiveState")
    if facts.get("LoadState") != "loaded":
        raise SettingError(
            f"first_token.{target.name}.unit",
            f"{target.unit}, loaded",
            facts.get("LoadState") or "no systemd that answers",
            "Only a unit that systemd knows can be started.",
            "correct the name, or give the command instead.",
        )
    if target.ready == "notify" and facts.get("Type") not in _TELLING_TYPES:
        raise SettingError(
            f"first_token.{target.name}.ready",
            "a unit that tells when it is ready",
            f"Type={facts.get('Type')}",
            "systemd takes such a unit for started as soon as its process runs.",
            "give {type: port, port: …} or {type: url, url: …}.",
        )
    name, state = facts["Id"], facts.get("ActiveState", "")
    return Unit(
        name,
        facts.get("Type", ""),
        facts.get("User", ""),
        facts.get("Group", ""),
        facts.get("DynamicUser") == "yes",
        state,
        tuple(other for other in _dependents(name) if _runs(_state(other))) if _runs(state) else (),
    )


def stop_unit(target: Target, unit: Unit) -> None:
    """Stop the unit, so that no page of it is held in memory by itself; SettingError where it or its address stays."""
    answer = _systemctl(_STOP_TIMEOUT_S, "stop", unit.name)
    if answer.returncode:
        raise SettingError(
            f"first_token.{target.name}.unit",
            f"{unit.name}, stopped",
            _first_line(answer.stderr),
            "A start can be recorded from the beginning only.",
            "stop it by hand, and see why it does not.",
        )
    if target.ready in ("port", "url") and answers(target):
        raise SettingError(
            f"first_token.{target.name}.ready",
            f"no answer at {target.ready_at} while {unit.name} is stopped",
            "an answer",
            "Another service has that address, and would be taken for this one.",
            "correct the port or the URL.",
        )


def start_unit(target: Target, unit: Unit) -> None:
    """Start the stopped unit and wait until it is ready; SettingError."""
    deadline = time.monotonic() + target.timeout_s
    # The starts of a recording are none that systemd's limit of starts was made for.
    _systemctl(_ASK_TIMEOUT_S, "reset-failed", unit.name)
    answer = _systemctl(target.timeout_s, "start", unit.name)
    if answer.returncode:
        raise not_ready(target, _first_line(answer.stderr))
    if target.ready in ("port", "url"):
        wait_for_answer(target, deadline, _now_and_then(lambda: _runs(_state(unit.name))))
    elif target.ready == "exit":
        _wait_for_end(target, unit, deadline)


def put_back(unit: Unit) -> None:
    """Have the unit and its dependents run, or not, as they were found."""
    if unit.ran:
        stopped = [name for name in (unit.name, *unit.dependents) if not _runs(_state(name))]
        if stopped:
            _systemctl(_ASK_TIMEOUT_S, "start", "--no-block", *stopped)
        return
    _systemctl(_STOP_TIMEOUT_S, "stop", unit.name)
    if unit.state != "failed":
        _systemctl(_ASK_TIMEOUT_S, "reset-failed", unit.name)


def end_replay(host: Host, target: Target) -> None:
    """End a replay that is under way; its unit file is about to go."""
    if host.is_live and systemd_runs(host) and host.exists(target.replay_unit):
        name = target.replay_unit.rpartition("/")[2]
        _systemctl(_STOP_TIMEOUT_S, "stop", name)
        _systemctl(_ASK_TIMEOUT_S, "reset-failed", name)


def _wait_for_end(target: Target, unit: Unit, deadline: float) -> None:
    """Return once the unit's process has ended well: a oneshot has by now, any other service is waited for."""
    while True:
        facts = _show(unit.name, "SubState", "Result")
        if facts.get("SubState") in ("dead", "exited", "failed"):
            if facts.get("Result") != "success":
                raise not_ready(target, f"it ended with {facts.get('Result')}")
            return
        if time.monotonic() > deadline:
            raise not_ready(target, f"still running after {target.timeout_s:g} s")
        time.sleep(_STEP_S)


def _now_and_then(question: Callable[[], bool]) -> Callable[[], bool]:
    """The question's answer, asked anew once a second: each asking runs a program beside a start that is recorded."""
    asked_at, answer = time.monotonic(), True

    def asked() -> bool:
        nonlocal asked_at, answer
        if time.monotonic() - asked_at > 1:
            asked_at, answer = time.monotonic(), question()
        return answer

    return asked


def _dependents(name: str) -> Iterator[str]:
    """Every unit that is stopped with this one, and with those, and so on."""
    found, todo = {name}, [name]
    while todo:
        facts = _show(todo.pop(), *_STOPPING_WITH_IT)
        new = {other for names in facts.values() for other in names.split()} - found
        found |= new
        todo += new
        yield from new


def _runs(state: str) -> bool:
    return state in ("active", "reloading", "refreshing", "activating")


def _state(name: str) -> str:
    return _show(name, "ActiveState").get("ActiveState", "")


def _show(name: str, *properties: str) -> dict[str, str]:
    """Properties of a unit; none where systemd does not answer."""
    answer = _systemctl(_ASK_TIMEOUT_S, "show", f"--property={','.join(properties)}", name)
    return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)


def _systemctl(timeout_s: float, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """One run of systemctl; a status other than 0, with the reason on stderr, also where it does not end or exist."""
    command = [_SYSTEMCTL, verb, *words]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"systemctl {verb} still waiting after {timeout_s:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no word")[:300]
