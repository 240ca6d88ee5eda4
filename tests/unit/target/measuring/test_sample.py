"""Samples in documents: what is read back, and what is refused by the name of its field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.measuring.sample import (
    CeilingRecord,
    NotASample,
    Sample,
    Trial,
    failed_sample,
    read_document,
    to_document,
)

REQUIRED: dict[str, Any] = {"block": 1, "wanted": "cold", "kind": "cold", "reason": None, "started_at": "x"}


def test_a_document_needs_its_required_fields_alone() -> None:
    assert Sample.from_json(REQUIRED) == Sample(1, "cold", "cold", None, "x")
    assert Sample.from_json({**REQUIRED, "of_a_later_release": 1}) == Sample(1, "cold", "cold", None, "x")
    for name in REQUIRED:
        with pytest.raises(NotASample, match=f"Sample has no {name}"):
            Sample.from_json({each: value for each, value in REQUIRED.items() if each != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block", True),
        ("block", "1"),
        ("block", 1.0),
        ("block", None),
        ("block", 2**63),
        ("block", -(2**63) - 1),
        ("kind", 1),
        ("reason", 7),
        ("load_real_s", True),
        ("load_real_s", "1"),
        ("load_real_s", math.nan),
        ("load_real_s", math.inf),
        ("load_real_s", -math.inf),
        ("load_real_s", 2.0**63),
        ("tokens_s", 1.0),
        ("tokens_s", {"0": 1.0}),
        ("tokens_s", ["x"]),
        ("settings", []),
        ("settings", {"thp.enabled": 1}),
        ("phases", [{"name": "weights"}]),
        ("noise", "quiet"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_field(name: str, value: object) -> None:
    with pytest.raises(NotASample, match=f"^Sample.{name}: "):
        Sample.from_json({**REQUIRED, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block", 2**63 - 1),
        ("block", -(2**63)),
        ("load_real_s", 3),
        ("load_real_s", 0.5),
        ("reason", "why"),
        ("settings", {"thp.enabled": "never"}),
        ("vmstat", {"thp_fault_alloc": 3}),
    ],
)
def test_a_value_of_its_kind_is_read_as_it_is(name: str, value: object) -> None:
    assert getattr(Sample.from_json({**REQUIRED, name: value}), name) == value


def test_tuples_are_lists_in_a_document_and_flags_are_flags() -> None:
    record = CeilingRecord((1e9, 2e9), 4, True)
    assert to_document(record) == {"bytes_per_s": [1e9, 2e9], "streams": 4, "guest_cold": True, "trials": []}
    assert read_document(CeilingRecord, to_document(record)) == record
    with pytest.raises(NotASample, match="guest_cold: 1 is neither"):
        read_document(CeilingRecord, {**to_document(record), "guest_cold": 1})


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_what_is_no_object_is_no_sample(document: object) -> None:
    with pytest.raises(NotASample, match="not an object"):
        Sample.from_json(document)


def test_a_sample_that_measured_nothing_has_all_of_its_trial() -> None:
    assert (
        failed_sample(Trial(2, "warm"), "why", "x").to_json()
        == Sample(2, "warm", "failed", "why", "x", order=0, settings={}, env={}).to_json()
    )
    trial = Trial(2, "warm", 3, "float32", "an arm", {"thp.enabled": "never"}, {"A": "1"})
    sample = failed_sample(trial, "why", "x")
    assert (sample.arm, sample.order, sample.settings, sample.env) == (
        "an arm",
        3,
        {"thp.enabled": "never"},
        {"A": "1"},
    )
