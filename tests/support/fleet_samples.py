"""Fleets made of the golden results: any number of hosts and runs, some of them odd, and one that is hostile."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from analysis.documents.storage import folder_name

GOLDEN = Path(__file__).parents[1] / "golden/results"
NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)

FIRST_TOKEN = {
    "problem": None,
    "blocks": 3,
    "now_s": 12.2,
    "warm_s": 4.4,
    "read_bytes": 9.4e9,
    "disk_bytes_per_s": 3.4e9,
    "simple_floor_s": 4.4,
    "floor_s": 4.6,
    "ratio": 2.65,
    "ratio_low": 2.5,
    "ratio_high": 2.8,
    "bytecode_s": 3.3,
    "replay_s": 4.3,
    "limit": "imports",
}
"""What a run of the golden GPU result would say of its first token; it is older than the field."""

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "<!--<script>",
    "=cmd|' /C calc'!A1",
    "g" * 200,
    "\uff47\uff50\uff55-ñandú-\u202e\u0007-🚀",
    "__proto__",
    "constructor",
    "a,b;c\td\"e'f",
]


def golden(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return document


def scaled(document: Mapping[str, Any], host: str, at: datetime, factor: float) -> dict[str, Any]:
    """A result of a host whose times are `factor` times the document's, begun at `at`."""
    run = copy.copy(dict(document))
    run["host"] = {**document["host"], "name": host}
    run["run_id"] = f"{at:%Y%m%dT%H%M%SZ}"
    run["started_at"] = run["finished_at"] = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    run["summary"] = {
        key: times(figure, factor) if key.endswith("_s") else figure for key, figure in document["summary"].items()
    }
    if first_token := document.get("first_token"):
        run["first_token"] = {
            key: value * factor if key.endswith("_s") and isinstance(value, float) else value
            for key, value in first_token.items()
        }
    return run


def times(figure: Mapping[str, Any], factor: float) -> dict[str, Any]:
    ends = {
        key: None if figure[key] is None else figure[key] * factor for key in ("median", "mad", "ci_low", "ci_high")
    }
    return {
        **figure,
        **ends,
        "values": [value * factor for value in figure["values"]],
    }


def store(results: Path, run: Mapping[str, Any], indent: int | None = None) -> Path:
    """Write a run where the report role would."""
    path = results / folder_name(run["host"]["name"]) / f"{run['run_id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=indent), encoding="utf-8")
    return path


def build(
    results: Path,
    hosts: int,
    runs: int,
    change: Callable[[int, int, dict[str, Any]], float] = lambda host, run, document: 1.0,
    seed: int = 1,
) -> list[str]:
    """Store a fleet of like GPU hosts, a run a day up to NOW; returns their names.

    `change` gets host, run and the document, which it may alter, and returns a factor on all times.
    """
    draw = random.Random(seed)
    base = {**golden("gpu"), "first_token": FIRST_TOKEN}
    names = [f"gpu-{index + 1:0{len(str(hosts))}d}" for index in range(hosts)]
    for index, name in enumerate(names):
        host = {**base["host"], "gpus": base["host"]["gpus"][:1]}
        for run in range(runs):
            document = {**base, "host": dict(host), "software": dict(base["software"])}
            factor = change(index, run, document) * draw.gauss(1, 0.015)
            at = NOW - timedelta(days=runs - 1 - run, minutes=index % 600, seconds=index // 600)
            store(results, scaled(document, name, at, factor))
    return names


def add_steady_token(path: Path, seconds: float) -> None:
    """Give a stored run what a steady token costs, cold and warm; the golden results are older than that figure."""
    document = json.loads(path.read_text(encoding="utf-8"))
    figure = {"n": 6, "median": seconds, "mad": 0.0, "ci_low": seconds * 0.9, "ci_high": seconds * 1.1, "values": []}
    document["summary"] |= {"cold_steady_token_s": figure, "warm_steady_token_s": {**figure, "median": seconds * 0.95}}
    path.write_text(json.dumps(document), encoding="utf-8")


def audit(statuses: Mapping[str, str], at: datetime = NOW) -> dict[str, Any]:
    """An audit document of hosts by status; one that drifted has THP on `always`."""
    rows = golden("gpu")["tuning"]["rows"]
    drifted = [{**rows[0], "runtime": "always", "verdict": "drift", "detail": "thp.enabled is always"}, *rows[1:]]
    instant = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    return {
        "schema_version": 1,
        "run_id": f"{at:%Y%m%dT%H%M%SZ}",
        "kind": "audit",
        "started_at": instant,
        "finished_at": instant,
        "totals": {},
        "hosts": {
            name: {
                "status": status,
                "problem": None if status in ("clean", "drift") else "no route to host",
                "rows": {"clean": rows, "drift": drifted}.get(status, []),
                "competitors": [],
            }
            for name, status in statuses.items()
        },
    }
