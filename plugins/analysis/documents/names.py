"""Names as machines report them: text that can be stored, in an order that people expect. Imports little."""

from __future__ import annotations

import re


def well_formed(value: object) -> str:
    """Return text that UTF-8 can encode: invalid bytes of a file name arrive from hosts as lone surrogates."""
    text = str(value)
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `gpu-2` before `gpu-10`."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]{1,18})", name)]
