"""Values that the argument_specs of roles and plays do not allow, worded for whoever wrote them.

Ansible checks the same later, in terms of its own classes and without a suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from analysis.console.names import nearest

_BOOLEANS = frozenset({"y", "yes", "on", "1", "true", "t", "n", "no", "off", "0", "false", "f", "1.0", "0.0"})
"""Texts that Ansible takes as a bool, in lower case."""
_TEMPLATES = ("{{", "{%")
_LONGEST_FOUND = 80
_RANGES: dict[str, tuple[float, float]] = {
    "audit_timeout_s": (1, 86_400),
    "fleet_runs_shown": (1, 10_000),
    "fleet_stale_days": (1, 36_500),
    "sweep_blocks": (1, 10_000),
    "sweep_budget_s": (1, 10_000_000),
    "sweep_full_blocks": (0, 10_000),
    "sweep_precision": (0.001, 1),
    "sweep_timeout_s": (1, 86_400),
}
"""Least and most of numbers that no module checks: with others a play would end well without having done anything."""


def wrong_values(given: Iterable[tuple[str, Any, str]], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each value, of triples of variable, value and place, that its option does not allow.

    A value that is a template, or has one inside, is known only later, so nothing is said of it.
    """
    found: dict[str, None] = {}
    for name, value, where in given:
        if name in options:
            place = f" In {where}." if where else ""
            parts = _wrong(value, options[name]) or _out_of_range(name, value)
            found.update((f"{name}{way}: {said}{place}", None) for way, said in parts)
    return list(found)


def _wrong(value: Any, option: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the way to each wrong part of a value, such as `[2].ready`, and what is wrong there."""
    kind = option.get("type", "str")
    if value is None or (isinstance(value, str) and any(mark in value for mark in _TEMPLATES)):
        return []
    if kind in _SCALARS:
        fits, wanted = _SCALARS[kind]
        return [] if fits(value) else [("", f"wanted {wanted}; found {_told(value)}.")]
    if kind == "list":
        return _wrong_list(value, option)
    if kind == "dict" and "options" in option:
        return _wrong_mapping(value, option["options"])
    choices = option.get("choices")
    if choices and str(value) not in map(str, choices):
        return [("", f"wanted {', '.join(map(str, choices))}; found {_told(value)}{_meant(str(value), choices)}")]
    return []


def _out_of_range(name: str, value: Any) -> list[tuple[str, str]]:
    if name not in _RANGES or not _is_number(value):
        return []
    least, most = _RANGES[name]
    if least <= float(value) <= most:
        return []
    return [("", f"wanted a number from {least:g} to {most:.0f}; found {_told(value)}.")]


def _wrong_list(value: Any, option: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong in a list. Ansible takes a text with commas as a list, and one value as a list of it."""
    if option.get("elements") != "dict":
        return []
    if isinstance(value, Mapping):
        return [("", "wanted a list of entries; found one entry alone. Begin it with a hyphen.")]
    if not isinstance(value, (list, tuple)):
        return [("", f"wanted a list of entries; found {_told(value)}.")]
    element = {"type": "dict", "options": option["options"]} if "options" in option else {"type": "raw"}
    return [(f"[{number}]{way}", said) for number, each in enumerate(value) for way, said in _wrong(each, element)]


def _wrong_mapping(value: Any, options: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return [("", f"wanted an entry with {', '.join(options)}; found {_told(value)}.")]
    found = []
    for key, each in value.items():
        name = str(key)
        if name in options:
            found += [(f".{name}{way}", said) for way, said in _wrong(each, options[name])]
        else:
            found.append(("", f"wanted some of {', '.join(options)}; found {_told(name)}{_meant(name, options)}"))
    found += [
        ("", f"wanted {name}; found an entry without it.")
        for name, option in options.items()
        if option.get("required") and name not in value
    ]
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        return Decimal(str(value)).is_finite()
    except InvalidOperation:
        return False


def _is_whole(value: Any) -> bool:
    return _is_number(value) and Decimal(str(value)) == Decimal(str(value)).to_integral_value()


def _is_bool(value: Any) -> bool:
    return str(value).lower() in _BOOLEANS


_SCALARS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "bool": (_is_bool, "true or false"),
}


def _meant(name: str, known: Iterable[Any]) -> str:
    meant = nearest(name, [str(each) for each in known], most=3)
    return f"; did you mean {meant}?" if meant else "."


def _told(value: Any) -> str:
    """Return a value as a person would quote it, on one line."""
    text = " ".join(str(value).split())
    text = f"{text[:_LONGEST_FOUND]}..." if len(text) > _LONGEST_FOUND else text
    return f"'{text}'" if isinstance(value, str) else text
