"""The style of pictures: one palette, text colours for light and dark pages, SVG text that only the data decides."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's palette, which people with any colour vision can tell apart; each with a text colour that is readable
# on it (4.5:1 and more). The fleet page has the same ones, fleet/web/page.css.
_COLOURS = {
    "interpreter": ("#6F6F6F", "#FFFFFF"),
    "import_torch": ("#0072B2", "#FFFFFF"),
    "import_transformers": ("#56B4E9", "#10202C"),
    "device_ready": ("#CC79A7", "#2B0F1E"),
    "tokenizer": ("#F0E442", "#2B2900"),
    "weights": ("#009E73", "#08211A"),
    "first_token": ("#D55E00", "#1D0C00"),
}
_OTHER = ("#B0B0B0", "#10202C")
WIDTH = 8.0  # inches: what a column of text leaves, so that letters keep their size
INK = "#6E7781"  # reads on white and on near-black, where a viewer ignores the style below
_STYLE = """<style>
@media (prefers-color-scheme: light) { g[id^="ink"] text { fill: #24292F !important } }
@media (prefers-color-scheme: dark) { g[id^="ink"] text { fill: #D7DEE6 !important } }
</style>"""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slm-baseline",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "axes.edgecolor": INK,
}


def phase_colours(name: str) -> tuple[str, str]:
    """Return a phase's colour, and the text colour that is readable on it."""
    return _COLOURS.get(name, _OTHER)


def ink(text: Any, name: str) -> Any:
    """Mark this text so that the style sheet sets its colour for a light or a dark page; return the text."""
    text.set_gid(f"ink-{name}")
    return text


def svg_text(size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Return what `draw` puts on a figure of this size in inches, as SVG text: no date, no random ids, transparent."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue().replace("<defs>", f"{_STYLE}\n <defs>", 1)
