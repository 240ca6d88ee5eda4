"""The page: the fleet as one JSON block in one HTML file that makes no network request.

Values are rounded no further than the reports print them, and names are stored once. Nothing from a host is ever
markup: the block is escaped for HTML, and the script only sets text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import jinja2

from analysis.documents.schema import validate
from analysis.documents.storage import folder_name
from analysis.fleet.causes import Cause
from analysis.fleet.change_points import Change
from analysis.fleet.consensus import Consensus
from analysis.fleet.fleet import Fleet, Host, Outlier
from analysis.fleet.report_pages import WEB, inline_hash
from analysis.fleet.run import (
    COUNTS,
    FACTS,
    KINDS,
    REMEDIES,
    TIME_METRICS,
    TOKEN_METRICS,
    Environment,
    Estimate,
    FirstTokenGap,
    Run,
    Setting,
)
from analysis.render import phases, units

SCHEMA_VERSION = 2
_SCRIPTS = (
    "units.js",
    "data.js",
    "dom.js",
    "charts.js",
    "columns.js",
    "table.js",
    "findings.js",
    "overview.js",
    "first_token.js",
    "host.js",
    "compare.js",
    "main.js",
)
# What would end a script element, or begin a comment in one (https://html.spec.whatwg.org/#script-content-restrictions),
# and the two line ends that JSON allows and old JavaScript does not.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}

_Value = TypeVar("_Value", bound=Hashable)


@dataclass(frozen=True)
class Links:
    """Locations of other files, relative to the page: the results' folder, and the hosts' folders with each report."""

    results: str = "../results"
    reports: Collection[str] = ()
    sweeps: Collection[str] = ()


def render(fleet: Fleet, links: Links) -> str:
    """Return the whole HTML file; raise DocumentError if its data would break plugins/schemas/fleet.schema.json."""
    style = "".join((WEB / name).read_text(encoding="utf-8") for name in ("look.css", "page.css"))
    code = "".join((WEB / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{code}}})();\n'
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined
    )
    found = data(fleet, links)
    # All rows of runs come from one function; checking every one would take longer than making the page.
    validate({**found, "hosts": [{**host, "runs": host["runs"][-1:]} for host in found["hosts"]]}, "fleet")
    return environment.get_template("index.html.j2").render(
        style=style, script=script, style_hash=inline_hash(style), script_hash=inline_hash(script), data=block(found)
    )


def block(document: object) -> str:
    """Return JSON that is safe in an HTML script element, whatever its texts are."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


@dataclass
class _Table(Generic[_Value]):
    """A table of distinct values, each stored once and referred to by its index."""

    rows: dict[_Value, int] = field(default_factory=dict)

    def index(self, value: _Value) -> int:
        return self.rows.setdefault(value, len(self.rows))


@dataclass
class _Tables:
    environments: _Table[Environment] = field(default_factory=_Table)
    settings: _Table[tuple[Setting, ...]] = field(default_factory=_Table)
    groups: _Table[str] = field(default_factory=_Table)
    phases: _Table[str] = field(default_factory=_Table)
    counts: _Table[tuple[int, ...]] = field(default_factory=_Table)
    limits: _Table[str] = field(default_factory=_Table)
    sizes: _Table[int] = field(default_factory=_Table)


def data(fleet: Fleet, links: Links) -> dict[str, Any]:
    """Return the JSON block; plugins/schemas/fleet.schema.json describes it."""
    tables = _Tables()
    indices = {host.name: index for index, host in enumerate(fleet.hosts)}
    hosts = [_host(host, fleet, links, tables) for host in fleet.hosts]
    return {
        "schema_version": SCHEMA_VERSION,
        "at_s": int(fleet.at.timestamp()),
        "stale_after_s": int(fleet.stale_after.total_seconds()),
        "results": links.results,
        "overview": fleet.overview(),
        "hosts": hosts,
        "consensus": [_consensus(each, indices) for each in fleet.settings],
        "outliers": [_outlier(each, indices) for each in fleet.outliers],
        "changes": [_change(each, indices) for each in fleet.changes],
        "causes": [_cause(each, indices) for each in fleet.causes],
        "left_out": [[each.file, each.why] for each in fleet.left_out],
        "facts": list(FACTS),
        "times": list(TIME_METRICS),
        "tokens": list(TOKEN_METRICS),
        "counts": list(COUNTS),
        "samples": [list(each) for each in tables.counts.rows],
        "remedies": list(REMEDIES),
        "limits": [[name, phases.label(name)] for name in tables.limits.rows],
        "sizes": list(tables.sizes.rows),
        "phases": [[name, phases.label(name)] for name in tables.phases.rows],
        "groups": list(tables.groups.rows),
        "environments": [[getattr(each, fact) for fact in FACTS] for each in tables.environments.rows],
        "settings": [[_setting(row) for row in rows] for rows in tables.settings.rows],
    }


def _host(host: Host, fleet: Fleet, links: Links, tables: _Tables) -> dict[str, Any]:
    folder = folder_name(host.name)
    audit = host.audit
    return {
        "name": host.name,
        "folder": folder,
        "groups": [tables.groups.index(name) for name in host.groups],
        "in_inventory": host.in_inventory,
        "status": host.status,
        "measured": host.measured(fleet.at, fleet.stale_after),
        "settings": tables.settings.index(host.settings),
        "audit": None
        if audit is None
        else {
            "status": audit.status,
            "at_s": int(audit.at.timestamp()),
            "problem": audit.problem,
            "competitors": list(audit.competitors),
            "possible": list(audit.possible),
        },
        "report": folder in links.reports,
        "sweep": folder in links.sweeps,
        "older": host.older,
        "settings_at_s": _instant(host.settings_at),
        "rolled_back_at_s": _instant(host.rolled_back_at),
        "tuned_at_s": _instant(host.tuned_at),
        "reach": [_rounded(fleet.reaches.get(host.name, {}).get(metric)) for metric in TIME_METRICS],
        "runs": [_run(run, folder, tables, run is host.latest) for run in host.runs],
        "documents": [
            [each.kind, each.run_id, each.file, int(each.started_at.timestamp()), each.words] for each in host.documents
        ],
    }


