"""Stores what a run measured on a host as its result document, on the control node."""

from __future__ import annotations

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

_LEFT = (
    "The measurement is not lost: the host keeps it in /var/lib/slm-baseline/runs/{run}. Next: {first}then "
    "ansible-playbook fetch.yml -l {host} -e fetch_run={run}"
)


class ActionModule(ActionBase):
    """`store_result: {folder: PATH, benchmark, memory, before, run: DICTS, keep_runs, keep_runs_name: VARIABLE}`.

    Returns `path`, and `removed`: this host's results beyond `keep_runs`. An action rather than a copy, so that a
    failure to store is one error that says where the measurement still is.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.baseline.document import result_document
        from analysis.documents.errors import DocumentError
        from analysis.documents.results import parse_kept, prune, store

        super().run(tmp, task_vars)
        given, host = self._task.args, str((task_vars or {})["inventory_hostname"])
        folder, run, now = Path(str(given["folder"])), given["run"], datetime.now(UTC)
        missing = [key for key in ("id", "started_at") if not run.get(key)]
        if missing:
            raise AnsibleActionFail(
                f"report_run: wanted id and started_at of the run; found no {' and no '.join(missing)}. "
                "A result is stored under its run. Next: leave report_run out, or give what lookup('slm_run') gives."
            )
        left = {"run": str(run["id"]), "host": host}
        try:
            keep = parse_kept(given["keep_runs"], str(given["keep_runs_name"]))
            document = result_document(
                given["benchmark"],
                name=host,
                memory=given["memory"],
                before=given["before"],
                run={
                    "run_id": str(run["id"]),
                    "started_at": str(run["started_at"]),
                    "finished_at": str(run.get("finished_at") or f"{now:%Y-%m-%dT%H:%M:%SZ}"),
                },
            )
        except DocumentError as error:
            raise AnsibleActionFail(f"{error} {_LEFT.format(first='', **left)}") from None
        try:
            path = store(folder, document)
            removed = prune(folder, host, keep, now, str(run["id"]))
        except OSError as error:
            raise AnsibleActionFail(
                f"the result of {host} cannot be stored in {folder}: {error.strerror} ({error.filename}). "
                + _LEFT.format(first="make the folder writable or name another one in report_results_dir, ", **left)
            ) from None
        return {"changed": True, "path": str(path), "removed": [str(each) for each in removed]}
