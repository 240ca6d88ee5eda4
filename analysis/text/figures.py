"""The picture of a load: its phases as stacked bars, cold beside warm, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.text import phases, units

# Okabe and Ito's palette, told apart by every kind of colour vision; with each, the ink that reads on it.
_COLOURS = {
    "interpreter": ("#8C8C8C", "#FFFFFF"),
    "import_torch": ("#0072B2", "#FFFFFF"),
    "import_transformers": ("#56B4E9", "#10202C"),
    "device_ready": ("#CC79A7", "#2B0F1E"),
    "tokenizer": ("#F0E442", "#2B2900"),
    "weights": ("#009E73", "#FFFFFF"),
    "first_token": ("#D55E00", "#FFFFFF"),
}
_OTHER = ("#B0B0B0", "#10202C")
_INK = "#6E7781"  # reads on white and on near-black, where a viewer ignores the style below
_STYLE = """<style>
@media (prefers-color-scheme: light) { g[id^="ink"] text { fill: #24292F !important } }
@media (prefers-color-scheme: dark) { g[id^="ink"] text { fill: #D7DEE6 !important } }
</style>"""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slm-baseline",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "axes.edgecolor": _INK,
}
_BAR_HEIGHT = 0.5


def phases_svg(document: Mapping[str, Any]) -> str:
    """Stacked bars of the median seconds of each phase up to the first token, cold over warm.

    The text depends on the document alone: no date, no random ids. Transparent, in inks for light and dark pages.
    """
    summary = document["summary"]
    shown = [name for name in phases.names(summary) if name != "second_token"]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(10, 3.1), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        ends = [_bar(axes, row, kind, shown, summary) for row, kind in ((1.0, "cold"), (0.0, "warm"))]
        _finish(figure, axes, shown, max(ends) or 1.0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue().replace("<defs>", f"{_STYLE}\n <defs>", 1)


def _bar(axes: Axes, row: float, kind: str, shown: list[str], summary: Mapping[str, Any]) -> float:
    """Draw one bar with its caption; returns where it ends, in seconds."""
    end = 0.0
    scale = _longest(shown, summary)
    for name in shown:
        width = summary.get(f"{kind}_phase_{name}_s", {}).get("median") or 0.0
        colour, ink = _COLOURS.get(name, _OTHER)
        axes.barh(row, width, left=end, height=_BAR_HEIGHT, color=colour, linewidth=0)
        _label(axes, end + width / 2, row, units.seconds(width), width / scale, ink)
        end += width
    text = axes.text(0, row + _BAR_HEIGHT * 0.62, _caption(kind, summary), ha="left", va="bottom", weight="bold")
    text.set_gid(f"ink-{kind}")
    return end


def _label(axes: Axes, x: float, y: float, words: str, share: float, ink: str) -> None:
    # A label of seven characters takes about a seventeenth of the picture's width.
    if share >= 0.06:
        axes.text(x, y, words, ha="center", va="center", color=ink, size=9)


def _caption(kind: str, summary: Mapping[str, Any]) -> str:
    load, token = (summary[f"{kind}_{metric}"]["median"] for metric in ("load_real_s", "time_to_first_token_s"))
    if load is None:
        return f"{kind.capitalize()}: no valid sample"
    return f"{kind.capitalize()}: loaded after {units.seconds(load)}, first token after {units.seconds(token)}"


def _longest(shown: list[str], summary: Mapping[str, Any]) -> float:
    totals = [
        sum(summary.get(f"{kind}_phase_{name}_s", {}).get("median") or 0.0 for name in shown)
        for kind in ("cold", "warm")
    ]
    return max(totals) or 1.0


def _finish(figure: Figure, axes: Axes, shown: list[str], end: float) -> None:
    axes.set_xlim(0, end * 1.01)
    axes.set_ylim(-0.45, 1.65)
    axes.set_yticks([])
    axes.set_xlabel("seconds since the process was started (medians)").set_gid("ink-axis")
    for index, tick in enumerate(axes.get_xticklabels()):
        tick.set_gid(f"ink-tick-{index}")
    axes.spines[["left", "right", "top"]].set_visible(False)
    handles = [Patch(color=_COLOURS.get(name, _OTHER)[0], label=phases.label(name)) for name in shown]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles),
            frameon=False,
            fontsize=9,
            handlelength=1,
            handleheight=1,
            columnspacing=1.4,
        ).set_gid("ink-legend")
