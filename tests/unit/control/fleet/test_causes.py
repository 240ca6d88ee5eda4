"""Causes: what slow hosts share, from findings of single hosts to rows that explain them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analysis.fleet.causes import Slow, causes
from analysis.fleet.fleet import Fleet, fleet
from analysis.fleet.stored import read
from tests.support import fleet_samples as samples

METRIC = "cold_time_to_first_token_s"
USUAL = {("kernel", "6.1"): "6.12", ("torch", "2.14"): "2.13"}


def slow(host: str, lost_s: float, *facts: tuple[str, str], ratio: float = 1.3) -> Slow:
    return Slow(host, METRIC, ratio, None, None, lost_s, None, {fact: USUAL[fact] for fact in facts})


def test_the_fact_that_most_slow_hosts_share_takes_them_and_what_is_left_is_explained_next() -> None:
    kernel, torch = ("kernel", "6.1"), ("torch", "2.14")
    found = causes(
        [slow("a", 1, torch), slow("b", 2, torch, kernel), slow("c", 3, torch), slow("d", 9, kernel), slow("e", 1)],
        {"a": {"torch": "2.14"}, "x": {"torch": "2.14"}, "d": {"kernel": "6.1"}},
    )
    assert [(row.fact, row.here, row.usual, row.hosts) for row in found] == [
        ("kernel", "6.1", "6.12", ("d",)),
        ("torch", "2.14", "2.13", ("c", "b", "a")),
        (None, None, None, ("e",)),
    ]
    assert [row.holders for row in found] == [1, 2, 1]
    assert found[1].lost_s == 2


def test_what_always_comes_along_is_told_beside_it() -> None:
    both = (("kernel", "6.1"), ("torch", "2.14"))
    (row,) = causes([slow("a", 1, *both), slow("b", 2, *both)], {})
    assert {row.fact, *row.also} == {"kernel", "torch"}


def test_an_interval_takes_six_hosts_and_below_it_is_the_range_seen() -> None:
    fact = ("kernel", "6.1")
    five = [slow(str(index), 1, fact, ratio=1.1 + index / 10) for index in range(5)]
    (row,) = causes(five, {})
    assert (row.low, row.high, row.is_interval) == (1.1, 1.5, False)
    many = [slow(str(index), 1, fact, ratio=1.1 + index / 100) for index in range(20)]
    (row,) = causes(many, {})
    assert row.is_interval
    # The 6th and the 15th of 20 hold a median in 95.9 % of cases.
    assert [row.low, row.high] == pytest.approx([1.15, 1.24])


def gather(folder: Path) -> Fleet:
    return fleet(read(folder / "results", folder / "audit.json", 20), {}, samples.NOW, timedelta(days=30))


def test_hosts_that_are_odd_or_changed_come_to_one_row_a_cause(tmp_path: Path) -> None:
    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if host in (1, 2, 3) and run >= 6:
            document["software"]["torch"] = "2.14.0"
            return 1.4
        if host == 7:
            document["host"]["kernel"] = "5.10.0"
            return 1.3
        return 1.0

    samples.build(tmp_path / "results", 16, 12, change)
    first, second = gather(tmp_path).causes
    assert (first.fact, first.here, first.hosts[0][:4], len(first.hosts)) == ("torch", "2.14.0", "gpu-", 3)
    assert 1.3 < first.ratio < 1.5
    # 12.2 s cold, 1.4 times: 4.9 s a start.
    assert 4 < first.lost_s < 6
    assert first.since is not None
    assert first.since.date() == (samples.NOW - timedelta(days=5)).date()
    assert (second.fact, second.hosts, second.since) == ("kernel", ("gpu-08",), None)


def test_a_fleet_without_slow_hosts_has_no_causes(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 8, 8, lambda host, run, document: 0.6 if host == 2 else 1.0)
    assert gather(tmp_path).causes == ()
