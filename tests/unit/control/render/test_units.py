"""Numbers with units, and no more digits than they carry."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.render import units
from analysis.statistics import Figure

_SECONDS = {"ms": 1e-3, "s": 1.0}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_RATES = {"B/s": 1, "kB/s": 10**3, "MB/s": 10**6, "GB/s": 10**9, "TB/s": 10**12}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0, "0 s"),
        (0.000012, "0.0120 ms"),
        (0.0349, "34.9 ms"),
        (0.2141, "214 ms"),
        (0.9996, "1.00 s"),
        (8.314, "8.31 s"),
        (9.996, "10.0 s"),
        (99.96, "100 s"),
        (599.4, "599 s"),
        (599.6, "10 min 0 s"),
        (725, "12 min 5 s"),
        (-0.5, "-500 ms"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1 << 20, "1.00 MiB"),
        ((1 << 20) - 1, "1.00 MiB"),
        (2 << 30, "2.00 GiB"),
        (988097824, "942 MiB"),
        (5 << 40, "5.00 TiB"),
    ],
)
def test_sizes(value: float | None, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0, "0 %"),
        (0.0004, "under 0.1 %"),
        (0.0123, "1.2 %"),
        (0.37, "37 %"),
        (0.9951, "99.5 %"),
        (0.99999, "over 99.9 %"),
        (1, "100 %"),
        (1.29, "129 %"),
    ],
)
def test_percent_never_claims_all_or_nothing_for_what_comes_close(value: float | None, text: str) -> None:
    assert units.percent(value) == text


def test_ratios_and_counts() -> None:
    assert [units.ratio(value) for value in (1.004, 1.69, 2.71, 123.4)] == ["1.00x", "1.69x", "2.7x", "123x"]
    assert units.count(931874) == "931,874"
    assert units.count(None) == units.ratio(None) == "not measured"


def test_intervals() -> None:
    figure = Figure(median=8.314, ci_low=8.02, ci_high=8.766, n=3)
    assert units.interval(figure, units.seconds) == "8.31 s [8.02, 8.77], n = 3"
    mixed = Figure(median=1 << 30, ci_low=900 << 20, ci_high=2 << 30, n=5)
    assert units.interval(mixed, units.size) == "1.00 GiB [900 MiB, 2.00 GiB], n = 5"
    few = Figure(median=8.314, ci_low=None, ci_high=None, n=2)
    assert units.interval(few, units.seconds) == "8.31 s, n = 2 (too few for an interval)"
    assert units.interval(Figure(), units.seconds) == "not measured"


@pytest.mark.parametrize(
    ("unit", "factors", "numbers"),
    [
        (units.seconds, _SECONDS, st.floats(1e-4, 599)),
        (units.size, _BYTES, st.integers(1, 1 << 50)),
        (units.rate, _RATES, st.integers(1, 10**15)),
    ],
)
def test_what_is_printed_is_within_one_percent_of_what_was_measured(
    unit: Callable[[float | None], str], factors: dict[str, float], numbers: st.SearchStrategy[float]
) -> None:
    @settings(deadline=None)
    @given(numbers)
    def holds(value: float) -> None:
        number, suffix = unit(value).split(" ")
        assert float(number) * factors[suffix] == pytest.approx(value, rel=0.01)
        assert re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", number)

    holds()