def _run(run: Run, folder: str, tables: _Tables, is_latest: bool) -> list[Any]:
    """Return one run as a row: a fleet has tens of thousands, and field names would take most of the page."""
    at = int(run.started_at.timestamp())
    row: list[Any] = [
        # Ids begin with the run's start; only the rest is stored.
        run.run_id.removeprefix(f"{run.started_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"),
        at,
        tables.environments.index(run.environment),
        tables.settings.index(run.settings),
        [*(_estimate(run.times.get(metric)) for metric in TIME_METRICS), *_tokens(run, is_latest)],
        _packed(run.memory_bytes, units.size, 3),
        _packed(run.disk_bytes_per_s, units.rate, 3),
        tables.counts.index(run.counts),
        [_phases(run, kind, tables) for kind in KINDS],
        _first_token(run.first_token, tables),
        None if run.idle_pool_bytes is None else tables.sizes.index(run.idle_pool_bytes),
        run.noisy,
    ]
    usual = f"{folder}/{run.run_id}.json"
    return row if run.file == usual and not run.reason else [*row, run.reason, None if run.file == usual else run.file]


def _first_token(found: FirstTokenGap, tables: _Tables) -> list[Any] | str | None:
    """Return seconds now, lower bound, saving by remedy and index of the limit; a text if there is no lower bound."""
    if found.now_s is None or found.lower_bound_s is None:
        return found.problem
    limit = None if found.limit is None else tables.limits.index(found.limit)
    seconds = (found.now_s, found.lower_bound_s, *(found.saves.get(name) for name in REMEDIES))
    return [*(_packed(each, units.seconds, 3) for each in seconds), limit, 0 if found.saving_s else 1]


def _tokens(run: Run, is_latest: bool) -> list[Any]:
    """Return what a steady token costs, nothing where that is not known; only a host's newest run has intervals."""
    if not run.tokens:
        return []
    found = [run.tokens.get(metric) for metric in TOKEN_METRICS]
    if is_latest:
        return [_estimate(each) for each in found]
    return [None if each is None else _packed(each.median, units.seconds, 3) for each in found]


def _estimate(estimate: Estimate | None) -> list[Any] | None:
    if estimate is None:
        return None
    middle = _packed(estimate.median, units.seconds, 5)
    if estimate.low is None or estimate.high is None:
        return [middle, estimate.n]
    return [middle, estimate.n, _packed(estimate.low, units.seconds, 3), _packed(estimate.high, units.seconds, 3)]


def _phases(run: Run, kind: str, tables: _Tables) -> list[float | None]:
    """Return seconds by the index of the phase's name."""
    found = {tables.phases.index(name): seconds for name, seconds in run.phases[kind].items()}
    return [_packed(found.get(index), units.seconds, 3) for index in range(max(found, default=-1) + 1)]


def _instant(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _packed(value: float | None, unit: Callable[[float | None], str], digits: int) -> float | None:
    """Return the shortest number, of at least so many significant digits, that prints as the value itself does."""
    if value is None:
        return None
    printed = unit(value)
    for more in range(digits, 17):
        short = float(f"{value:.{more}g}")
        if unit(short) == printed:
            return int(short) if short.is_integer() else short
    return value


def _setting(row: Setting) -> list[str | None]:
    return [row.knob, row.desired, row.runtime, row.persisted, row.verdict, row.detail or None]


def _consensus(found: Consensus, indices: dict[str, int]) -> dict[str, Any]:
    return {
        "knob": found.knob,
        "majority": found.majority,
        "values": [
            # The list of a majority is not shown.
            [value, len(names), [] if found.majority and not order else [indices[name] for name in names]]
            for order, (value, names) in enumerate(found.values)
        ],
    }


def _outlier(found: Outlier, indices: dict[str, int]) -> dict[str, Any]:
    return {
        "host": indices[found.host],
        "odd": [
            [
                odd.metric,
                odd.value,
                odd.median,
                odd.hosts,
                round(odd.share, 4),
                None if math.isinf(odd.deviations) else round(odd.deviations, 1),
            ]
            for odd in found.odd
        ],
        "differs": [[each.fact, each.here, each.usual, each.count, each.hosts] for each in found.differs],
        "phase": None
        if found.phase is None
        else [found.phase_kind, phases.label(found.phase[0]), found.phase[1], found.phase[2]],
    }


def _cause(found: Cause, indices: dict[str, int]) -> dict[str, Any]:
    return {
        "fact": found.fact,
        "here": found.here,
        "usual": found.usual,
        "metric": found.metric,
        "hosts": [indices[name] for name in found.hosts],
        "holders": found.holders,
        "ratio": round(found.ratio, 4),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
        "is_interval": found.is_interval,
        "lost_s": _packed(found.lost_s, units.seconds, 3),
        "since_s": _instant(found.since),
        "also": list(found.also),
    }


def _change(found: Change, indices: dict[str, int]) -> dict[str, Any]:
    return {
        "host": indices[found.host],
        "metric": found.metric,
        "ratio": round(found.ratio, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "since": found.since,
        "since_s": int(found.since_at.timestamp()),
        "before": found.before,
        "after": found.after,
        "differs": list(found.differs),
    }
