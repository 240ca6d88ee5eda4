"""docs/neighbours.md is the table of the cases of tests/live/others."""

from __future__ import annotations

from tests.conftest import REPOSITORY
from tests.live.others.cases import CASES
from tests.live.others.table import page


def test_the_page_is_the_table() -> None:
    assert (REPOSITORY / "docs/neighbours.md").read_text(encoding="utf-8") == page(CASES)


def test_there_are_enough_cases_and_no_two_alike() -> None:
    assert len(CASES) >= 40
    assert len({(case.neighbour, case.beside) for case in CASES}) == len(CASES)
