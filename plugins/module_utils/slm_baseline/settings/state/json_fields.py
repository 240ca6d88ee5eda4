"""Checks for the fields of a stored document: a wrong type found half-way through a restore would be too late.

Each function returns the value or raises TypeError or ValueError.
"""

from __future__ import annotations

import os
import re

MAX_MODE = 0o7777
MAX_ID = 2**32 - 2
"""The largest uid and gid: the one above means "leave as it is" to chown(2)."""

_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)


def text(value: object) -> str:
    """Return text that any system call accepts."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    if "\0" in value:
        raise ValueError(f"{value!r} holds a NUL")
    os.fsencode(value)
    return value


def whole(value: object, most: int = 2**63 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise TypeError(f"{value!r} is no whole number from 0 to {most}")
    return value


def decimal(value: object) -> int:
    """Return a whole number from its text, as JSON has it for a key."""
    if not _DECIMAL.fullmatch(text(value)):
        raise ValueError(f"{value!r} is no whole number")
    return int(text(value))


def absolute(value: object) -> str:
    """Return an absolute path without `..` and the like."""
    if not os.path.isabs(text(value)) or os.path.normpath(text(value)) != value:
        raise ValueError(f"{value!r} is no absolute path")
    return text(value)


def knob_value(value: object) -> str:
    """Return a value that a kernel file could hold."""
    if not text(value).isascii() or not text(value).strip():
        raise ValueError(f"{value!r} is no knob's value")
    return text(value)
