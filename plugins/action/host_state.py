"""Records on the control node that a host was tuned, where no result will say so."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)


class ActionModule(ActionBase):
    """`host_state: {results: PATH, event: tuned, run_id: ID, rows: ROWS}`; warns where it cannot be stored.

    Only the fleet's page needs it: without it the host is tuned all the same.

    A by-product for the page of the fleet: the host is tuned all the same.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.documents.errors import DocumentError
        from analysis.documents.state import write_state

        super().run(tmp, task_vars)
        given, host = self._task.args, str((task_vars or {})["inventory_hostname"])
        try:
            folder = Path(str(given["results"]))
            write_state(folder, host, str(given["event"]), str(given["run_id"]), datetime.now(UTC), given["rows"])
        except (OSError, DocumentError) as error:
            return {
                "changed": False,
                "warnings": [f"{host} is {given['event']}, and its page will not say so: {error}"],
            }
        return {"changed": False}
