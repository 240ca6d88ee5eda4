"""The analysis of a sweep: pairs of samples in, verdicts in words out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.documents.samples import Sample
from analysis.sweep.advice import advise
from analysis.sweep.metrics import CONTROL, KINDS, METRICS, REFERENCE, TOKEN, WEIGHTS, Metric, canary, percent_bound
from analysis.sweep.rule import (
    CONFIDENCE,
    FEWEST_PAIRS,
    IS_FIRST,
    Array,
    GroupJudgement,
    judge_counters,
    judge_times,
    without_canary,
)
from analysis.sweep.sweep import Analysis, Arm, ArmComparison, Band, Comparison, Group, Measurement, Rule, Sweep

_Cell = tuple[str, str, str, int]


class _Cells:
    """The valid samples of finished blocks by arm, dtype, kind and block.

    A block measures whole loads, or the weights alone by templates: then several pairs, whose mean counts as one value,
    because they are not independent blocks. Every block has weights to first token, only whole ones have the rest.
    """

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._samples: dict[_Cell, list[Sample]] = {}
        self._asked: dict[tuple[str, str], set[int]] = {}
        self._full: set[int] = set()
        for each in measurements:
            if each.abandoned:
                continue
            self._asked.setdefault((each.arm, each.dtype_asked), set()).add(each.sample.block)
            if each.is_full:
                self._full.add(each.sample.block)
            if each.is_valid:
                cell = (each.arm, each.dtype_asked, each.sample.kind, each.sample.block)
                self._samples.setdefault(cell, []).append(each.sample)
        self.blocks = sorted({block for blocks in self._asked.values() for block in blocks})

    def asked(self, metric: Metric, arm: str, dtype: str) -> int:
        """Return in how many blocks this was to be measured: a settled comparison is left out of later ones."""
        return len(self._asked.get((arm, dtype), set()) & set(self._blocks(metric)))

    def values(self, metric: Metric, arm: str, dtype: str, kind: str) -> Array:
        """Return one arm's values on the metric's scale of comparison, one a block; NaN if there is none."""
        return self._row(metric, (arm, dtype, kind), lambda sample: metric.compared(metric.value(sample)))

    def canaries(self, metric: Metric, arm: str, dtype: str, kind: str) -> Array:
        """Return the canary value of each of these samples, on a log scale; NaN if there is none."""
        return self._row(metric, (arm, dtype, kind), canary)

    def _blocks(self, metric: Metric) -> list[int]:
        return [block for block in self.blocks if metric is WEIGHTS or block in self._full]

    def _row(self, metric: Metric, cell: tuple[str, str, str], value: Callable[[Sample], float]) -> Array:
        found = [self._samples.get((*cell, block), []) for block in self._blocks(metric)]
        return np.array([np.mean([value(each) for each in samples]) if samples else math.nan for samples in found])


def analyse(sweep: Sweep) -> Analysis:
    """Return what the samples of a sweep show, and the advice that they support.

    Only valid samples of finished blocks are used; a block in which one half of a pair is missing drops that pair,
    counted as `dropped`.
    """
    arms = [arm for arm in sweep.arms if arm.name not in (REFERENCE, CONTROL)]
    cells = _Cells(sweep.measurements)
    comparisons = max(1, len(arms) * len(sweep.protocol.dtypes) * len(KINDS))
    groups = tuple(
        _group(cells, metric, _Place(dtype, kind, arms, comparisons))
        for metric in METRICS
        for dtype in sweep.protocol.dtypes
        for kind in KINDS
    )
    rule = Rule(
        confidence=CONFIDENCE,
        comparisons=comparisons,
        fewest_pairs=FEWEST_PAIRS,
        family=f"the comparisons of one metric: arms x dtypes x kinds; of the times, {_first_words(arms)} first",
        interval="Student's t of paired differences within blocks, on the log scale for ratios; of times against the "
        "mean of both stocks, with half of the group's variance from two arms on",
    )
    return Analysis(rule, len(cells.blocks), _counts(sweep.measurements), groups, advise(sweep, groups))


def _first_words(arms: Sequence[Arm]) -> str:
    """Return which time is the primary endpoint, as a part of the rule's sentence."""
    asked = {_asked_first(arm) for arm in arms}
    return (
        "the weights come"
        if asked <= {WEIGHTS}
        else f"{TOKEN.title} comes"
        if asked == {TOKEN}
        else (f"the weights come, and {TOKEN.title} for arms that act on the whole start,")
    )


def _counts(measurements: Sequence[Measurement]) -> dict[str, int]:
    kept = [each.sample for each in measurements if not each.abandoned]
    kinds = Counter(sample.kind for sample in kept)
    return {
        **{kind: kinds[kind] for kind in (*KINDS, "lukewarm", "failed")},
        "abandoned": len(measurements) - len(kept),
        "noisy": sum(sample.is_noisy for sample in kept),
    }


@dataclass(frozen=True)
class _Place:
    """One dtype and kind with the arms compared there; `comparisons` is the size of a metric's family."""

    dtype: str
    kind: str
    arms: Sequence[Arm]
    comparisons: int

    @property
    def names(self) -> tuple[str, ...]:
        """Return the two unchanged arms, then the others."""
        return (REFERENCE, CONTROL, *(arm.name for arm in self.arms))


def _asked_first(arm: Arm) -> Metric:
    """Return the primary endpoint: the time on which an arm acts."""
    return TOKEN if arm.first_token else WEIGHTS


