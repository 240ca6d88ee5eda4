"""The only conversion from JSON to types: a checked document in, frozen dataclasses out."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

Typed = TypeVar("Typed")


def typed(kind: type[Typed], value: object) -> Typed:
    """Return `value`, parsed JSON that its schema has accepted, as the dataclass `kind`.

    Fields are JSON's own types, dataclasses, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, and classes with a
    `from_json` of their own. JSON fields that the dataclass lacks are ignored. A missing field takes its default;
    without a default TypeError is raised, which a schema's `required` rules out.
    """
    made: Typed = _read(kind, value)
    return made


def _read(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _read(next(part for part in parts if part is not types.NoneType), value)
    if origin is tuple:
        return tuple(_read(parts[0], item) for item in value)
    if origin is Mapping:
        return {name: _read(parts[1], item) for name, item in value.items()}
    if hasattr(kind, "from_json"):
        return kind.from_json(value)
    if isinstance(kind, type) and is_dataclass(kind):
        return kind(**{name: _read(hint, value[name]) for name, hint in _hints(kind).items() if name in value})
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}
