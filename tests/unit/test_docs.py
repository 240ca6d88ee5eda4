"""Pages name files that are there, and link to pages that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "collection").glob("*.md")]
)
SOURCES = [
    path.relative_to(REPOSITORY)
    for folder in ("analysis", "benchmarks", "collection", "files", "library", "module_utils", "playbooks", "tests")
    for path in (REPOSITORY / folder).rglob("*")
]
_FILE = re.compile(r"`([\w/]+\.(?:py|yml))`")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def is_there(name: str) -> bool:
    """Whether a file of that name, or of that end of a path, is in the repository."""
    parts = Path(name).parts
    return (REPOSITORY / name).exists() or any(path.parts[-len(parts) :] == parts for path in SOURCES)


def test_the_architecture_names_files_that_are_there() -> None:
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(_FILE.findall(text)) - {"settings/kinds/NAME.py"}
    assert len(named) > 20
    assert sorted(name for name in named if not is_there(name)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
