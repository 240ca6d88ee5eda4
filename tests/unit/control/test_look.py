"""One look: reports, sweeps and the page draw a phase in the same colour, with an ink that can be read on it."""

from __future__ import annotations

import re

import pytest

from analysis.render.phases import LABELS
from analysis.render.svg import phase_colours
from tests.conftest import REPOSITORY

WEB = REPOSITORY / "plugins/analysis/fleet/web"
PAGE = (WEB / "page.css").read_text(encoding="utf-8")
LOOK = (WEB / "look.css").read_text(encoding="utf-8")
LEAST = 4.5
"""Contrast that text of this size needs (WCAG 2.2, 1.4.3)."""


def luminance(colour: str) -> float:
    """Relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def of_page(style: str) -> tuple[str, str]:
    found = re.search(rf"\.{style} {{ background: (#\w+); color: (#\w+); }}", PAGE)
    assert found, style
    return found[1], found[2]


@pytest.mark.parametrize("name", [*LABELS, "a_phase_of_tomorrow"])
def test_the_ink_on_each_phase_can_be_read_in_pictures(name: str) -> None:
    assert contrast(*phase_colours(name)) >= LEAST


@pytest.mark.parametrize("style", ["bound", "r0", "r1", "r2", "rest", *(f"p{index}" for index in range(8))])
def test_so_it_can_on_the_page(style: str) -> None:
    assert contrast(*of_page(style)) >= LEAST


def test_page_and_pictures_give_a_phase_the_same_colour() -> None:
    script = (WEB / "charts.js").read_text(encoding="utf-8")
    styles = dict(re.findall(r'(\w+): "(p\d)"', script))
    assert len(styles) == 7
    for name, style in styles.items():
        assert of_page(style)[0].upper() == phase_colours(name)[0].upper()


@pytest.mark.parametrize("name", ["ink", "muted", "accent", "good", "caution", "bad", "quiet"])
def test_every_tone_can_be_read_on_a_card_in_light_and_dark(name: str) -> None:
    cards, tones = (re.findall(rf"--{each}: (#\w+)", LOOK) for each in ("card", name))
    assert len(cards) == len(tones) == 3
    assert all(contrast(*pair) >= LEAST for pair in zip(cards, tones, strict=True))
