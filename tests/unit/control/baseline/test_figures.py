"""The picture: true to the figures, the same every time, readable as text."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from analysis import statistics
from analysis.baseline.figures import load_svg

GOLDEN = Path(__file__).resolve().parents[3] / "golden/results"


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return document


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", ["cpu", "gpu", "troubled"])
def test_the_same_result_gives_the_same_bytes(name: str) -> None:
    svg = load_svg(load(name))
    assert svg == load_svg(load(name))
    assert "<dc:date>" not in svg


def test_captions_labels_and_legend_are_text() -> None:
    shown = texts(load_svg(load("cpu")))
    assert "Cold: loaded after 5.20 s, first token after 6.59 s" in shown
    assert "Warm: loaded after 3.07 s, first token after 3.47 s" in shown
    assert "2.69 s" in shown
    assert {"Python starts", "import torch", "weights", "first token"} <= set(shown)
    assert "second token" not in shown


def test_it_has_no_background_and_an_ink_for_light_and_for_dark() -> None:
    svg = load_svg(load("cpu"))
    assert "prefers-color-scheme: dark" in svg
    assert "prefers-color-scheme: light" in svg
    first_patch = re.search(r'<g id="patch_1">.*?</g>', svg, re.S)
    assert first_patch is None or "fill: none" in first_patch[0] or "opacity: 0" in first_patch[0]


def test_a_longer_phase_is_a_wider_bar() -> None:
    document = load("cpu")
    plain, slower = load_svg(document), copy_with(document, "cold_phase_weights_s", 60.0)
    assert load_svg(slower) != plain
    assert "60.0 s" in texts(load_svg(slower))


def copy_with(document: dict[str, Any], key: str, seconds: float) -> dict[str, Any]:
    return {
        **document,
        "summary": {**document["summary"], key: {**asdict(statistics.figure([seconds])), "values": [seconds]}},
    }


def test_without_valid_samples_it_says_so() -> None:
    shown = texts(load_svg({**load("cpu"), "samples": [], "summary": statistics.summarise([]).to_json()}))
    assert "Cold: no valid sample" in shown
    assert "Warm: no valid sample" in shown
