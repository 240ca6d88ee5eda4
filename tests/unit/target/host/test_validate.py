"""Option: every form of a user's value, and one error with five parts for anything else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.validate import Option
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=5,
)
FORMS: list[Callable[[Option], object]] = [
    lambda value: value.integer(7),
    lambda value: value.size(),
    lambda value: value.fraction("memory", why="It is a share."),
    lambda value: value.text(),
    lambda value: value.named(),
    lambda value: value.named(("a", "b")),
    lambda value: value.entries(("size",), ("node",)),
]


@given(ANYTHING, st.sampled_from(FORMS))
def test_any_value_has_the_form_or_is_one_error_with_five_parts(
    value: object, form: Callable[[Option], object]
) -> None:
    with contextlib.suppress(SettingError):
        assert form(Option("knob", value)) is not None
        return
    with pytest.raises(SettingError) as caught:
        form(Option("knob", value))
    assert all(caught.value.as_dict().values())
    assert caught.value.knob == "knob"


@pytest.mark.parametrize(("value", "number"), [(0, 0), (7, 7), ("7", 7), ("007", 7)])
def test_whole_numbers_as_numbers_and_text(value: object, number: int) -> None:
    assert Option("k", value).integer(7) == number


@pytest.mark.parametrize("value", [8, -1, True, 1.0, "1.0", "", "²", "9" * 5000, None, []])
def test_what_is_no_whole_number_in_reach(value: object) -> None:
    with pytest.raises(SettingError, match="a whole number from 0 to 7"):
        Option("k", value).integer(7)


@pytest.mark.parametrize("value", [0, -0.5, 1.01, "nan", float("nan"), "inf", True, "half", None, []])
def test_what_is_no_share(value: object) -> None:
    with pytest.raises(SettingError, match="a share of memory above 0 and up to 1"):
        Option("k", value).fraction("memory", why="It is a share.")


def test_none_is_an_empty_mapping_and_an_empty_list() -> None:
    assert Option("k", None).named(("a",)) == {}
    assert Option("k", None).entries(("a",)) == []


def test_an_entry_says_what_it_needs_and_what_it_has() -> None:
    with pytest.raises(SettingError) as caught:
        Option("pools", [{"size": 1, "colour": 2}]).entries(("size", "count"), ("node",))
    assert (caught.value.wanted, caught.value.found) == ("size and count, and optionally node", "size, colour")
    assert caught.value.why == "Unknown: colour."
