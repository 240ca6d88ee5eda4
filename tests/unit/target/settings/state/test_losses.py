"""What a user accepts is named, and nothing else is."""

from __future__ import annotations

import contextlib

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.settings.state.losses import LossError, parse_accept_loss, refuse_loss, tell_some
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "names",
    [["hugepages.2M", "hugepages.node0.1G"], ["hugetlbfs./mnt/huge"], ["/etc/tmpfiles.d/x.conf"], ["persistence./etc"]],
)
def test_the_names_of_refusals_are_taken(names: list[str]) -> None:
    assert parse_accept_loss(names) == frozenset(names)
    for name in names:
        refuse_loss(name, "a", "b", "c.", "d", parse_accept_loss(names))
        with pytest.raises(LossError) as caught:
            refuse_loss(name, "a", "b", "c.", "d")
        assert caught.value.next_step == f"d, or accept the loss: slm_accept_loss: [{name}]."


@pytest.mark.parametrize("value", [True, "hugepages.2M", ["all"], [7], ["hugepages"], {"hugepages.2M": True}, [["x"]]])
def test_what_names_nothing_is_refused_by_name(value: object) -> None:
    with pytest.raises(SettingError, match="slm_accept_loss"):
        parse_accept_loss(value)


@given(st.lists(st.text()) | st.text() | st.integers())
def test_anything_gives_names_or_one_typed_error(value: object) -> None:
    with contextlib.suppress(SettingError):
        assert isinstance(parse_accept_loss(value), frozenset)


def test_a_long_list_is_cut_and_says_so() -> None:
    assert tell_some(list("abcdefg"), "files: ") == "files: a, b, c, d, e and 2 more"
