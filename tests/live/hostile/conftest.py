"""The option that renews docs/attacks.md."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-attacks", action="store_true", help="write the list of attacks to docs/attacks.md")
