"""The latest event on a host that is neither measurement nor audit: a tuning or a rollback."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.documents.names import well_formed
from analysis.documents.schema import validate
from analysis.documents.storage import as_json, write_files

FILE = "state.json"
"""The file in the host's folder of results, replaced by each later event."""
SCHEMA_VERSION = 1
KINDS = {"tuned": "tuning", "restored": "rollback"}
"""The event: the kind of its document."""


@dataclass(frozen=True)
class State:
    """One event: `event` is one of KINDS; `rows` are those of memory_info, for a tuning alone."""

    event: str
    run_id: str
    at: datetime
    rows: tuple[Mapping[str, Any], ...] = ()


def write_state(
    folder: Path, host: str, event: str, run_id: str, at: datetime, rows: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Store the state; raise OSError unchanged, and DocumentError if it breaks its schema."""
    instant = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": KINDS[event],
        "host": {"name": host},
        "run_id": run_id,
        "started_at": instant,
        "finished_at": instant,
        "rows": list(rows),
    }
    # Through JSON and back: Ansible's tagged strings and lazy containers become plain ones.
    text = as_json(document)
    validate(json.loads(text), "state")
    write_files(folder, {FILE: text})


def read_state(folder: Path) -> State | None:
    """Return the latest state of the host of this folder of results; None if none can be read."""
    try:
        document = json.loads((folder / FILE).read_bytes())
        return parse_state(document)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        return None


def parse_state(document: Mapping[str, Any]) -> State:
    """Return a state from its document; raise ValueError, LookupError, TypeError or StopIteration for another form."""
    event = next(event for event, kind in KINDS.items() if kind == document["kind"])
    at, rows = datetime.fromisoformat(document["finished_at"]), document.get("rows") or []
    if at.tzinfo is None or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("no state of a host")
    return State(event, well_formed(document["run_id"]), at, tuple(rows))
