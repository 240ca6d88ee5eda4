"""Names that nothing knows: which are refused, which are somebody else's, and what was probably meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from analysis.console.names import OWN_PREFIXES, count_slips, nearest, read_known, unknown_tags, unknown_variables
from tests.conftest import REPOSITORY

KNOWN = read_known(REPOSITORY)
WORDS = st.text("abcd_", max_size=12)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("hugepage_pools", "hugepages_pools"),
        ("hugepages_pool", "hugepages_pools"),
        ("huge_pages_pools", "hugepages_pools"),
        ("hugetlb_mounts", "hugetlbfs_mounts"),
        ("thp_enable", "thp_enabled"),
        ("tph_enabled", "thp_enabled"),
        ("THP_enabled", "thp_enabled"),
        ("thp-enabled", "thp_enabled"),
        ("thp_khugepagd", "thp_khugepaged"),
        ("rollback_purg", "rollback_purge"),
        ("rollback_forced", "rollback_force"),
        ("first_token_target", "first_token_targets"),
        ("slm_benchmark_run", "slm_benchmark_runs"),
        ("baseline_seria", "baseline_serial"),
        ("tuning_tolerate_competitor", "tuning_tolerate_competitors"),
        ("report_keep_run", "report_keep_runs"),
    ],
)
def test_a_slip_is_refused_with_the_name_that_was_meant(name: str, meant: str) -> None:
    assert [(one.name, one.meant) for one in unknown_variables([(name, "")], KNOWN)] == [(name, meant)]


@pytest.mark.parametrize("name", ["thp_policy_of_site", "slm_answer", "hugepages_1g", "first_token_budget"])
def test_a_prefix_of_ours_alone_must_be_known(name: str) -> None:
    assert [one.name for one in unknown_variables([(name, "")], KNOWN)] == [name]


@pytest.mark.parametrize(
    "name",
    [
        "report_email",
        "report_dir",
        "audit_retention_days",
        "audit_log",
        "baseline_packages",
        "fleet_name",
        "rollback_version",
        "sweep_interval",
        "tuning_profile",
        "huge_file",
        "ansible_thp",
        "_thp_enable",
        "model",
        "hosts",
    ],
)
def test_words_that_others_use_too_are_left_alone(name: str) -> None:
    assert unknown_variables([(name, "")], KNOWN) == []


def test_a_user_may_say_that_a_name_is_another_projects() -> None:
    given_names = [("thp_site_note", "all"), ("hugepages_pool", "all")]
    assert unknown_variables(given_names, KNOWN, ["thp_site_*", "hugepages_pool"]) == []


def test_an_error_names_the_place_and_each_name_once() -> None:
    (found,) = unknown_variables([("thp_enable", "group gpu"), ("thp_enable", "host one")], KNOWN)
    assert str(found) == "thp_enable (group gpu); did you mean thp_enabled?"


def test_tags() -> None:
    found = unknown_tags(["all", "tun", "measure", "x"], {"tune", "measure"})
    assert [str(tag) for tag in found] == ["tun; did you mean tune?", "x."]


def test_the_nearest_of_two_is_meant() -> None:
    assert nearest("sweep_arm", {"sweep_arms", "sweep_army_x"}) == "sweep_arms"


@given(WORDS, WORDS)
def test_slips_are_a_symmetric_distance(name: str, other: str) -> None:
    slips = count_slips(name, other)
    assert slips == count_slips(other, name)
    assert (slips == 0) == (name == other)
    assert abs(len(name) - len(other)) <= slips <= max(len(name), len(other))


def test_one_slip_of_each_kind() -> None:
    assert [count_slips("tune", other) for other in ("tun", "tunes", "tone", "tuen")] == [1, 1, 1, 1]


def _assigned(item: Any) -> set[str]:
    """Every name that a YAML document gives a value to by itself: registered, set, or a key anywhere."""
    if isinstance(item, dict):
        named = (
            {str(key) for key in item} | {str(item["register"])} if "register" in item else {str(key) for key in item}
        )
        return named.union(*map(_assigned, item.values()))
    return set().union(*map(_assigned, item)) if isinstance(item, list) else set()


def test_every_variable_that_plays_and_roles_read_is_documented() -> None:
    paths: list[Path] = [*REPOSITORY.glob("playbooks/**/*.yml"), *REPOSITORY.glob("roles/**/*.yml")]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if path.parent.name != "meta"}
    prefixes = (*OWN_PREFIXES, "audit_", "baseline_", "fleet_", "report_", "rollback_", "sweep_", "tuning_")
    read = {
        name
        for text in texts.values()
        for template in re.findall(r"\{\{(.*?)\}\}", text, re.DOTALL)
        for name in re.findall(r"(?<![\w.'|/-])([a-z]\w*)\b(?!\s*[(=])", re.sub(r"'[^']*'|\|\s*\w+", "|f", template))
        if name.startswith(prefixes)
    }
    assigned = set().union(*(_assigned(yaml.safe_load(text)) for text in texts.values()))
    defaults = set().union(
        *(yaml.safe_load(text) or {} for path, text in texts.items() if path.parent.name == "defaults")
    )
    assert {"baseline_serial", "slm_benchmark_home", "hugepages_pools"} <= read
    assert read - assigned - KNOWN == set()
    assert {name for name in defaults if not name.startswith("__")} - KNOWN == set()
