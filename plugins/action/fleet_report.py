"""Writes the fleet's page on the control node, from what is stored there and the inventory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_NO_GROUP = {"all", "ungrouped"}


class ActionModule(ActionBase):
    """`fleet_report: {results, reports, audit: PATHS, group: NAME, stale_days, runs_shown, keep_runs, prunes}`.

    Returns `page`, `summary` (a list of lines), and `removed`, where it `prunes`: results of the play's hosts beyond
    `keep_runs`. An action rather than a module, because it reads the whole inventory, and works where the files are.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.documents.errors import DocumentError
        from analysis.documents.places import place
        from analysis.fleet.files import Folders, Terms, write

        super().run(tmp, task_vars)
        arguments, variables = self._task.args, task_vars or {}
        terms = Terms(
            timedelta(days=_whole(arguments, "stale_days", 1, 36500)), _whole(arguments, "runs_shown", 1, 1000)
        )
        inventory, now = _inventory(variables.get("groups", {}), str(arguments["group"])), datetime.now(UTC)
        try:
            folders = Folders(
                *(Path(place(arguments[name], f"fleet_{name}_dir")) for name in ("results", "reports", "audit"))
            )
            kept = _kept(variables, arguments["keep_runs"]) if boolean(arguments["prunes"]) else {}
            removed = [str(path) for host, keep in kept.items() for path in _prune(folders.results, host, keep, now)]
            written = write(folders, inventory, terms, now)
        except OSError as error:
            raise AnsibleActionFail(
                f"the fleet's page cannot be written: {error.strerror} ({os.fsdecode(error.filename or '')}). "
                "Next: make the folder writable, or name another one in fleet_reports_dir."
            ) from None
        except DocumentError as error:
            raise AnsibleActionFail(str(error)) from None
        return {"changed": bool(removed), "page": str(written.page), "summary": written.summary, "removed": removed}


def _kept(variables: Mapping[str, Any], default: object) -> dict[str, int]:
    """Return how many results of each host of this play stay stored, by the host's own variable, else the play's.

    DocumentError names the variable that the user wrote. Hosts outside the limit are ignored.
    """
    from analysis.documents.results import parse_kept

    names = ("report_keep_runs", "fleet_keep_runs")
    own = {host: variables["hostvars"][host] for host in variables.get("ansible_play_hosts_all", ())}
    usual = next((name for name in names if name in variables), names[-1])
    found = {}
    for host, given in own.items():
        name = next((name for name in names if name in given), None)
        found[str(host)] = parse_kept(given[name], name) if name else parse_kept(default, usual)
    return found


def _prune(results: Path, host: str, keep: int, now: datetime) -> list[Path]:
    from analysis.documents.results import prune
    from analysis.documents.storage import folder_name

    return prune(results / folder_name(host), host, keep, now)


def _inventory(groups: dict[str, list[str]], fleet: str) -> dict[str, list[str]]:
    """Return the fleet's hosts, each with the other groups it is in."""
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
