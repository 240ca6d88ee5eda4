"""A host's stored results: storing one, and removing those beyond what is kept, by whose they are and which run's."""

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
    """Whether a file is named as this project names a baseline's result."""
    return bool(_RESULT.fullmatch(path.name))


def store(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a result durably under its run's name; OSError as the system gave it."""
    name = f"{document['run_id']}.json"
    write_files(folder, {name: as_json(document)})
    sync(folder / name)
    sync(folder)
    return folder / name


def parse_kept(value: object, variable: str) -> int:
    """How many results of a host stay stored, 0 for all; DocumentError naming the variable that the user wrote."""
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
    """Remove all but the `keep` newest results of `host` from its folder, never that of run `run_id`; what went.

    0 keeps everything. Only whole results of this host go: what cannot be read, is another host's or no baseline's
    stays. A result that ended after `now` is of a clock that was ahead, and stands behind those that did not.
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
    """Where a result stands among its host's, the newest last; None for what is no result of this host."""
    try:
        document = json.loads(path.read_bytes())
        own = document["kind"] == "baseline" and document["host"]["name"] == host
        begun, ended = (datetime.fromisoformat(document[key]).astimezone(UTC) for key in ("started_at", "finished_at"))
        if not own or document["run_id"] != path.stem:
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return (path.stem == run_id, ended <= now, begun, path.name)
