"""Median, MAD and interval of the measured values, by kind of sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.documents.decode import typed
from analysis.documents.samples import Sample

SAMPLE_KINDS = ("cold", "warm", "lukewarm", "failed")
MEASURED_KINDS = ("cold", "warm")
"""Kinds used in statistics. Lukewarm and failed samples are kept and counted, but not used."""

SUMMARY_METRICS = (
    "load_real_s",
    "time_to_first_token_s",
    "second_token_s",
    "rss_bytes",
    "vsz_bytes",
    "pss_bytes",
    "uss_bytes",
    "anon_bytes",
    "anon_huge_bytes",
    "file_pmd_bytes",
    "shmem_pmd_bytes",
    "hugetlb_bytes",
    "minor_faults",
    "major_faults",
    "read_bytes",
    "read_share",
    "resident_before",
    "cpu_user_s",
    "cpu_system_s",
    "ceiling_share",
)
LATER_METRICS = ("steady_token_s", "needed_share")
"""Metrics that older results lack; they are included only if a sample has them."""

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 3
_RESAMPLES = 9999
_SEED = 20260131
_RATIO = "cold_to_warm_load_ratio"


@dataclass(frozen=True)
class Figure:
    """One metric of one kind of sample, in the metric's own unit. The interval is None below three values."""

    median: float | None = None
    mad: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A run's statistics: `{kind}_{metric}`, `{kind}_phase_{name}_s` and the ratio, and its samples of each kind."""

    figures: Mapping[str, Figure]
    counts: Mapping[str, int]

    def figure(self, key: str) -> Figure:
        """Return the statistic of this key; an empty one if nothing was measured."""
        return self.figures.get(key, Figure())

    def median(self, key: str) -> float | None:
        """Return the median of one metric; None if nothing was measured."""
        return self.figure(key).median

    @property
    def ratio(self) -> Figure:
        """Return the ratio of cold to warm load, paired within blocks."""
        return self.figure(_RATIO)

    @property
    def phases(self) -> list[str]:
        """Return the measured phases, in the order in which they happened."""
        starts = tuple(f"{kind}_phase_" for kind in MEASURED_KINDS)
        names = (key.split("_phase_", 1)[1].removesuffix("_s") for key in self.figures if key.startswith(starts))
        return list(dict.fromkeys(names))

    def to_json(self) -> dict[str, Any]:
        """Return the summary as documents have it."""
        figures = {key: {**asdict(found), "values": list(found.values)} for key, found in self.figures.items()}
        return {**figures, "counts": dict(self.counts)}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Summary:
        """Return the summary of a document."""
        figures = {key: typed(Figure, found) for key, found in document.items() if key != "counts"}
        return Summary(figures, document["counts"])


def figure(values: Iterable[float | int | None]) -> Figure:
    """Return median, median absolute deviation (unscaled) and 95 % interval of the median, without nulls.

    The interval is a percentile bootstrap with a fixed seed. BCa, scipy's default, is undefined here: its jackknife of
    a median of few values has no spread, and it returns NaN. The percentile interval stays within the observed values.
    """
    present = [value for value in values if value is not None]
    if not present:
        return Figure()
    # Imported late: code that only reads statistics, such as an audit's fleet page, need not wait a second for scipy.
    from scipy import stats

    low, high = _interval(present)
    return Figure(
        median=float(np.median(present)),
        mad=float(stats.median_abs_deviation(present)),
        ci_low=low,
        ci_high=high,
        n=len(present),
        values=tuple(present),
    )


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    if len(values) < FEWEST_FOR_INTERVAL:
        return None, None
    from scipy import stats

    result = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        _median,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    # Interpolation between quantiles rounds, and may put an end past the median or the extremes by the last bit.
    low, high = result.confidence_interval
    middle = np.median(values)
    return float(np.clip(low, min(values), middle)), float(np.clip(high, middle, max(values)))


def _median(values: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
    return np.asarray(np.median(values, axis=axis))


def best_coverage(n: int) -> float:
    """Return the highest coverage of a true median by any interval between observed values: 1 - 2^(1-n).

    All n values lie on one side of the median with probability 2 * 2^-n. Three values cover it 75 times in 100; more
    than 95 needs six.
    """
    return 1 - 2.0 ** (1 - n)


def summarise(samples: Iterable[Sample]) -> Summary:
    """Return the statistics of a result. The ratio is paired within blocks, so that a drift of the host cancels out."""
    by_kind: dict[str, list[Sample]] = {kind: [] for kind in SAMPLE_KINDS}
    for sample in samples:
        by_kind[sample.kind].append(sample)
    figures = {
        f"{kind}_{metric}": figure(getattr(sample, metric) for sample in by_kind[kind])
        for kind in MEASURED_KINDS
        for metric in SUMMARY_METRICS
    }
    for kind in MEASURED_KINDS:
        later = {metric: figure(getattr(sample, metric) for sample in by_kind[kind]) for metric in LATER_METRICS}
        figures |= {f"{kind}_{metric}": found for metric, found in later.items() if found.n}
        # Phases of any sample, in the order in which they happened.
        for name in dict.fromkeys(phase.name for sample in by_kind[kind] for phase in sample.phases):
            figures[f"{kind}_phase_{name}_s"] = figure(sample.phase_seconds(name) for sample in by_kind[kind])
    figures[_RATIO] = figure(_paired_ratios(by_kind["cold"], by_kind["warm"]))
    return Summary(figures, {kind: len(by_kind[kind]) for kind in SAMPLE_KINDS})


def _paired_ratios(cold: Iterable[Sample], warm: Iterable[Sample]) -> list[float]:
    """Return cold over warm load of every block that has one valid sample of each."""
    warm_loads = {sample.block: sample.load_real_s for sample in warm}
    pairs = ((sample.load_real_s, warm_loads.get(sample.block)) for sample in cold)
    return [cold_s / warm_s for cold_s, warm_s in pairs if cold_s is not None and warm_s]
