"""Outliers among like hosts.

**Like** are hosts whose newest runs share model, dtype, GPUs, disk model and what a cold start drops from memory.

**The rule.** In a group of at least 5, a host is an outlier in a metric if it is at least 10 % off the group's
median, and more than 3.5 robust standard deviations (1.4826 MAD) off it. The first excludes differences too small to
act on, the second those that the group's own spread explains (Iglewicz and Hoaglin, How to Detect and Handle Outliers,
1993). Median and MAD hold as long as fewer than half of the group are outliers. tests/unit/control/fleet shows by
simulation how often the rule names a host of a group without outliers.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.fleet.run import COMPARED_METRICS, FACTS, Run

FEWEST_HOSTS = 5
LEAST_SHARE = 0.10
MOST_DEVIATIONS = 3.5
_NORMAL = 1.4826


@dataclass(frozen=True)
class Odd:
    """One outlying metric of one host: its value, the median of the `hosts` alike, and the distance.

    `share` is value over median less 1; `deviations` counts robust standard deviations, infinite if all others agree.
    """

    host: str
    metric: str
    value: float
    median: float
    hosts: int
    share: float
    deviations: float


@dataclass(frozen=True)
class Difference:
    """A fact in which an outlier differs from most like hosts: `count` of `hosts` have `usual`."""

    fact: str
    here: str | None
    usual: str | None
    count: int
    hosts: int


def groups(latest: Iterable[Run]) -> list[list[Run]]:
    """Return the newest runs of like hosts, in groups of enough hosts."""
    alike: dict[tuple[str | None, ...], list[Run]] = {}
    for run in latest:
        alike.setdefault((*run.environment.task, run.environment.disk), []).append(run)
    return [runs for runs in alike.values() if len(runs) >= FEWEST_HOSTS]


def odd_ones(group: Sequence[Run]) -> list[Odd]:
    """Return every outlying metric of every host of a group of like hosts, the largest first."""
    found = []
    for metric in COMPARED_METRICS:
        values = {run.host: value for run in group if (value := run.figure(metric)) is not None and value > 0}
        for host, (median, deviations) in outliers(values).items():
            share = values[host] / median - 1
            found.append(Odd(host, metric, values[host], median, len(values), share, deviations))
    return sorted(found, key=lambda odd: -abs(math.log1p(odd.share)))


def outliers(values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return the names of outlying values with (median, robust standard deviations off it): the rule itself."""
    if len(values) < FEWEST_HOSTS:
        return {}
    median = statistics.median(values.values())
    spread = _NORMAL * statistics.median(abs(value - median) for value in values.values())
    found = {}
    for name, value in values.items():
        off = abs(value - median)
        if off >= LEAST_SHARE * median and off > MOST_DEVIATIONS * spread:
            found[name] = (median, off / spread if spread else math.inf)
    return found


def common(group: Sequence[Run]) -> dict[str, Counter[str | None]]:
    """Return how often each value of each fact and setting occurs in a group."""
    counted: dict[str, Counter[str | None]] = {}
    for run in group:
        for fact, value in _facts(run).items():
            counted.setdefault(fact, Counter())[value] += 1
    return counted


def differences(run: Run, counted: Mapping[str, Counter[str | None]], hosts: int) -> list[Difference]:
    """Return facts and settings of a run that differ from those of more than half of the `hosts` of its group."""
    found = []
    for fact, value in _facts(run).items():
        usual, count = counted[fact].most_common(1)[0]
        if value != usual and 2 * count > hosts:
            found.append(Difference(fact, value, usual, count, hosts))
    return found


def slowest_phase(here: Run, group: Sequence[Run], kind: str) -> tuple[str, float, float] | None:
    """Return the phase that makes most of the difference: name, seconds here, and the like hosts' median."""
    off = []
    for name, seconds in here.phases[kind].items():
        others = [run.phases[kind][name] for run in group if run is not here and name in run.phases[kind]]
        if others:
            median = statistics.median(others)
            off.append((abs(seconds - median), name, seconds, median))
    return max(off)[1:] if off else None


def _facts(run: Run) -> dict[str, str | None]:
    facts = {fact: getattr(run.environment, fact) for fact in FACTS}
    return facts | {setting.knob: setting.runtime for setting in run.settings}
