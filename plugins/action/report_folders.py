"""Checks the folders of results and reports on the control node, before a measurement that would be stored there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)


class ActionModule(ActionBase):
    """`report_folders: {folders: {VARIABLE: PATH}, keep_runs: NUMBER, keep_runs_name: VARIABLE}`.

    An error names the variable. An action, since it works where the results are stored.

    It fails by the variable's name. An action, since it works where the results are stored.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.documents.errors import DocumentError
        from analysis.documents.places import try_folder
        from analysis.documents.results import parse_kept

        super().run(tmp, task_vars)
        arguments = self._task.args
        try:
            parse_kept(arguments.get("keep_runs", 0), str(arguments.get("keep_runs_name")))
            for variable, folder in arguments["folders"].items():
                try_folder(Path(str(folder)), str(variable))
        except DocumentError as error:
            raise AnsibleActionFail(str(error)) from None
        return {"changed": False}
