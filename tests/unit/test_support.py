"""The support table is what tests/live/vm/support.py writes, with a cell for each thing that is looked at."""

from __future__ import annotations

from tests.live.vm import support


def test_a_table_that_is_read_again_has_the_same_cells() -> None:
    cells = {(support.VERSIONS, "Debian 12"): "6.1, 3.11, 252", (support.NOEXEC, support.SEEN): "Debian 12"}
    known = {cell: text for cell, text in support.parse(support.table(cells)).items() if text != support.NOT_SEEN}
    assert known == cells


def test_the_readme_shows_the_table_as_it_is_written() -> None:
    block = support.PAGE.read_text(encoding="utf-8").partition(support.BEGIN)[2].partition(support.END)[0]
    assert block.strip() == support.table(support.shown())


def test_the_readme_has_a_cell_for_everything_that_is_looked_at() -> None:
    every = [(row, system) for row in support.LIFE for system in support.SYSTEMS]
    every += [(row, support.SEEN) for row in support.CONDITIONS]
    assert sorted(support.shown()) == sorted(every)
