"""A target's container: its cold start by docker or podman, and restoring its former state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ...containers.runtime import Container, Runtime, said
from ...host.deadline import Deadline
from ...host.errors import SettingError
from ..target import Target
from .members import may_listen_for, users_of_container
from .start import not_ready, require_stopped, wait_for_answer
from .unit import PUT_BACK_S, STOP_S

_STEP_S = 0.25


@dataclass(frozen=True)
class Started:
    """A container that a target starts by its name, and its runtime. `found` is its state before the recording."""

    runtime: Runtime
    found: Container

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def ran(self) -> bool:
        return self.found.runs

    def command(self, verb: str) -> list[str]:
        """Return the command line that starts or stops it."""
        return [self.runtime.program, verb, "--", self.found.name]

    def now(self) -> Container | None:
        return self.runtime.container(self.found.name)


def stop_container(target: Target, started: Started, deadline: Deadline) -> None:
    """Stop the container, so that it holds none of its pages in memory; SettingError where it or its address stays."""
    done = started.runtime.call(*started.command("stop")[1:], timeout_s=deadline.left_s(STOP_S))
    require_stopped(target, "container", started.name, said(done) if done.returncode else "", deadline)


def start_container(
    target: Target, started: Started, deadline: Deadline, look: Callable[[], None] = lambda: None
) -> None:
    """Start the stopped container and wait until it is ready; SettingError.

    `look` is called when it is ready, and repeatedly while it runs if its end means that it is ready.
    """
    ready_by = Deadline.after(deadline.left_s(target.ready.timeout_s))
    done = started.runtime.call(*started.command("start")[1:], timeout_s=ready_by.left_s())
    if done.returncode:
        raise not_ready(target, said(done))
    _wait_until_ready(target, started, ready_by, look)
    look()


def _wait_until_ready(target: Target, started: Started, deadline: Deadline, look: Callable[[], None]) -> None:
    if target.ready.is_asked:
        wait_for_answer(
            target,
            deadline,
            lambda: _runs(started),
            lambda: users_of_container(started.found.id),
            lambda: time.sleep(_STEP_S),
            may_listen_for(started.found.id),
        )
        return
    while True:
        found = started.now()
        if found is None:
            raise not_ready(target, "the container is gone")
        if target.ready.how == "health" and found.health == "healthy":
            return
        if not found.runs:
            if target.ready.how == "exit" and not found.exit_code:
                return
            raise not_ready(target, f"it ended with exit status {found.exit_code}")
        if deadline.is_over:
            state = found.health or "still running"
            raise not_ready(target, f"{state} after {target.ready.timeout_s:g} s")
        if target.ready.how == "exit":
            look()
        time.sleep(_STEP_S)


def put_container_back(target: Target, started: Started) -> list[str]:
    """Restore whether the container runs; return it in words where it does not run again.

    One that somebody has removed meanwhile is nothing to restore.
    """
    deadline = Deadline.after(PUT_BACK_S + target.ready.timeout_s)
    if not started.ran:
        started.runtime.call(*started.command("stop")[1:], timeout_s=deadline.left_s(STOP_S))
        return []
    found = started.now()
    if (found is not None and found.runs) or (found is None and not started.runtime.answers()):
        return []
    done = started.runtime.call(*started.command("start")[1:], timeout_s=deadline.left_s())
    if done.returncode:
        return [f"container {started.name}: {said(done)}"]
    if target.ready.is_asked or target.ready.how == "health":
        try:
            _wait_until_ready(target, started, deadline, lambda: None)
        except SettingError as error:
            return [f"container {started.name}: {error.found}"]
    return []


def _runs(started: Started) -> bool:
    found = started.now()
    return found is not None and found.runs
