"""Stored JSON: its text is the value, one sample a line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.documents.storage import as_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("samples"), inner),
)


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    assert json.loads(as_json(value)) == value


@given(st.lists(st.dictionaries(st.text(), VALUES), min_size=1))
def test_each_sample_has_a_line_of_its_own(samples: list[dict[str, object]]) -> None:
    lines = as_json({"run": {"samples": [1]}, "samples": samples, "after": '\n  "samples": []'}).split("\n")
    begin = lines.index('  "samples": [')
    assert [json.loads(line.rstrip(",")) for line in lines[begin + 1 : begin + 1 + len(samples)]] == samples


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_has_no_word_for_is_refused(number: float) -> None:
    for value in (number, {"samples": [{"seconds": number}]}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            as_json(value)
