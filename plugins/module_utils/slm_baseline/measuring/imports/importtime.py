"""Parser of `python -X importtime`: which modules were imported, by whom, and what each cost by itself.

The text has one line a module, written when its import ends, so an importer comes after what it imports:

    import time: self [us] | cumulative | imported package
    import time:       148 |        148 |     torch._C
    import time:      2104 |       2252 |   torch

Two more spaces are one level deeper (Python/import.c, `import_find_and_load`). Anything else on stderr is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...host.errors import ParseError

_LINE = re.compile(
    r"import time: *(?P<self>[0-9]{1,15}) \| *[0-9]{1,15} \| (?P<indent> *)(?P<name>\S{1,500})", re.ASCII
)
_NAME = re.compile(r"\s*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[(?P<extras>[^]]*)\])?", re.ASCII)
_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<name>[^'"]*)['"]""")
STANDARD = "standard library"


@dataclass(frozen=True)
class Imported:
    """One import: seconds in the module itself, without what it imports; its importer's index, or None."""

    name: str
    self_s: float
    importer: int | None

    @property
    def package(self) -> str:
        """Return the part of the name before its first dot."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Package:
    """A top-level package's own share: seconds and modules of all its parts, without those of other packages."""

    name: str
    seconds: float
    modules: int


@dataclass(frozen=True)
class Distribution:
    """An installed distribution: its requirements as declared (`Requires-Dist`), and its top-level packages."""

    name: str
    requires: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Extra:
    """A distribution that is imported and that nothing required: an import that tries whether it is installed.

    `importer` is the module that imported it, None where a running function did. `seconds` are the cost of the import
    itself and of others that nothing requires either.
    """

    distribution: str
    importer: str | None
    seconds: float


def parse_import_times(text: str) -> list[Imported]:
    """Parse every import in the order in which they ended; ParseError where there is none."""
    found: list[tuple[str, float]] = []
    importers: dict[int, int] = {}
    waiting: list[tuple[int, int]] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        depth, index = len(match["indent"]) // 2, len(found)
        # Waiting imports that are deeper were imported by this one.
        while waiting and waiting[-1][0] > depth:
            importers[waiting.pop()[1]] = index
        waiting.append((depth, index))
        found.append((match["name"], int(match["self"]) / 1e6))
    if not found:
        raise ParseError("-X importtime", "one line for each import", text)
    return [Imported(name, self_s, importers.get(index)) for index, (name, self_s) in enumerate(found)]


def by_package(imports: Iterable[Imported], standard: frozenset[str]) -> list[Package]:
    """Return seconds and modules of each top-level package, the costliest first; the standard library counts as one."""
    totals: dict[str, tuple[float, int]] = {}
    for each in imports:
        name = STANDARD if each.package in standard else each.package
        seconds, modules = totals.get(name, (0.0, 0))
        totals[name] = (seconds + each.self_s, modules + 1)
    packages = [Package(name, seconds, modules) for name, (seconds, modules) in totals.items()]
    return sorted(packages, key=lambda package: (-package.seconds, package.name))


def required(distributions: Iterable[Distribution], roots: Iterable[str]) -> frozenset[str]:
    """Return the names of all distributions that the roots require, directly or through others, roots included.

    A requirement of an extra counts where something requires that extra. Other conditions, such as a platform's, are
    assumed to hold: a distribution is never called unneeded because of a condition that was not understood.
    """
    declared = {canonical(each.name): each.requires for each in distributions}
    extras: dict[str, set[str]] = {canonical(root): set() for root in roots}
    waiting = list(extras)
    while waiting:
        name = waiting.pop()
        for requirement in declared.get(name, ()):
            match = _NAME.match(requirement)
            conditions = {canonical(extra["name"]) for extra in _EXTRA.finditer(requirement.partition(";")[2])}
            if match is None or (conditions and not conditions & extras[name]):
                continue
            wanted = {canonical(extra) for extra in (match["extras"] or "").split(",") if extra.strip()}
            target = canonical(match["name"])
            # Skip what was seen before, unless more extras are wanted now.
            if target not in extras or wanted - extras[target]:
                extras.setdefault(target, set()).update(wanted)
                waiting.append(target)
    return frozenset(extras)


def canonical(name: str) -> str:
    """Return a distribution's name in the form that indexes compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def not_required(
    imports: Sequence[Imported], distributions: Sequence[Distribution], roots: Iterable[str]
) -> list[Extra]:
    """Return what was imported only because it is installed, the costliest first.

    A package of no known distribution is left out; one of several distributions counts where all are unneeded.
    """
    needed = required(distributions, roots)
    owners: dict[str, list[str]] = {}
    for distribution in distributions:
        for package in distribution.packages:
            owners.setdefault(package, []).append(distribution.name)
    # Maps each import to the distribution first brought in by it or its importers. An importer's index is higher.
    brought: dict[int, str] = {}
    costs: dict[str, dict[str | None, float]] = {}
    importer_of: dict[int, str | None] = {}
    for index in range(len(imports) - 1, -1, -1):
        each = imports[index]
        unneeded = [name for name in owners.get(each.package, ()) if canonical(name) not in needed]
        is_unneeded = bool(unneeded) and len(unneeded) == len(owners[each.package])
        above = each.importer
        if above is not None and above in brought:
            brought[index], importer_of[index] = brought[above], importer_of[above]
        elif is_unneeded:
            brought[index] = unneeded[0]
            importer_of[index] = None if above is None else imports[above].name
        if is_unneeded:
            shares = costs.setdefault(brought[index], {})
            shares[importer_of[index]] = shares.get(importer_of[index], 0.0) + each.self_s
    extras = [
        Extra(name, max(shares, key=lambda importer: shares[importer]), sum(shares.values()))
        for name, shares in costs.items()
    ]
    return sorted(extras, key=lambda extra: (-extra.seconds, extra.distribution))


def as_distributions(found: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Distribution]:
    """Build distributions from JSON: name to `requires` and `packages`."""
    return [
        Distribution(name, tuple(map(str, each["requires"])), tuple(map(str, each["packages"])))
        for name, each in found.items()
    ]
