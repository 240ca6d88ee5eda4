"""A target's systemd unit: its state, the units that stop with it, its cold start, and restoring its former state."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ...host.deadline import Deadline
from ...host.errors import SettingError
from ...host.files import Host
from ...host.systemd import show, systemctl, systemd_runs
from ..fit import RIGHTS
from ..target import Target
from .members import is_below, systemd_groups
from .start import not_ready, require_stopped, wait_for_answer

ASK_S = 60.0
STOP_S = 300.0
PUT_BACK_S = 300.0
"""The time limit for restarting everything that was stopped, in addition to the target's own limit."""
_STEP_S = 0.1
_TELLING_TYPES = ("notify", "notify-reload", "oneshot", "dbus")
"""Types of service that systemd regards as started only once they report it, or have ended."""
_STOPPED_WITH_IT = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
"""Units with Requires=, Requisite=, BindsTo= or PartOf= of a unit, or named in its PropagatesStopTo=, stop with it
(systemd.unit(5))."""
_CONFLICTS = ("Conflicts", "ConflictedBy")
_STARTED_WITH_IT = ("Requires", "BindsTo", "Wants")
_FACTS = (
    *("Id", "LoadState", "Type", "Group", "DynamicUser", "ActiveState", "ControlGroup", "Slice"),
    *("Environment", "SourcePath", "CacheDirectory", "ProtectSystem", "ReadOnlyPaths", "ProtectHome", "PrivateTmp"),
    *RIGHTS,
)
_CONTROLLERS = ("cgroup", "cpu", "cpuset", "memory", "io", "pids", "blkio", "devices", "freezer", "rdma")


@dataclass(frozen=True)
class Unit:
    """A unit's state before the recording. `name` is its own, since an alias has no control group. `user` is empty for
    root, `group` for the user's own.

    `others` are the running units that stop with it: by its stop, or because they conflict with its start.
    `facts` are its properties from systemd. `guests` are users beside those of its control group that may listen for
    it: those of the container that it runs. `may_listen` says of a process whether it may, where that is known.
    """

    name: str
    type: str
    user: str
    group: str
    has_dynamic_user: bool
    state: str
    control_group: str = ""
    others: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    guests: Callable[[], list[int]] = field(default=lambda: [], compare=False, repr=False)
    may_listen: Callable[[int], bool] | None = field(default=None, compare=False, repr=False)

    @property
    def ran(self) -> bool:
        return is_running(self.state)

    def users(self) -> list[int]:
        """Return those who may listen for it now."""
        return [*users_of(self.control_group), *self.guests()]

    def fact(self, name: str) -> str:
        """Return one of its properties; empty where systemd does not report it."""
        return dict(self.facts).get(name, "")


def find_unit(target: Target) -> Unit:
    """Read what systemd knows of the target's unit; SettingError where it is unknown or systemd reports nothing."""
    facts = show([target.unit], _FACTS).get(target.unit, {})
    if facts.get("LoadState") != "loaded":
        raise SettingError(
            f"first_token.{target.name}.unit",
            f"{target.unit}, loaded",
            facts.get("LoadState") or "no systemd that answers",
            "Only a unit that systemd knows can be started.",
            "correct the name, or give the command instead; nothing was stopped or changed.",
        )
    if target.ready.how == "notify" and facts.get("Type") not in _TELLING_TYPES:
        raise SettingError(
            f"first_token.{target.name}.ready",
            "a unit that tells when it is ready",
            f"Type={facts.get('Type')}",
            "systemd takes such a unit for started as soon as its process runs.",
            "give {type: port, port: …} or {type: url, url: …}; nothing was stopped or changed.",
        )
    name, state = facts["Id"], facts.get("ActiveState", "")
    return Unit(
        name,
        facts.get("Type", ""),
        facts.get("User", ""),
        facts.get("Group", ""),
        facts.get("DynamicUser") == "yes",
        state,
        facts.get("ControlGroup") or _control_group(name, facts.get("Slice", "")),
        find_others(name, is_running(state)),
        tuple(sorted(facts.items())),
    )


def find_others(name: str, runs: bool) -> tuple[str, ...]:
    """Return the running units that stop when this one is stopped, if it `runs`, and started."""
    stopped = _closure([name], _STOPPED_WITH_IT) if runs else []
    starting = [name, *_closure([name], _STARTED_WITH_IT)]
    conflicting = _running(_named(starting, _CONFLICTS))
    stopped += conflicting + _closure(conflicting, _STOPPED_WITH_IT)
    return tuple(other for other in _running(dict.fromkeys(stopped)) if other != name)


