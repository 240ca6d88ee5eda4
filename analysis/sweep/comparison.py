"""The analysis of a sweep: pairs of samples in, verdicts in words out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.sweep.metrics import CONTROL, KINDS, METRICS, REFERENCE, Metric, percent_bound
from analysis.sweep.rule import CONFIDENCE, FEWEST_PAIRS, Array, Judgement, judge

_Cell = tuple[str, str, str, int]


def analyse(document: Mapping[str, Any]) -> dict[str, Any]:
    """The `analysis` of a sweep document, from its `arms`, `protocol` and `measurements`.

    Only samples of finished blocks that turned out to be what was wanted enter; a block in which one half of a pair
    is missing drops that pair, counted as `dropped`.
    """
    arms = [arm["name"] for arm in document["arms"] if arm["name"] not in (REFERENCE, CONTROL)]
    dtypes = list(document["protocol"]["dtypes"])
    measurements = document["measurements"]
    valid = {_cell(each): each["sample"] for each in measurements if _is_valid(each)}
    blocks = sorted({each["sample"]["block"] for each in measurements if not each["abandoned"]})
    comparisons = max(1, len(arms) * len(dtypes) * len(KINDS))
    groups = [
        _group(metric, dtype, kind, arms, valid, blocks, comparisons)
        for metric in METRICS
        for dtype in dtypes
        for kind in KINDS
    ]
    return {
        "rule": {
            "confidence": CONFIDENCE,
            "comparisons": comparisons,
            "fewest_pairs": FEWEST_PAIRS,
            "family": "the comparisons of one metric: arms x dtypes x kinds (Bonferroni)",
            "interval": "Student's t of paired differences within blocks, on the log scale for ratios",
        },
        "blocks": len(blocks),
        "counts": _counts(measurements),
        "groups": groups,
    }


def _is_valid(measurement: Mapping[str, Any]) -> bool:
    sample = measurement["sample"]
    return not measurement["abandoned"] and sample["kind"] == sample["wanted"]


def _cell(measurement: Mapping[str, Any]) -> _Cell:
    sample = measurement["sample"]
    return measurement["arm"], measurement["dtype_asked"], sample["kind"], sample["block"]


def _counts(measurements: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    kept = [each["sample"] for each in measurements if not each["abandoned"]]
    kinds = Counter(sample["kind"] for sample in kept)
    return {
        **{kind: kinds[kind] for kind in (*KINDS, "lukewarm", "failed")},
        "abandoned": len(measurements) - len(kept),
        "noisy": sum(bool((sample.get("noise") or {}).get("noisy")) for sample in kept),
    }


def _group(
    metric: Metric,
    dtype: str,
    kind: str,
    arms: Sequence[str],
    valid: Mapping[_Cell, Mapping[str, Any]],
    blocks: Sequence[int],
    comparisons: int,
) -> dict[str, Any]:
    def values(arm: str) -> Array:
        cells = (valid.get((arm, dtype, kind, block)) for block in blocks)
        return np.array([metric.compared(metric.value(cell) if cell else None) for cell in cells], dtype=float)

    stock = values(REFERENCE)
    control = values(CONTROL) - stock
    differences = np.array([values(arm) - stock for arm in arms]).reshape(len(arms), len(blocks))
    judged = judge(differences, control, comparisons, metric.floor)
    return {
        "metric": metric.name,
        "dtype": dtype,
        "kind": kind,
        "scale": "ratio" if metric.is_ratio else "difference",
        "stock_median": _median(metric, stock),
        "band": {
            "low": _number(metric.effect(float(judged.band_low))),
            "high": _number(metric.effect(float(judged.band_high))),
        },
        "control_moved": bool(judged.control_moved),
        "control": _control(metric, judged, len(blocks)),
        "arms": [
            _arm(metric, judged, index, arm, len(blocks), _median(metric, values(arm)))
            for index, arm in enumerate(arms)
        ],
    }


def _median(metric: Metric, compared: Array) -> float | None:
    present = compared[np.isfinite(compared)]
    return float(metric.effect(float(np.median(present)))) if present.size else None


def _control(metric: Metric, judged: Judgement, blocks: int) -> dict[str, Any]:
    n, mean, low, high = (float(part) for part in (judged.control.n, *_ends(judged.control)))
    if n < FEWEST_PAIRS:
        verdict, words = "too_few", "too few blocks to say"
    elif judged.control_moved:
        verdict = "moved"
        words = f"the two stock arms differ, {effect_words(metric, mean, low, high)}: nothing can be claimed here"
    else:
        verdict, words = "none", no_effect_words(metric, min(low, -metric.floor), max(high, metric.floor))
    return _figures(metric, CONTROL, n, blocks, mean, low, high) | {"verdict": verdict, "words": words}


def _arm(metric: Metric, judged: Judgement, index: int, arm: str, blocks: int, median: float | None) -> dict[str, Any]:
    n, mean, low, high = (float(part[index]) for part in (judged.arms.n, *_ends(judged.arms)))
    direction = int(judged.direction[index])
    if n < FEWEST_PAIRS or float(judged.control.n) < FEWEST_PAIRS:
        verdict, words = "too_few", "too few blocks to say"
    elif judged.control_moved:
        verdict, words = "untrusted", "the two stock arms differ, so nothing is claimed"
    elif direction:
        verdict = "less" if direction < 0 else "more"
        word = metric.less if direction < 0 else metric.more
        words = f"{word}, {effect_words(metric, mean, low, high)}"
    else:
        verdict = "none"
        words = no_effect_words(metric, min(low, float(judged.band_low)), max(high, float(judged.band_high)))
    return _figures(metric, arm, n, blocks, mean, low, high) | {"median": median, "verdict": verdict, "words": words}


def _ends(interval: Any) -> tuple[Any, Any, Any]:
    return interval.mean, interval.low, interval.high


def _figures(metric: Metric, arm: str, n: float, blocks: int, mean: float, low: float, high: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "n": int(n),
        "dropped": blocks - int(n),
        "estimate": _number(metric.effect(mean)),
        "low": _number(metric.effect(low)),
        "high": _number(metric.effect(high)),
    }


def _number(value: float) -> float | None:
    """JSON has no word for NaN and infinity; where there are too few pairs there is no figure."""
    return value if math.isfinite(value) else None


def effect_words(metric: Metric, mean: float, low: float, high: float) -> str:
    """`1.08x [1.04, 1.12]` or `+412 MiB [408, 416]`, from the scale of comparison.

    A time is told as a speed-up or slow-down, so that its figure is above 1; everything else as arm over stock.
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
    """`no effect beyond noise (±4 %)`: the figure is the largest effect, either way, that the data leaves possible."""
    if metric.is_ratio:
        return f"no effect beyond noise (±{percent_bound(math.exp(low), math.exp(high))} %)"
    return f"no effect beyond noise (±{metric.unit(max(abs(low), abs(high)))})"
