"""The fleet's files on the control node: the page, and its metrics as a textfile for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from analysis.documents.names import well_formed
from analysis.documents.storage import write_files
from analysis.fleet.fleet import Fleet, fleet
from analysis.fleet.metrics import FILE, metrics
from analysis.fleet.page import Links, render
from analysis.fleet.report_pages import write_report_pages
from analysis.fleet.stored import LeftOut, read

PAGE = "index.html"


@dataclass(frozen=True)
class Written:
    """What was written: the page, and its summary in a few lines."""

    page: Path
    summary: list[str]


@dataclass(frozen=True)
class Folders:
    """The folders of stored results by host, of the page, and of the last audit."""

    results: Path
    reports: Path
    audit: Path


@dataclass(frozen=True)
class Terms:
    """The limits of the page: when a latest run is stale, and how many runs of a host are shown."""

    stale_after: timedelta
    runs_shown: int


def write(folders: Folders, inventory: Mapping[str, Sequence[str]], terms: Terms, at: datetime) -> Written:
    """Write the page, pages of reports, and the metrics; raise OSError unchanged.

    `inventory` maps the fleet's hosts to their groups.
    """
    stored = read(folders.results, folders.audit / "audit.json", terms.runs_shown)
    stored.left_out += [LeftOut(well_formed(file), why) for file, why in write_report_pages(folders.reports)]
    whole = fleet(stored, inventory, at, terms.stale_after)
    links = Links(
        results=Path(os.path.relpath(folders.results, folders.reports)).as_posix(),
        reports=_having(folders.reports, "README.html"),
        sweeps=_having(folders.reports, "sweep.html"),
    )
    write_files(folders.reports, {PAGE: render(whole, links)})
    write_files(folders.audit, {f"metrics/{FILE}": metrics(whole)})
    return Written(folders.reports / PAGE, summary(whole))


_MEASURED = {
    "measured": "measured",
    "stale": "with a stale latest run",
    "failed": "with a failed latest run",
    "never": "never measured",
}


def summary(whole: Fleet) -> list[str]:
    """Return the fleet in a few lines of plain text."""
    counts = whole.overview()
    states = ("clean", "drift", "unreachable", "error", "unknown")
    told = [f"{counts[state]} {state}" for state in states if counts[state]]
    measured = (f"{counts[state]} {words}" for state, words in _MEASURED.items() if counts[state])
    lines = [f"{_hosts(counts['hosts'])}: {', '.join(told) or 'none'}", ", ".join(measured) or "nothing is stored"]
    if whole.outliers:
        lines.append(f"outliers among like hosts: {_some([each.host for each in whole.outliers])}")
    if whole.changes:
        lines.append(f"slower or faster than before: {_some([each.host for each in whole.changes])}")
    lines += [f"left out: {each.file}: {each.why}" for each in whole.left_out[:5]]
    if len(whole.left_out) > 5:
        lines.append(f"left out: {len(whole.left_out) - 5} more files, see the page")
    return lines


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"


def _some(names: Sequence[str], limit: int = 5) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - limit} more" if len(distinct) > limit else ""
    return f"{', '.join(distinct[:limit])}{more}"


def _having(reports: Path, name: str) -> set[str]:
    return {path.parent.name for path in reports.glob(f"*/{name}")}
