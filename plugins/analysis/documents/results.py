"""A host's stored results: storing one, and removing those beyond the number to keep."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.documents.errors import DocumentError
from analysis.documents.places import sync
from analysis.documents.storage import as_json, write_files

_RESULT = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[a-z0-9]{1,16})?\.json", re.ASCII)
_MOST_KEPT = 10**6


def is_result(path: Path) -> bool:
    """Return whether a file has the name of a baseline's result."""
    return bool(_RESULT.fullmatch(path.name))


def store(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a result durably under its run's name; raise OSError unchanged."""
    name = f"{document['run_id']}.json"
    write_files(folder, {name: as_json(document)})
    sync(folder / name)
    sync(folder)
    return folder / name


def parse_kept(value: object, variable: str) -> int:
    """Return how many results of a host to keep, 0 for all; raise DocumentError naming the user's variable."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= _MOST_KEPT:
        raise DocumentError(
            variable,
            wanted=f"a whole number from 0 to {_MOST_KEPT}",
            found=repr(value),
            why="So many results of a host stay stored, 0 keeps all.",
            next_step="correct it in group_vars, or leave it out.",
        )
    return number


def prune(folder: Path, host: str, keep: int, now: datetime, run_id: str = "") -> list[Path]:
    """Remove all but the `keep` newest results of `host`, never that of run `run_id`; return the removed files.

    0 keeps everything. Only readable results of this host are removed: unreadable files, other hosts' results and other
    documents stay. A result that ended after `now` had a clock that was ahead; it counts as older than all others.
    """
    if keep < 1 or not folder.is_dir():
        return []
    names = [path for path in folder.iterdir() if is_result(path)]
    if len(names) <= keep:
        return []
    found = [(key, path) for path in names if (key := _order(path, host, now, run_id)) is not None]
    gone = [path for _, path in sorted(found)[:-keep]]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def _order(path: Path, host: str, now: datetime, run_id: str) -> tuple[bool, bool, datetime, str] | None:
    """Return a sort key for a result of this host, the newest last; None for any other file."""
    try:
        document = json.loads(path.read_bytes())
        own = document["kind"] == "baseline" and document["host"]["name"] == host
        begun, ended = (datetime.fromisoformat(document[key]).astimezone(UTC) for key in ("started_at", "finished_at"))
        if not own or document["run_id"] != path.stem:
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return (path.stem == run_id, ended <= now, begun, path.name)
