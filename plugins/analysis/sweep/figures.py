"""The pictures of a sweep: forest plots, stacked phases, memory backing. The SVG text depends on the document alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.documents.samples import Sample
from analysis.render import phases
from analysis.render.svg import INK, WIDTH, ink, phase_colours, svg_text
from analysis.sweep.metrics import KINDS, METRICS, dtype_words
from analysis.sweep.sweep import AnalysedSweep, Comparison, Group, Sweep

_LESS, _MORE, _NEUTRAL = "#0072B2", "#D55E00", "#8C8C8C"
_BAND = "#8C8C8C"
_MEMORY = {
    "small": ("anonymous, small pages", "#56B4E9"),
    "thp": ("anonymous, THP", "#0072B2"),
    "hugetlb": ("reserved huge pages", "#CC79A7"),
    "file": ("files", "#B0B0B0"),
    "file_pmd": ("files, huge", "#009E73"),
}
_ROW_INCHES = 0.36
_WIDEST = 5.0
"""The limit of a scale of ratios: one very wide interval would squeeze all others into a line."""


def forest_svg(sweep: AnalysedSweep, metric: str) -> str:
    """Return every arm's ratio to the unchanged arm, with interval, a panel a dtype and kind; the A/A band shaded."""
    title = next(each.title for each in METRICS if each.name == metric)
    groups = {(group.dtype, group.kind): group for group in sweep.analysis.groups if group.metric == metric}
    names = [result.arm for result in next(iter(groups.values())).arms]

    def panel(axes: Axes, dtype: str, kind: str) -> None:
        group = groups[dtype, kind]
        low, high = group.band.low, group.band.high
        if low is not None and high is not None:
            axes.axvspan(low, high, color=_BAND, alpha=0.25, linewidth=0)
        axes.axvline(1, color=INK, linewidth=0.8)
        for row, result in enumerate([group.control, *group.arms]):
            _interval(axes, row, result)
        axes.set_xscale("log")
        _ratio_ticks(axes, [value for each in groups.values() for value in _ends(each)])
        _rows(axes, ["stock again", *names])
        ink(axes.set_title(f"{dtype_words(dtype)}, {kind}", loc="left", fontsize=10), f"title-{dtype}-{kind}")

    return _panels(
        sweep,
        panel,
        1 + len(names),
        f"{title}: arm over stock (left of 1 is less)",
        [
            Patch(color=_LESS, label="less than stock"),
            Patch(color=_MORE, label="more than stock"),
            Patch(color=_NEUTRAL, label="no effect beyond noise"),
            Patch(edgecolor=_NEUTRAL, facecolor="none", linestyle=":", label="nothing can be said"),
            Patch(color=_BAND, alpha=0.25, label="noise: stock against itself"),
        ],
    )


def _interval(axes: Axes, row: int, result: Comparison) -> None:
    if result.estimate is None or result.low is None or result.high is None:
        return
    colour = {"less": _LESS, "more": _MORE}.get(result.verdict, _NEUTRAL)
    is_judged = result.verdict in ("less", "more", "none")
    style = "-" if is_judged else ":"
    axes.plot([result.low, result.high], [row, row], style, color=colour, linewidth=2)
    axes.plot([result.estimate], [row], "o", color=colour, fillstyle="full" if is_judged else "none", markersize=5)
    text = axes.text(result.estimate, row - 0.17, f"{result.estimate:.3g}", ha="center", va="bottom", size=7.5)
    # An estimate beyond the scale must not print its number in the neighbour's panel.
    text.set_clip_on(True)
    ink(text, f"estimate-{axes.get_label()}-{row}")


def _ends(group: Group) -> list[float]:
    results = [group.control, *group.arms]
    found = [end for result in results for end in (result.low, result.high)] + [group.band.low, group.band.high]
    return [value for value in found if value is not None]


