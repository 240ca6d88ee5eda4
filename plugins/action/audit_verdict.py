"""Ends a host's audit with the report's verdict, without a connection: ok, failed with the drift, or unreachable.

So Ansible's exit code is the audit's: 0 clean, 2 drift or error, 4 where a host was unreachable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_OUTCOMES = {"clean": {}, "drift": {"failed": True}, "error": {"failed": True}, "unreachable": {"unreachable": True}}


class ActionModule(ActionBase):
    """`audit_verdict: {answer: VARIABLE, status: STATUS, message: TEXT}`, the latter two as audit_report returned them.

    Both are left out where the report is of a moment before this host's answer, as hosts that do not wait for one
    another register it; then the answer is judged here.
    """

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = self._task.args
        if "status" in arguments:
            status, message = str(arguments["status"]), str(arguments["message"])
        else:
            status, message = _judge(task_vars or {}, str(arguments["answer"]))
        return {"changed": False, "status": status, "msg": message, **_OUTCOMES[status]}


def _judge(variables: dict[str, Any], answer: str) -> tuple[str, str]:
    from analysis.audit.answer import judge_host, read_tolerance

    hosts, name = variables["hostvars"], variables["inventory_hostname"]
    judged = judge_host(hosts.raw_get(name).get(answer), read_tolerance(hosts[name], AnsibleError))
    return judged.status, str(judged)
