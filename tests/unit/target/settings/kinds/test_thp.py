"""The wanted THP values: parsed strictly, checked against what the kernel offers."""

from __future__ import annotations

import shutil

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kinds.thp import (
    MIN_FREE,
    THP,
    Thp,
    check_thp,
    effective_size_policy,
    knob_path,
    parse_thp,
    pmd_size_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import put

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def test_every_form_of_setting() -> None:
    assert parse_thp(
        {
            "enabled": "madvise",
            "defrag": "defer+madvise",
            "shmem_enabled": None,
            "khugepaged": {"scan_sleep_millisecs": "10000", "max_ptes_none": 511},
            "sizes": {"64K": "madvise", "2M": "inherit"},
        }
    ) == {
        "thp.enabled": "madvise",
        "thp.defrag": "defer+madvise",
        "thp.khugepaged.scan_sleep_millisecs": "10000",
        "thp.khugepaged.max_ptes_none": "511",
        "thp.sizes.64kB.enabled": "madvise",
        "thp.sizes.2048kB.enabled": "inherit",
    }


def test_nothing_wanted_is_nothing_checked(fake_host: Host) -> None:
    assert parse_thp(None) == parse_thp({}) == {}
    assert check_thp(Host(fake_host.root / "nowhere"), {}) == {}


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        ({"enabeld": "never"}, "thp"),
        ({"enabled": False}, "thp_enabled"),
        ({"enabled": 1}, "thp_enabled"),
        ({"enabled": ""}, "thp_enabled"),
        ({"enabled": "never "}, "thp_enabled"),
        ({"enabled": ["never"]}, "thp_enabled"),
        ({"khugepaged": {"defrag": True}}, "thp_khugepaged.defrag"),
        ({"khugepaged": {"defrag": -1}}, "thp_khugepaged.defrag"),
        ({"khugepaged": {"defrag": 1.5}}, "thp_khugepaged.defrag"),
        ({"khugepaged": {"defrag": 2**63}}, "thp_khugepaged.defrag"),
        ({"khugepaged": {"defrag": "9" * 5000}}, "thp_khugepaged.defrag"),
        ({"khugepaged": "fast"}, "thp_khugepaged"),
        ({"sizes": {"64K": False}}, "thp_sizes.64K"),
        ({"sizes": {"64K": "never", "64kB": "always"}}, "thp_sizes"),
        ({"sizes": {"65537": "never"}}, "thp_sizes"),
        ({"sizes": {"big": "never"}}, "thp_sizes"),
        (["enabled"], "thp"),
        ("never", "thp"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: object, knob: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_thp(settings)
    assert caught.value.knob == knob


def test_a_yaml_boolean_is_explained() -> None:
    with pytest.raises(SettingError, match="YAML turns some unquoted words"):
        parse_thp({"enabled": True})


@given(ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(("enabled", "khugepaged", "sizes"), ANYTHING)))
def test_any_setting_gives_text_by_name_or_one_typed_error(settings: object) -> None:
    try:
        wanted = parse_thp(settings)
    except SettingError:
        return
    assert all(isinstance(value, str) and name.startswith("thp.") for name, value in wanted.items())


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"thp.enabled": "sometimes"}, "always, madvise, never"),
        ({"thp.defrag": "inherit"}, "always, defer, defer+madvise, madvise, never"),
        ({"thp.sizes.16kB.enabled": "never"}, "thp.sizes.64kB.enabled, thp.sizes.2048kB.enabled"),
        ({"thp.khugepaged.speed": "1"}, "thp.khugepaged.defrag, thp.khugepaged.scan_sleep_millisecs"),
        ({"thp.khugepaged.pages_collapsed": "1"}, "thp.khugepaged.defrag"),
        ({"thp.khugepaged.../enabled": "1"}, "thp.khugepaged"),
    ],
)
def test_a_value_or_knob_the_kernel_lacks_names_what_it_has(fake_host: Host, wanted: dict[str, str], told: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_thp(fake_host, wanted)
    assert told in str(caught.value)


def test_a_kernel_without_thp_says_so(fake_host: Host) -> None:
    shutil.rmtree(fake_host.path(THP))
    with pytest.raises(SettingError, match="built without transparent huge pages"):
        check_thp(fake_host, {"thp.enabled": "never"})


def test_what_a_kernel_lacks_is_named_by_its_variable(fake_host: Host) -> None:
    assert Thp.facts(fake_host)["thp"]["lacking"] == []
    for folder in fake_host.path(THP).glob("hugepages-*"):
        shutil.rmtree(folder)
    fake_host.path(f"{THP}/shmem_enabled").unlink()
    assert Thp.facts(fake_host)["thp"]["lacking"] == ["thp_shmem_enabled", "thp_sizes"]
    shutil.rmtree(fake_host.path(THP))
    lacking = ["thp_enabled", "thp_defrag", "thp_shmem_enabled", "thp_khugepaged", "thp_sizes"]
    assert Thp.facts(fake_host)["thp"]["lacking"] == lacking


def test_a_command_line_sets_selectors_and_sizes() -> None:
    words = [
        ("transparent_hugepage", "always"),
        ("transparent_hugepage", "sometimes"),
        ("transparent_hugepage_shmem", "within_size"),
        ("thp_anon", "16K-64K,2M:inherit;128K:never"),
        ("quiet", ""),
    ]
    assert Thp.boot_values(words, 0) == {
        "thp.enabled": "always",
        "thp.shmem_enabled": "within_size",
        **{f"thp.sizes.{size}kB.enabled": "inherit" for size in (16, 32, 64, 2048)},
        "thp.sizes.128kB.enabled": "never",
    }
    assert Thp.boot_values([("thp_anon", "odd:never;0:always")], 0) == {}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("thp.enabled", f"{THP}/enabled"),
        ("thp.khugepaged.defrag", f"{THP}/khugepaged/defrag"),
        ("thp.sizes.64kB.enabled", f"{THP}/hugepages-64kB/enabled"),
    ],
)
def test_a_knob_and_its_file_name_each_other(name: str, path: str) -> None:
    assert knob_path(name) == path
    assert Thp.knob_of(path, 0) == name


