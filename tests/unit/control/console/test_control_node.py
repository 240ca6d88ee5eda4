"""Which control nodes are refused, and that all pages name the same versions."""

from __future__ import annotations

import pytest

from callback.check_control_node import LEAST_CORE, LEAST_PYTHON, error
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("core", "python"), [("2.16.0", (3, 11)), ("2.19.14", (3, 12)), ("2.21.0rc1", (3, 14)), ("3.0.0", (4, 0))]
)
def test_what_runs(core: str, python: tuple[int, int]) -> None:
    assert error(core, python) is None


@pytest.mark.parametrize(
    ("core", "python"), [("2.15.13", (3, 11)), ("2.9.27", (3, 12)), ("2.16.14", (3, 10)), ("1.9", (2, 7))]
)
def test_what_is_too_old_is_named(core: str, python: tuple[int, int]) -> None:
    problem = error(core, python)
    assert problem
    assert (
        f"found ansible-core {core} with Python {python[0]}.{python[1]}. Nothing was read or changed. Next:" in problem
    )


def test_every_page_says_the_same() -> None:
    core = ".".join(map(str, LEAST_CORE))
    runtime = (REPOSITORY / "packaging/collection/runtime.yml").read_text(encoding="utf-8")
    assert f'requires_ansible: ">={core}.0"' in runtime
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={".".join(map(str, LEAST_PYTHON))}"' in project
    running = (REPOSITORY / "docs/running.md").read_text(encoding="utf-8")
    assert f"ansible-core {core} to 2.21" in running
