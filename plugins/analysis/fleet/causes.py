"""Why hosts are slow, one row a cause: how slow hosts differ from like hosts, or from themselves before.

Each slow host has a finding, an outlier or a change to the slower, with the facts that differ. The fact that explains
most slow time is the first cause and takes its hosts; the rest is explained in the same way. A fact that always occurs
together with the first one on these hosts is shown beside it, because the two cannot be told apart. Hosts for which
no known fact differs make a row of their own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from analysis.fleet.change_points import Change
from analysis.fleet.run import COMPARED_METRICS, FACTS, TIME_METRICS, Run

FEWEST_FOR_INTERVAL = 6
"""From six values on, an interval between observed values covers a median 95 times in 100."""
Fact = tuple[str, str | None]


@dataclass(frozen=True)
class Slow:
    """A slow host, by its most important metric: how many times as long, seconds lost, and the facts that differ.

    `differs` maps facts with their values here to the usual value, of like hosts or of itself before.
    """

    host: str
    metric: str
    ratio: float
    low: float | None
    high: float | None
    lost_s: float
    since: datetime | None
    differs: Mapping[Fact, str | None]


@dataclass(frozen=True)
class Cause:
    """A fact with its value, the usual one, and the hosts it slows. `fact` is None if no known fact differs.

    `low` and `high` are the 95 % interval of the hosts' median ratio if `is_interval`, else the range of the observed
    values. `holders` counts all hosts with that value; `lost_s` is the median of a start. `also` differ on each of
    them.
    """

    fact: str | None
    here: str | None
    usual: str | None
    metric: str
    hosts: tuple[str, ...]
    holders: int
    ratio: float
    low: float | None
    high: float | None
    is_interval: bool
    lost_s: float
    since: datetime | None
    also: tuple[str, ...]


def slow_hosts(
    outliers: Iterable[tuple[str, Sequence[tuple[str, float, float]], Mapping[Fact, str | None]]],
    changes: Iterable[Change],
    histories: Mapping[str, Sequence[Run]],
) -> list[Slow]:
    """Return one finding a host; a change ranks above an outlier, because it compares the host with itself.

    `outliers` are host, (metric, value, median of like hosts), and facts that differ.
    """
    found: dict[str, Slow] = {}
    for host, odd, differs in outliers:
        slower = {
            metric: (value, usual)
            for metric, value, usual in odd
            if (value < usual if metric == "disk_bytes_per_s" else value > usual)
        }
        if metric := _first(slower):
            value, usual = slower[metric]
            ratio = usual / value if metric == "disk_bytes_per_s" else value / usual
            lost_s = value - usual if metric in TIME_METRICS else 0.0
            found[host] = Slow(host, metric, ratio, None, None, lost_s, _since(histories[host], differs), differs)
    by_host: dict[str, dict[str, Change]] = {}
    for change in changes:
        if change.ratio > 1:
            by_host.setdefault(change.host, {})[change.metric] = change
    for host, own in by_host.items():
        change = own[_first(own) or next(iter(own))]
        value = histories[host][-1].figure(change.metric) or 0.0
        runs = {run.run_id: index for index, run in enumerate(histories[host])}
        at = runs[change.since]
        first, before = histories[host][at].environment, histories[host][max(0, at - 1)].environment
        facts = {(fact, getattr(first, fact)): getattr(before, fact) for fact in change.differs}
        lost_s = value - value / change.ratio
        differs = facts or (found[host].differs if host in found else {})
        found[host] = Slow(host, change.metric, change.ratio, change.low, change.high, lost_s, change.since_at, differs)
    return list(found.values())


def causes(slow: Sequence[Slow], values: Mapping[str, Mapping[str, str | None]]) -> list[Cause]:
    """Return rows sorted by seconds lost over all their hosts; `values` are every host's facts and settings."""
    left = {each.host: each for each in slow}
    rows = []
    while left:
        weights: dict[Fact, list[float]] = {}
        for each in left.values():
            for fact in each.differs:
                weights.setdefault(fact, []).append(each.lost_s)
        best = max(weights, key=lambda fact: (len(weights[fact]), sum(weights[fact]), str(fact)), default=None)
        members = [each for each in left.values() if best is None or best in each.differs]
        rows.append(_cause(best, members, values))
        for each in members:
            del left[each.host]
    return sorted(rows, key=lambda row: (-row.lost_s * len(row.hosts), -len(row.hosts)))


def _cause(fact: Fact | None, members: Sequence[Slow], values: Mapping[str, Mapping[str, str | None]]) -> Cause:
    ratios = sorted(each.ratio for each in members)
    metrics = [each.metric for each in members]
    low, high, is_interval = _ends(members, ratios)
    others = [{name for name, _ in each.differs} for each in members]
    also = sorted(set.intersection(*others) - {fact[0]}) if fact else []
    usual = [each.differs[fact] for each in members] if fact else []
    return Cause(
        fact=fact[0] if fact else None,
        here=fact[1] if fact else None,
        usual=max(usual, key=usual.count) if usual else None,
        metric=max(metrics, key=metrics.count),
        hosts=tuple(each.host for each in sorted(members, key=lambda each: -each.lost_s)),
        holders=sum(own.get(fact[0]) == fact[1] for own in values.values()) if fact else len(members),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        is_interval=is_interval,
        lost_s=statistics.median(each.lost_s for each in members),
        since=min((each.since for each in members if each.since), default=None),
        also=tuple(also),
    )


def _ends(members: Sequence[Slow], ratios: Sequence[float]) -> tuple[float | None, float | None, bool]:
    """Return the interval of the median of ordered ratios, by the binomial; below six hosts the observed range."""
    count = len(ratios)
    if count == 1:
        return members[0].low, members[0].high, members[0].low is not None
    if count < FEWEST_FOR_INTERVAL:
        return ratios[0], ratios[-1], False
    passed, rank = 0.0, 0
    while (passed := passed + math.comb(count, rank) / 2**count) <= 0.025:
        rank += 1
    return ratios[rank - 1], ratios[count - rank], True


def _since(runs: Sequence[Run], differs: Mapping[Fact, str | None]) -> datetime | None:
    """Return when the latest value of a differing fact first ran; None if all stored runs have it."""
    found = []
    for fact, here in differs:
        if fact in FACTS:
            had = [getattr(run.environment, fact) == here for run in runs]
            if False in had and had[-1]:
                found.append(runs[len(had) - had[::-1].index(False)].started_at)
    return max(found, default=None)


def _first(metrics: Iterable[str]) -> str | None:
    """Return the most important metric: cold TTFT before the others."""
    present = set(metrics)
    return next((metric for metric in ("cold_time_to_first_token_s", *COMPARED_METRICS) if metric in present), None)