def test_other_files_and_names_are_no_knobs() -> None:
    assert knob_path("vm.min_free_kbytes") == MIN_FREE
    for path in (MIN_FREE, f"{THP}/hugepages-64/enabled", f"{THP}/a/b", f"/x{THP}/enabled"):
        assert Thp.knob_of(path, 0) is None
    for name in ("thp.a.b", "thp.sizes.64.enabled", "thp.", "hugepages.2M", "thp.ENABLED"):
        with pytest.raises(ValueError, match="no knob of ours"):
            knob_path(name)


@pytest.mark.parametrize(
    ("enabled", "size", "effective"), [("always", "inherit", "always"), ("always", "never", "never")]
)
def test_a_size_inherits_the_policy_of_all(enabled: str, size: str, effective: str) -> None:
    assert effective_size_policy(enabled, size) == effective


def test_the_size_of_a_huge_page_is_what_the_kernel_says(fake_host: Host) -> None:
    put(fake_host.root, f"{THP}/hpage_pmd_size", "2097152\n")
    assert pmd_size_bytes(fake_host) == 2 << 20
    for text in ("", "2M\n", "-1\n"):
        put(fake_host.root, f"{THP}/hpage_pmd_size", text)
        assert pmd_size_bytes(fake_host) is None


def test_a_size_that_is_no_whole_kb_is_refused() -> None:
    with pytest.raises(SettingError, match="whole kB"):
        parse_thp({"sizes": {"65537": "never"}})
    assert parse_thp({"sizes": {"65536": "never"}}) == {"thp.sizes.64kB.enabled": "never"}


def test_the_largest_number_of_a_kernel_is_a_number() -> None:
    assert parse_thp({"khugepaged": {"defrag": 2**63 - 1}}) == {"thp.khugepaged.defrag": str(2**63 - 1)}


def test_a_file_that_went_meanwhile_is_neither_a_knob_nor_an_error(fake_host: Host) -> None:
    before = Thp().read(fake_host)
    fake_host.path(f"{THP}/khugepaged/gone").symlink_to("nowhere")
    assert Thp().read(fake_host) == before