def _group(cells: _Cells, metric: Metric, place: _Place) -> Group:
    values = _values(cells, metric, place)
    found = _judged(cells, metric, place)
    return Group(
        metric=metric.name,
        dtype=place.dtype,
        kind=place.kind,
        scale="ratio" if metric.is_ratio else "difference",
        stock_median=_median(metric, values[0]),
        band=Band(
            _number(metric.effect(float(found.band_low))),
            _number(metric.effect(float(found.band_high))),
        ),
        control_moved=bool(found.control_moved),
        control=_control(metric, found, cells.asked(metric, CONTROL, place.dtype)),
        arms=tuple(
            _arm(
                metric,
                found,
                index,
                _Own(arm.name, cells.asked(metric, arm.name, place.dtype), _median(metric, values[index + 2])),
            )
            for index, arm in enumerate(place.arms)
        ),
    )


def _judged(cells: _Cells, metric: Metric, place: _Place) -> GroupJudgement:
    values = _values(cells, metric, place)
    if not metric.is_time:
        return judge_counters(values, place.comparisons, metric.floor)
    first = np.full(len(place.arms), IS_FIRST)
    for asked in (WEIGHTS, TOKEN):
        after = [asked is not metric and asked is _asked_first(arm) for arm in place.arms]
        if any(after):
            before = _without_canary(cells, asked, place)
            first = np.where(after, judge_times(before, place.comparisons, asked.floor).direction, first)
    return judge_times(_without_canary(cells, metric, place), place.comparisons, metric.floor, first)


def _values(cells: _Cells, metric: Metric, place: _Place) -> Array:
    return np.array([cells.values(metric, name, place.dtype, place.kind) for name in place.names])


def _without_canary(cells: _Cells, metric: Metric, place: _Place) -> Array:
    canaries = np.array([cells.canaries(metric, name, place.dtype, place.kind) for name in place.names])
    return without_canary(_values(cells, metric, place), canaries)


@dataclass(frozen=True)
class _Own:
    """The values of one arm alone."""

    name: str
    blocks: int
    median: float | None


def _median(metric: Metric, compared: Array) -> float | None:
    present = compared[np.isfinite(compared)]
    return float(metric.effect(float(np.median(present)))) if present.size else None


def _control(metric: Metric, found: GroupJudgement, blocks: int) -> Comparison:
    n, mean, low, high = (float(part) for part in found.control.parts)
    if n < FEWEST_PAIRS:
        verdict, words = "too_few", "too few blocks to say"
    elif found.control_moved:
        verdict = "moved"
        words = f"the two stock arms differ, {effect_words(metric, mean, low, high)}: nothing can be claimed here"
    else:
        verdict, words = "none", no_effect_words(metric, min(low, -metric.floor), max(high, metric.floor))
    estimate, lower, upper = (_number(metric.effect(each)) for each in (mean, low, high))
    return Comparison(CONTROL, int(n), blocks - int(n), estimate, lower, upper, verdict, words)


def _arm(metric: Metric, found: GroupJudgement, index: int, own: _Own) -> ArmComparison:
    n, mean, low, high = (float(part[index]) for part in found.arms.parts)
    direction = int(found.direction[index])
    if n < FEWEST_PAIRS or float(found.control.n) < FEWEST_PAIRS:
        verdict, words = "too_few", "too few blocks to say"
    elif found.control_moved:
        verdict, words = "untrusted", "the two stock arms differ, so nothing is claimed"
    elif direction:
        verdict = "less" if direction < 0 else "more"
        word = metric.less if direction < 0 else metric.more
        words = f"{word}, {effect_words(metric, mean, low, high)}"
    else:
        verdict = "none"
        # A counter's claim has to lie outside the control's band; a time's claim depends on its interval alone.
        least, most = (-metric.floor, metric.floor) if metric.is_time else (found.band_low, found.band_high)
        words = no_effect_words(metric, min(low, float(least)), max(high, float(most)))
    estimate, lower, upper = (_number(metric.effect(each)) for each in (mean, low, high))
    return ArmComparison(own.name, int(n), own.blocks - int(n), estimate, lower, upper, verdict, words, own.median)


def _number(value: float) -> float | None:
    """Return the value; None for NaN and infinity, which JSON lacks and which mean too few pairs."""
    return value if math.isfinite(value) else None


def effect_words(metric: Metric, mean: float, low: float, high: float) -> str:
    """Return `1.08x [1.04, 1.12]` or `+412 MiB [408, 416]`, from the scale of comparison.

    A time is given as a speed-up or slow-down, so that its ratio is above 1; all else as arm over unchanged arm.
    """
    if not metric.is_ratio:
        return f"{_signed(metric, mean)} [{_signed(metric, low)}, {_signed(metric, high)}]"
    if metric.is_time and mean < 0:
        mean, low, high = -mean, -high, -low
    middle, lower, upper = (_times(math.exp(part)) for part in (mean, low, high))
    return f"{middle}x [{lower}, {upper}]"


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _signed(metric: Metric, value: float) -> str:
    text = metric.unit(abs(value))
    return text if text.startswith("0 ") or text == "0" else f"{'-' if value < 0 else '+'}{text}"


def no_effect_words(metric: Metric, low: float, high: float) -> str:
    """Return `no effect beyond noise (±4 %)`, with the largest effect, either way, that the data does not exclude."""
    if metric.is_ratio:
        return f"no effect beyond noise (±{percent_bound(math.exp(low), math.exp(high))} %)"
    return f"no effect beyond noise (±{metric.unit(max(abs(low), abs(high)))})"
