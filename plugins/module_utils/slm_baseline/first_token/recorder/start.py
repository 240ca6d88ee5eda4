"""Start a target's command and wait until it, or a unit, is ready, so that what it reads can be recorded."""

from __future__ import annotations

import contextlib
import grp
import http.client
import os
import pwd
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from ...host.errors import SettingError
from ...host.sizes import is_number
from ...host.subreaper import subreaper
from ..bytecode import NOBODY
from ..target import Target

_STEP_S = 0.02


def identity_of(target: Target, user: str, group: str = "", is_dynamic: bool = False) -> dict[str, Any]:
    """subprocess's arguments for the target's user, in a group of the unit's or its own.

    A dynamic user exists while its unit runs; nobody may read as much as it may. SettingError for a user or group that
    does not exist, or a command's root. systemd takes numbers for both.
    """
    try:
        entry = pwd.getpwuid(int(user)) if is_number(user) else pwd.getpwnam(user)
        gid = int(group) if is_number(group) else grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except (KeyError, ValueError, OverflowError):
        if is_dynamic:
            return {"user": NOBODY, "group": NOBODY, "extra_groups": []}
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
    with ready_command(target, environment):
        pass


@contextlib.contextmanager
def ready_command(target: Target, environment: Mapping[str, str], prefix: Sequence[str] = ()) -> Iterator[None]:
    """The block begins when the target's command is ready, and all of it is ended with the block. SettingError.

    `prefix` is a program with its arguments that runs the command.
    """
    deadline = time.monotonic() + target.timeout_s
    # A server forks workers into sessions of their own: they stay part of the recorded tree, and end with it.
    with tempfile.TemporaryFile() as errors, subreaper():
        process = _spawned([*prefix, *target.command], target, environment, errors)
        try:
            _wait_until_ready(target, process, deadline, errors)
            yield
        finally:
            process.kill()
            process.wait()


def _spawned(
    command: Sequence[str], target: Target, environment: Mapping[str, str], errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    """`errors` takes what the command writes to stderr: a pipe that nobody reads would stop it."""
    try:
        return subprocess.Popen(
            command,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **dict(target.environment), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            **identity_of(target, target.user),
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise not_ready(target, str(error)) from error


def _wait_until_ready(target: Target, process: subprocess.Popen[bytes], deadline: float, errors: IO[bytes]) -> None:
    if target.ready != "exit":
        wait_for_answer(target, deadline, lambda: process.poll() is None)
        return
    try:
        process.wait(target.timeout_s)
    except subprocess.TimeoutExpired:
        raise not_ready(target, f"still running after {target.timeout_s:g} s") from None
    if process.returncode:
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
        last = (errors.read().decode("utf-8", "replace").strip().splitlines() or ["no word"])[-1][:300]
        raise not_ready(target, f"exit status {process.returncode}: {last}")


def wait_for_answer(target: Target, deadline: float, lives: Callable[[], bool]) -> None:
    """Return once the target answers at its port or URL; SettingError when it ends before, or time is up."""
    while not answers(target):
        if not lives():
            raise not_ready(target, "it ended before it was ready")
        if time.monotonic() > deadline:
            raise not_ready(target, f"no answer at {target.ready_at} within {target.timeout_s:g} s")
        time.sleep(_STEP_S)


def answers(target: Target) -> bool:
    """Whether the target is ready, by its port or URL."""
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


def not_ready(target: Target, found: str) -> SettingError:
    """The error of a start that did not get as far as it should."""
    return SettingError(
        f"first_token.{target.name}",
        f"a start that gets ready ({target.ready}{' ' + target.ready_at if target.ready_at else ''})",
        found,
        "What a start reads is recorded until it is ready.",
        "start it by hand as its user; if it takes longer, raise ready.timeout_s.",
    )
