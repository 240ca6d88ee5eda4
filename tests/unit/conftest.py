"""The option that renews docs/operators.md."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-operators", action="store_true", help="write the cases of operators to docs/operators.md")
