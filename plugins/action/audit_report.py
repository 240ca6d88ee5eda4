"""Writes the fleet's audit on the control node, from what every host of the play registered."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)


class ActionModule(ActionBase):
    """`audit_report: {answer: VARIABLE, started_at: INSTANT, folder: PATH}`; returns `summary`, a list of lines, and
    `verdicts`, each host's `status` and `message`, for audit_verdict.

    An action rather than a module, because it reads every host's variables; one task rather than a loop of copies,
    because there is a file for each of a thousand hosts. It writes in check mode too, since the report is its purpose.
    """

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.audit.answer import read_tolerance
        from analysis.audit.files import audit_files
        from analysis.audit.fleet import audit
        from analysis.documents.errors import DocumentError
        from analysis.documents.names import well_formed
        from analysis.documents.places import place
        from analysis.documents.storage import write_files

        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = self._task.args
        try:
            folder = Path(place(arguments["folder"], "audit_reports_dir"))
        except DocumentError as error:
            raise AnsibleActionFail(str(error)) from None
        hosts = variables["hostvars"]
        # Registered values are data and are taken as they are; a setting may be a template, without a value on one
        # host.
        answers = {
            str(name): hosts.raw_get(name).get(arguments["answer"]) for name in variables["ansible_play_hosts_all"]
        }
        waiting = self._waiting(variables, [name for name, answer in answers.items() if answer is None])
        answers = {name: answer for name, answer in answers.items() if name not in waiting}
        tolerance = {name: read_tolerance(hosts[name], AnsibleError) for name in answers}
        finished_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        fleet = audit(answers, str(arguments["started_at"]), finished_at, tolerance, len(waiting))
        # Where hosts do not wait for one another, each writes, and an early one may end last: the last asked has all.
        is_last = not waiting or not _is_free(self._task)
        try:
            write_files(folder, audit_files(fleet) if is_last else {})
        except OSError as error:
            raise AnsibleActionFail(
                f"the audit cannot be written to {folder}: {error.strerror} ({error.filename}). "
                "Next: make the folder writable, or name another one in audit_reports_dir."
            ) from None
        judged = {name: fleet.hosts[well_formed(name)] for name in answers}
        verdicts = {name: {"status": host.status, "message": str(host)} for name, host in judged.items()}
        return {"changed": False, "folder": str(folder), "summary": fleet.summary(), "verdicts": verdicts}

    def _waiting(self, variables: dict[str, Any], silent: list[str]) -> set[str]:
        """Return hosts without an answer that will still be asked: of later batches, or that do not wait for others."""
        batch = {str(name) for name in variables["ansible_play_batch"]}
        living = {str(name) for name in variables["ansible_play_hosts"]}
        own = {str(variables["inventory_hostname"])}
        return (set(silent) & living) - (own if _is_free(self._task) else batch)


def _is_free(task: Any) -> bool:
    """Return whether the play's hosts do not wait for one another."""
    play = task.get_play() if hasattr(task, "get_play") else task.play
    return str(play.strategy).rpartition(".")[2] in ("free", "host_pinned")
