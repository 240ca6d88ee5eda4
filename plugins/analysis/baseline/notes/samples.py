"""Rules for notes about how reliable the samples are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from analysis import statistics
from analysis.baseline.result import Result
from analysis.render import units
from analysis.render.markdown import md

WIDE_INTERVAL_SHARE = 0.10
FEWEST_FOR_CONFIDENCE = 6
MOST_NAMED = 4
_FIGURE = re.compile(r"(?<![\w.])(?<!GPU )\d+(?:\.\d+)?")
"""A figure of a reason; neither the number of a device nor a part of a name."""


def excluded_samples(result: Result) -> str | None:
    """Note any lukewarm or failed sample."""
    left_out = [sample for sample in result.samples if sample.kind not in statistics.MEASURED_KINDS]
    if not left_out:
        return None
    reasons = Counter((sample.kind, sample.wanted, sample.reason) for sample in left_out)
    parts = "; ".join(
        f"{times} {kind} instead of {wanted} ({md(reason)})" for (kind, wanted, reason), times in reasons.items()
    )
    return f"{len(left_out)} of {len(result.samples)} samples are in no figure: {parts}."


def noisy_host(result: Result) -> str | None:
    """Note any noisy sample: other work on the host or its GPUs, or contradictory readings of its memory."""
    noisy = [sample for sample in result.samples if sample.is_noisy]
    if not noisy:
        return None
    reasons = _worst_of_each(reason for sample in noisy for reason in (sample.noise.reasons if sample.noise else ()))
    parts = "; ".join(f"{md(reason)} ({times} of {len(result.samples)})" for reason, times in reasons)
    return f"Noisy samples, {len(noisy)} of {len(result.samples)}: {parts}. Trust their figures less."


def _worst_of_each(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Merge reasons that differ in figures alone: the worst stands for all, with their count; most first.

    What follows a colon, such as names of processes, is listed once each.
    """
    sentences: dict[str, list[str]] = {}
    details: dict[str, dict[str, str]] = {}
    for reason in reasons:
        sentence, _, listed = reason.partition(": ")
        cause = _FIGURE.sub("#", sentence)
        sentences.setdefault(cause, []).append(sentence)
        for detail in filter(None, listed.split(", ")):
            details.setdefault(cause, {}).setdefault(_FIGURE.sub("#", detail), detail)
    worst = []
    for cause, found in sorted(sentences.items(), key=lambda item: -len(item[1])):
        text = max(found, key=_figures)
        if len({tuple(_figures(each)[:1]) for each in found}) > 1:
            text = _FIGURE.sub(lambda match: f"up to {match[0]}", text, count=1)
        named = list(details.get(cause, {}).values())
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        worst.append((text + (f": {', '.join(named[:MOST_NAMED])}{more}" if named else ""), len(found)))
    return worst


def _figures(sentence: str) -> list[float]:
    return [float(figure) for figure in _FIGURE.findall(sentence)]


def _valid_samples(count: int) -> str:
    if count == 0:
        return "is no valid sample"
    return "is only 1 valid sample" if count == 1 else f"are only {count} valid samples"


def few_samples(result: Result) -> str | None:
    """Note fewer than six valid cold or warm samples: no interval of fewer can cover the median 95 times in 100."""
    fewest = min(result.summary.counts[kind] for kind in statistics.MEASURED_KINDS)
    if fewest >= FEWEST_FOR_CONFIDENCE:
        return None
    if fewest < statistics.FEWEST_FOR_INTERVAL:
        return (
            f"There {_valid_samples(fewest)} of a kind, so no interval is given. Set `slm_benchmark_runs` to "
            f"{FEWEST_FOR_CONFIDENCE} or more before you decide anything from the figures."
        )
    return (
        f"With {fewest} samples an interval spans all that was seen, and covers the true median at most "
        f"{units.percent(statistics.best_coverage(fewest))} of the time; 95 % needs `slm_benchmark_runs: "
        f"{FEWEST_FOR_CONFIDENCE}`."
    )


def wide_interval(result: Result) -> str | None:
    """Note an interval of a cold or warm load wider than 10 % of its median."""
    wide = []
    for kind in statistics.MEASURED_KINDS:
        figure = result.summary.figure(f"{kind}_load_real_s")
        if figure.ci_low is not None and figure.ci_high is not None and figure.median:
            width = (figure.ci_high - figure.ci_low) / figure.median
            if width > WIDE_INTERVAL_SHARE:
                wide.append(f"the {kind} load's spans {units.percent(width)} of its median")
    if not wide:
        return None
    return f"Wide interval: {' and '.join(wide)}. A smaller effect than that cannot be seen here: run more blocks."


def guest_cold(result: Result) -> str | None:
    """Note that a layer below this host cached the files during the ceiling measurement."""
    if not (result.ceiling and result.ceiling.guest_cold):
        return None
    return (
        "The disk answered a second read of the same bytes faster than the first: a layer below this host caches. "
        "Cold here means cold for the guest only, and the disk ceiling is that cache's."
    )


def no_psi(result: Result) -> str | None:
    """Note that the kernel offers no pressure stall information."""
    if result.host.psi is not False:
        return None
    return "Pressure stall information is off in this kernel, so stalls by other work went unseen."


def free_page_reporting(result: Result) -> str | None:
    """Note that the host is a guest that continuously returns freed memory to its hypervisor."""
    if not result.host.free_page_reporting:
        return None
    return (
        "This guest gives freed memory back to its hypervisor (free page reporting): the first touch of memory costs "
        "more than where a guest keeps it, huge page or not; a reserved pool is kept."
    )
