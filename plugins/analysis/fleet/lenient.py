"""Lenient reading of documents from other versions or edited by hand: each value is checked where it is used.

A whole schema would reject a document for a field that nobody here reads, and takes a minute for a thousand hosts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from analysis.documents.names import well_formed

LARGEST_BYTES = 64 << 20


class FormError(Exception):
    """A document that cannot be read; its text says why, in a few words."""


def load(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; raise FormError if it is none, and OSError unchanged."""
    if path.stat().st_size > LARGEST_BYTES:
        raise FormError(f"larger than {LARGEST_BYTES >> 20} MiB")
    try:
        document = _parse(path.read_bytes())
    except RecursionError:
        raise FormError("nested too deeply") from None
    except ValueError as error:
        raise FormError(f"no valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise FormError("not a JSON object")
    return document


def _parse(content: bytes) -> Any:
    """Return what a JSON text holds: a thousand hosts are 1.4 GB of it, which orjson reads three times as fast.

    It refuses some texts of ours, as names that are no Unicode. The standard library decides on those, and says why.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return json.loads(content, parse_constant=_no_number)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object within a document; empty if it is absent or null."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormError(f"{key} is not an object")
    return value


def parts(document: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Return a list of objects; empty if it is absent or null."""
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise FormError(f"{key} is not a list of objects")
    return value


def text(document: Mapping[str, Any], key: str) -> str:
    """Return a required text."""
    value = optional_text(document, key)
    if not value:
        raise FormError(f"{key} is missing")
    return value


def optional_text(document: Mapping[str, Any], key: str) -> str | None:
    """Return a text, or None if it is absent or null."""
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise FormError(f"{key} is not text")
    return None if value is None else well_formed(value)


def number(document: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number, or None if it is absent or null."""
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        raise FormError(f"{key} is not a number")
    return float(value)


def numbers(document: Mapping[str, Any], key: str) -> list[float]:
    """Return a list of finite numbers; empty if it is absent or null."""
    value = document.get(key) or []
    if not isinstance(value, list):
        raise FormError(f"{key} is not a list")
    found = (number({key: item}, key) for item in value)
    return [each for each in found if each is not None]
