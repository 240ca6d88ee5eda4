"""Writes the fleet's page on the control node, from what is stored there and the inventory."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_NO_GROUP = {"all", "ungrouped"}


class ActionModule(ActionBase):
    """`fleet_report: {results, reports, audit: PATHS, group: NAME, stale_days, runs_shown, keep_runs: NUMBERS}`.

    Returns `page`, `summary` (a list of lines), and `removed`, results that were beyond `keep_runs`. An action rather
    than a module, because it reads the whole inventory, and works where the files are.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.documents.errors import DocumentError
        from analysis.fleet.files import Folders, Terms, write

        super().run(tmp, task_vars)
        arguments = self._task.args
        folders = Folders(*(Path(str(arguments[name])) for name in ("results", "reports", "audit")))
        terms = Terms(
            timedelta(days=_whole(arguments, "stale_days", 1, 36500)),
            _whole(arguments, "runs_shown", 1, 1000),
            _whole(arguments, "keep_runs", 0, 10**6),
        )
        inventory = _inventory((task_vars or {}).get("groups", {}), str(arguments["group"]))
        try:
            written = write(folders, inventory, terms, datetime.now(UTC))
        except OSError as error:
            raise AnsibleActionFail(
                f"the fleet's page cannot be written: {error.strerror} ({os.fsdecode(error.filename or '')}). "
                "Next: make the folder writable, or name another one in fleet_reports_dir."
            ) from None
        except DocumentError as error:
            raise AnsibleActionFail(str(error)) from None
        removed = [str(path) for path in written.removed]
        return {"changed": bool(removed), "page": str(written.page), "summary": written.summary, "removed": removed}


def _inventory(groups: dict[str, list[str]], fleet: str) -> dict[str, list[str]]:
    """The fleet's hosts, each with the other groups it is in."""
    found: dict[str, list[str]] = {str(name): [] for name in groups.get(fleet, ())}
    for group, names in groups.items():
        if group not in _NO_GROUP and group != fleet:
            for name in names:
                if str(name) in found:
                    found[str(name)].append(str(group))
    return found


def _whole(arguments: dict[str, Any], name: str, least: int, most: int) -> int:
    value = arguments[name]
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise AnsibleActionFail(
            f"fleet_{name}: wanted a whole number from {least} to {most}; found {value!r}. "
            "Next: correct it in group_vars, or leave it out."
        )
    return number