def _ratio_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Set the same scale in every panel, with readable ticks: 0.8, 0.9, 1, 1.1; wider intervals run off the edge."""
    low, high = min([*values, 0.97]), max([*values, 1.03])
    reach = min(max(-math.log(low), math.log(high)) * 1.05, math.log(_WIDEST))
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if math.expm1(reach) / step <= 5.5), None)
    ticks = [1 + step * index for index in range(-5, 6)] if step else [0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0]
    ticks = [tick for tick in ticks if tick > 0 and abs(math.log(tick)) <= reach]
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xlim(math.exp(-reach), math.exp(reach))


def arm_phases_svg(sweep: Sweep) -> str:
    """Return median seconds of each phase up to the first token, stacked, for every arm."""
    names = list(
        dict.fromkeys(
            phase.name
            for measurement in sweep.measurements
            for phase in measurement.sample.phases
            if phase.name != "second_token"
        )
    )

    parts = {name: (phases.label(name), phase_colours(name)[0]) for name in names}
    return _stacked(
        sweep,
        KINDS,
        parts,
        lambda sample, name: sample.phase_seconds(name),
        "seconds from start to first token (medians)",
    )


def arm_memory_svg(sweep: Sweep) -> str:
    """Return what backs the memory while the model is held, in GiB, for every arm; medians of warm samples."""

    def gib(sample: Sample, part: str) -> float | None:
        value = _memory_part(sample, part)
        return None if value is None else value / 2**30

    return _stacked(sweep, ("warm",), _MEMORY, gib, "GiB while the model is held (medians, warm)")


def _memory_part(sample: Sample, part: str) -> float | None:
    """Return the bytes of one kind of memory. RSS includes everything but hugetlb; shared memory counts as files."""
    anonymous, rss = sample.anon_bytes, sample.rss_bytes
    if anonymous is None or rss is None:
        return None
    huge, pmd = sample.anon_huge_bytes or 0, sample.file_pmd_bytes or 0
    parts: dict[str, float] = {
        "small": max(0, anonymous - huge),
        "thp": huge,
        "hugetlb": sample.hugetlb_bytes or 0,
        "file": max(0, rss - anonymous - pmd),
        "file_pmd": pmd,
    }
    return parts[part]


def _stacked(
    sweep: Sweep,
    kinds: Sequence[str],
    parts: Mapping[str, tuple[str, str]],
    value: Callable[[Sample, str], float | None],
    label: str,
) -> str:
    names = [arm.name for arm in sweep.arms]
    medians = {
        (dtype, kind): {name: _medians(sweep, name, dtype, kind, parts, value) for name in names}
        for dtype in sweep.protocol.dtypes
        for kind in kinds
    }
    longest = max((sum(bar.values()) for panel in medians.values() for bar in panel.values()), default=0.0) or 1.0

    def panel(axes: Axes, dtype: str, kind: str) -> None:
        for row, name in enumerate(names):
            end = 0.0
            for part, width in medians[dtype, kind][name].items():
                axes.barh(row, width, left=end, height=0.6, color=parts[part][1], linewidth=0)
                end += width
        axes.set_xlim(0, longest * 1.02)
        _rows(axes, names)
        ink(axes.set_title(f"{dtype_words(dtype)}, {kind}", loc="left", fontsize=10), f"title-{dtype}-{kind}")

    return _panels(
        sweep,
        panel,
        len(names),
        label,
        [Patch(color=colour, label=words) for words, colour in parts.values()],
        kinds,
    )


def _medians(
    sweep: Sweep,
    arm: str,
    dtype: str,
    kind: str,
    parts: Mapping[str, tuple[str, str]],
    value: Callable[[Sample, str], float | None],
) -> dict[str, float]:
    samples = [
        each.sample
        for each in sweep.measurements
        if not each.abandoned
        and each.is_full
        and (each.arm, each.dtype_asked, each.sample.kind) == (arm, dtype, kind)
        and each.sample.wanted == kind
    ]
    found = {}
    for part in parts:
        known = [number for number in (value(sample, part) for sample in samples) if number is not None]
        if known:
            found[part] = float(np.median(known))
    return found


def _panels(
    sweep: Sweep,
    panel: Callable[[Axes, str, str], None],
    rows: int,
    label: str,
    handles: Sequence[Patch],
    kinds: Sequence[str] = KINDS,
) -> str:
    """Return a grid of panels, a column a dtype and a row a kind, with one common label and one legend."""
    dtypes = sweep.protocol.dtypes

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(kinds), len(dtypes), sharey=True, squeeze=False)
        for row, kind in enumerate(kinds):
            for column, dtype in enumerate(dtypes):
                axes = grid[row][column]
                axes.set_label(f"{dtype}-{kind}")
                panel(axes, dtype, kind)
                axes.spines[["left", "right", "top"]].set_visible(False)
                axes.tick_params(axis="y", length=0, colors=INK)
                for index, tick in enumerate(axes.get_xticklabels()):
                    ink(tick, f"x-{row}-{column}-{index}")
                for index, tick in enumerate(axes.get_yticklabels()):
                    ink(tick, f"y-{row}-{column}-{index}")
        ink(figure.supxlabel(label, fontsize=10), "label")
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=min(len(handles), 3), frameon=False, fontsize=9
        )
        ink(legend, "legend")

    return svg_text((WIDTH, 1.1 + len(kinds) * (0.55 + _ROW_INCHES * rows)), draw)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
