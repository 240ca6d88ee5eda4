"""Writes the page of a host's result, with its pictures, on the control node."""

from __future__ import annotations

import json
import re
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

_RUN = re.compile(r"[0-9A-Za-z-]*", re.ASCII)


class ActionModule(ActionBase):
    """`report_page: {results: PATH, folder: PATH, run_id: ID, required: BOOL, show_run: ID, show_model: NAME}`.

    Returns `page`, and the `result` that it shows.

    Without `run_id`, the run that measured just now, it shows the run `show_run`, or the latest usable result, of the
    model `show_model` if one is named. Where there is none it fails, or only says so if no page is
    `required`. An action rather than copies, which would start Python on the control node four times for each host,
    each with its own error for a full disk.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.baseline.document import check_result
        from analysis.baseline.page import page_files
        from analysis.documents.latest import choose
        from analysis.documents.storage import write_changed

        super().run(tmp, task_vars)
        given, host = self._task.args, str((task_vars or {})["inventory_hostname"])
        results, folder = Path(str(given["results"])), Path(str(given["folder"]))
        asked, model = str(given.get("show_run") or ""), str(given.get("show_model") or "")
        if not _RUN.fullmatch(asked):
            raise AnsibleActionFail(
                f"report_show_run: wanted the id of a run, such as 20260314T092000Z-ab12cd; found {asked!r}. It names "
                f"a file. Next: take one of the names in {results}, without .json"
            )
        run_id = str(given["run_id"] or "") or asked
        found = choose(results, "", check_result, datetime.now(UTC), run_id, "" if run_id else model)
        answer: dict[str, Any] = {
            "changed": False,
            "result": None if found.path is None else str(found.path),
            "warnings": [f"left out: {problem}" for problem in found.left_out],
        }
        if found.path is None:
            of_model = f" with the model {model}" if model else ""
            problem = (
                f"No result of {host}{of_model} that can be used is stored in {results}. {'; '.join(found.left_out)} "
                f"Next: measure it once, ansible-playbook baseline.yml -l {host} --tags measure,report"
            )
            return {**answer, "failed": bool(given["required"]), "msg": " ".join(problem.split())}
        try:
            files = page_files(json.loads(found.path.read_text(encoding="utf-8")), results)
            changed = write_changed(folder, files)
        except OSError as error:
            raise AnsibleActionFail(
                f"the page of {host} cannot be written to {folder}: {error.strerror} ({error.filename}). "
                f"The result is stored: {found.path}. Next: make the folder writable or name another one in "
                f"report_reports_dir, then ansible-playbook baseline.yml -l {host} --tags report"
            ) from None
        return {**answer, "changed": bool(changed), "page": str(folder / "README.md")}
