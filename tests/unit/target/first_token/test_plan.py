"""The plan's text, and when a plan no longer fits its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, changed_files, parse_plan, to_text
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from hypothesis import given
from hypothesis import strategies as st

paths = st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1, max_size=30).map("/".__add__)
ranges = st.none() | st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 9999)), min_size=1, max_size=4).map(tuple)
files = st.builds(
    PlanFile, paths, st.booleans(), st.integers(0, 2**63), st.integers(0, 2**60), st.integers(0, 2**62), ranges
)


@given(st.lists(paths), st.lists(files))
def test_what_is_written_is_read_back(folders: list[str], listed: list[PlanFile]) -> None:
    plan = parse_plan(to_text(Plan({"page_bytes": "4096"}, folders, listed)))
    assert list(plan.folders) == folders
    assert plan.files == sorted(listed, key=lambda file: file.is_weights)


def test_a_plan_of_the_first_version_is_read_and_what_was_in_memory_is_what_it_has() -> None:
    text = to_text(Plan({"page_bytes": "4096"}, [], [PlanFile("/i", False, 4, 5 << 20, 6, ((0, 2), (7, 1)))]))
    old = parse_plan(text.replace("first-token plan 2", "first-token plan 1"))
    assert old == parse_plan(text)
    assert old.resident_bytes == 3 * 4096
    assert parse_plan(text.replace("\nI", "\nresident_bytes\t16384\nI")).resident_bytes == 16384


def test_imports_come_before_weights_whatever_was_opened_first() -> None:
    listed = [PlanFile("/w", True, 1, 2, 3), PlanFile("/i", False, 4, 5, 6, ((0, 2), (7, 1)))]
    text = to_text(Plan({"page_bytes": "4096"}, ["/a\tb"], listed))
    assert text.splitlines()[1:] == [
        "page_bytes\t4096",
        "D\t/a%09b",
        "I\t4\t5\t6\t0+2,7+1\t/i",
        "W\t1\t2\t3\t*\t/w",
        "end",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "slm-baseline first-token plan 3\npage_bytes\t4096\nend\n", "x", "slm-baseline first-token plan 1\nI\t1\n"],
)
def test_a_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="record it again"):
        parse_plan(text)


@pytest.mark.parametrize("fact", ["page_bytes\tx", "resident_bytes\tx"])
def test_a_fact_that_is_no_number_is_refused(fact: str) -> None:
    with pytest.raises(ParseError, match="record it again"):
        parse_plan(f"slm-baseline first-token plan 2\npage_bytes\t4096\n{fact}\nend\n")


def test_a_plan_cut_short_is_refused() -> None:
    text = to_text(Plan({"page_bytes": "4096"}, ["/a"], [PlanFile("/i", False, 4, 5, 6)]))
    for end in range(len(text)):
        with pytest.raises(ParseError):
            parse_plan(text[:end])


def test_a_file_that_changed_or_is_a_link_by_now_is_named(tmp_path: Path) -> None:
    listed = []
    for name in ("same", "grown", "gone", "link"):
        (tmp_path / name).write_bytes(b"x")
        found = os.lstat(tmp_path / name)
        listed.append(PlanFile(f"/{name}", False, found.st_ino, found.st_size, found.st_mtime_ns))
    (tmp_path / "grown").write_bytes(b"xx")
    (tmp_path / "gone").unlink()
    (tmp_path / "link").rename(tmp_path / "behind")
    (tmp_path / "link").symlink_to(tmp_path / "behind")
    assert changed_files(Host(tmp_path), listed) == ["/grown", "/gone", "/link"]
