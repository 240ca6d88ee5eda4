"""Writes the page of a host's rollback on the control node, and notes it as the latest event of the host."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
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
    """`rollback_report: {restored: DICT, first_token: DICT, run_id: ID, folder: PATH, results: PATH}`; returns `page`.

    The report of the last measurement, beside that page, is written again, since it would still say "tuned". A host
    that had nothing to restore has no page; the run prints that it had nothing.

    A host whose restore is incomplete fails here, with its page written.

    An action rather than a copy, which would start Python on the control node twice for each host.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.baseline.rollback import has_restored, rollback_page
        from analysis.documents.state import write_state
        from analysis.documents.storage import write_files

        super().run(tmp, task_vars)
        arguments = self._task.args
        folder, host = Path(arguments["folder"]), str((task_vars or {})["inventory_hostname"])
        results, run_id, now = Path(arguments["results"]), str(arguments["run_id"]), datetime.now(UTC)
        if arguments["restored"].get("unreachable"):
            # Only where the play ignores that.
            said = f"{host}: it could not be reached, and nothing was restored"
            return {"changed": False, "msg": said, "_ansible_verbose_always": True}
        incomplete = arguments["restored"].get("status") == "incomplete"
        if not incomplete and not has_restored(arguments["restored"], arguments["first_token"]):
            said = str(arguments["restored"].get("note") or "nothing to restore")
            return {"changed": False, "msg": f"{host}: {said}", "_ansible_verbose_always": True}
        text = rollback_page(arguments["restored"], host, run_id, arguments["first_token"])
        try:
            write_files(folder, {PAGE: text})
            if not incomplete:
                write_state(results, host, "restored", run_id, now)
                _renew_report(results, folder, now)
        except OSError as error:
            how_far = "not wholly restored" if incomplete else "restored"
            raise AnsibleActionFail(
                f"the host is {how_far}, but the rollback's page cannot be written to {folder}: {error.strerror} "
                f"({error.filename}). Next: make the folder writable, or name another one in report_reports_dir."
            ) from None
        why = {"failed": True, "msg": str(arguments["restored"].get("msg"))} if incomplete else {}
        return {"changed": True, "page": str(folder / PAGE), **why}


def _renew_report(results: Path, folder: Path, now: datetime) -> None:
    """Write the report of the latest result again, if there is one."""
    from analysis.baseline.document import check_result
    from analysis.documents.latest import choose

    found = choose(results, "", check_result, now).path if (folder / "README.md").exists() else None
    if found is not None:
        # Imported late, since it draws pictures: a host that was never measured has none.
        from analysis.baseline.page import page_files
        from analysis.documents.storage import write_changed

        write_changed(folder, page_files(json.loads(found.read_text(encoding="utf-8")), results))
