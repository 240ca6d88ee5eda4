"""The option that renews docs/conflicts.md."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-conflicts", action="store_true", help="write the cases of conflicts to docs/conflicts.md")
