"""Finds the stored document that a report shows, and lists the stored files that are unusable."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_KINDS = {
    "result": ("", "analysis.baseline.document:check_result"),
    "sweep": ("sweep-", "analysis.sweep.document:analysed"),
}


class ActionModule(ActionBase):
    """`stored_document: {folder: PATH, kind: result|sweep, run_id: ID}`; returns `path` (null: none) and `left_out`.

    Without `run_id` it is the latest usable one. What is left out is only a warning.
    """

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        from analysis.documents.latest import choose

        super().run(tmp, task_vars)
        arguments = self._task.args
        prefix, check = _KINDS[arguments["kind"]]
        module, _, function = check.partition(":")
        found = choose(
            Path(arguments["folder"]),
            prefix,
            getattr(importlib.import_module(module), function),
            datetime.now(UTC),
            str(arguments.get("run_id") or ""),
        )
        return {
            "changed": False,
            "path": None if found.path is None else str(found.path),
            "left_out": list(found.left_out),
            "warnings": [f"left out: {problem}" for problem in found.left_out],
        }
