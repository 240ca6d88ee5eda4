"""Pages name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "packaging").rglob("*.md")]
)
SOURCES = [
    path.relative_to(REPOSITORY)
    for folder in (
        "benchmarks",
        "files",
        "library",
        "packaging",
        "playbooks",
        "plugins",
        "roles",
        "tests",
    )
    for path in (REPOSITORY / folder).rglob("*")
]
_FILE = re.compile(r"`([\w/]+\.(?:py|yml))`")


def is_there(name: str) -> bool:
    """Whether a file of that name, or of that end of a path, is in the repository."""
    parts = Path(name).parts
    return (REPOSITORY / name).exists() or any(path.parts[-len(parts) :] == parts for path in SOURCES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_named_files_are_there(page: Path) -> None:
    # A changelog names what went, too; NAME.py stands for any file.
    named = set() if page.name == "CHANGELOG.md" else set(_FILE.findall(page.read_text(encoding="utf-8")))
    assert sorted(name for name in named if "NAME" not in name and not is_there(name)) == []
