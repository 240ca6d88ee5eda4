"""Transparent huge pages: the wanted values of THP knobs, checked against what this kernel offers."""

from __future__ import annotations

from collections.abc import Mapping

from ..host.errors import SettingError
from ..host.files import Host
from ..host.sizes import parse_size
from .knobs import THP, Knob, WriteKnob, thp_knobs

_SELECTORS = ("enabled", "defrag", "shmem_enabled")
_KEYS = (*_SELECTORS, "khugepaged", "sizes")


def parse_thp(settings: object) -> dict[str, str]:
    """Knob names and wanted values of the user's THP settings; None and absent keys mean "leave untouched".

    Form: `{enabled, defrag, shmem_enabled: selector; khugepaged: {file: number}; sizes: {64K: selector}}`.
    Raises SettingError for unknown keys and for what YAML made of an unquoted word.
    """
    given = _mapping("thp", settings)
    unknown = sorted(set(map(str, given)) - set(_KEYS))
    if unknown:
        raise SettingError(
            "thp", f"only {', '.join(_KEYS)}", ", ".join(unknown), "There is no such THP setting.", "correct the name."
        )
    wanted = {f"thp.{key}": _word(f"thp_{key}", given[key]) for key in _SELECTORS if given.get(key) is not None}
    for name, value in _mapping("thp_khugepaged", given.get("khugepaged")).items():
        wanted[f"thp.khugepaged.{name}"] = _number(f"thp_khugepaged.{name}", value)
    for size, value in _mapping("thp_sizes", given.get("sizes")).items():
        size_bytes = parse_size(size, "thp_sizes")
        knob = f"thp.sizes.{size_bytes // 1024}kB.enabled"
        if size_bytes % 1024:
            raise SettingError(
                "thp_sizes", "whole kB", repr(size), "The kernel names its sizes in kB.", "correct the size."
            )
        if knob in wanted:
            raise SettingError(
                "thp_sizes", "each size once", f"{size} twice", "Two spellings name one size.", "remove one."
            )
        wanted[knob] = _word(f"thp_sizes.{size}", value)
    return wanted


def check_thp(host: Host, wanted: Mapping[str, str]) -> dict[str, Knob]:
    """The host's THP knobs, once every wanted value is known to be legal on this kernel; else SettingError."""
    if not wanted:
        return {}
    if not host.exists(f"{THP}/enabled"):
        raise SettingError(
            "thp.enabled",
            wanted.get("thp.enabled", "a THP setting"),
            f"no {THP}/enabled",
            "This kernel was built without transparent huge pages, or /sys is not mounted.",
            "leave thp_enabled and its siblings unset on this host.",
        )
    knobs = thp_knobs(host)
    for name, value in wanted.items():
        if name not in knobs:
            family = name.rsplit(".", 2)[0] + "." if name.startswith("thp.sizes.") else name.rsplit(".", 1)[0] + "."
            known = [knob for knob in knobs if knob.startswith(family)] or list(knobs)
            raise SettingError(
                name,
                value,
                "no such knob",
                f"This kernel offers {', '.join(known)}.",
                "choose one of these, or leave it out.",
            )
        knobs[name].check(value, name.replace("thp.", "thp_", 1))
    return knobs


def plan_knobs(host: Host, wanted: Mapping[str, str]) -> list[WriteKnob]:
    """The THP knobs that differ from what is wanted, in the kernel's order; SettingError as check_thp."""
    return [
        WriteKnob(knob, wanted[name])
        for name, knob in check_thp(host, wanted).items()
        if wanted.get(name, knob.value) != knob.value
    ]


def _mapping(variable: str, value: object) -> Mapping[object, object]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise SettingError(
        variable, "a mapping", repr(value), "It holds named settings.", f"write {variable} as key: value lines."
    )


def _word(variable: str, value: object) -> str:
    if isinstance(value, str) and value.strip() == value and value and value.isprintable():
        return value
    raise SettingError(
        variable,
        "a word",
        repr(value),
        "YAML turns some unquoted words (on, off, yes, no) into booleans."
        if isinstance(value, bool)
        else "It is not a word.",
        f"put the value of {variable} in quotes.",
    )


def _number(variable: str, value: object) -> str:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return str(value)
    raise SettingError(
        variable, "a whole number from 0", repr(value), "khugepaged's knobs are whole numbers.", "correct the value."
    )
