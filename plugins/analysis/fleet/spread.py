"""How far two runs must lie apart to differ: the rule of every comparison on the page.

**Spread.** A host's standard deviation from run to run, on the log scale, from the differences of successive runs of
one task. From five differences on, the largest counts as the next largest: a lasting change is one step and must not
hide itself. Conditions hardly vary within one run, so intervals within runs are too narrow to compare runs. An estimate
from few runs is uncertain, so it is shrunk towards that of all hosts, which counts as much as PRIOR degrees of
freedom.

**Reach.** Student's quantile for a two-sided 1 %, times that spread; and no less than what the host's second largest
step would need, so that one bad run, which is two steps, allows for another like it. Two runs differ if the logarithm
of their ratio is beyond the root of the sum of both squared reaches, and beyond 5 %; else it may be noise.

tests/unit/control/fleet/test_spread.py shows by simulation how often two runs of an unchanged host differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.fleet.run import TIME_METRICS, Run

FEWEST_RUNS = 3
LEAST_DIFFERENCE = math.log(1.05)
PRIOR = 3.0
_FEWEST_TO_TRIM = 5
"""From this number of steps on, the largest counts as the next largest."""


@dataclass(frozen=True)
class Spread:
    """Variance from run to run on the log scale, its degrees of freedom, and the second largest step."""

    variance: float
    freedom: float
    second: float


def reaches(histories: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, float]]:
    """Return host -> metric -> reach, on the log scale, for hosts of any history (oldest first).

    A metric is missing if neither the host nor any other has three runs of one task.
    """
    found: dict[str, dict[str, float]] = {host: {} for host in histories}
    for metric in TIME_METRICS:
        own = {host: spread(_steps(runs, metric)) for host, runs in histories.items()}
        common = _median([each.variance for each in own.values() if each])
        if common is None:
            continue
        for host, each in own.items():
            found[host][metric] = reach(each, common)
    return found


def reach(own: Spread | None, common: float) -> float:
    """Return the reach of a host with its `own` spread, or of one that has none yet, given the `common` variance."""
    freedom = own.freedom if own else 0.0
    variance = (common * PRIOR + (own.variance * freedom if own else 0.0)) / (PRIOR + freedom)
    return max(student(PRIOR + freedom) * math.sqrt(variance), own.second / math.sqrt(2) if own else 0.0)


def differs(before: float, after: float, reach_before: float, reach_after: float) -> bool:
    """Return whether two positive times differ beyond noise; the page's script does the same."""
    return abs(math.log(after / before)) > max(LEAST_DIFFERENCE, math.hypot(reach_before, reach_after))


def student(freedom: float) -> float:
    """Return Student's two-sided 1 % quantile by Cornish and Fisher's expansion, within 2 % from 3 degrees of freedom.

    scipy has the exact value, but takes a second to import, and every audit makes the page.
    """
    z = 2.575829
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def _steps(runs: Sequence[Run], metric: str) -> list[float]:
    """Return the differences of successive runs of one task, on the log scale."""
    values: dict[tuple[str | None, ...], list[float]] = {}
    for run in runs:
        if (value := run.figure(metric)) is not None and value > 0:
            values.setdefault(run.environment.task, []).append(math.log(value))
    longest = max(values.values(), key=len, default=[])
    return [after - before for before, after in itertools.pairwise(longest)]


def spread(steps: Sequence[float]) -> Spread | None:
    """Return variance and freedom from successive differences (von Neumann et al., 1941); None below three runs."""
    if len(steps) + 1 < FEWEST_RUNS:
        return None
    squares = sorted(step * step for step in steps)
    if len(squares) >= _FEWEST_TO_TRIM:
        squares[-1] = squares[-2]
    count = len(steps) + 1
    return Spread(sum(squares) / len(squares) / 2, 2 * (count - 1) ** 2 / (3 * count - 4), math.sqrt(squares[-2]))


def _median(values: Sequence[float]) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
