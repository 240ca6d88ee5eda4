"""Ends a run with what it did: settings before and after, measured values, pages, failures, and how to undo it.

Every half minute it also prints which task is still running, so that a long task does not look stuck.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: closing_lines
type: notification
short_description: Say at the end what a run did, and during a long task that it is alive
description:
  - Applies to the modules of this project, in whatever play they run.
  - After the recap it lists what changed (before and after), the figures of a measurement, where pages were written,
    what failed, and the command that undoes it. Hosts with the same story share their lines.
  - Each half minute of one task it names the task and how long it has run, on a terminal and elsewhere.
  - Ansible loads it without configuration, since it lies beside the playbooks.
author: slm-baseline maintainers
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_PULSE_S = 30.0
_MODULES = {
    *("memory_info", "thp", "hugepages", "hugetlbfs", "memory_snapshot", "run_lease", "first_token"),
    *("slm_benchmark", "slm_environment", "slm_model", "slm_sweep", "report_page", "rollback_report"),
    *("audit_report", "audit_verdict"),
}


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "closing_lines"

    def __init__(self) -> None:
        super().__init__()
        self._closing: Any = None
        self._task, self._began = "", 0.0
        self._ended = threading.Event()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._task, self._began = (task.get_name().strip() if _name(task) in _MODULES else ""), time.monotonic()
        if self._task and self._closing is None:
            from analysis.console.closing import Closing

            self._closing = Closing(check_mode=bool(context.CLIARGS.get("check")), invocation=_invocation())
            # A daemon thread ends with the run, even where the run ends in an error.
            threading.Thread(target=self._tell_pulse, daemon=True).start()

    def v2_runner_on_ok(self, result: Any) -> None:
        if self._closing is not None and _name(result._task) in _MODULES:
            self._closing.note(result._host.get_name(), _name(result._task), result._result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if self._closing is not None and not ignore_errors:
            self._closing.note_failure(result._host.get_name(), result._result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if self._closing is not None:
            self._closing.note_failure(result._host.get_name(), result._result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._ended.set()
        for line in self._closing.lines() if self._closing is not None else ():
            self._display.display(line)

    def _tell_pulse(self) -> None:
        """Print the running task's name every half minute."""
        while not self._ended.wait(_PULSE_S):
            task, took_s = self._task, time.monotonic() - self._began
            if task and took_s >= _PULSE_S:
                self._display.display(f"... {task}: at work for {took_s:.0f} s")


def _invocation() -> Any:
    from analysis.console.invocation import Invocation, program_typed

    playbooks, inventories = context.CLIARGS.get("args") or ("",), context.CLIARGS.get("inventory") or ()
    # Without `-i` this is what is configured, which the next command finds, too.
    is_named = list(inventories) != C.DEFAULT_HOST_LIST
    return Invocation(program_typed(sys.argv[0]), str(playbooks[-1]), tuple(inventories) if is_named else ())


def _name(task: Any) -> str:
    """Return the name of a task's module or action, without its collection."""
    return str(task.action).rpartition(".")[2]
