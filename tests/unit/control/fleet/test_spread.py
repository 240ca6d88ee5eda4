"""The rule of comparisons: two runs of an unchanged host rarely differ, and a real difference is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from analysis.fleet import spread
from analysis.fleet.fleet import fleet
from analysis.fleet.stored import read
from tests.support import fleet_samples as samples

Array = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, int]], Array]
HOSTS = 1000
METRIC = "cold_time_to_first_token_s"


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.normal(0, 0.03, shape)


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return 0.02 * rng.standard_t(2.5, shape)


def _slow_outliers(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.normal(0, 0.02, shape) + (rng.random(shape) < 0.1) * rng.exponential(0.4, shape)


def _two_valued(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.normal(0, 0.02, shape) + 0.15 * (rng.random(shape) < 0.5)


def _restless_and_quiet(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.normal(0, 1, shape) * np.exp(rng.normal(math.log(0.03), 0.7, (shape[0], 1)))


def reaches(logs: Array) -> Array:
    """The reach of every host of a fleet with these log medians (hosts, runs)."""
    own = [spread.spread(list(np.diff(host))) for host in logs]
    common = float(np.median([each.variance for each in own if each]))
    return np.array([spread.reach(each, common) for each in own])


def differing(before: Array, after: Array, reach: Array) -> float:
    """The share of pairs of runs that the rule says differ."""
    rows = zip(np.exp(before).tolist(), np.exp(after).tolist(), reach.tolist(), strict=True)
    return float(np.mean([spread.differs(one, other, own, own) for one, other, own in rows]))


@pytest.mark.parametrize("runs", [3, 4, 6, 12, 20])
@pytest.mark.parametrize("noise", [_normal, _heavy_tailed, _slow_outliers, _two_valued, _restless_and_quiet])
def test_consecutive_runs_of_unchanged_hosts_differ_one_time_in_twenty_at_most(noise: Noise, runs: int) -> None:
    logs = noise(np.random.default_rng(runs), (HOSTS, runs))
    reach = reaches(logs)
    found = [differing(logs[:, at], logs[:, at + 1], reach) for at in range(runs - 1)]
    assert np.mean(found) <= 0.05


@pytest.mark.parametrize("runs", [3, 6, 12, 20])
@pytest.mark.parametrize("noise", [_normal, _heavy_tailed, _two_valued, _restless_and_quiet])
def test_so_do_any_two_runs(noise: Noise, runs: int) -> None:
    logs = noise(np.random.default_rng(runs + 100), (HOSTS, runs))
    assert differing(logs[:, 0], logs[:, -1], reaches(logs)) <= 0.05


@pytest.mark.parametrize("runs", [6, 12, 20])
def test_a_host_that_became_thirty_per_cent_slower_differs_from_before(runs: int) -> None:
    logs = _normal(np.random.default_rng(runs), (HOSTS, runs))
    logs[:50, runs // 2 :] += math.log(1.3)
    assert differing(logs[:50, 0], logs[:50, -1], reaches(logs)[:50]) >= 0.9


def test_a_difference_under_the_least_is_none_however_quiet_the_hosts() -> None:
    assert not spread.differs(10.0, 10.4, 0.0, 0.0)
    assert spread.differs(10.0, 10.6, 0.0, 0.0)
    assert spread.differs(10.6, 10.0, 0.0, 0.0)


@pytest.mark.parametrize("freedom", [3, 4, 6, 10, 30])
def test_students_quantile_is_within_two_hundredths(freedom: int) -> None:
    assert spread.student(freedom) == pytest.approx(stats.t.ppf(0.995, freedom), rel=0.02)


def test_a_host_without_a_history_takes_the_common_spread_and_a_fleet_without_any_none(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 4, 6)
    samples.store(tmp_path / "results", samples.scaled(samples.golden("gpu"), "new", samples.NOW, 1))
    found = fleet(read(tmp_path / "results", tmp_path / "a", 20), {}, samples.NOW, timedelta(days=30)).reaches
    assert 0.02 < found["new"][METRIC] < 0.3
    alone = {"new": read(tmp_path / "results", tmp_path / "a", 20).runs["new"]}
    assert spread.reaches(alone) == {"new": {}}


def test_a_lasting_change_does_not_hide_itself(tmp_path: Path) -> None:
    def change(host: int, run: int, document: dict[str, Any]) -> float:
        return 1.5 if host == 0 and run >= 4 else 1.0

    samples.build(tmp_path / "results", 6, 8, change)
    stored = read(tmp_path / "results", tmp_path / "a", 20)
    runs = stored.runs["gpu-1"]
    own = spread.reaches(stored.runs)["gpu-1"][METRIC]
    before, after = runs[0].times[METRIC].median, runs[-1].times[METRIC].median
    assert spread.differs(before, after, own, own)
