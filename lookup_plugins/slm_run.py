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

import hashlib
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from ansible.plugins.lookup import LookupBase

_PROGRAM = "ansible-playbook"


def is_playbook(process: psutil.Process) -> bool:
    """Whether a process is an ansible-playbook; one that has gone or is somebody else's secret is not."""
    try:
        return any(Path(word).name == _PROGRAM for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def identity(process: psutil.Process) -> list[Any]:
    """`[pid, started]`, which no two processes of one boot share."""
    return [process.pid, round(process.create_time(), 2)]


def main_process() -> psutil.Process:
    """The outermost ansible-playbook above this worker; this very process where there is none, as in a test."""
    here = psutil.Process()
    return next((one for one in reversed([here, *here.parents()]) if is_playbook(one)), here)


def describe() -> dict[str, Any]:
    """The run's id, start, controller, and the runs alive beside it."""
    main = main_process()
    started = datetime.fromtimestamp(main.create_time(), UTC)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    mark = hashlib.sha256(f"{boot_id} {identity(main)}".encode()).hexdigest()[:6]
    return {
        "id": f"{started:%Y%m%dT%H%M%SZ}-{mark}",
        "started_at": f"{started:%Y-%m-%dT%H:%M:%SZ}",
        "controller": {
            "name": platform.node(),
            "boot_id": boot_id,
            "pid": main.pid,
            "started": identity(main)[1],
        },
        "alive": [identity(one) for one in psutil.process_iter() if is_playbook(one)],
    }


class LookupModule(LookupBase):
    """What Ansible looks for in this file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [describe()]
