"""Starting a target's command, and waiting until it or a unit is ready, so that its reads can be recorded."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...host.deadline import Deadline
from ...host.errors import SettingError
from ...host.files import Host
from ...host.sizes import is_number
from ...host.subreaper import subreaper
from ..target import Target
from .ready import ask_ready

_STEP_S = 0.02
_LAST_READS = 16
_LOOK_S = 0.25
"""The interval of looks at a command whose end means that it is ready: an ended process has no page tables."""
_KEPT_BYTES = 4096
"""How much of the end of a command's stderr is kept for the error message."""


@dataclass(frozen=True)
class Identity:
    """The user that a target runs as."""

    uid: int
    gid: int

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments for subprocess."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def identity_of(target: Target, user: str, group: str = "") -> Identity:
    """Return the target's user, in the unit's group or the user's own. systemd accepts numbers for both.

    SettingError for a user or group that does not exist, or where a command would run as root.
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
            "name an existing one; nothing was stopped or changed.",
        ) from None
    if entry.pw_uid == 0 and target.command:
        raise SettingError(
            f"first_token.{target.name}.user",
            "an unprivileged user",
            user,
            "A recorded command gets no privileges.",
            "name the user that the service has.",
        )
    return Identity(entry.pw_uid, gid)


def start_command(target: Target, environment: Mapping[str, str], look: Callable[[], None] = lambda: None) -> None:
    """Run the target's command until it is ready, then end all of it. SettingError.

    `look` is called when it is ready, and repeatedly while it runs if its end means that it is ready.
    """
    with ready_command(target, environment, look=look):
        look()


@contextlib.contextmanager
def ready_command(
    target: Target,
    environment: Mapping[str, str],
    prefix: Sequence[str] = (),
    look: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Run the target's command; enter the block when it is ready, and end all of it with the block. SettingError.

    `prefix` is a program with its arguments that runs the command. `look` is called repeatedly while the command runs
    if its end means that it is ready.
    """
    deadline = Deadline.after(target.ready.timeout_s)
    identity = identity_of(target, target.user)
    # A server forks workers into sessions of their own: they stay part of the recorded tree, and end with it.
    with subreaper():
        process = _spawned([*prefix, *target.command], target, environment, identity)
        assert process.stderr
        with process.stderr:
            try:
                _wait_until_ready(target, process, deadline, identity, look)
                yield
            finally:
                process.kill()
                process.wait()


def _spawned(
    command: Sequence[str], target: Target, environment: Mapping[str, str], identity: Identity
) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            command,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **dict(target.environment), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **identity.arguments,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise not_ready(target, str(error)) from error
    assert process.stderr
    os.set_blocking(process.stderr.fileno(), False)
    return process


class _Words:
    """The last part of a command's stderr: the pipe is drained so that the command never blocks, and not stored."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr
        self._pipe = process.stderr.fileno()
        self._end = b""

    def take(self, wait_s: float) -> bool:
        """Wait up to `wait_s` for more output and read it; return whether there was any."""
        if self._pipe < 0:
            time.sleep(wait_s)
            return False
        if select.select([self._pipe], [], [], wait_s)[0]:
            with contextlib.suppress(BlockingIOError):
                said = os.read(self._pipe, 1 << 16)
                self._end = (self._end + said)[-_KEPT_BYTES:]
                if not said:
                    self._pipe = -1
                return bool(said)
        return False

    @property
    def last(self) -> str:
        lines = self._end.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        return lines[-1][:300]


def _wait_until_ready(
    target: Target,
    process: subprocess.Popen[bytes],
    deadline: Deadline,
    identity: Identity,
    look: Callable[[], None],
) -> None:
    words = _Words(process)
    if target.ready.is_asked:
        wait_for_answer(
            target, deadline, lambda: process.poll() is None, lambda: [identity.uid], lambda: words.take(_STEP_S)
        )
        return
    next_look = Deadline.after(_LOOK_S)
    while True:
        if next_look.is_over:
            look()
            next_look = Deadline.after(_LOOK_S)
        # Check for the end before reading: all output written before the end is in the pipe by then.
        has_ended = process.poll() is not None
        words.take(0 if has_ended else _STEP_S)
        if has_ended:
            break
        if deadline.is_over:
            raise not_ready(target, f"still running after {target.ready.timeout_s:g} s")
    if process.returncode:
        # Another process that holds the pipe may write for ever.
        for _ in range(_LAST_READS):
            if not words.take(0):
                break
        raise not_ready(target, f"exit status {process.returncode}: {words.last}")


def wait_for_answer(
    target: Target,
    deadline: Deadline,
    lives: Callable[[], bool],
    users: Callable[[], Sequence[int]],
    pause: Callable[[], object] = lambda: time.sleep(_STEP_S),
    may_listen: Callable[[int], bool] | None = None,
) -> None:
    """Return once the target answers at its port or URL; SettingError when it ends first, or time is up.

    `users` are those who may listen there, and `may_listen` says it of a process. An answer of anybody else does not
    count.
    """
    stranger = None
    while True:
        answer = ask_ready(Host(), target.ready, deadline, users, may_listen)
        if answer.is_ready:
            return
        stranger = answer.stranger if answer.stranger is not None else stranger
        if not lives():
            raise not_ready(target, "it ended before it was ready" + _named(stranger))
        if deadline.is_over:
            found = f"no answer at {target.ready.at} within {target.ready.timeout_s:g} s"
            raise not_ready(target, found + _named(stranger))
        pause()


def _named(uid: int | None) -> str:
    return "" if uid is None else f" (a process of user id {uid} listens there, which is not the target's)"


def require_stopped(target: Target, kind: str, name: str, problem: str, deadline: Deadline) -> None:
    """Raise SettingError where stopping failed (`problem` is the stop's own message), or where its address answers yet.

    `kind` is the key of the target that names it: `unit` or `container`.
    """
    if problem:
        raise SettingError(
            f"first_token.{target.name}.{kind}",
            f"{name}, stopped",
            problem,
            "A start can be recorded from the beginning only.",
            "stop it by hand, and see why it does not.",
        )
    if target.ready.is_asked and ask_ready(Host(), target.ready, deadline).is_ready:
        raise SettingError(
            f"first_token.{target.name}.ready",
            f"no answer at {target.ready.at} while {name} is stopped",
            "an answer",
            "Another service has that address, and would be taken for this one.",
            "correct the port or the URL, or see who has it.",
        )


def not_ready(target: Target, found: str) -> SettingError:
    """Return the error for a start that did not become ready."""
    return SettingError(
        f"first_token.{target.name}",
        f"a start that gets ready ({target.ready})",
        found,
        "What a start reads is recorded until it is ready.",
        "start it by hand as its user; if it takes longer, raise ready.timeout_s.",
    )
