"""Median, MAD and interval of what was measured, by kind of sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from scipy import stats

KINDS = ("cold", "warm", "lukewarm", "failed")
MEASURED_KINDS = ("cold", "warm")
"""Lukewarm and failed samples are kept and counted, and enter no figure."""

METRICS = (
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

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 3
_RESAMPLES = 9999
_SEED = 20260131


class Figure(TypedDict):
    """One metric of one kind of sample, in the metric's own unit. The interval is null below three values."""

    median: float | None
    mad: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    values: list[float]


def figure(values: Iterable[float | int | None]) -> Figure:
    """Median, median absolute deviation (unscaled) and 95 % interval of the median; nulls are left out.

    The interval is a percentile bootstrap with a fixed seed. BCa, scipy's default, is undefined here: its jackknife of
    a median of few values has no spread, and it returns NaN. The percentile interval stays inside what was observed.
    """
    present = [value for value in values if value is not None]
    if not present:
        return Figure(median=None, mad=None, ci_low=None, ci_high=None, n=0, values=[])
    low, high = _interval(present)
    return Figure(
        median=float(np.median(present)),
        mad=float(stats.median_abs_deviation(present)),
        ci_low=low,
        ci_high=high,
        n=len(present),
        values=present,
    )


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    if len(values) < FEWEST_FOR_INTERVAL:
        return None, None
    result = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        _median,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    # Interpolating between quantiles rounds, and may put an end past the median or the extremes by the last bit.
    low, high = result.confidence_interval
    middle = np.median(values)
    return float(np.clip(low, min(values), middle)), float(np.clip(high, middle, max(values)))


def _median(values: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
    return np.asarray(np.median(values, axis=axis))


def best_coverage(n: int) -> float:
    """The most that any interval between observed values can cover of a true median: 1 - 2^(1-n).

    All n values lie on one side of the median with probability 2 * 2^-n. Three values cover it 75 times in 100, and
    it takes six to pass 95.
    """
    return 1 - 2.0 ** (1 - n)


def summarise(samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The `summary` of a result: a Figure for `{kind}_{metric}` and `{kind}_phase_{name}_s`, `counts` by kind, and
    `cold_to_warm_load_ratio`, paired within blocks so that a drift of the host from block to block cancels out.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in KINDS}
    for sample in samples:
        by_kind[sample["kind"]].append(sample)
    summary: dict[str, Any] = {
        f"{kind}_{metric}": figure(sample.get(metric) for sample in by_kind[kind])
        for kind in MEASURED_KINDS
        for metric in METRICS
    }
    for kind in MEASURED_KINDS:
        for name in _phase_names(by_kind[kind]):
            summary[f"{kind}_phase_{name}_s"] = figure(phase_seconds(sample, name) for sample in by_kind[kind])
    summary["cold_to_warm_load_ratio"] = figure(_paired_ratios(by_kind["cold"], by_kind["warm"]))
    summary["counts"] = {kind: len(by_kind[kind]) for kind in KINDS}
    return summary


def phase_seconds(sample: Mapping[str, Any], name: str) -> float | None:
    """How long one phase of one sample took, in seconds; None where the sample never finished it."""
    for phase in sample.get("phases") or []:
        if phase["name"] == name:
            return None if phase["seconds"] is None else float(phase["seconds"])
    return None


def _paired_ratios(cold: Iterable[Mapping[str, Any]], warm: Iterable[Mapping[str, Any]]) -> list[float]:
    """Cold over warm load of every block that has one valid sample of each."""
    warm_loads = {sample["block"]: sample["load_real_s"] for sample in warm}
    return [sample["load_real_s"] / warm_loads[sample["block"]] for sample in cold if warm_loads.get(sample["block"])]


def _phase_names(samples: Iterable[Mapping[str, Any]]) -> list[str]:
    """Phases of any sample, in the order in which they happened."""
    return list(dict.fromkeys(phase["name"] for sample in samples for phase in sample.get("phases") or []))
