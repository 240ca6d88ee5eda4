"""Runs a module of this project as Ansible does, and says in one line why a host could not answer.

Each module has a link to this file under its own name, where Ansible looks for the action of a module.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action.normal import ActionModule as Normal

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).absolute().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)


class ActionModule(Normal):
    """The module's own result; without one, `msg` is the host's last output and what to do next."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.console.host_failure import explain_failure

        try:
            result = super().run(tmp, task_vars)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            # A failure of sudo is an exception where the host is this machine, and a result elsewhere.
            problem = explain_failure({"failed": True, "msg": str(error), "module_stderr": str(error)})
            if problem is None:
                raise
            return {"failed": True, "changed": False, "msg": problem}
        problem = explain_failure(result)
        return {"failed": True, "changed": False, "msg": problem, "rc": result.get("rc")} if problem else result
