"""The rule of claims on synthetic sweeps: a known effect is found, and none is found where there is none."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.documents.decode import typed
from analysis.documents.schema import validate
from analysis.sweep.metrics import WEIGHTS
from analysis.sweep.report import sweep_files
from analysis.sweep.rule import (
    FEWEST_PAIRS,
    IS_FIRST,
    Array,
    expected_half_width,
    is_settled,
    judge_counters,
    judge_times,
    pairs,
    pairs_of_times,
    scatter_within_blocks,
    without_canary,
)
from analysis.sweep.sweep import Sweep

SWEEPS = 500
STRATA = 4  # two dtypes, cold and warm
COUNTERS = 8
COMPARISONS = 24
LEVEL = 0.05
FLOOR = math.log(1.01)
EXAMPLES = Path(__file__).resolve().parents[4] / "docs/examples"

Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""Draws logs of times of shape (..., blocks, positions within a block)."""


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.03, shape)


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 0.02 * rng.standard_t(2.5, shape)


def _slow_outliers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.02, shape) + (rng.random(shape) < 0.1) * rng.exponential(0.4, shape)


def _two_valued(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.01, shape) + 0.15 * (rng.random(shape) < 0.5)


def _drift_in_block(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Each block speeds up or slows down by tens of per cent while its arms run in random order."""
    positions = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1) / shape[-1]
    return rng.normal(0, 0.4, (*shape[:-1], 1)) * positions + rng.normal(0, 0.01, shape)


def _autocorrelated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Each sample keeps nine tenths of what the one before it had, through all blocks."""
    fresh = rng.normal(0, 0.02, (*shape[:-2], shape[-2] * shape[-1]))
    drawn = np.empty_like(fresh)
    drawn[..., 0] = fresh[..., 0] / math.sqrt(1 - 0.81)
    for index in range(1, fresh.shape[-1]):
        drawn[..., index] = 0.9 * drawn[..., index - 1] + fresh[..., index]
    return drawn.reshape(shape)


@functools.cache
def _stock_samples(example: str) -> Array:
    """How whole loads of a committed sweep's stock arms scattered: logs of weights to first token, a row a group."""
    sweep = typed(Sweep, json.loads((EXAMPLES / example / "sweep.json").read_text(encoding="utf-8")))
    rows = []
    for dtype in sweep.protocol.dtypes:
        for kind in ("cold", "warm"):
            found = [
                WEIGHTS.compared(WEIGHTS.value(each.sample))
                for each in sweep.measurements
                if (each.is_valid and each.is_full and "stock" in each.arm)
                and (each.dtype_asked, each.sample.kind) == (dtype, kind)
            ]
            rows.append(np.array(found) - np.mean(found))
    return np.array(rows)


def _real(example: str) -> Noise:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        samples = _stock_samples(example)
        rows = rng.integers(0, len(samples), (*shape[:-2], 1, 1))
        drawn: Array = samples[rows, rng.integers(0, samples.shape[1], shape)]
        return drawn

    draw.__name__ = f"_resampled_{example}"
    return draw


NOISES = [
    _normal,
    _heavy_tailed,
    _slow_outliers,
    _two_valued,
    _drift_in_block,
    _autocorrelated,
    _real("cpu-sweep"),
    _real("gpu-sweep"),
]


def _values(noise: Noise, rng: np.random.Generator, shape: tuple[int, int, int, int]) -> Array:
    """Values of shape (sweeps, groups, 2 + arms, blocks): in each block the arms run in an order drawn anew."""
    sweeps, groups, arms, blocks = shape
    drawn = noise(rng, (sweeps, groups, blocks, arms))
    return np.swapaxes(rng.permuted(drawn, axis=-1), -1, -2)


def _claims(weights: Array, rest: Array, counters: Array, comparisons: int, whole_first: int = 0) -> Array:
    """The sweeps whose report has any claim at all: three times that share their seconds, and the counters.

    The last `whole_first` arms are asked for the whole time first, as bytecode and replay are.
    """
    times = [weights, *(share * weights + (1 - share) * rest for share in (0.4, 0.8))]
    asked = [judge_times(values, comparisons, FLOOR).direction for values in (times[0], times[2])]
    arms = asked[0].shape[-1]
    is_whole = np.arange(arms) >= arms - whole_first
    judged = []
    for index, values in enumerate(times):
        first = np.where(is_whole, IS_FIRST if index == 2 else asked[1], IS_FIRST if index == 0 else asked[0])
        judged.append(judge_times(values, comparisons, FLOOR, first).direction)
    judged.append(judge_counters(counters, comparisons, FLOOR).direction)
    return np.asarray(np.any([each.any(axis=(-1, -2)) for each in judged], axis=0))


@pytest.mark.parametrize(
    ("arms", "strata", "whole_first"),
    [(6, STRATA, 0), (1, 2, 0), (5, 2, 5), (2, 2, 2), (6, STRATA, 3)],
    ids=["default", "one-arm", "first-token", "first-token-with-bytecode", "mixed"],
)
@pytest.mark.parametrize("blocks", [6, 8, 12])
@pytest.mark.parametrize("noise", NOISES)
def test_false_claims_of_a_whole_report_stay_under_the_level(
    noise: Noise, blocks: int, arms: int, strata: int, whole_first: int
) -> None:
    """Eleven metrics, no effect anywhere: reports with any claim at all."""
    rng = np.random.default_rng(blocks)
    weights, rest, counters = (
        _values(noise, rng, (SWEEPS, groups, 2 + arms, blocks)) for groups in (strata, strata, strata * COUNTERS)
    )
    claimed = _claims(weights, rest, counters, arms * strata, whole_first)
    # A standard error of 500 sweeps above the level.
    assert claimed.mean() <= LEVEL + 0.01


@pytest.mark.parametrize("arms", [1, 2, 6])
def test_an_arm_that_only_scatters_more_is_not_called_an_effect(arms: int) -> None:
    rng = np.random.default_rng(arms)
    weights, rest, counters = (
        _values(_normal, rng, (SWEEPS, groups, 2 + arms, 8)) for groups in (STRATA, STRATA, STRATA * COUNTERS)
    )
    for values in (weights, rest, counters):
        values[:, :, 2] *= 2
    assert _claims(weights, rest, counters, arms * STRATA).mean() <= LEVEL + 0.01


def _rounds(noise: Noise, rng: np.random.Generator, shape: tuple[int, int, int, int], full_blocks: int) -> Array:
    """As `_values`, where each value of a later block is the mean of two samples that follow each other."""
    sweeps, groups, arms, blocks = shape
    drawn = noise(rng, (sweeps, groups, blocks, 2 * arms)).reshape(sweeps, groups, blocks, arms, 2)
    values = np.where((np.arange(blocks) < full_blocks)[:, None], drawn[..., 0], drawn.mean(axis=-1))
    return np.swapaxes(rng.permuted(values, axis=-1), -1, -2)


def _settling(values: Array, precision: float) -> Array:
    """The values (sweeps, dtypes x kinds, 2 + arms, blocks) that a sweep measures which leaves settled arms out.

    Looked at after each block from the sixth on: an arm with a dtype is left out once its intervals, cold and warm, are
    narrow enough, and a dtype's stocks with the last of its arms.
    """
    sweeps, groups, arms, blocks = values.shape
    measured = values.copy()
    live = np.ones((sweeps, groups // 2, arms), bool)
    for done in range(FEWEST_PAIRS, blocks):
        settled = is_settled(measured[..., :done], COMPARISONS, precision)
        live[..., 2:] &= ~settled.reshape(sweeps, groups // 2, 2, arms - 2).all(axis=2)
        live[..., :2] = live[..., 2:].any(axis=-1, keepdims=True)
        measured[..., done] = np.where(np.repeat(live, 2, axis=1), measured[..., done], np.nan)
    return measured


@pytest.mark.parametrize("noise", NOISES)
def test_leaving_settled_arms_out_makes_no_false_claims(noise: Noise) -> None:
    """Intervals hold jointly all the same; a sweep that stops early is one that has left out its last arm."""
    sweeps = 2 * SWEEPS
    rng = np.random.default_rng(3)
    shape = (sweeps, STRATA, 8, 14)
    values = _rounds(noise, rng, shape, full_blocks=7)
    # What nine blocks give with this noise, so that there is something to leave out.
    precision = np.median(judge_times(values[..., :9], COMPARISONS, FLOOR).arms.half_width)
    measured = _settling(values, float(precision))
    judged = judge_times(measured, COMPARISONS, FLOOR)
    missed = (judged.arms.low > 0) | (judged.arms.high < 0)
    claims = _claims(measured, _values(noise, rng, shape), np.zeros((sweeps, 1, 8, 14)), COMPARISONS)
    # A standard error of 1000 sweeps above the level.
    assert claims.mean() <= LEVEL + 0.007
    assert missed.any(axis=(-1, -2)).mean() <= LEVEL + 0.007
    assert FEWEST_PAIRS < judged.arms.n.mean() < 14


@pytest.mark.parametrize("blocks", [6, 8, 12])
@pytest.mark.parametrize("noise", [_normal, _two_valued, _autocorrelated])
def test_intervals_of_a_family_hold_jointly(noise: Noise, blocks: int) -> None:
    """All 24 intervals of a time cover the truth in 95 of 100 sweeps."""
    values = _values(noise, np.random.default_rng(blocks), (2000, STRATA, 8, blocks))
    found = judge_times(values, COMPARISONS, FLOOR).arms
    covered = ((found.low <= 0) & (found.high >= 0)).all(axis=(-1, -2))
    assert covered.mean() >= 1 - LEVEL


@pytest.mark.parametrize(("effect", "blocks", "scatter"), [(0.08, 8, 0.03), (0.05, 8, 0.02), (0.05, 12, 0.03 * 0.8)])
def test_a_known_effect_is_found_and_its_direction_is_right(effect: float, blocks: int, scatter: float) -> None:
    rng = np.random.default_rng(11)
    values = rng.normal(0, scatter, (SWEEPS, 8, blocks))
    values[:, 2] -= math.log1p(effect)
    direction = judge_times(values, COMPARISONS, FLOOR).direction[:, 0]
    assert (direction == -1).mean() >= 0.8
    assert not (direction == 1).any()


def test_a_whole_time_follows_the_weights_and_alone_needs_more() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.03, (SWEEPS, 8, 8))
    values[:, 2] -= math.log1p(0.07)
    alone = judge_times(values, COMPARISONS, FLOOR, np.zeros((SWEEPS, 6), int)).direction[:, 0]
    against = judge_times(values, COMPARISONS, FLOOR, np.ones((SWEEPS, 6), int)).direction[:, 0]
    after = judge_times(values, COMPARISONS, FLOOR, -np.ones((SWEEPS, 6), int)).direction[:, 0]
    assert np.array_equal(alone, against)
    assert (after == -1).mean() > (alone == -1).mean() + 0.1


def _steady(control: Array, *arms: Array) -> Array:
    return np.array([np.zeros_like(control), control, *arms])


def test_no_counter_is_claimed_inside_the_control_interval() -> None:
    control = np.array([0.2, -0.2, 0.2, -0.2, 0.2, -0.2, 0.2, -0.2])
    arm = np.full(8, 0.1) + np.array([0.001, -0.001] * 4)
    judged = judge_counters(_steady(control, arm), COMPARISONS, FLOOR)
    assert judged.arms.low[0] > 0
    assert judged.direction[0] == 0


def test_nothing_is_claimed_beside_a_control_that_moved() -> None:
    control = np.full(8, 0.1) + np.array([0.001, -0.001] * 4)
    for judge in (judge_times, judge_counters):
        judged = judge(_steady(control, control + 0.5), COMPARISONS, FLOOR)
        assert judged.control_moved
        assert judged.direction[0] == 0


def test_too_few_pairs_are_never_enough() -> None:
    steady = np.full(12, 0.5)
    steady[FEWEST_PAIRS - 1 :] = np.nan
    enough = steady.copy()
    enough[FEWEST_PAIRS - 1] = 0.5
    for judge in (judge_times, judge_counters):
        assert judge(_steady(np.zeros(12), steady), COMPARISONS, FLOOR).direction[0] == 0
        assert judge(_steady(np.zeros(12), enough), COMPARISONS, FLOOR).direction[0] == 1


def test_an_effect_below_the_floor_is_not_worth_a_word() -> None:
    for judge in (judge_times, judge_counters):
        assert judge(_steady(np.zeros(8), np.full(8, 0.004)), COMPARISONS, FLOOR).direction[0] == 0
        assert judge(_steady(np.zeros(8), np.full(8, 0.011)), COMPARISONS, FLOOR).direction[0] == 1


def test_a_missing_pair_drops_out_and_no_pair_gives_no_figure() -> None:
    found = pairs(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [2.0, np.nan, np.nan]])).interval(0.05)
    assert found.n.tolist() == [2, 0, 1]
    assert found.mean[0] == 2.0
    assert np.isnan(found.mean[1])
    assert np.isnan(found.low[1:]).all()
    assert not is_settled(np.full((3, 8), np.nan), 1, 10.0).any()


def test_a_block_that_lacks_either_stock_is_no_pair_of_times() -> None:
    values = np.zeros((4, 8))
    values[0, 0] = values[1, 1] = values[2, 2] = np.nan
    arms, control = pairs_of_times(values)
    assert arms.n.tolist() == [5, 6]
    assert control.n == 6


@pytest.mark.parametrize("arms", [1, 2, 6])
def test_the_expected_half_width_is_what_sweeps_then_have(arms: int) -> None:
    values = _values(_normal, np.random.default_rng(1), (SWEEPS, 1, 2 + arms, 8))
    widths = judge_times(values, COMPARISONS, FLOOR).arms.half_width
    expected = expected_half_width(0.03, 8, arms, COMPARISONS)
    assert np.sqrt((widths**2).mean()) == pytest.approx(expected, rel=0.06)


def test_scatter_leaves_out_blocks_and_arms() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 0.02, (8, 400)) + rng.normal(0, 1.0, 400) + rng.normal(0, 1.0, (8, 1))
    assert scatter_within_blocks(values) == pytest.approx(0.02, rel=0.05)
    assert math.isnan(scatter_within_blocks(np.full((8, 2), np.nan)))
    assert scatter_within_blocks(np.array([[0.1], [0.3]])) == pytest.approx(0.2 / math.sqrt(2))


