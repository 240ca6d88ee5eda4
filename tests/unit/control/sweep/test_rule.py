"""The rule of claims on synthetic sweeps: a known effect is found, and none is found where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from analysis.sweep.rule import FEWEST_PAIRS, Array, interval, is_tight, judge_arms

SWEEPS = 1000
ARMS = 6
STRATA = 4  # two dtypes, cold and warm
METRICS = 11
COMPARISONS = ARMS * STRATA
LEVEL = 0.05
FLOOR = math.log(1.01)

Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]


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


NOISES = [_normal, _heavy_tailed, _slow_outliers, _two_valued, _drift_in_block]


def _differences(noise: Noise, rng: np.random.Generator, sweeps: int, blocks: int, groups: int) -> tuple[Array, Array]:
    """Arms and control against the first stock arm, shapes (sweeps, groups, arms, blocks) and (sweeps, groups, blocks).

    Noise is drawn as (..., blocks, position in the block).
    """
    drawn = np.swapaxes(noise(rng, (sweeps, groups, blocks, ARMS + 2)), -1, -2)
    paired = drawn[..., 1:, :] - drawn[..., :1, :]
    return paired[..., 1:, :], paired[..., 0, :]


@pytest.mark.parametrize("blocks", [5, 6, 8, 12])
@pytest.mark.parametrize("noise", NOISES)
def test_false_claims_of_a_whole_report_stay_under_the_level(noise: Noise, blocks: int) -> None:
    """Eleven metrics of 24 comparisons each, no effect anywhere: reports with any claim at all."""
    arms, control = _differences(noise, np.random.default_rng(blocks), SWEEPS, blocks, METRICS * STRATA)
    claimed = judge_arms(arms, control, COMPARISONS, FLOOR).direction.any(axis=(-1, -2))
    assert claimed.mean() <= LEVEL


@pytest.mark.parametrize("noise", NOISES)
def test_stopping_when_intervals_are_tight_makes_no_false_claims(noise: Noise) -> None:
    """Looked at after every block from the sixth to the twelfth; the intervals hold even without the control's help."""
    sweeps = 2 * SWEEPS
    arms, control = _differences(noise, np.random.default_rng(3), sweeps, 12, STRATA)
    claimed, missed = np.zeros(sweeps, bool), np.zeros(sweeps, bool)
    stopped_at = np.zeros(sweeps, int)
    for blocks in range(FEWEST_PAIRS, 13):
        tight = is_tight(arms[..., :blocks], COMPARISONS, 0.12).all(axis=-1)
        stops = (stopped_at == 0) & (tight | (blocks == 12))
        judged = judge_arms(arms[stops, ..., :blocks], control[stops, ..., :blocks], COMPARISONS, FLOOR)
        claimed[stops] = judged.direction.any(axis=(-1, -2))
        missed[stops] = ((judged.arms.low > 0) | (judged.arms.high < 0)).any(axis=(-1, -2))
        stopped_at[stops] = blocks
    assert claimed.mean() <= LEVEL
    # Two standard errors of 2000 sweeps above the level.
    assert missed.mean() <= LEVEL + 0.01
    if noise is _normal:
        assert np.median(stopped_at) < 12


@pytest.mark.parametrize("blocks", [6, 8, 12])
def test_intervals_of_a_family_hold_jointly(blocks: int) -> None:
    """Without the control's help: all 24 intervals of a metric cover the truth in 95 of 100 sweeps."""
    arms, _ = _differences(_normal, np.random.default_rng(blocks), 4000, blocks, STRATA)
    found = interval(arms, LEVEL / COMPARISONS)
    covered = ((found.low <= 0) & (found.high >= 0)).all(axis=(-1, -2))
    # Three standard errors of 4000 sweeps below 0.95.
    assert covered.mean() > 0.94


@pytest.mark.parametrize(("effect", "blocks"), [(0.10, 8), (0.08, 12), (0.15, 6)])
def test_a_known_effect_is_found_and_its_direction_is_right(effect: float, blocks: int) -> None:
    """Samples that scatter by 2 %: an effect of 10 % shows in nine of ten sweeps of eight blocks."""
    rng = np.random.default_rng(11)
    drawn = rng.normal(0, 0.02, (SWEEPS, 3, blocks))
    arms, control = drawn[:, 2:] - drawn[:, :1] - math.log1p(effect), drawn[:, 1] - drawn[:, 0]
    direction = judge_arms(arms, control, COMPARISONS, FLOOR).direction[:, 0]
    assert (direction == -1).mean() > 0.85
    assert not (direction == 1).any()


def test_nothing_is_claimed_inside_the_control_interval() -> None:
    control = np.array([0.2, -0.2, 0.2, -0.2, 0.2, -0.2, 0.2, -0.2])
    arms = np.full((1, 8), 0.1) + np.array([0.001, -0.001] * 4)
    judged = judge_arms(arms, control, COMPARISONS, FLOOR)
    assert judged.arms.low[0] > 0
    assert judged.direction[0] == 0


def test_nothing_is_claimed_beside_a_control_that_moved() -> None:
    control = np.full(8, 0.1) + np.array([0.001, -0.001] * 4)
    judged = judge_arms(control[None, :] + 0.5, control, COMPARISONS, FLOOR)
    assert judged.control_moved
    assert judged.direction[0] == 0


def test_too_few_pairs_are_never_enough() -> None:
    steady = np.full((1, 12), 0.5)
    steady[0, FEWEST_PAIRS - 1 :] = np.nan
    assert judge_arms(steady, np.zeros(12), COMPARISONS, FLOOR).direction[0] == 0
    steady[0, FEWEST_PAIRS - 1] = 0.5
    assert judge_arms(steady, np.zeros(12), COMPARISONS, FLOOR).direction[0] == 1


def test_an_effect_below_the_floor_is_not_worth_a_word() -> None:
    assert judge_arms(np.full((1, 8), 0.004), np.zeros(8), COMPARISONS, FLOOR).direction[0] == 0
    assert judge_arms(np.full((1, 8), 0.011), np.zeros(8), COMPARISONS, FLOOR).direction[0] == 1


def test_a_missing_pair_drops_out_and_no_pair_gives_no_figure() -> None:
    found = interval(np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [2.0, np.nan, np.nan]]), 0.05)
    assert found.n.tolist() == [2, 0, 1]
    assert found.mean[0] == 2.0
    assert np.isnan(found.mean[1])
    assert np.isnan(found.low[1:]).all()
    assert not is_tight(np.full((1, 8), np.nan), 1, 10.0)


def test_a_percentile_bootstrap_would_not_keep_the_level() -> None:
    """Why the rule uses Student's interval: eight pairs, the level of 24 comparisons, no effect."""
    rng = np.random.default_rng(5)
    pairs = rng.normal(0, 0.03, (400, 8))
    means = pairs[:, rng.integers(0, 8, (4999, 8))].mean(axis=-1)
    alpha = LEVEL / COMPARISONS
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2], axis=-1)
    bootstrap = ((low > 0) | (high < 0)).mean()
    student = interval(pairs, alpha)
    assert bootstrap > 5 * alpha
    assert ((student.low > 0) | (student.high < 0)).mean() <= 2 * alpha
