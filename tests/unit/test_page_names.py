"""What pages name exists: commands, targets of make, variables, files, links and their anchors; examples are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from analysis.documents.schema import validate
from benchmarks.pages import pages
from tests.conftest import REPOSITORY
from tests.unit import operator_cases

# A changelog names what went, too.
PAGES = [page for page in [*pages(), REPOSITORY / "packaging/collection/README.md"] if page.name != "CHANGELOG.md"]
CODE = re.compile(r"(?m)`([^`\n]+)`|^ {4}(.*)$")
NAME = re.compile(r"(?<![\w.$/-])_{0,2}[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w(-])")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = ("benchmarks", "docs", "files", "inventory", "library", "monitoring", "packaging", "playbooks", "plugins")
PLACES = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*FOLDERS, 'roles', 'tests'))})/[\w./-]+")
SLIPS = {operator_cases.PAGE: {name for one in operator_cases.WRITTEN for name in NAME.findall(one.what)}}
"""Names that a page shows because they are wrong."""
METRICS = "slm_baseline_", "slm_baseline_audit_", "__"
"""What metrics begin with: the code puts it before a name."""


def _id(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def coded(page: Path) -> list[str]:
    """Return what a page shows as code."""
    text = page.read_text(encoding="utf-8")
    return [match[1] or match[2] for match in CODE.finditer(text)]


@cache
def targets() -> frozenset[str]:
    """Return the targets of the Makefile, as make itself knows them."""
    run = subprocess.run(["make", "-pRrq"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return frozenset(re.findall(r"(?m)^([a-z][a-z-]*):", run.stdout))


@cache
def words_of_code() -> frozenset[str]:
    """Return every identifier of the code and of its data files."""
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found: set[str] = set()
    for name in tracked.stdout.splitlines():
        path = REPOSITORY / name
        kinds = (".py", ".yml", ".json", ".j2", ".js", ".toml", ".cfg", ".in", ".txt", "")
        if path.suffix in kinds and not name.startswith(("docs/", "tests/golden")) and path.is_file():
            found.update(re.findall(r"[A-Za-z_][A-Za-z0-9_]+", path.read_text(encoding="utf-8", errors="replace")))
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_targets_of_make_exist(page: Path) -> None:
    named = {name for code in coded(page) for name in re.findall(r"(?:^|&& |; )make ([a-z][a-z-]*)", code)}
    assert sorted(named - targets()) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_playbooks_exist(page: Path) -> None:
    named = {
        name for code in coded(page) for name in re.findall(r"ansible-(?:playbook|navigator run) ([\w./-]+\.yml)", code)
    }
    assert sorted(name for name in named if not (REPOSITORY / name).is_file()) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_programs_of_this_repository_exist(page: Path) -> None:
    named = {name for code in coded(page) for name in re.findall(r"python -m ([\w.]+)", code)}
    ours = {name for name in named if name.split(".")[0] in ("benchmarks", "tests")}
    assert sorted(name for name in ours if not (REPOSITORY / f"{name.replace('.', '/')}.py").is_file()) == []


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_variables_and_keys_exist(page: Path) -> None:
    named = {name for code in coded(page) for name in NAME.findall(code)}
    unknown = named - words_of_code() - SLIPS.get(page, set())
    assert sorted(name for name in unknown if not is_metric(name) and not name.startswith("ansible_")) == []


def is_metric(name: str) -> bool:
    """Whether the code makes a metric of that name."""
    return any(name.startswith(head) and name.removeprefix(head) in words_of_code() for head in METRICS)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_files_exist(page: Path) -> None:
    named = {place.rstrip(".") for code in coded(page) for place in PLACES.findall(code)}
    stand_ins = ("NAME", "RUN", "HOST", "VERSION", "DATE")
    assert (
        sorted(
            place
            for place in named
            if not any(word in place for word in stand_ins) and not (REPOSITORY / place).exists()
        )
        == []
    )


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, in the form that git hosts give them."""
    heads = re.findall(r"(?m)^#+ (.*)$", page.read_text(encoding="utf-8"))
    return frozenset(re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


EXAMPLES = sorted((REPOSITORY / "docs/examples").glob("*/*.json"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_examples_keep_the_present_schema(path: Path) -> None:
    validate(json.loads(path.read_text(encoding="utf-8")), path.stem)


def test_pages_are_spelt_right() -> None:
    # Its list of known slips, and the words that pyproject.toml allows.
    command = [sys.executable, "-m", "codespell_lib", "--config", str(REPOSITORY / "pyproject.toml")]
    names = [str(page) for page in [*PAGES, REPOSITORY / "CHANGELOG.md", REPOSITORY / "LICENSE"]]
    checked = subprocess.run([*command, *names], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert checked.stdout + checked.stderr == ""


def test_a_slip_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("the sweep measures teh first token")
    command = [sys.executable, "-m", "codespell_lib", str(tmp_path / "page.md")]
    assert "teh ==> the" in subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY).stdout
