"""Restarting a service that a recording stops, however the recording ends.

Before anything is stopped, a note of what must run again is written durably to the disk, and a systemd unit waits for
this process's end (files/slm_restart.py); where no systemd runs, that program waits by itself. Once everything is
verified to be in its former state, note and unit are removed. If this process is killed, who waits acts on the note; if
the machine goes down, its next boot does; our next task checks in both cases.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Union

from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import FIT, PROGRAMS, RECORDING, STOPPED_NOTE
from ...host.rmtree import remove_folder_if_empty
from ...host.systemd import UNITS, reload_units, systemctl, systemd_runs
from ..places import MARK
from ..target import Target
from .container import Started, put_container_back
from .members import is_alive, own_identity
from .unit import ASK_S, Unit, put_back

RESTARTER = f"{PROGRAMS}/slm_restart.py"
PYTHON = "/usr/bin/python3"
GUARD = "slm-baseline-restart.service"
GUARD_UNIT = f"{UNITS}/{GUARD}"
GUARD_LINK = f"{UNITS}/multi-user.target.wants/{GUARD}"
_MAKE_GOOD_S = 900.0
_OUTSIDE = (
    *("/usr/bin/systemd-run", "--quiet", "--wait", "--collect", "--service-type=oneshot"),
    *("--property=KillMode=process", "--"),
)
_GUARD_TEXT = f"""{MARK}
[Unit]
Description=Start again what a recording of slm-baseline has stopped
ConditionPathExists={STOPPED_NOTE}

[Service]
Type=exec
ExecStart={PYTHON} -IS {RESTARTER} {STOPPED_NOTE}
NoNewPrivileges=yes
ProtectHome=yes
PrivateNetwork=yes