def stop_unit(target: Target, unit: Unit, deadline: Deadline) -> None:
    """Stop the unit, so that it holds none of its pages in memory; SettingError where it or its address stays up."""
    answer = systemctl(deadline.left_s(STOP_S), "stop", "--", unit.name)
    problem = _first_line(answer.stderr) if answer.returncode else ""
    require_stopped(target, "unit", unit.name, problem, deadline)


def start_unit(target: Target, unit: Unit, deadline: Deadline, look: Callable[[], None] = lambda: None) -> None:
    """Start the stopped unit and wait until it is ready; SettingError.

    `look` is called when it is ready, and repeatedly while it runs if its end means that it is ready.
    """
    ready_by = Deadline.after(deadline.left_s(target.ready.timeout_s))
    # The starts of a recording must not count towards systemd's limit of starts.
    systemctl(ready_by.left_s(ASK_S), "reset-failed", "--", unit.name)
    answer = systemctl(ready_by.left_s(), "start", "--", unit.name)
    if answer.returncode:
        raise not_ready(target, _first_line(answer.stderr))
    if target.ready.is_asked:
        lives = _now_and_then(lambda: is_running(_state(unit.name)))
        wait_for_answer(target, ready_by, lives, unit.users, may_listen=unit.may_listen)
    elif target.ready.how == "exit":
        _wait_for_end(target, unit, ready_by, look)
    look()
    found = show([unit.name], ["ControlGroup"]).get(unit.name, {}).get("ControlGroup")
    if found and found != unit.control_group:
        raise SettingError(
            f"first_token.{target.name}.unit",
            f"{unit.name} in the control group {unit.control_group}",
            found,
            "Who opens a file is told by its control group.",
            "start the unit by hand, and run this again.",
        )


def put_back(target: Target, unit: Unit) -> list[str]:
    """Restore whether the unit and the others run; return those that do not run again, in words."""
    deadline = Deadline.after(PUT_BACK_S + target.ready.timeout_s)
    if not unit.ran:
        systemctl(deadline.left_s(STOP_S), "stop", "--", unit.name)
        if unit.state != "failed":
            systemctl(deadline.left_s(ASK_S), "reset-failed", "--", unit.name)
    wanted = ([unit.name] if unit.ran else []) + list(unit.others)
    # A unit that was starting may be starting again: whether it ever becomes ready is unknown.
    may_be_starting = {unit.name} if unit.state == "activating" else set()
    started_target = False
    down: list[str] = []
    for is_last in (False, True):
        down = [name for name in wanted if not _has_come_back(name, may_be_starting)]
        if down:
            started_target = started_target or unit.name in down
            systemctl(deadline.left_s(), "start", "--", *down)
        while down and not deadline.is_over:
            states = {name: _states(name) for name in down}
            down = [name for name in down if not _is_back(states[name], name in may_be_starting)]
            # Do not wait for a unit that is neither running nor changing its state.
            if not down or not any(states[name].get("ActiveState") in _MOVING for name in down):
                break
            time.sleep(_STEP_S)
        if not down or is_last or deadline.is_over:
            break
        systemctl(deadline.left_s(ASK_S), "reset-failed", "--", *down)
    told = [f"{name} is {_state(name) or 'unknown'}" for name in down]
    if not told and started_target and target.ready.is_asked and not _answers(target, unit):
        # systemd regards a simple service as running as soon as its process exists.
        told = [f"{unit.name} is {_state(unit.name) or 'unknown'}, and does not answer at {target.ready.at}"]
    return told


def _answers(target: Target, unit: Unit) -> bool:
    """Return whether a started unit becomes ready."""
    lives = _now_and_then(lambda: is_running(_state(unit.name)))
    try:
        wait_for_answer(
            target,
            Deadline.after(target.ready.timeout_s),
            lives,
            unit.users,
            may_listen=unit.may_listen,
        )
    except SettingError:
        return False
    return True


_MOVING = ("activating", "deactivating", "reloading", "refreshing")


def _has_come_back(name: str, may_be_starting: set[str]) -> bool:
    state = _state(name)
    return state in ("active", "reloading", "refreshing") or (state == "activating" and name in may_be_starting)


