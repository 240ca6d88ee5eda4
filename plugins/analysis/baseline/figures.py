"""The pictures of a load as SVG text: its phases as stacked bars, cold above warm, and its imports by package."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import statistics
from analysis.baseline.result import read_result
from analysis.render import phases, units
from analysis.render.svg import WIDTH, ink, phase_colours, svg_text
from analysis.statistics import Summary

_BAR_HEIGHT = 0.5


def load_svg(document: object) -> str:
    """Return stacked bars of the median seconds of each phase up to the first token, cold above warm.

    Raises DocumentError if the document breaks its schema.
    """
    summary = read_result(document).summary
    shown = [name for name in summary.phases if name != "second_token"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        ends = [_bar(axes, row, kind, shown, summary) for row, kind in ((1.0, "cold"), (0.0, "warm"))]
        _finish(figure, axes, shown, max(ends) or 1.0)

    return svg_text((WIDTH, 3.4), draw)


def imports_svg(document: object) -> str:
    """Return bars of the seconds in the costliest packages' own modules; "" if the result has no import times.

    Raises DocumentError if the document breaks its schema.
    """
    imports = read_result(document).imports
    if imports is None or not imports.packages:
        return ""
    packages = imports.packages
    longest = max(package.seconds for package in packages) or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, package in enumerate(packages):
            axes.barh(row, package.seconds, height=0.7, color=phase_colours("import_torch")[0], linewidth=0)
            # A name comes from the host: never render it as mathematics.
            words: dict[str, Any] = {"va": "center", "size": 9, "parse_math": False}
            ink(axes.text(-0.01 * longest, row, package.name[:40], ha="right", **words), f"name-{row}")
            seconds = units.seconds(package.seconds)
            ink(axes.text(package.seconds + 0.01 * longest, row, seconds, ha="left", **words), f"seconds-{row}")
        axes.set_ylim(len(packages) - 0.4, -0.6)
        axes.set_xlim(0, longest * 1.12)
        axes.set_yticks([])
        ink(axes.set_xlabel("seconds in each package's own modules, one warm start"), "axis")
        for index, tick in enumerate(axes.get_xticklabels()):
            ink(tick, f"tick-{index}")
        axes.spines[["left", "right", "top"]].set_visible(False)

    return svg_text((WIDTH, 0.8 + 0.28 * len(packages)), draw)


def _width(summary: Summary, kind: str, name: str) -> float:
    return summary.median(f"{kind}_phase_{name}_s") or 0.0


def _bar(axes: Axes, row: float, kind: str, shown: list[str], summary: Summary) -> float:
    """Draw one bar with its caption; return its end, in seconds."""
    end = 0.0
    scale = _longest(shown, summary)
    for name in shown:
        width = _width(summary, kind, name)
        colour, on_it = phase_colours(name)
        axes.barh(row, width, left=end, height=_BAR_HEIGHT, color=colour, linewidth=0)
        _label(axes, end + width / 2, row, units.seconds(width), width / scale, on_it)
        end += width
    text = axes.text(0, row + _BAR_HEIGHT * 0.62, _caption(kind, summary), ha="left", va="bottom", weight="bold")
    ink(text, kind)
    return end


def _label(axes: Axes, x: float, y: float, words: str, share: float, colour: str) -> None:
    # A label of seven characters takes about a thirteenth of the picture's width.
    if share >= 0.075:
        axes.text(x, y, words, ha="center", va="center", color=colour, size=9)


def _caption(kind: str, summary: Summary) -> str:
    load, token = (summary.median(f"{kind}_{metric}") for metric in ("load_real_s", "time_to_first_token_s"))
    if load is None:
        return f"{kind.capitalize()}: no valid sample"
    return f"{kind.capitalize()}: loaded after {units.seconds(load)}, first token after {units.seconds(token)}"


def _longest(shown: list[str], summary: Summary) -> float:
    totals = [sum(_width(summary, kind, name) for name in shown) for kind in statistics.MEASURED_KINDS]
    return max(totals) or 1.0


def _finish(figure: Figure, axes: Axes, shown: list[str], end: float) -> None:
    axes.set_xlim(0, end * 1.01)
    axes.set_ylim(-0.45, 1.65)
    axes.set_yticks([])
    ink(axes.set_xlabel("seconds since the process was started (medians)"), "axis")
    for index, tick in enumerate(axes.get_xticklabels()):
        ink(tick, f"tick-{index}")
    axes.spines[["left", "right", "top"]].set_visible(False)
    handles = [Patch(color=phase_colours(name)[0], label=phases.label(name)) for name in shown]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(handles), 4),
            frameon=False,
            fontsize=9,
            handlelength=1,
            handleheight=1,
            columnspacing=1.4,
        ).set_gid("ink-legend")
