"""Ends a host's audit with the report's verdict, without a connection: ok, failed with the drift, or unreachable.

So Ansible's exit code is the audit's: 0 clean, 2 drift or error, 4 where a host was unreachable.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

_OUTCOMES = {"clean": {}, "drift": {"failed": True}, "error": {"failed": True}, "unreachable": {"unreachable": True}}


class ActionModule(ActionBase):
    """`audit_verdict: {status: STATUS, message: TEXT}`, both as audit_report returned them for the host."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        status = str(self._task.args["status"])
        return {"changed": False, "status": status, "msg": str(self._task.args["message"]), **_OUTCOMES[status]}
