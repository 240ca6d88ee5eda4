"""Every parser against texts near to real ones and far from them: a value or a typed error, nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 60
# What has broken number parsers before: more digits than int() takes, digits that are not 0-9, and no numbers at all.
NUMBERS = ("9" * 5000, "\u00b2", "\u0663", "-1", "1e999", "NaN", "")
LEAVES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "a\0b",
    "/",
    [],
    {},
]


@st.composite
def near(draw: st.DrawFn, seeds: tuple[str, ...]) -> str:
    """A seed with a few pieces cut out, doubled, swapped for a number or for anything."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(st.one_of(st.sampled_from(NUMBERS), st.just(text[start:end] * 2), st.text(max_size=6)))
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def near_json(draw: st.DrawFn, seeds: tuple[str, ...]) -> str:
    """A seed's document with one value, anywhere in it, swapped or left out."""
    document: Any = json.loads(draw(st.sampled_from(seeds)))
    holder: Any = document
    while isinstance(holder, (dict, list)) and holder:
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not (isinstance(holder[key], (dict, list)) and holder[key] and draw(st.booleans())):
            if draw(st.booleans()):
                del holder[key]
            else:
                holder[key] = draw(st.sampled_from(LEAVES))
            break
        holder = holder[key]
    return json.dumps(document)


def is_json(target: Target) -> bool:
    try:
        return all(isinstance(json.loads(seed), (dict, list)) for seed in target.seeds)
    except ValueError:
        return False


def texts(target: Target) -> st.SearchStrategy[str]:
    """Anything at all, bytes that are no UTF-8 among it, and what is nearly right."""
    anything = st.binary(max_size=200).map(lambda data: data.decode("utf-8", "surrogateescape"))
    kinds = [anything, st.text(max_size=200), near(target.seeds)]
    return st.one_of(*kinds, near_json(target.seeds)) if is_json(target) else st.one_of(*kinds)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_value_or_a_typed_error(target: Target) -> None:
    # A large document takes a hundredth of a second to read.
    examples = EXAMPLES // 3 if max(map(len, target.seeds)) > 4000 else EXAMPLES

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(texts(target))
    def check(text: str) -> None:
        target.survives(text)

    check()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_seeds_are_taken(target: Target) -> None:
    """A seed that is refused would leave the fuzzers outside the door."""
    for seed in target.seeds:
        target.take(seed)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("number", NUMBERS)
def test_odd_numbers(target: Target, number: str) -> None:
    """Runs of digits of the shortest seed, swapped for each odd number in turn."""
    for seed in sorted(target.seeds, key=len)[:1]:
        for match in list(re.finditer("[0-9]+", seed))[:40]:
            target.survives(seed[: match.start()] + number + seed[match.end() :])
