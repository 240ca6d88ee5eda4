"""Start a target and wait until it is ready, so that what it reads can be recorded."""

from __future__ import annotations

import grp
import http.client
import os
import pwd
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Mapping
from typing import IO, Any

from ..host.descendants import adopting
from ..host.errors import SettingError
from ..host.sizes import is_number
from .target import Target

_STEP_S = 0.02
_SYSTEMCTL = "/usr/bin/systemctl"


def identity_of(target: Target, user: str, group: str = "") -> dict[str, Any]:
    """subprocess's arguments for the target's user, in a group of the unit's or its own.

    SettingError for a user or group that does not exist, or a command's root. systemd takes numbers for both.
    """
    try:
        entry = pwd.getpwuid(int(user)) if is_number(user) else pwd.getpwnam(user)
        gid = int(group) if is_number(group) else grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except (KeyError, ValueError, OverflowError):
        raise SettingError(
            f"first_token.{target.name}.user",
            f"{user}{':' if group else ''}{group}",
            "no such user or group",
            "The target runs as it.",
            "name an existing one.",
        ) from None
    if entry.pw_uid == 0 and target.command:
        raise SettingError(
            f"first_token.{target.name}.user",
            "an unprivileged user",
            user,
            "A recorded command gets no privileges.",
            "name the user that the service has.",
        )
    return {"user": entry.pw_uid, "group": gid, "extra_groups": []}


def start_command(target: Target, environment: Mapping[str, str]) -> None:
    """Run the target's command until it is ready; nothing of it is left running. SettingError."""
    deadline = time.monotonic() + target.timeout_s
    # A server forks workers into sessions of their own: they stay part of the recorded tree, and end with it.
    with tempfile.TemporaryFile() as errors, adopting():
        _run_command(target, environment, deadline, errors)


def _run_command(target: Target, environment: Mapping[str, str], deadline: float, errors: IO[bytes]) -> None:
    """`errors` takes what the command writes to stderr: a pipe that nobody reads would stop it."""
    try:
        process = subprocess.Popen(
            target.command,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **dict(target.environment), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            **identity_of(target, target.user),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise _not_ready(target, str(error)) from error
    try:
        if target.ready == "exit":
            try:
                process.wait(target.timeout_s)
            except subprocess.TimeoutExpired:
                raise _not_ready(target, f"still running after {target.timeout_s:g} s") from None
            if process.returncode:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
                last = (errors.read().decode("utf-8", "replace").strip().splitlines() or ["no word"])[-1][:300]
                raise _not_ready(target, f"exit status {process.returncode}: {last}")
        else:
            _wait(target, deadline, lambda: process.poll() is None)
    finally:
        process.kill()
        process.wait()


def restart_unit(target: Target) -> None:
    """Restart the target's unit and wait until it is ready; SettingError."""
    deadline = time.monotonic() + target.timeout_s
    try:
        answer = subprocess.run(
            [_SYSTEMCTL, "restart", target.unit], capture_output=True, text=True, timeout=target.timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise _not_ready(target, f"systemctl still waiting after {target.timeout_s:g} s") from None
    if answer.returncode:
        raise _not_ready(target, (answer.stderr.strip().splitlines() or ["no word"])[-1][:300])
    if target.ready in ("port", "url"):
        _wait(target, deadline, lambda: True)


def unit_facts(target: Target) -> dict[str, str]:
    """`User`, `Group`, `LoadState` and `Type` of the target's unit; SettingError for one that systemd does not know."""
    try:
        answer = subprocess.run(
            [_SYSTEMCTL, "show", "--property=User,Group,LoadState,Type", target.unit],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        facts = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    except (OSError, subprocess.SubprocessError):
        facts = {}
    if facts.get("LoadState") != "loaded":
        raise SettingError(
            f"first_token.{target.name}.unit",
            f"{target.unit}, loaded",
            facts.get("LoadState") or "no systemd that answers",
            "Only a unit that systemd knows can be started.",
            "correct the name, or give the command instead.",
        )
    if target.ready == "notify" and facts.get("Type") not in ("notify", "notify-reload", "oneshot", "dbus"):
        raise SettingError(
            f"first_token.{target.name}.ready",
            "a unit that tells when it is ready",
            f"Type={facts.get('Type')}",
            "systemd takes such a unit for started as soon as its process runs.",
            "give {type: port, port: …} or {type: url, url: …}.",
        )
    return facts


def _wait(target: Target, deadline: float, lives: Any) -> None:
    while not _answers(target):
        if not lives():
            raise _not_ready(target, "it ended before it was ready")
        if time.monotonic() > deadline:
            raise _not_ready(target, f"no answer at {target.ready_at} within {target.timeout_s:g} s")
        time.sleep(_STEP_S)


def _answers(target: Target) -> bool:
    try:
        if target.ready == "port":
            socket.create_connection(("127.0.0.1", int(target.ready_at)), timeout=1).close()
            return True
        url = urllib.parse.urlsplit(target.ready_at)
        connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 80, timeout=5)
        try:
            connection.request("GET", f"{url.path or '/'}{'?' + url.query if url.query else ''}")
            return 200 <= connection.getresponse().status < 300
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _not_ready(target: Target, found: str) -> SettingError:
    return SettingError(
        f"first_token.{target.name}",
        f"a start that gets ready ({target.ready}{' ' + target.ready_at if target.ready_at else ''})",
        found,
        "What a start reads is recorded until it is ready.",
        "start it by hand as its user; if it takes longer, raise ready.timeout_s.",
    )
