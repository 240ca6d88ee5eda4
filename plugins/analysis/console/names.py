"""Unknown names of variables and tags that a user gave, each with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

OWN_PREFIXES = ("first_token_", "hugepages_", "hugetlbfs_", "memory_snapshot_", "slm_", "thp_")
"""Prefixes of this project alone: every variable with one of them must be known.

`audit_`, `baseline_`, `fleet_`, `report_`, `rollback_`, `sweep_` and `tuning_` are words that others use too. With one
of these, as with no prefix at all, a variable is only rejected if it is two typing errors from ours at most.
"""
OTHERS = "slm_other_variables"
"""The variable in which a user lists names, or patterns such as thp_site_*, of other projects."""
ALWAYS_TAGS = frozenset({"all", "always", "never", "tagged", "untagged"})


@dataclass(frozen=True)
class Unknown:
    """An unknown name, where it stands, and the nearest known name, or None."""

    name: str
    where: str
    meant: str | None

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.name}{place}" + (f"; did you mean {self.meant}?" if self.meant else ".")


def options_of(specifications: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the option of every variable that argument_specs document, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for specification in specifications:
        for entry in specification["argument_specs"].values():
            found.update(entry.get("options", {}))
    return found


def known_variables(documented: Iterable[str], plays: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return every variable that is documented or that the project's own plays set."""
    names = {OTHERS, *documented}
    for play in plays:
        names.update(play.get("vars") or {})
    return frozenset(names)


@cache
def read_options(home: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the documented variables of the project, or collection, in this folder, with their options."""
    return options_of(
        map(_load, [*home.glob("roles/*/meta/argument_specs.yml"), home / "playbooks/meta/argument_specs.yml"])
    )


@cache
def read_known(home: Path) -> frozenset[str]:
    """Return the known variables of the project, or collection, in this folder."""
    plays = [play for path in home.glob("playbooks/*.yml") for play in _load(path)]
    shared = [{"vars": _load(path)} for path in home.glob("playbooks/vars/*.yml")]
    return known_variables(read_options(home), [*plays, *shared])


def _load(path: Path) -> Any:
    # Not read by Ansible's loader: its strings here would not be templates when a play reads them later.
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def unknown_variables(
    given: Iterable[tuple[str, str]], known: Collection[str], others: Collection[str] = ()
) -> list[Unknown]:
    """Return the unknown variables, of pairs of name and place, that have our prefix or nearly a name of ours."""
    found: dict[str, Unknown] = {}
    for name, where in given:
        if name in known or name in found or name.startswith(("ansible_", "_")):
            continue
        if any(fnmatchcase(name, pattern) for pattern in others):
            continue
        is_ours = _plain(name).startswith(OWN_PREFIXES)
        meant = nearest(name, known, most=3 if is_ours else 2)
        if is_ours or meant:
            found[name] = Unknown(name, where, meant)
    return list(found.values())


def unknown_tags(asked: Iterable[str], known: Collection[str]) -> list[Unknown]:
    """Return the tags of --tags and --skip-tags that no task has."""
    return [
        Unknown(tag, "", nearest(tag, known, most=3)) for tag in asked if tag not in known and tag not in ALWAYS_TAGS
    ]


def nearest(name: str, known: Collection[str], most: int = 2) -> str | None:
    """Return the known name with the fewest typing errors, at most `most` and one in five letters; else None."""
    plain = _plain(name)
    letters = set(plain)
    best: tuple[int, str] | None = None
    for candidate in sorted(known):
        limit = min(most, 1 + len(candidate) // 7)
        # Each error changes at most two letters of the sets; this check saves nearly every comparison.
        if abs(len(plain) - len(candidate)) > limit or len(letters ^ set(candidate)) > 2 * limit:
            continue
        slips = count_slips(plain, candidate)
        if slips <= limit and (best is None or slips < best[0]):
            best = slips, candidate
    return best[1] if best else None


def count_slips(name: str, other: str) -> int:
    """Return how many letters are missing, added, wrong, or swapped with a neighbour (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(name, start=1):
        line = [row]
        for column, wanted in enumerate(other, start=1):
            slips = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted))
            if row > 1 and column > 1 and letter == other[column - 2] and name[row - 2] == wanted:
                slips = min(slips, before[column - 2] + 1)
            line.append(slips)
        before, last = last, line
    return last[-1]


def _plain(name: str) -> str:
    """Return the name in lower case with underscores: capitals and dashes do not count as typing errors."""
    return name.lower().replace("-", "_")
