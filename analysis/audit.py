"""The fleet audit: what every host's `memory_info` answered, judged and put together as one document.

A host is the authority on its own knobs and judges each row; here rows become a host's status and hosts a fleet.
Answers come from machines that may be broken or hostile, so their form is checked, never assumed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from analysis.markdown import plain
from analysis.schema import validate

SCHEMA_VERSION = 1
STATUSES = ("clean", "drift", "unreachable", "error")
_PROBLEM_LIMIT = 2000

Key = TypeVar("Key")


class AnswerError(Exception):
    """An answer of a host that does not have the form that memory_info documents."""


@dataclass(frozen=True)
class Row:
    """One knob compared on its host; the fields are those of docs/architecture.md."""

    knob: str
    desired: str | None
    runtime: str | None
    persisted: str | None
    boot: str | None
    source: str | None
    verdict: str
    detail: str | None

    @property
    def drifted(self) -> bool:
        return self.verdict == "drift"

    def __str__(self) -> str:
        return self.detail or f"{self.knob} is {self.runtime}, should be {self.desired}"


@dataclass(frozen=True)
class Competitor:
    """Another writer on the host that wants another value of a knob of ours."""

    path: str
    line: int
    knob: str
    value: str | None
    kind: str
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True)
class HostAudit:
    """One host: `status` is one of STATUSES; `problem` says why there are no rows, and is None where there are."""

    status: str
    problem: str | None = None
    rows: tuple[Row, ...] = ()
    competitors: tuple[Competitor, ...] = ()

    @property
    def drift(self) -> list[Row | Competitor]:
        """What keeps the host from being clean. A competing writer is drift that the next boot brings."""
        return [*(row for row in self.rows if row.drifted), *self.competitors]

    def __str__(self) -> str:
        """One line: the status in a plain sentence."""
        return plain(self.problem or "; ".join(map(str, self.drift)) or "clean")


@dataclass(frozen=True)
class Audit:
    """A fleet at one time; hosts in natural order (`gpu-2` before `gpu-10`)."""

    run_id: str
    started_at: str
    finished_at: str
    hosts: dict[str, HostAudit]

    def totals(self) -> dict[str, int]:
        """Hosts in all and by status, and how many rows drifted and writers compete."""
        by_status = Counter(host.status for host in self.hosts.values())
        return {
            "hosts": len(self.hosts),
            **{status: by_status[status] for status in STATUSES},
            "drifted_rows": sum(row.drifted for host in self.hosts.values() for row in host.rows),
            "competitors": sum(len(host.competitors) for host in self.hosts.values()),
        }

    def document(self) -> dict[str, Any]:
        """The document that schemas/audit.schema.json describes; SettingError where it would break it."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "kind": "audit",
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "totals": self.totals(),
            "hosts": {
                name: {
                    "status": host.status,
                    "problem": host.problem,
                    "rows": [asdict(row) for row in host.rows],
                    "competitors": [asdict(writer) for writer in host.competitors],
                }
                for name, host in self.hosts.items()
            },
        }
        validate(document, "audit")
        return document

    def summary(self) -> list[str]:
        """The audit in a few lines of plain text: totals, then each finding with its hosts, the commonest first."""
        totals = self.totals()
        lines = [f"{count(totals['hosts'], 'host')}: {', '.join(f'{totals[status]} {status}' for status in STATUSES)}"]
        findings = group((str(found), name) for name, host in self.hosts.items() for found in host.drift)
        lines += [f"{hosts_of(names)}: {plain(found)}" for found, names in findings.items()]
        # Why a host is unreachable names its address, so that no two hosts would ever say the same.
        silent = group(
            ("unreachable" if host.status == "unreachable" else f"error: {host.problem}", name)
            for name, host in self.hosts.items()
            if host.problem
        )
        return lines + [f"{hosts_of(names)}: {plain(problem)}" for problem, names in silent.items()]