def test_canaries_that_know_nothing_cost_little_and_claim_nothing() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(0, 0.03, (SWEEPS, 8, 8))
    adjusted = np.array([without_canary(each, rng.normal(0, 0.05, (8, 8))) for each in values])
    assert judge_times(adjusted, 6, FLOOR).direction.any(axis=-1).mean() <= LEVEL
    widths = [judge_times(each, 6, FLOOR).arms.half_width.mean() for each in (values, adjusted)]
    assert widths[1] == pytest.approx(widths[0], rel=0.03)


def test_a_percentile_bootstrap_would_not_keep_the_level() -> None:
    """Why the rule uses Student's interval: eight pairs, the level of 24 comparisons, no effect."""
    rng = np.random.default_rng(5)
    drawn = rng.normal(0, 0.03, (400, 8))
    means = drawn[:, rng.integers(0, 8, (4999, 8))].mean(axis=-1)
    alpha = LEVEL / COMPARISONS
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2], axis=-1)
    bootstrap = ((low > 0) | (high < 0)).mean()
    student = pairs(drawn).interval(alpha)
    assert bootstrap > 5 * alpha
    assert ((student.low > 0) | (student.high < 0)).mean() <= 2 * alpha


def test_a_sweep_in_an_image_names_it() -> None:
    document = json.loads((EXAMPLES / "cpu-sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert "Image:" not in sweep_files(document)["sweep.md"]
    document["image"] = {"name": "torch:1", "digest": "sha256:ab", "runtime": "docker"}
    validate(document, "sweep")
    page = sweep_files(document)["sweep.md"]
    assert "Image: torch:1 (sha256:ab), in docker: each load is a new container, whose" in page
