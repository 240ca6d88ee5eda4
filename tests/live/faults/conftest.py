"""The options that renew docs/faults.md, and that try a share of the points."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-doc", action="store_true", help="write the fault matrix to docs/faults.md")
    parser.addoption("--every", type=int, default=1, help="try every N-th point of each step (1: all of them)")
