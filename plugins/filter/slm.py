"""Filters of slm-baseline: each name maps to a function in `analysis`, which holds all logic."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

FILTERS = {
    "slm_place": "analysis.documents.places:place",
    "slm_json": "analysis.documents.storage:as_json",
    "slm_folder": "analysis.documents.storage:folder_name",
    "slm_sweep_outlook": "analysis.sweep.progress:outlook",
    "slm_sweep_line": "analysis.sweep.progress:progress_line",
    "slm_sweep_next": "analysis.sweep.progress:next_block",
    "slm_sweep_stop": "analysis.sweep.progress:stop_reason",
    "slm_sweep_document": "analysis.sweep.document:sweep_document",
    "slm_sweep_analysed": "analysis.sweep.document:analysed",
    "slm_sweep_files": "analysis.sweep.report:sweep_files",
}


def _lazy(target: str) -> Callable[..., Any]:
    """Return a function that imports `module:function` when first called.

    Ansible loads every filter file in each forked worker; scipy and matplotlib would cost every task a second.
    """
    module, _, function = target.partition(":")

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*args, **kwargs)

    return call


class FilterModule:
    """The class that Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map filter names to callables; every one is pure: data in, data or text out."""
        return {name: _lazy(target) for name, target in FILTERS.items()}
