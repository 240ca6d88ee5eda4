"""Import timing: golden text, any tree of imports read back, and what is imported though nothing needs it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.measuring.imports.importtime import (
    STANDARD,
    Distribution,
    Extra,
    Imported,
    by_package,
    canonical,
    not_required,
    parse_import_times,
    required,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY

GOLDEN = (REPOSITORY / "tests/golden/importtime/python-3.11.txt").read_text(encoding="utf-8")
STDLIB = frozenset({"_io", "_frozen_importlib_external", "json"})
INSTALLED = [
    Distribution("transformers", ("numpy>=1.17", 'scikit-learn; extra == "sklearn"'), ("transformers",)),
    Distribution("torch", ('sympy; python_version >= "3.8"',), ("torch",)),
    Distribution("numpy", (), ("numpy",)),
    Distribution("scikit-learn", ("numpy", "scipy", "joblib"), ("sklearn",)),
    Distribution("scipy", ("numpy",), ("scipy",)),
    Distribution("joblib", (), ("joblib",)),
]
ROOTS = ("torch", "transformers")


def test_the_golden_text() -> None:
    imports = parse_import_times(GOLDEN)
    assert [(each.name, each.importer and imports[each.importer].name) for each in imports] == [
        ("_io", "_frozen_importlib_external"),
        ("_frozen_importlib_external", None),
        ("numpy._core", "numpy"),
        ("numpy", "transformers.generation.candidate_generator"),
        ("json.decoder", "scipy.sparse"),
        ("scipy.sparse", "sklearn.metrics"),
        ("joblib", "sklearn.metrics"),
        ("sklearn.metrics", "transformers.generation.candidate_generator"),
        ("transformers.generation.candidate_generator", None),
        ("torch", None),
    ]
    assert imports[5].self_s == 0.9


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last):\n", "import time: self [us] | cumulative |"])
def test_text_without_an_import_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_import_times(text)


Tree = tuple[str, int, list[Any]]
names = st.text("abc_.", min_size=1, max_size=5)
trees: st.SearchStrategy[Tree] = st.recursive(
    st.tuples(names, st.integers(0, 10**9), st.just([])),
    lambda children: st.tuples(names, st.integers(0, 10**9), st.lists(children, max_size=3)),
    max_leaves=15,
)


def lines(tree: Tree, depth: int = 0) -> list[tuple[str, int, int, int]]:
    """(name, self, cumulative, depth) of a tree, children before their parent, as the interpreter writes them."""
    inner = [lines(child, depth + 1) for child in tree[2]]
    cumulative = tree[1] + sum(each[-1][2] for each in inner)
    return [line for each in inner for line in each] + [(tree[0], tree[1], cumulative, depth)]


def importers(tree: Tree, above: str | None = None) -> list[tuple[str, str | None]]:
    return [pair for child in tree[2] for pair in importers(child, tree[0])] + [(tree[0], above)]


@given(st.lists(trees, min_size=1, max_size=4))
def test_any_tree_is_read_back(forest: list[Tree]) -> None:
    written = [line for tree in forest for line in lines(tree)]
    # The format string of Python/import.c.
    text = "".join(
        f"import time: {own:9d} | {total:10d} | {'':{2 * depth}}{name}\n" for name, own, total, depth in written
    )
    imports = parse_import_times(text)
    found = [(each.name, None if each.importer is None else imports[each.importer].name) for each in imports]
    assert found == [pair for tree in forest for pair in importers(tree)]
    assert all(each.importer is None or each.importer > index for index, each in enumerate(imports))
    assert sum(each.self_s for each in imports) == pytest.approx(sum(line[1] for line in written) / 1e6)
    packages = by_package(imports, frozenset("a"))
    assert sum(each.modules for each in packages) == len(imports)
    assert [each.seconds for each in packages] == sorted((each.seconds for each in packages), reverse=True)
    nothing_known = not_required(imports, [], ROOTS)
    assert nothing_known == []


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ParseError):
        assert parse_import_times(text)


def test_the_standard_library_is_one_package() -> None:
    packages = by_package(parse_import_times(GOLDEN), STDLIB)
    assert [(each.name, each.modules) for each in packages[:2]] == [("scipy", 1), ("sklearn", 1)]
    assert next(each for each in packages if each.name == STANDARD).modules == 3


def test_what_nothing_requires_is_named_with_its_importer_and_seconds() -> None:
    """scipy and joblib come with scikit-learn and count as its cost; numpy does not, since transformers needs it."""
    (extra,) = not_required(parse_import_times(GOLDEN), INSTALLED, ROOTS)
    assert (extra.distribution, extra.importer) == ("scikit-learn", "transformers.generation.candidate_generator")
    assert extra.seconds == pytest.approx(1.0003)


def test_what_a_root_requires_is_not_named() -> None:
    needed = [Distribution("transformers", ("numpy", "Scikit_Learn>=1"), ("transformers",)), *INSTALLED[1:]]
    assert not_required(parse_import_times(GOLDEN), needed, ROOTS) == []


def test_a_package_that_several_have_counts_where_nobody_needs_any() -> None:
    imports = [Imported("google.x", 1.0, None)]
    shared = [Distribution("needed", (), ("google",)), Distribution("other", (), ("google",))]
    assert not_required(imports, shared, ["needed"]) == []
    assert not_required(imports, shared, []) == [Extra("needed", None, 1.0)]


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (["b"], {"a", "b", "c"}),
        (["B (>=1.0) ; python_version < '3'"], {"a", "b", "c"}),
        (["b; extra == 'x'"], {"a"}),
        (["b[fast]"], {"a", "b", "c", "d"}),
        (["b", "c", "b[fast]"], {"a", "b", "c", "d"}),
        (["missing==1.0"], {"a", "missing"}),
        (["@ odd"], {"a"}),
        ([], {"a"}),
    ],
)
def test_requirements_are_followed(declared: list[str], found: set[str]) -> None:
    installed = [
        Distribution("A", tuple(declared), ()),
        Distribution("b", ("c", "d; extra == 'fast'"), ()),
        Distribution("c", ("a", "b"), ()),
    ]
    assert required(installed, ["a"]) == found


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.lists(st.sampled_from("abcd"), max_size=3)), max_size=6))
def test_requirements_in_circles_end(graph: list[tuple[str, list[str]]]) -> None:
    installed = [Distribution(name, tuple(f"{each}[x]; extra == 'x'" for each in needs), ()) for name, needs in graph]
    assert required(installed, ["a"]) == {"a"}


def test_names_compare_as_indexes_do() -> None:
    assert canonical("Scikit__Learn.x") == "scikit-learn-x"
