"""Numbers for people: with a unit and no more digits than are significant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # statistics brings scipy, which a unit does not need
    from analysis.statistics import Figure

MISSING = "not measured"

_BINARY = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_DECIMAL = ((10**12, "TB/s"), (10**9, "GB/s"), (10**6, "MB/s"), (10**3, "kB/s"))


def seconds(value: float | None) -> str:
    """Return `8.31 s`, `214 ms`, `0.35 ms` or `12 min 5 s`: three significant digits, from seconds."""
    if value is None:
        return MISSING
    if value < 0:
        return f"-{seconds(-value)}"
    if value >= 599.5:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes} min {rest} s"
    if value == 0:
        return "0 s"
    return f"{_three(value)} s" if value >= 0.9995 else f"{_three(value * 1000)} ms"


def size(value: float | None) -> str:
    """Return bytes in binary units: `2.00 GiB`, `812 MiB`, `0 B`."""
    if value is None:
        return MISSING
    if value < 0:
        return f"-{size(-value)}"
    for factor, unit in _BINARY:
        # 1023.6 KiB would print as "1024 KiB".
        if value >= factor * 0.9995:
            return f"{_three(value / factor)} {unit}"
    return f"{round(value)} B"


def rate(value: float | None) -> str:
    """Return bytes a second in decimal units, as disks and links are sold: `1.52 GB/s`."""
    if value is None:
        return MISSING
    for factor, unit in _DECIMAL:
        if value >= factor * 0.9995:
            return f"{_three(value / factor)} {unit}"
    return f"{round(value)} B/s"


def percent(share: float | None) -> str:
    """Return a fraction 0..1 as `37 %`, `0.4 %`, `under 0.1 %`; 0 and 100 for exact values alone."""
    if share is None:
        return MISSING
    value = share * 100
    if 0 < value < 0.1:
        return "under 0.1 %"
    if value < 9.95 and value != round(value):
        return f"{value:.1f} %"
    if 99.5 <= value < 100:
        return "over 99.9 %" if value >= 99.95 else f"{value:.1f} %"
    return f"{round(value)} %"


def count(value: float | None) -> str:
    """Return a number with its digits in groups: `931,874`."""
    return MISSING if value is None else f"{round(value):,}"


def counted(number: int, noun: str) -> str:
    """Return `1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ratio(value: float | None) -> str:
    """Return `2.7x`, `1.04x`: two decimals below 2."""
    if value is None:
        return MISSING
    return f"{value:.2f}x" if value < 1.995 else f"{_three(value) if value >= 99.5 else f'{value:.1f}'}x"


def interval(figure: Figure, unit: Callable[[float | None], str]) -> str:
    """Return `8.31 s [8.02, 8.77], n = 3`; `8.31 s, n = 2 (too few for an interval)`.

    The ends have the median's unit; if they would not fit it (a MiB beside a GiB), each has its own.
    """
    if figure.median is None:
        return MISSING
    middle, n = unit(figure.median), figure.n
    if figure.ci_low is None or figure.ci_high is None:
        return f"{middle}, n = {n} (too few for an interval)"
    low, high = unit(figure.ci_low), unit(figure.ci_high)
    suffix = middle.partition(" ")[2]
    if " " in middle and low.partition(" ")[2] == suffix == high.partition(" ")[2]:
        low, high = low.partition(" ")[0], high.partition(" ")[0]
    return f"{middle} [{low}, {high}], n = {n}"


def _three(value: float) -> str:
    """Return three significant digits, at most six decimals, never in exponent form."""
    if not 0 < value < 99.95:
        return f"{value:.0f}"
    # Python writes smaller numbers with an exponent.
    return f"{value:#.3g}" if value >= 1e-4 else f"{value:.6f}"
