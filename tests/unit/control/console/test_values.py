"""Values that no option allows: where they are, what is wanted, and what was probably meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.console.names import read_options
from analysis.console.values import wrong_values
from tests.conftest import REPOSITORY

OPTIONS = read_options(REPOSITORY)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def wrong(name: str, value: Any) -> list[str]:
    return wrong_values([(name, value, "extra variables")], OPTIONS)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sweep_budget_s", "ten", "sweep_budget_s: wanted a number; found 'ten'. In extra variables."),
        ("sweep_budget_s", float("inf"), "wanted a number; found inf."),
        ("sweep_blocks", "2.5", "wanted a whole number; found '2.5'."),
        ("sweep_blocks", "0", "wanted a number from 1 to 10000; found '0'."),
        ("sweep_budget_s", -5, "wanted a number from 1 to 10000000; found -5."),
        ("sweep_precision", 2, "wanted a number from 0.001 to 1; found 2."),
        ("audit_timeout_s", "-1", "wanted a number from 1 to 86400; found '-1'."),
        ("sweep_blocks", True, "wanted a whole number; found True."),
        ("rollback_force", "maybe", "wanted true or false; found 'maybe'."),
        ("rollback_force", "", "wanted true or false; found ''."),
        ("first_token_targets", "vllm", "wanted a list of entries; found 'vllm'."),
        ("first_token_targets", {"name": "x"}, "found one entry alone. Begin it with a hyphen."),
        ("first_token_targets", ["vllm"], "first_token_targets[0]: wanted an entry with name, "),
        ("first_token_targets", [{"name": "x", "contaner": "b"}], "found 'contaner'; did you mean container?"),
        ("first_token_targets", [{"unit": "a.service"}], "[0]: wanted name; found an entry without"),
        (
            "first_token_targets",
            [{"name": "x"}, {"name": "y", "ready": {"type": "url", "ulr": "http://a"}}],
            "first_token_targets[1].ready: wanted some of type, port, url, timeout_s; found 'ulr'; did",
        ),
        (
            "first_token_targets",
            [{"name": "x", "replay": "ahed"}],
            "ahead, both, none; found 'ahed'; did you mean ahead?",
        ),
        ("first_token_targets", [{"name": "x", "bytecode": "of"}], "[0].bytecode: wanted true or"),
        ("sweep_arms", {"name": "stock"}, "found one entry alone"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(name: str, value: Any, said: str) -> None:
    (sentence,) = wrong(name, value)
    assert said in sentence
    assert sentence.endswith(" In extra variables.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sweep_budget_s", "1500"),
        ("sweep_budget_s", 1.5),
        ("sweep_blocks", "8"),
        ("sweep_blocks", 8.0),
        ("sweep_blocks", None),
        ("rollback_force", "Yes"),
        ("rollback_force", 0),
        ("rollback_force", "{{ is_forced }}"),
        ("first_token_targets", "{{ targets_of_site }}"),
        ("first_token_targets", []),
        ("first_token_targets", [{"name": "{{ engine }}", "unit": "a.service", "ready": {"port": 8000}}]),
        ("first_token_targets", ["{{ target_of_site }}"]),
        ("sweep_dtypes", "auto"),
        ("a_variable_of_others", object()),
    ],
)
def test_what_may_be_is_left_to_the_modules(name: str, value: Any) -> None:
    assert wrong(name, value) == []


@given(st.sampled_from(sorted(OPTIONS)), ANYTHING)
def test_no_value_breaks_it_and_each_sentence_is_one_line(name: str, value: Any) -> None:
    for sentence in wrong(name, value):
        assert sentence.startswith(name)
        assert "\n" not in sentence
