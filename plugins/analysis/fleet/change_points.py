"""The rule by which the page claims that a host has become slower or faster. Simulations use these same functions.

**Series.** The medians of one time over a host's runs of the same task (model, dtype, GPUs, cold scope), on the
log scale. The relevant noise is that from run to run: conditions hardly vary within one run, so intervals within runs
are too narrow to compare runs.

**Interval.** For each cut of the series into a part before and a part after, of at least 3 runs each: Student's
interval of the difference of their means, with pooled variance.

**Family.** All cuts of all series of the page (Bonferroni): a fleet in which nothing changed gets any claim at all on
at most one page in twenty.

**Claim.** The interval lies wholly beyond 5 % either way, and every run after is slower (or every one faster)
than every run before; so one bad run is no change. Of several such cuts the clearest is reported.

**Limit.** A host whose times jump between two levels at random sometimes has all its slow runs last. At most one in
twenty of such hosts seems changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from analysis.fleet.run import FACTS, TIME_METRICS, Run
from analysis.statistics import CONFIDENCE

FEWEST_RUNS = 3
LEAST_CHANGE = math.log(1.05)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A host's time that changed: after over before with its interval, and the first run after the change.

    `differs` names the facts of the environment that differ from those in the run before.
    """

    host: str
    metric: str
    ratio: float
    low: float
    high: float
    since: str
    since_at: datetime
    before: int
    after: int
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """One entry a series: `cut` is the number of runs before the change, 0 if none is claimed; ends in log scale."""

    cut: npt.NDArray[np.int64]
    mean: Array
    low: Array
    high: Array


def judge(series: Array, comparisons: int) -> Judgement:
    """Apply the rule to log medians of shape (series, runs), oldest first; `comparisons` series are on the page."""
    # Imported late: every audit renders the page, most fleets have no long series, and scipy's import is slow.
    from scipy import special

    runs = series.shape[-1]
    cuts = range(FEWEST_RUNS, runs - FEWEST_RUNS + 1)
    best = Judgement(np.zeros(len(series), np.int64), *(np.full(len(series), math.nan) for _ in range(3)))
    clearest = np.zeros(len(series))
    for cut in cuts:
        before, after = series[:, :cut], series[:, cut:]
        mean = after.mean(axis=-1) - before.mean(axis=-1)
        squares = sum(((part - part.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1) for part in (before, after))
        error = np.sqrt(squares / (runs - 2) * (1 / cut + 1 / (runs - cut)))
        reach = -special.stdtrit(runs - 2, (1 - CONFIDENCE) / 2 / (comparisons * len(cuts))) * error
        slower = (after.min(axis=-1) > before.max(axis=-1)) & (mean - reach > LEAST_CHANGE)
        faster = (after.max(axis=-1) < before.min(axis=-1)) & (mean + reach < -LEAST_CHANGE)
        # Identical runs on both sides have no error, and are as clear as possible.
        clear = np.where(slower | faster, np.abs(mean) / np.maximum(error, 1e-12), 0.0)
        better = clear > clearest
        clearest = np.where(better, clear, clearest)
        best = Judgement(
            np.where(better, cut, best.cut),
            np.where(better, mean, best.mean),
            np.where(better, mean - reach, best.low),
            np.where(better, mean + reach, best.high),
        )
    return best


def changes(histories: Iterable[Sequence[Run]]) -> list[Change]:
    """Return what changed, over all hosts' runs (oldest first), the largest slow-down first."""
    series = [each for runs in histories if runs for each in _series(runs)]
    long_enough = [each for each in series if len(each[1]) >= 2 * FEWEST_RUNS]
    found = []
    for length in {len(runs) for _, runs in long_enough}:
        same = [(metric, runs) for metric, runs in long_enough if len(runs) == length]
        logs = np.log(np.array([[run.times[metric].median for run in runs] for metric, runs in same]))
        judged = judge(logs, len(long_enough))
        for index in np.flatnonzero(judged.cut):
            metric, runs = same[index]
            ends = (math.exp(float(end[index])) for end in (judged.mean, judged.low, judged.high))
            found.append(_change(metric, runs, int(judged.cut[index]), *ends))
    return sorted(found, key=lambda change: -change.ratio)


def _series(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Return each time with the runs that measured it for the task of the newest run."""
    task = runs[-1].environment.task
    alike = [run for run in runs if run.environment.task == task]
    measured = {metric: [run for run in alike if (run.figure(metric) or 0) > 0] for metric in TIME_METRICS}
    return list(measured.items())


def _change(metric: str, runs: Sequence[Run], cut: int, ratio: float, low: float, high: float) -> Change:
    first, last = runs[cut], runs[cut - 1]
    differs = tuple(fact for fact in FACTS if getattr(first.environment, fact) != getattr(last.environment, fact))
    return Change(first.host, metric, ratio, low, high, first.run_id, first.started_at, cut, len(runs) - cut, differs)
