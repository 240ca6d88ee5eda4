"""Which Python with torch the tests of models use, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SLM_TORCH_PYTHON"
INSTALLED = "/opt/slm-baseline/venv/bin/python"
"""What `make baseline` leaves on a host."""


def find_torch_python() -> str:
    """Its path: the one that the variable names, else the one that a baseline has left. Skips where there is none.

    With CI_NEEDS_TORCH set, none is a failure.
    """
    python = os.environ.get(VARIABLE) or INSTALLED
    if Path(python).exists():
        return python
    reason = f"no Python with torch: set {VARIABLE}, or run make baseline, which leaves one at {INSTALLED}"
    if os.environ.get("CI_NEEDS_TORCH"):
        pytest.fail(reason)
    pytest.skip(reason)
