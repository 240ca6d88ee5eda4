"""Odd ones out among like hosts."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.fleet.outliers import FEWEST_HOSTS, outliers


def test_the_odd_one_is_found_and_its_like_are_not() -> None:
    values = {f"gpu-{index}": 10 + 0.05 * index for index in range(8)} | {"slow": 12.0, "fast": 8.0}
    assert sorted(outliers(values)) == ["fast", "slow"]


def test_a_tenth_is_the_least_and_spread_excuses_more() -> None:
    agreeing = dict.fromkeys("abcdefgh", 10.0)
    assert outliers({**agreeing, "x": 10.9}) == {}
    assert list(outliers({**agreeing, "x": 11.0})) == ["x"]
    spread = {name: 10 + index for index, name in enumerate("abcdefgh")}
    assert outliers({**spread, "x": 20.0}) == {}


def test_small_groups_have_no_odd_one() -> None:
    values = dict.fromkeys("abcdefgh"[: FEWEST_HOSTS - 2], 10.0) | {"x": 99.0}
    assert outliers(values) == {}
    assert list(outliers({**values, "y": 10.0})) == ["x"]


@pytest.mark.parametrize(("hosts", "most"), [(5, 0.012), (8, 0.008), (20, 0.003), (500, 0.001)])
def test_of_hosts_that_spread_by_three_per_cent_few_are_named(hosts: int, most: float) -> None:
    """Like hosts whose times differ by 3 % (one standard deviation): the share of hosts named though none is odd."""
    rng = np.random.default_rng(hosts)
    fleets = 20_000 // hosts
    drawn = np.exp(rng.normal(2, 0.03, (fleets, hosts)))
    named = sum(len(outliers({str(index): float(value) for index, value in enumerate(fleet)})) for fleet in drawn)
    assert named / (fleets * hosts) <= most
