"""Sizes as people write them (2M, 1G, 64kB) and as the kernel counts them (bytes)."""

from __future__ import annotations

import re

from .errors import SettingError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(?P<number>[0-9]{1,15})\s*(?P<unit>[KMGT]?)(?:I?B)?", re.ASCII)


def parse_size(text: object, knob: str = "size") -> int:
    """Return the bytes of a size such as `2M`, `2MiB`, `2048kB` or `2097152`; every unit is binary, as in the kernel.

    Raises SettingError for anything else: booleans, fractions, negative numbers, and what 63 bits do not hold.
    """
    if isinstance(text, (str, int)) and not isinstance(text, bool):
        match = _SIZE.fullmatch(str(text).strip().upper())
        if match and int(match["number"]) * _UNITS[match["unit"]] < 1 << 63:
            return int(match["number"]) * _UNITS[match["unit"]]
    raise SettingError(
        knob,
        "a size such as 2M, 1G or 65536",
        repr(text),
        "Sizes are whole numbers below 2^63 with an optional binary unit (K, M, G, T).",
        f"write {knob} as a number and a unit, in quotes.",
    )


def size_or(text: str, otherwise: int) -> int:
    """Return the bytes of a size, or `otherwise` for text that is none."""
    try:
        return parse_size(text)
    except SettingError:
        return otherwise


def format_size(size_bytes: int) -> str:
    """Return the shortest exact spelling: 2097152 -> `2M`, 1073741824 -> `1G`, 1000 -> `1000`."""
    for unit in ("T", "G", "M", "K"):
        if size_bytes and size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return str(size_bytes)


def tell_size(size_bytes: int) -> str:
    """Return a size for people, rounded: 3435973837 -> `3.2 GiB`, 52428800 -> `50 MiB`, 4096 -> `4 KiB`."""
    for unit, digits in (("G", 1), ("M", 0), ("K", 0)):
        if abs(size_bytes) >= _UNITS[unit]:
            return f"{size_bytes / _UNITS[unit]:.{digits}f} {unit}iB"
    return f"{size_bytes} B"


def is_number(text: str) -> bool:
    """Return whether the text is a number of at most 64 bits, in ASCII digits: isdigit() also accepts superscripts."""
    return text.isascii() and text.isdigit() and len(text) <= 20
