"""The identity of this run, which leases, results and snapshots use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slm_run
short_description: The identity of this run
description:
  - A run's id, where it was started from, and which processes live on this control node.
  - The id is derived from the process that Ansible forks its workers from, so it is the same wherever it is looked up
    in one run, whatever program started it.
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
  description: One dictionary with C(id), C(started_at), C(controller), C(alive), C(host) (its name here).
  type: list
"""

import contextlib
import hashlib
import multiprocessing
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from ansible import constants
from ansible.executor.process.worker import WorkerProcess
from ansible.plugins.lookup import LookupBase

_FLAGS, _STARTTIME = 9 - 3, 22 - 3
"""Indexes of flags and starttime among the fields of proc_pid_stat(5) that follow the name; `state` is the third."""
_PF_KTHREAD = 0x00200000
"""PF_KTHREAD, a kernel thread (include/linux/sched.h)."""


def parse_stat(stat: str) -> tuple[int, bool]:
    """Parse /proc/PID/stat: a process's start in ticks since boot, and whether it is a kernel thread.

    ValueError for any other text. The name, in parentheses, may hold blanks and parentheses itself.
    """
    fields = stat.rpartition(")")[2].split()
    if len(fields) <= _STARTTIME:
        raise ValueError(f"no start in {stat!r}")
    return int(fields[_STARTTIME]), bool(int(fields[_FLAGS]) & _PF_KTHREAD)


def identity(pid: int) -> list[Any]:
    """Return `[pid, started]`, unique within one boot and not changed by setting the clock."""
    try:
        return [pid, parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))[0]]
    except (OSError, ValueError):
        return [pid, round(psutil.Process(pid).create_time(), 2)]


def alive() -> Iterator[list[Any]]:
    """Yield the identity of every process that may be a run of this user's.

    Not only of those named ansible-playbook: a wrapper, `python -m ansible` or a program that uses Ansible's classes
    has another name, and a run that is not listed here would be considered dead.
    """
    ours, has_proc = {0, os.getuid()}, Path("/proc/self/stat").exists()
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            if not has_proc:
                yield identity(pid)
            # A process that may not be traced belongs to root here (proc_pid(5)).
            elif os.stat(f"/proc/{pid}").st_uid in ours:
                started, is_kernel = parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
                if not is_kernel:
                    yield [pid, started]


def main_pid() -> int:
    """Return the process that runs the play: this worker's parent, or this process where it is no worker."""
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    return parent.pid or os.getpid() if isinstance(process, WorkerProcess) and parent else os.getpid()


def started_at(pid: int) -> datetime:
    """Return when this run began, the same at every lookup even if the clock is set meanwhile.

    The kernel counts a process's start from the boot, and the boot's wall-clock time moves with the clock. So the time
    is noted once, as that of a file in the temporary folder that Ansible keeps for one run and removes at its end.
    """
    note = Path(constants.DEFAULT_LOCAL_TMP) / "slm_run"
    try:
        with contextlib.suppress(FileExistsError):
            note.open("x").close()
        return datetime.fromtimestamp(note.stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)


def read_boot_id() -> str:
    """Return what changes with every boot: the kernel's boot id, or without /proc (macOS) the boot's time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


def controller_id(boot_id: str) -> str:
    """Return an id shared by all who see each other's processes, on one boot; empty where that is unknown.

    Containers on one machine share its boot but not its processes, and users may be kept from seeing one another's;
    user 0 of a container is not the host's. Without /proc there are no such namespaces.
    """
    if not Path("/proc/self").exists():
        return f"{boot_id}/{os.getuid()}"
    try:
        pids, users = (os.stat(f"/proc/self/ns/{name}").st_ino for name in ("pid", "user"))
    except OSError:
        return ""
    return f"{boot_id}/{pids}/{users}/{os.getuid()}"


def describe() -> dict[str, Any]:
    """Return the run's id, start, controller, and the runs alive beside it."""
    pid, ticks = identity(main_pid())
    started = started_at(pid)
    boot_id = read_boot_id()
    mark = hashlib.sha256(f"{boot_id} {[pid, ticks]}".encode()).hexdigest()[:6]
    return {
        "id": f"{started:%Y%m%dT%H%M%SZ}-{mark}",
        "started_at": f"{started:%Y-%m-%dT%H:%M:%SZ}",
        "controller": {"name": platform.node(), "id": controller_id(boot_id), "pid": pid, "started": ticks},
        "alive": list(alive()),
    }


class LookupModule(LookupBase):
    """The class that Ansible looks for in this file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [{**describe(), "host": str((variables or {}).get("inventory_hostname", ""))}]
