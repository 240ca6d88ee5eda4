"""docs/operators.md is what the code says to each case, and the tests that it names are there."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY
from tests.unit.operator_cases import PAGE, RUN, WRITTEN, Run, page


def test_the_page_says_what_the_code_says(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--write-operators", default=False):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "renew it with --write-operators"


@pytest.mark.parametrize("run", RUN, ids=lambda run: f"{run.kind}: {run.what}")
def test_the_test_that_holds_a_row_is_there(run: Run) -> None:
    path, _, name = run.test.partition("::")
    assert re.search(rf"^def {name}\(", (REPOSITORY / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_no_two_rows_are_alike() -> None:
    assert len({(one.kind, one.what) for one in WRITTEN}) == len(WRITTEN)
    assert len({(run.kind, run.what) for run in RUN}) == len(RUN)


def test_every_refusal_is_one_line_with_a_way_on() -> None:
    for one in WRITTEN:
        told = one.judge()
        assert "\n" not in told
        if told.startswith(("refused", "error")) and one.kind != "a variable's name":
            assert "Next: " in told, told
