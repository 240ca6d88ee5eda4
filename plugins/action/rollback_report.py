"""Writes the page of a host's rollback on the control node."""

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

PAGE = "rollback.md"


class ActionModule(ActionBase):
    """`rollback_report: {restored: DICT, first_token: DICT, run_id: ID, folder: PATH}`; returns the `page`.

    An action rather than a copy: that would start Python on the control node twice for each host.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.baseline.rollback import rollback_page
        from analysis.documents.storage import write_files

        super().run(tmp, task_vars)
        arguments = self._task.args
        folder, host = Path(arguments["folder"]), str((task_vars or {})["inventory_hostname"])
        text = rollback_page(arguments["restored"], host, str(arguments["run_id"]), arguments["first_token"])
        try:
            write_files(folder, {PAGE: text})
        except OSError as error:
            raise AnsibleActionFail(
                f"the host is restored, but the rollback's page cannot be written to {folder}: "
                f"{error.strerror} ({error.filename}). "
                "Next: make the folder writable, or name another one in report_reports_dir."
            ) from None
        return {"changed": True, "page": str(folder / PAGE)}