def _is_back(facts: dict[str, str], may_be_starting: bool) -> bool:
    """Return whether a started unit runs, or is a oneshot that has finished."""
    state = facts.get("ActiveState", "")
    if state in ("active", "reloading", "refreshing") or (state == "activating" and may_be_starting):
        return True
    return (state, facts.get("Type"), facts.get("Result")) == ("inactive", "oneshot", "success")


def end_replay(host: Host, target: Target) -> None:
    """Stop a running replay; its unit file is about to be removed."""
    if host.is_live and systemd_runs(host) and host.exists(target.replay_unit):
        name = os.path.basename(target.replay_unit)
        systemctl(ASK_S, "stop", "--", name)
        systemctl(ASK_S, "reset-failed", "--", name)


def users_of(control_group: str) -> list[int]:
    """Return the users of the processes in a unit's control group."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                if any(is_below(control_group, group) for group in systemd_groups(file)):
                    found.add(os.stat(f"/proc/{pid}").st_uid)
        except OSError:
            continue
    return sorted(found)


def _control_group(name: str, slice_name: str) -> str:
    """Return the group that systemd will give a stopped unit: its slice's group, and its own name below."""
    known = show([slice_name, "-.slice"], ["ControlGroup"]) if slice_name else {}
    group = known.get(slice_name, {}).get("ControlGroup")
    if not group:
        # A slice that holds nothing yet. `a-b.slice` lies in `a.slice` (systemd.slice(5)).
        words = slice_name.removesuffix(".slice").split("-") if slice_name not in ("", "-.slice") else []
        parts = [f"{'-'.join(words[: number + 1])}.slice" for number in range(len(words))]
        group = "/".join([known.get("-.slice", {}).get("ControlGroup", "").rstrip("/"), *parts])
    # systemd prefixes names that the kernel reserves with an underscore (cg_escape in src/basic/cgroup-util.c).
    own = f"_{name}" if name.startswith(("_", ".", *(f"{each}." for each in _CONTROLLERS))) else name
    return f"{group.rstrip('/')}/{own}"


def _wait_for_end(target: Target, unit: Unit, deadline: Deadline, look: Callable[[], None]) -> None:
    """Wait until the unit's process has ended successfully: a oneshot has by now, any other service is waited for."""
    while True:
        facts = show([unit.name], ["SubState", "Result"], deadline.left_s(ASK_S)).get(unit.name, {})
        if facts.get("SubState") in ("dead", "exited", "failed"):
            if facts.get("Result") != "success":
                raise not_ready(target, f"it ended with {facts.get('Result')}")
            return
        if deadline.is_over:
            raise not_ready(target, f"still running after {target.ready.timeout_s:g} s")
        look()
        time.sleep(_STEP_S)


def _now_and_then(question: Callable[[], bool]) -> Callable[[], bool]:
    """Return the question, limited to one call a second: each call runs a program beside a start that is recorded."""
    asked_at, answer = time.monotonic(), True

    def asked() -> bool:
        nonlocal asked_at, answer
        if time.monotonic() - asked_at > 1:
            asked_at, answer = time.monotonic(), question()
        return answer

    return asked


def _closure(names: Sequence[str], properties: Sequence[str]) -> list[str]:
    """Return the units reachable from these by some properties, without these themselves."""
    found: dict[str, None] = {}
    todo = list(names)
    while todo:
        new = [name for name in _named(todo, properties) if name not in found and name not in names]
        found.update(dict.fromkeys(new))
        todo = new
    return list(found)


def _named(names: Sequence[str], properties: Sequence[str]) -> list[str]:
    """Return the units that these properties of the units name, each once."""
    facts = show(list(names), properties)
    return list(dict.fromkeys(other for each in facts.values() for text in each.values() for other in text.split()))


def _running(names: Iterable[str]) -> list[str]:
    asked = list(names)
    facts = show(asked, ["ActiveState"])
    return [name for name in asked if is_running(facts.get(name, {}).get("ActiveState", ""))]


def is_running(state: str) -> bool:
    """Return whether an ActiveState is that of a unit that runs or is about to."""
    return state in ("active", "reloading", "refreshing", "activating")


def _states(name: str) -> dict[str, str]:
    return show([name], ["ActiveState", "Type", "Result"]).get(name, {})


def _state(name: str) -> str:
    return _states(name).get("ActiveState", "")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no word")[:300]
