"""The option that renews docs/neighbours.md."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-neighbours", action="store_true", help="write the neighbours' table to docs/neighbours.md"
    )
