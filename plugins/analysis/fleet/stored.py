"""What the control node has stored: results of every host, and the last audit. Broken files are skipped and named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from analysis.documents.names import well_formed
from analysis.fleet import lenient
from analysis.fleet.lenient import FormError
from analysis.fleet.run import Document, Run, Setting, instant, read_document, read_run, read_settings

_RESULT = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[a-z0-9]{1,16})?\.json", re.ASCII)
AUDIT_STATUSES = ("clean", "drift", "unreachable", "error")


@dataclass(frozen=True)
class LeftOut:
    """A file that the page omits, and why."""

    file: str
    why: str


@dataclass(frozen=True)
class AuditPart:
    """One host in the last audit; `problem` says why there are no settings.

    `competitors` want another value for certain, `possible` writers perhaps; older audits have none of these.
    """

    status: str
    at: datetime
    problem: str | None
    settings: tuple[Setting, ...]
    competitors: tuple[str, ...]
    possible: tuple[str, ...] = ()


@dataclass
class Stored:
    """All that was read: runs and other documents by host, oldest first; `older` counts runs that were skipped."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    documents: dict[str, list[Document]] = field(default_factory=dict)
    audit: dict[str, AuditPart] = field(default_factory=dict)
    older: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def read(results: Path, audit: Path, newest: int) -> Stored:
    """Read every host's `newest` newest runs, its other documents, and the audit document if there is one.

    A file that is broken, of a form that this version does not know, or not readable is skipped and named.
    """
    stored = Stored()
    for folder in _folders(results, stored):
        _read_host(folder, newest, stored)
    if audit.exists():
        try:
            stored.audit = _read_audit(audit)
        except (OSError, FormError) as error:
            stored.left_out.append(LeftOut(well_formed(audit.name), _why(error)))
    return stored


def _folders(results: Path, stored: Stored) -> Iterator[Path]:
    try:
        yield from sorted(path for path in results.iterdir() if path.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        stored.left_out.append(LeftOut(well_formed(results.name), _why(error)))


def _results(folder: Path) -> list[Path]:
    """Return a host's results, oldest first: names begin with the UTC start of their run."""
    return sorted(path for path in folder.iterdir() if _RESULT.fullmatch(path.name))


def _read_host(folder: Path, newest: int, stored: Stored) -> None:
    try:
        results = _results(folder)
        others = sorted(set(folder.glob("*.json")) - set(results))
    except OSError as error:
        stored.left_out.append(LeftOut(well_formed(folder.name), _why(error)))
        return
    hosts = set()
    for path in [*results[-newest:], *others]:
        found = _document(path)
        if isinstance(found, Run):
            stored.runs.setdefault(found.host, []).append(found)
            hosts.add(found.host)
        elif isinstance(found, Document):
            stored.documents.setdefault(found.host, []).append(found)
        else:
            stored.left_out.append(found)
    for host in hosts:
        stored.older[host] = stored.older.get(host, 0) + len(results[:-newest])


def _document(path: Path) -> Run | Document | LeftOut:
    file = well_formed(f"{path.parent.name}/{path.name}")
    try:
        document = lenient.load(path)
    except (OSError, FormError) as error:
        return LeftOut(file, _why(error))
    try:
        return (read_run if document.get("kind") == "baseline" else read_document)(document, file)
    except FormError as error:
        return LeftOut(file, f"{error} (schema version {well_formed(document.get('schema_version'))[:20]})")


def _read_audit(path: Path) -> dict[str, AuditPart]:
    document = lenient.load(path)
    at = instant(document, "finished_at")
    hosts = lenient.part(document, "hosts")
    return {well_formed(name): _audit_part(lenient.part(hosts, name), at) for name in hosts}


def _audit_part(host: Mapping[str, object], at: datetime) -> AuditPart:
    status = lenient.text(host, "status")
    if status not in AUDIT_STATUSES:
        raise FormError(f"status {status!r} is unknown")
    return AuditPart(
        status,
        at,
        lenient.optional_text(host, "problem"),
        read_settings(host, "rows"),
        _details(host, "competitors"),
        _details(host, "possible_writers"),
    )


def _details(host: Mapping[str, object], key: str) -> tuple[str, ...]:
    return tuple(lenient.text(writer, "detail") for writer in lenient.parts(host, key))


def _why(error: OSError | FormError) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
