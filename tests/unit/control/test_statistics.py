"""Medians, intervals and what enters them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.documents.decode import typed
from analysis.documents.samples import Sample
from analysis.statistics import best_coverage, figure, summarise

VALUES = st.lists(st.floats(0.001, 1e12, allow_nan=False), min_size=3, max_size=12)


def sample(block: int, kind: str, load: float | None, **more: Any) -> Sample:
    fields = dict.fromkeys(each.name for each in dataclasses.fields(Sample))
    return typed(
        Sample, {**fields, "block": block, "kind": kind, "wanted": kind, "load_real_s": load, "phases": [], **more}
    )


def test_median_and_mad_by_hand() -> None:
    made = figure([8.0, 9.0, 13.0, 8.5, 8.0])
    assert (made.median, made.mad, made.n) == (8.5, 0.5, 5)
    assert made.values == (8.0, 9.0, 13.0, 8.5, 8.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [None, 1.0, None, 2.0]])
def test_below_three_values_there_is_no_interval(values: list[float | None]) -> None:
    made = figure(values)
    assert made.ci_low is None
    assert made.ci_high is None
    assert made.n == len([value for value in values if value is not None])


def test_nothing_measured_is_null_and_not_zero() -> None:
    assert figure([None, None]).median is None


@settings(max_examples=30, deadline=None)
@example([1.0, 1.0, 700860335246.7772])
@example([171537782831.0, 171537782830.60037, 171537782830.60037])
@given(VALUES)
def test_an_interval_is_ordered_inside_what_was_seen_and_the_same_every_time(values: list[float]) -> None:
    made = figure(values)
    assert made.ci_low is not None
    assert made.ci_high is not None
    assert made.median is not None
    assert min(values) <= made.ci_low <= made.median <= made.ci_high <= max(values)
    assert figure(values) == made


def test_the_seed_is_fixed() -> None:
    values = [math.sqrt(number) for number in range(2, 42)]
    assert len({figure(values).ci_low for _ in range(5)}) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_best_coverage_is_the_share_of_draws_that_straddle_the_median(n: int) -> None:
    draws = list(itertools.product([-1, 1], repeat=n))
    straddling = [draw for draw in draws if len(set(draw)) == 2]
    assert best_coverage(n) == pytest.approx(len(straddling) / len(draws))


def test_six_is_the_fewest_that_can_reach_95_percent() -> None:
    assert best_coverage(5) < 0.95 < best_coverage(6)


def test_lukewarm_and_failed_samples_are_counted_and_enter_no_figure() -> None:
    summary = summarise(
        [sample(1, "cold", 8.0), sample(1, "warm", 2.0), sample(2, "lukewarm", 99.0), sample(2, "failed", None)]
    )
    assert list(summary.figure("cold_load_real_s").values) == [8.0]
    assert list(summary.figure("warm_load_real_s").values) == [2.0]
    assert summary.counts == {"cold": 1, "warm": 1, "lukewarm": 1, "failed": 1}


def test_the_ratio_is_paired_within_blocks() -> None:
    summary = summarise(
        [
            sample(1, "cold", 8.0),
            sample(1, "warm", 4.0),
            sample(2, "cold", 30.0),
            sample(2, "warm", 10.0),
            sample(3, "cold", 7.0),
            sample(3, "failed", None),
        ]
    )
    assert list(summary.figure("cold_to_warm_load_ratio").values) == [2.0, 3.0]


def test_phases_become_figures_in_the_order_in_which_they_happened() -> None:
    phases = [{"name": "tokenizer", "seconds": 0.5}, {"name": "weights", "seconds": None}]
    summary = summarise([sample(1, "cold", 1.0, phases=phases), sample(2, "lukewarm", 1.0, phases=phases)])
    assert [key for key in summary.figures if "_phase_" in key] == ["cold_phase_tokenizer_s", "cold_phase_weights_s"]
    assert list(summary.figure("cold_phase_tokenizer_s").values) == [0.5]
    assert summary.figure("cold_phase_weights_s").n == 0
    assert sample(1, "cold", 1.0).phase_seconds("tokenizer") is None


def test_no_figure_ever_holds_a_number_that_json_lacks() -> None:
    summary = summarise([sample(block, "cold", 5.0) for block in range(4)])
    numbers = [
        value for made in summary.figures.values() for value in asdict(made).values() if isinstance(value, float)
    ]
    assert numbers
    assert all(math.isfinite(number) for number in numbers)
