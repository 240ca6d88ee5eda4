"""The identity of this run: what leases, results and snapshots call it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slm_run
short_description: The identity of this run
description:
  - A run's id, where it was started from, and which other runs live on this control node.
  - The id is derived from the process of C(ansible-playbook), so it is the same wherever it is looked up in one run.
author: slm-baseline maintainers
options: {}
"""

EXAMPLES = r"""
- name: Who are we?
  ansible.builtin.debug:
    msg: "{{ lookup('slm_run').id }}"
"""

RETURN = r"""
_raw:
  description: One dictionary with C(id), C(started_at), C(controller) and C(alive).
  type: list
"""

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from ansible import constants
from ansible.plugins.lookup import LookupBase

_PROGRAM = "ansible-playbook"
_STARTTIME = 22 - 3
"""The place of starttime among the fields of proc_pid_stat(5) that follow the name; `state` is the third of all."""


def is_playbook(process: psutil.Process) -> bool:
    """Whether a process is an ansible-playbook; one that has gone or is somebody else's secret is not."""
    try:
        return any(Path(word).name == _PROGRAM for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def parse_start(stat: str) -> int:
    """A process's start in ticks since boot, from its /proc/PID/stat; ValueError for any other text.

    The name, in parentheses, may hold blanks and parentheses itself.
    """
    fields = stat.rpartition(")")[2].split()
    if len(fields) <= _STARTTIME:
        raise ValueError(f"no start in {stat!r}")
    return int(fields[_STARTTIME])


def identity(process: psutil.Process) -> list[Any]:
    """`[pid, started]`, which no two processes of one boot share, and which setting the clock does not change."""
    try:
        return [process.pid, parse_start(Path(f"/proc/{process.pid}/stat").read_text(errors="replace"))]
    except (OSError, ValueError):
        return [process.pid, round(process.create_time(), 2)]


def alive() -> Iterator[list[Any]]:
    """The identity of every ansible-playbook that this user sees."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if is_playbook(process):
                yield identity(process)


def main_process() -> psutil.Process:
    """The ansible-playbook that this worker was forked from; this very process where there is none, as in a test."""
    main = psutil.Process()
    for parent in main.parents():
        if not is_playbook(parent):
            break
        main = parent
    return main


def started_at(main: psutil.Process) -> datetime:
    """When this run began, the same at every look-up even where the clock is set meanwhile.

    The kernel counts a process's start from the boot, and where the boot lies on the clock moves with the clock. So the
    time is noted once: as that of a file in the temporary folder that Ansible keeps for one run and removes at its end.
    """
    note = Path(constants.DEFAULT_LOCAL_TMP) / "slm_run"
    try:
        with contextlib.suppress(FileExistsError):
            note.open("x").close()
        return datetime.fromtimestamp(note.stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(main.create_time(), UTC)


def controller_id(boot_id: str) -> str:
    """The same for all who see each other's processes, on one boot; empty where that cannot be told.

    Containers on one machine share its boot but not its processes, and users may be kept from seeing one another's.
    """
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    return f"{boot_id}/{namespace}/{os.getuid()}"


def describe() -> dict[str, Any]:
    """The run's id, start, controller, and the runs alive beside it."""
    main = main_process()
    pid, ticks = identity(main)
    started = started_at(main)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    mark = hashlib.sha256(f"{boot_id} {[pid, ticks]}".encode()).hexdigest()[:6]
    return {
        "id": f"{started:%Y%m%dT%H%M%SZ}-{mark}",
        "started_at": f"{started:%Y-%m-%dT%H:%M:%SZ}",
        "controller": {"name": platform.node(), "id": controller_id(boot_id), "pid": pid, "started": ticks},
        "alive": list(alive()),
    }


class LookupModule(LookupBase):
    """What Ansible looks for in this file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [describe()]
