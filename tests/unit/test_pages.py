"""The pages for users: figures come from documents, names exist, links lead somewhere, pages stay short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.pages import PARTS, made_names, pages, renewed, without_made_parts
from tests.conftest import REPOSITORY

MOST_LINES = 120
REFERENCES = {
    "architecture.md": "for those who change the code",
    "conflicts.md": "made from the cases of a test",
    "operators.md": "made from the cases of a test",
    "variables.md": "made from the argument specifications",
}
"""Pages of docs/ that are looked up and not read, so they may be long."""

PAGES = pages()
USER_PAGES = [
    page for page in PAGES if page.name == "README.md" or (page.parent.name == "docs" and page.name not in REFERENCES)
]
_CODE = re.compile(r"^```[\s\S]*?^```|^ {4}.*$|`[^`\n]*`", re.MULTILINE)
_FIGURE = re.compile(r"(?<![\w.])(?:\d[\d,.]*x\b|\d+\.\d+ (?:s|ms|seconds|MB|GB)\b|\d[\d.,]* ?[GM]B/s|±\s?\d)")
FORBIDDEN = {
    r"today's code": "pages describe the product as it is",
    r"\blent\b": "how the project gets its machines is not the reader's business",
    r"\b(?:another|third|that|noisy) day\b": "a figure has a date, in its document",
    r"\bnowadays\b|\brecently\b|\bcurrently\b": "pages describe the product as it is",
    r"\brefused by name\b": "say: rejected with a clear error, or name what it names",
    r"\bclaude\b|\banthropic\b|\bAI assistant\b": "who develops the project is not the reader's business",
}


def _id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_made_parts_are_what_the_documents_say(page: Path) -> None:
    assert renewed(_read(page)) == _read(page), "python -m benchmarks.pages --write"


def test_every_part_stands_on_a_page() -> None:
    assert {name for page in PAGES for name in made_names(_read(page))} == set(PARTS)


@pytest.mark.parametrize("page", USER_PAGES, ids=_id)
def test_measured_figures_stand_in_made_parts_alone(page: Path) -> None:
    # Code shows examples of output; thresholds have other units.
    text = _CODE.sub("", without_made_parts(_read(page)))
    found = [line for line in text.splitlines() if _FIGURE.search(line)]
    assert found == []


def test_a_figure_is_known_when_it_is_seen() -> None:
    for figure in ("1.27x sooner", "took 6.1 s", "at 1.85 GB/s", "within ±4 %", "2x"):
        assert _FIGURE.search(figure), figure
    assert _FIGURE.search(_CODE.sub("", "    code\n\ntook 6.1 s")), "code ends with its line"
    for other in ("after 30 s", "8 MiB", "version 0.2.0", "Python 3.11", "`8.31 s`", "linux 6.5"):
        assert not _FIGURE.search(_CODE.sub("", other)), other


@pytest.mark.parametrize("page", USER_PAGES, ids=_id)
def test_a_page_for_users_is_short(page: Path) -> None:
    assert len(_read(page).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=_id)
def test_pages_tell_no_story_of_how_they_came_about(page: Path) -> None:
    text = _read(page)
    assert [words for words in FORBIDDEN if re.search(words, text, re.IGNORECASE)] == []
