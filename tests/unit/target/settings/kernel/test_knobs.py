"""Selectors and knobs against golden kernel text and a fake /sys."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kernel.knobs import parse_selector, read_knob
from ansible.module_utils.slm_baseline.settings.kinds.thp import (
    THP,
    Thp,
    effective_size_policy,
    thp_knobs,
    unreadable_knobs,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import put


@pytest.mark.parametrize(
    ("text", "value", "choices"),
    [
        ("always [madvise] never\n", "madvise", ("always", "madvise", "never")),
        (
            "always defer defer+madvise [madvise] never\n",
            "madvise",
            ("always", "defer", "defer+madvise", "madvise", "never"),
        ),
        ("always inherit madvise [never]\n", "never", ("always", "inherit", "madvise", "never")),
        (
            "always within_size advise [never] deny force\n",
            "never",
            ("always", "within_size", "advise", "never", "deny", "force"),
        ),
    ],
)
def test_golden_selectors(text: str, value: str, choices: tuple[str, ...]) -> None:
    selector = parse_selector(text)
    assert (selector.value, selector.choices) == (value, choices)


@pytest.mark.parametrize("text", ["", "always madvise never", "[always] [madvise]", "[]", "[", "0\n"])
def test_no_choice_or_two_is_a_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_selector(text)


@given(st.text())
def test_any_text_gives_a_choice_it_offers_or_one_typed_error(text: str) -> None:
    try:
        selector = parse_selector(text)
    except ParseError:
        return
    assert selector.value in selector.choices


@given(st.lists(st.from_regex(r"[a-z+_]{1,12}", fullmatch=True), min_size=1, unique=True), st.data())
def test_what_the_kernel_prints_is_read_back(words: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(words))
    text = " ".join(f"[{word}]" if word == chosen else word for word in words) + "\n"
    assert parse_selector(text).value == chosen
    assert parse_selector(text).choices == tuple(words)


def test_thp_knobs_lists_writable_files_only_and_enabled_first(fake_host: Host) -> None:
    knobs = thp_knobs(fake_host)
    assert next(iter(knobs)) == "thp.enabled"
    assert knobs["thp.sizes.64kB.enabled"].value == "never"
    assert knobs["thp.khugepaged.scan_sleep_millisecs"].value == "10000"
    assert "thp.khugepaged.pages_collapsed" not in knobs
    assert "thp.hpage_pmd_size" not in knobs


def test_a_missing_knob_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="lacks the knob"):
        read_knob(Host(tmp_path), "thp.enabled", "/sys/kernel/mm/transparent_hugepage/enabled")


def test_inherit_takes_the_top_level_policy() -> None:
    assert effective_size_policy("madvise", "inherit") == "madvise"
    assert effective_size_policy("madvise", "always") == "always"


@pytest.mark.parametrize("text", ["on: 3 of 5\n", "", "[a] [b]\n", "-1\n"])
def test_a_vendor_kernels_file_of_another_form_stops_nothing_but_itself(fake_host: Host, text: str) -> None:
    put(fake_host.root, f"{THP}/vendor_mode", text)
    put(fake_host.root, f"{THP}/khugepaged/vendor", text)
    assert set(unreadable_knobs(fake_host)) == {"thp.vendor_mode", "thp.khugepaged.vendor"}
    assert "thp.enabled" in thp_knobs(fake_host)
    assert "thp.vendor_mode" not in thp_knobs(fake_host)
    facts = Thp.facts(fake_host)["thp"]
    assert len(facts["unreadable"]) == 2
    assert f"{THP}/vendor_mode" in facts["unreadable"][0]
    assert "thp.vendor_mode" not in Thp().capture(fake_host)
    Thp({"thp.enabled": "madvise"}).check(fake_host, {})
    with pytest.raises(SettingError, match="khugepaged/vendor"):
        Thp({"thp.khugepaged.vendor": "1"}).check(fake_host, {})
