#!/usr/bin/python3 -IS
"""Restart of what a recording stopped, once that recording has ended without doing so itself.

    slm_restart.py NOTE

NOTE is written before anything is stopped, and removed when all runs again (`first_token/recorder/interruption.py`).
Where it still exists, the recording was killed or the machine went down. This program runs beside a recording and waits
for its end, at boot, and before our next task. It exits with 0 where nothing is to be done or all is done; else with 1,
and NOTE stays for the next call.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

LONGEST_S = 300
STEP_S = 0.2
OURS_TO_REMOVE = ("/run/systemd/system/", "/run/slm-baseline/")


def is_alive(pid: int, started: int) -> bool:
    """Return whether this very process runs: pids are reused, with another start time (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == started
    except (OSError, ValueError, IndexError):
        return False


def wait_for_end(pid: int, started: int) -> None:
    """Wait until that process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        while is_alive(pid, started):
            time.sleep(STEP_S)
        return
    with open(descriptor, "rb", buffering=0) as file:
        if is_alive(pid, started):
            poll = select.poll()
            poll.register(file, select.POLLIN)
            poll.poll()


def read_note(path: str) -> dict[str, Any] | None:
    """Read the note; None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            note: dict[str, Any] = json.load(file)
            return note
    except FileNotFoundError:
        return None


def run(words: list[str], environment: dict[str, str] | None = None, errors: int | None = None) -> str:
    """Run a program and return its output; empty where it cannot be run or takes too long, which stderr says."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            check=False,
            timeout=LONGEST_S,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"slm_restart: {' '.join(words)}: {error}\n")
        return ""
    return done.stdout


def systemctl(*words: str) -> str:
    """Run systemctl and return its output."""
    return run(["/usr/bin/systemctl", "--no-ask-password", *words])


def runs(name: str, or_ended: bool) -> bool:
    """Return whether a unit runs or, if `or_ended`, has finished its work."""
    shown = systemctl("show", "--property=ActiveState,Type,Result", "--", name)
    facts = dict(line.partition("=")[::2] for line in shown.splitlines())
    if facts.get("ActiveState") in ("active", "reloading", "refreshing"):
        return True
    return or_ended and (facts.get("ActiveState"), facts.get("Type"), facts.get("Result")) == (
        "inactive",
        "oneshot",
        "success",
    )


def call(container: dict[str, Any], what: str) -> str:
    """Run one of the recorded commands of a container's runtime and return its output."""
    return run(container[what], container["environment"], subprocess.DEVNULL).strip()


def is_gone(container: dict[str, Any]) -> bool:
    """Return whether a runtime that answers does not know the container any more: nobody can start it again."""
    return not call(container, "ask") and "answers" in container and bool(call(container, "answers"))


def start_containers(containers: list[dict[str, Any]], is_same_boot: bool) -> list[str]:
    """Start the containers that ran, and stop those that did not; return those that do not run.

    At boot the runtime may not answer yet, so it is asked again.
    """
    for container in containers:
        if not container["ran"] and is_same_boot:
            call(container, "stop")
    down = [container for container in containers if container["ran"] and not is_gone(container)]
    until = time.monotonic() + LONGEST_S
    while down:
        down = [container for container in down if call(container, "ask") != "true"]
        for container in down:
            call(container, "start")
        down = [container for container in down if not is_gone(container)]
        down = [container for container in down if call(container, "ask") != "true"]
        if not down or time.monotonic() > until:
            break
        time.sleep(STEP_S)
    return [f"container {container['name']}" for container in down]


def make_good(note: dict[str, Any], is_same_boot: bool) -> list[str]:
    """Remove what the recording left and restart what it stopped; return what still does not run."""
    for path in note["remove"]:
        if path.startswith(OURS_TO_REMOVE) and ".." not in path:
            # Nothing in /run survives a boot.
            with contextlib.suppress(OSError):
                os.unlink(path)
    if note["start"] or note["stop"]:
        systemctl("daemon-reload")
    if is_same_boot:
        for name in note["stop"]:
            systemctl("stop", "--", name)
    down = [name for name in note["start"] if not runs(name, or_ended=False)]
    for name in down:
        systemctl("reset-failed", "--", name)
        systemctl("start", "--", name)
    until = time.monotonic() + LONGEST_S
    while down and time.monotonic() < until:
        down = [name for name in down if not runs(name, or_ended=True)]
        if down:
            time.sleep(STEP_S)
    return down + start_containers(note.get("containers", []), is_same_boot)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: slm_restart.py NOTE\n")
        return 2
    note = read_note(arguments[0])
    if note is None:
        return 0
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        is_same_boot = file.read().strip() == note["boot_id"]
    if is_same_boot:
        wait_for_end(note["pid"], note["started"])
        note = read_note(arguments[0])
        if note is None:
            return 0
    down = make_good(note, is_same_boot)
    if down:
        sys.stderr.write(f"slm_restart: a recording stopped {', '.join(down)}, which did not start again\n")
        return 1
    names = [*note["start"], *(container["name"] for container in note.get("containers", []) if container["ran"])]
    sys.stdout.write(f"slm_restart: started again after a recording that was cut short: {', '.join(names)}\n")
    os.unlink(arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
