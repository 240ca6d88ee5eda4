"""Ends a host's audit as its answer deserves, without a connection: ok, failed with the drift, or unreachable.

Ansible's own exit code then says it all: 0 clean, 2 drift or error, 4 where a host was unreachable.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_OUTCOMES = {"clean": {}, "drift": {"failed": True}, "error": {"failed": True}, "unreachable": {"unreachable": True}}


class ActionModule(ActionBase):
    """`audit_verdict: {answer: VARIABLE, tolerate_competitors: BOOL}`; VARIABLE is where memory_info was registered."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.audit.answer import judge

        super().run(tmp, task_vars)
        arguments = self._task.args
        host = judge((task_vars or {}).get(arguments["answer"]), boolean(arguments["tolerate_competitors"]))
        return {"changed": False, "status": host.status, "msg": str(host), **_OUTCOMES[host.status]}
