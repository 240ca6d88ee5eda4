"""The option that renews docs/faults.md."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-doc", action="store_true", help="write the fault matrix to docs/faults.md")
