"""Which stored document of a host to show: that of one run, or the latest that can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.documents.errors import DocumentError


@dataclass(frozen=True)
class StoredDocument:
    """The document's file, or None if there is none to use; and a line for each file that was skipped."""

    path: Path | None
    left_out: tuple[str, ...]


def choose(
    folder: Path, prefix: str, check: Callable[[Any], object], now: datetime, run_id: str = "", model: str = ""
) -> StoredDocument:
    """Return the file of run `run_id`, or without one the latest `PREFIX*.json` of `folder` that `check` accepts.

    With a `model`, by its name or path, files of others are passed over.

    `check` raises DocumentError for a document of another schema. Files are ordered by run id, which begins with the
    run's start in UTC. A run that ended after `now` had a clock that was ahead; it is chosen only if no other can be
    used.
    """
    if run_id:
        wanted = folder / f"{prefix}{run_id}.json"
        problem = _problem(wanted, check, None)
        return StoredDocument(None, (problem,)) if problem else StoredDocument(wanted, ())
    left_out: list[str] = []
    names = sorted(folder.glob(f"{prefix}[0-9]*.json"), reverse=True)
    if model:
        names = [path for path in names if model in _model_names(path)]
    for latest in (now, None):
        left_out = []
        for path in names:
            problem = _problem(path, check, latest)
            if problem is None:
                return StoredDocument(path, tuple(left_out))
            left_out.append(problem)
    return StoredDocument(None, tuple(left_out))


def _model_names(path: Path) -> tuple[str, ...]:
    """Return the names of the model that a stored file measured; none where it does not say."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["model"]
        return tuple(str(found[key]) for key in ("id", "path") if found.get(key))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ()


def _problem(path: Path, check: Callable[[Any], object], latest: datetime | None) -> str | None:
    """Return why a stored file cannot be shown, with its path; None if it can."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        check(document)
        finished_at = datetime.fromisoformat(document["finished_at"]).astimezone(UTC)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return f"{path} is not a whole JSON document: {error}"
    except (DocumentError, LookupError, TypeError, AttributeError) as error:
        found = error.found if isinstance(error, DocumentError) else "a document of another form"
        return f"{path} does not have the form that this version reads: {found}"
    if latest is not None and finished_at > latest:
        return f"{path} ended at {document['finished_at']}, later than now: that run's clock was ahead"
    return None