[Install]
WantedBy=multi-user.target
"""


Stopped = Union[Unit, Started]
"""What a recording stops: a unit, or a container that has none."""


class ServiceDown(SettingError):
    """A service that a recording stopped and that does not run again."""


@contextlib.contextmanager
def promised(host: Host, target: Target, unit: Stopped) -> Iterator[None]:
    """Allow the block to stop and start the unit or container; afterwards restart, and verify, all that ran before.

    SettingError where that cannot be ensured, with nothing stopped. ServiceDown where something does not run again; it
    includes the block's own error.
    """
    _promise(host, target, unit)
    try:
        yield
    except BaseException as error:
        down = _keep(host, target, unit)
        if down:
            raise _down(target, down, error) from error
        raise
    down = _keep(host, target, unit)
    if down:
        raise _down(target, down, None)


def make_good(host: Host) -> list[str]:
    """Start what an interrupted recording left stopped, and return the units' names for the user.

    ServiceDown where they do not start.
    """
    note = read_note(host)
    if note is None:
        _forget(host)
        return []
    names = started_by(note)
    if _is_under_way(host, note):
        raise SettingError(
            "first_token",
            "no other recording on this host",
            f"one of {note.get('target')}, by process {note.get('pid')}",
            "Two recordings would stop the same services.",
            "wait until it has ended.",
        )
    reason = ""
    if host.is_live:
        try:
            done = subprocess.run(
                [PYTHON, "-IS", str(host.path(RESTARTER)), STOPPED_NOTE],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_MAKE_GOOD_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            reason = (done.stderr.strip() or f"exit status {done.returncode}") if done.returncode else ""
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error)
    if reason:
        raise ServiceDown(
            "first_token",
            f"{', '.join(names)}, running again after a recording that was cut short",
            reason.splitlines()[-1][:300],
            "A recording stopped them.",
            f"start them by hand, then remove {STOPPED_NOTE}.",
        )
    _forget(host)
    return names


def read_note(host: Host) -> dict[str, Any] | None:
    """Return the note of what must be restarted; None where there is none, an empty one where it is unreadable."""
    try:
        found = json.loads(host.read(STOPPED_NOTE))
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


def started_by(note: Mapping[str, Any]) -> list[str]:
    """Return the names of the units and containers that a note wants running."""
    containers = [f"container {each['name']}" for each in note.get("containers", []) if each["ran"]]
    return [*map(str, note.get("start", [])), *containers]


def _is_under_way(host: Host, note: Mapping[str, Any]) -> bool:
    pid, started = note.get("pid"), note.get("started")
    if note.get("boot_id") != _boot_id(host) or not isinstance(pid, int) or not isinstance(started, int):
        return False
    return pid != os.getpid() and is_alive(pid, started)


def _promise(host: Host, target: Target, unit: Stopped) -> None:
    pid, started = own_identity()
    note = {
        "schema_version": 1,
        "target": target.name,
        **(_containers(unit) if isinstance(unit, Started) else _units(unit)),
        "remove": [RECORDING, *([target.recording_drop_in] if target.unit else [])],
        "boot_id": _boot_id(host),
        "pid": pid,
        "started": started,
    }
    host.write_durably(STOPPED_NOTE, json.dumps(note, indent=1).encode() + b"\n", mode=0o600)
    if isinstance(unit, Started) and host.is_live and not systemd_runs(host):
        _start_program(target, host)
    else:
        _start_guard(host, target, unit)
    os.makedirs(host.path(FIT), mode=0o755, exist_ok=True)
    host.path(RECORDING).write_bytes(b"")


def _units(unit: Unit) -> dict[str, Any]:
    return {
        "start": [*([unit.name] if unit.ran else []), *unit.others],
        "stop": [] if unit.ran else [unit.name],
    }


def _containers(container: Started) -> dict[str, Any]:
    # podman has no daemon: what it starts would live in the guard's control group and namespaces.
    prefix = _OUTSIDE if container.runtime.name == "podman" else ()
    one = {
        "name": container.name,
        "ran": container.ran,
        "start": [*prefix, *container.command("start")],
        "stop": container.command("stop"),
        "ask": [container.runtime.program, "inspect", "--format", "{{.State.Running}}", "--", container.name],
        "answers": [container.runtime.program, *container.runtime.asks_version],
        "environment": container.runtime.environment,
    }
    return {"start": [], "stop": [], "containers": [one]}


def _start_program(target: Target, host: Host) -> None:
    """Start the program that waits for this process's end, outside of its session."""
    try:
        subprocess.Popen(
            [PYTHON, "-IS", str(host.path(RESTARTER)), STOPPED_NOTE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        host.remove_durably(STOPPED_NOTE)
        raise SettingError(
            f"first_token.{target.name}",
            f"{RESTARTER}, which starts the container again should this be killed",
            str(error),
            "Nothing is stopped without it.",
            "see why it does not start; nothing was stopped or changed.",
        ) from error


def _start_guard(host: Host, target: Target, unit: Stopped) -> None:
    """Start the unit that waits for this process's end; SettingError, with nothing left, where it does not start."""
    host.write_durably(GUARD_UNIT, _GUARD_TEXT.encode())
    os.makedirs(host.path(GUARD_LINK).parent, mode=0o755, exist_ok=True)
    if not os.path.lexists(host.path(GUARD_LINK)):
        os.symlink(GUARD_UNIT, host.path(GUARD_LINK))
    host.sync_folder(host.path(GUARD_LINK).parent)
    # systemd may still know an earlier unit, of a killed process, as one without a file.
    reload_units(host)
    answer = systemctl(ASK_S, "start", "--", GUARD)
    if answer.returncode:
        host.remove_durably(STOPPED_NOTE)
        _forget(host)
        raise SettingError(
            f"first_token.{target.name}",
            f"{GUARD}, which starts {unit.name} again should this be killed",
            (answer.stderr.strip().splitlines() or ["no word"])[0][:300],
            "Nothing is stopped without it.",
            "see why systemd does not start it; nothing was stopped or changed.",
        )


def _keep(host: Host, target: Target, unit: Stopped) -> list[str]:
    """Restore everything; return what does not run again, in words. The note stays for it."""
    host.path(RECORDING).unlink(missing_ok=True)
    if target.unit:
        host.path(target.recording_drop_in).unlink(missing_ok=True)
        remove_folder_if_empty(host.path(target.recording_drop_in).parent)
    reload_units(host)
    down = put_container_back(target, unit) if isinstance(unit, Started) else put_back(target, unit)
    if not down:
        host.remove_durably(STOPPED_NOTE)
        _forget(host)
    return down


def _forget(host: Host) -> None:
    """Remove the waiting unit; there is no note any more."""
    if not os.path.lexists(host.path(GUARD_UNIT)) and not os.path.lexists(host.path(GUARD_LINK)):
        return
    if host.is_live:
        systemctl(ASK_S, "stop", "--", GUARD)
        systemctl(ASK_S, "reset-failed", "--", GUARD)
    for path in (GUARD_LINK, GUARD_UNIT):
        host.remove_durably(path)
    remove_folder_if_empty(host.path(GUARD_LINK).parent)
    reload_units(host)


def _boot_id(host: Host) -> str:
    return (host.read_or_none("/proc/sys/kernel/random/boot_id") or "").strip()


def _down(target: Target, down: list[str], error: BaseException | None) -> ServiceDown:
    before = f"; before that: {error}" if error else ""
    return ServiceDown(
        f"first_token.{target.name}.{'unit' if target.unit else 'container'}",
        "every service running again that ran before",
        f"{', '.join(down)}{before}",
        "A recording stopped them, and they do not start again.",
        "see `systemctl status` and `journalctl -u` of a unit, the logs of a container; the next run tries to start"
        " them first.",
    )
