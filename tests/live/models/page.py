"""docs/models.md from the matrix: the page's tables are made of the rows and of what the loader said of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tests.conftest import REPOSITORY
from tests.live.models.architectures import NONE, ROWS, Row

PAGE = REPOSITORY / "docs/models.md"
_MEASURED = ("<!-- measured -->\n", "<!-- end of measured -->\n")
_REFUSED = ("<!-- refused -->\n", "<!-- end of refused -->\n")


def tables(facts: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """The table of what is measured and that of what is refused, from what the loader said by row."""
    measured = ["| kind | model | class | stored | held | not loaded | dtype | cold | warm |"]
    measured.append("|---|---|---|---:|---:|---|---|---|---|")
    refused = ["| model | why |", "|---|---|"]
    for row in ROWS:
        if row.group == NONE:
            refused.append(f"| {row.name} | {row.refused} |")
        else:
            measured.append(_line(row, facts[row.name]))
    return "\n".join(measured) + "\n", "\n".join(refused) + "\n"


def _line(row: Row, facts: Mapping[str, Any]) -> str:
    left = []
    if facts["unplaced"]["count"]:
        left.append(f"{facts['unplaced']['count']} names without a place")
    if facts["stored_twice"]["count"]:
        left.append("the tied head's copy")
    held = f"{facts['parameters']:,}" + (f" + {facts['buffer_elements']}" if facts["buffer_elements"] else "")
    states = ("lukewarm", "lukewarm") if row.lukewarm else ("cold", "warm")
    cells = [row.group, row.name, f"`{facts['class']}`", f"{facts['stored_elements']:,}", held, "; ".join(left)]
    return "| " + " | ".join([*cells, facts["dtype"], *states]) + " |"


def with_tables(page: str, facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with its tables made anew."""
    for (begin, end), table in zip((_MEASURED, _REFUSED), tables(facts), strict=True):
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
    return page


def by_name(lines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `architectures.py` said, by row."""
    return {said["name"]: said for said in map(json.loads, lines)}


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), by_name(sys.stdin)))