def audit(answers: Mapping[str, object], started_at: str, finished_at: str) -> Audit:
    """The audit of a fleet from `memory_info`'s registered answers by host name; instants as `2026-03-14T09:20:00Z`."""
    names = sorted(answers, key=_natural)
    return Audit(
        run_id=re.sub(r"[-:]", "", started_at),
        started_at=started_at,
        finished_at=finished_at,
        hosts={_text(name): judge(answers[name]) for name in names},
    )


def judge(answer: object) -> HostAudit:
    """The status of one host from what its task registered: the module's result, a failure, or no connection."""
    if not isinstance(answer, Mapping):
        return HostAudit("error", "memory_info gave no answer")
    if answer.get("unreachable"):
        return HostAudit("unreachable", _problem(answer))
    if answer.get("failed"):
        return HostAudit("error", _problem(answer))
    try:
        rows = tuple(_row(row) for row in _objects(answer, "rows"))
        competitors = tuple(_competitor(writer) for writer in _objects(answer, "competitors"))
    except AnswerError as error:
        return HostAudit("error", f"memory_info's answer does not have the documented form: {error}")
    if not rows:
        return HostAudit("error", "no setting is wanted of this host, so nothing was compared")
    host = HostAudit("clean", None, rows, competitors)
    return HostAudit("drift", None, rows, competitors) if host.drift else host


def group(pairs: Iterable[tuple[Key, str]]) -> dict[Key, list[str]]:
    """Hosts by what they share, the largest group first; a host stands once in a group, in the order given."""
    groups: dict[Key, dict[str, None]] = {}
    for key, host in pairs:
        groups.setdefault(key, {})[host] = None
    return {key: list(hosts) for key, hosts in sorted(groups.items(), key=lambda item: -len(item[1]))}


def hosts_of(names: list[str], limit: int = 5) -> str:
    """`3 hosts (a, b, c)`, the list cut at `limit` names: audit.json has them all."""
    shown = ", ".join(plain(name) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{count(len(names), 'host')} ({shown}{more})"


def count(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]{1,18})", name)]


def _problem(answer: Mapping[str, object]) -> str:
    problem = _text(answer.get("msg") or "no reason given").strip()
    return problem if len(problem) <= _PROBLEM_LIMIT else f"{problem[:_PROBLEM_LIMIT]}..."


def _objects(answer: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    items = answer.get(key)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise AnswerError(f"{key} is not a list of objects")
    return items


def _row(item: Mapping[str, object]) -> Row:
    row = Row(
        knob=_required(item, "knob"),
        desired=_optional(item, "desired"),
        runtime=_optional(item, "runtime"),
        persisted=_optional(item, "persisted"),
        boot=_optional(item, "boot"),
        source=_optional(item, "source"),
        verdict=_required(item, "verdict"),
        detail=_optional(item, "detail"),
    )
    if row.verdict not in ("clean", "drift"):
        raise AnswerError(f"the verdict on {row.knob} is {row.verdict!r}")
    return row


def _competitor(item: Mapping[str, object]) -> Competitor:
    line = item.get("line")
    if not isinstance(line, int) or isinstance(line, bool) or line < 1:
        raise AnswerError(f"a competitor's line is {line!r}")
    return Competitor(
        path=_required(item, "path"),
        line=int(line),
        knob=_required(item, "knob"),
        value=_optional(item, "value"),
        kind=_required(item, "kind"),
        detail=_required(item, "detail"),
    )


def _required(item: Mapping[str, object], key: str) -> str:
    text = _optional(item, key)
    if not text:
        raise AnswerError(f"{key} is missing")
    return text


def _optional(item: Mapping[str, object], key: str) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise AnswerError(f"{key} is {value!r}, not text")
    return None if value is None else _text(value)


def _text(value: object) -> str:
    # Bytes of a file name that are not UTF-8 arrive as lone surrogates, which neither UTF-8 nor XML can carry.
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", str(value))
