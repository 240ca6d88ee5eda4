"""The rule of changes on simulated fleets: a known change is found, and none is claimed where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from analysis.fleet.change_points import FEWEST_RUNS, Array, judge
from analysis.statistics import CONFIDENCE

Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]
PAGES = 400
HOSTS = 50
TIMES = 4


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.03, shape)


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 0.02 * rng.standard_t(2.5, shape)


def _slow_outliers(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.02, shape) + (rng.random(shape) < 0.1) * rng.exponential(0.4, shape)


def _two_valued(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(0, 0.02, shape) + 0.15 * (rng.random(shape) < 0.5)


@pytest.mark.parametrize("runs", [6, 8, 12, 20])
@pytest.mark.parametrize("noise", [_normal, _heavy_tailed, _slow_outliers])
def test_a_fleet_in_which_nothing_changed_gets_a_claim_on_one_page_in_twenty_at_most(noise: Noise, runs: int) -> None:
    rng = np.random.default_rng(runs)
    series = noise(rng, (PAGES * HOSTS * TIMES, runs))
    claimed = judge(series, HOSTS * TIMES).cut.reshape(PAGES, -1).any(axis=-1)
    assert claimed.mean() <= 1 - CONFIDENCE


@pytest.mark.parametrize("runs", [6, 8, 12, 20])
def test_of_hosts_with_two_moods_one_in_twenty_at_most_looks_changed(runs: int) -> None:
    """Half of a host's runs are 16 % slower, at random: now and then all slow ones come last, as in a change."""
    series = _two_valued(np.random.default_rng(runs), (20_000, runs))
    assert (judge(series, 1).cut > 0).mean() <= 1 - CONFIDENCE


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(("runs", "ratio"), [(8, 1.35), (12, 1.2), (20, 1.15)])
def test_a_change_is_found_in_a_thousand_hosts(runs: int, ratio: float, direction: int) -> None:
    """Runs of a host spread by 1.5 % (one standard deviation)."""
    size = direction * math.log(ratio)
    series = np.random.default_rng(2).normal(0, 0.015, (500, runs))
    series[:, runs // 2 :] += size
    judged = judge(series, 1000 * TIMES)
    found = judged.cut > 0
    assert found.mean() >= 0.9
    assert (judged.cut[found] == runs // 2).mean() > 0.99
    assert np.all(np.sign(judged.mean[found]) == direction)
    assert np.mean((judged.low[found] < size) & (judged.high[found] > size)) > 0.99


def test_what_is_under_the_floor_is_no_change_however_sure() -> None:
    series = np.concatenate([np.zeros((1, 10)), np.full((1, 10), math.log(1.04))], axis=1)
    assert judge(series, 1).cut.tolist() == [0]
    series[:, 10:] = math.log(1.06)
    assert judge(series, 1).cut.tolist() == [10]


def test_fewer_than_three_runs_on_a_side_are_no_change() -> None:
    series = np.zeros((1, 12))
    series[:, -(FEWEST_RUNS - 1) :] = 1.0
    assert judge(series, 1).cut.tolist() == [0]
    series[:, -FEWEST_RUNS:] = 1.0
    assert judge(series, 1).cut.tolist() == [9]


def test_one_run_that_does_not_fit_is_enough_to_claim_nothing() -> None:
    series = np.zeros((1, 20))
    series[:, 10:] = 1.0
    series[:, 3] = 1.2
    assert judge(series, 1).cut.tolist() == [0]
