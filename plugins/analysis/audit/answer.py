"""The status of one host in the audit, from what its `memory_info` answered.

A host compares its own knobs and gives each row a verdict; this module turns its rows into a status. Answers come from
machines that may be broken or hostile, so their form is checked, never assumed.

This module imports little, because every host's verdict is a process of its own on the control node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.documents.names import well_formed
from analysis.render.markdown import plain

_PROBLEM_LIMIT = 2000
_BOOLEANS = {
    **dict.fromkeys(("y", "yes", "on", "1", "true", "t"), True),
    **dict.fromkeys(("n", "no", "off", "0", "false", "f"), False),
}
"""Texts that Ansible accepts as booleans."""


class AnswerError(Exception):
    """A host's answer that does not have the form that memory_info documents."""


@dataclass(frozen=True)
class Unresolved:
    """A host's variable without a value; `why` is Ansible's reason."""

    why: str


def read_tolerance(variables: Mapping[str, object], error: type[Exception]) -> object:
    """Return a host's `tuning_tolerate_competitors` unchecked; `Unresolved` where reading it raises `error`."""
    try:
        return variables.get("tuning_tolerate_competitors", False)
    except error as problem:
        return Unresolved(str(problem))


@dataclass(frozen=True)
class Row:
    """One knob as its host compared it; the fields are those of docs/architecture.md."""

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
class Conflict:
    """Another program on the host that sets one of our knobs to another value."""

    path: str
    line: int
    knob: str
    value: str | None
    kind: str
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True)
class Unreadable:
    """An unreadable place on the host that may hold another program's setting; `reason` is the system's text."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


@dataclass(frozen=True)
class HostAudit:
    """One host's result; `status` is one of STATUSES.

    `problem` says why there are no rows, or why a host without drift is not clean: a place could not be read. A
    conflict counts as drift that takes effect at some boot, unless the user tolerates it. A possible conflict is a
    note.
    """

    status: str
    problem: str | None = None
    rows: tuple[Row, ...] = ()
    competitors: tuple[Conflict, ...] = ()
    tolerated: bool = False
    possible: tuple[Conflict, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def drift(self) -> list[Row | Conflict]:
        """Return the rows and conflicts that keep the host from being clean."""
        return [*(row for row in self.rows if row.drifted), *(() if self.tolerated else self.competitors)]

    def __str__(self) -> str:
        """Return one line: the status as a plain sentence."""
        if self.drift and self.unreadable:
            return plain(f"{'; '.join(map(str, self.drift))}; {_unseen(self.unreadable)}")
        return plain(self.problem or "; ".join(map(str, self.drift)) or "clean")


def judge_host(answer: object, tolerate_competitors: object = False) -> HostAudit:
    """Return the status of one host from what its task registered: the module's result, a failure, or no connection.

    `tolerate_competitors` is the host's variable with its raw value. If it is no boolean, the host's status is an
    error.
    """
    if not isinstance(answer, Mapping):
        return HostAudit("error", "memory_info gave no answer")
    if answer.get("unreachable"):
        return HostAudit("unreachable", _problem(answer))
    if answer.get("failed"):
        return HostAudit("error", _problem(answer))
    tolerated = _boolean(tolerate_competitors)
    if tolerated is None:
        return HostAudit("error", _not_boolean(tolerate_competitors))
    try:
        rows = tuple(_row(row) for row in _objects(answer, "rows"))
        competitors = tuple(_competitor(writer) for writer in _objects(answer, "competitors"))
        # Hosts with an older module do not report conflicts.
        possible = tuple(
            _competitor(writer) for writer in _objects({"possible_writers": [], **answer}, "possible_writers")
        )
        # A memory_info that is older than this control node does not report it.
        places = _objects(answer, "unreadable") if "unreadable" in answer else []
        unreadable = tuple(Unreadable(_required(place, "path"), _required(place, "reason")) for place in places)
    except AnswerError as error:
        return HostAudit("error", f"memory_info's answer does not have the documented form: {error}")
    if not rows:
        return HostAudit("error", "no setting is wanted of this host, so nothing was compared")
    host = HostAudit("clean", None, rows, competitors, tolerated, possible, unreadable)
    if host.drift:
        return replace(host, status="drift")
    # No conflict was found, but some places could not be read.
    return (
        replace(host, status="error", problem=f"not known to be clean: {_unseen(unreadable)}") if unreadable else host
    )


def _unseen(places: Sequence[Unreadable], limit: int = 5) -> str:
    shown = ", ".join(map(str, places[:limit])) + (f" and {len(places) - limit} more" if len(places) > limit else "")
    return f"could not read {shown}. Next: connect as root, or give become a way to it"


def _boolean(value: object) -> bool | None:
    """Return the boolean that Ansible would read from the value; None if it is none."""
    if isinstance(value, (bool, int, float)):
        return bool(value) if value in (0, 1) else None
    return _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else None


def _not_boolean(value: object) -> str:
    found = f"no value ({value.why})" if isinstance(value, Unresolved) else repr(value)
    return well_formed(
        f"tuning_tolerate_competitors: wanted true or false; found {found}. "
        "It decides whether a competing writer is drift. Next: correct it in the inventory."
    )


def _problem(answer: Mapping[str, object]) -> str:
    problem = well_formed(answer.get("msg") or "no reason given").strip()
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


def _competitor(item: Mapping[str, object]) -> Conflict:
    line = item.get("line")
    if not isinstance(line, int) or isinstance(line, bool) or line < 1:
        raise AnswerError(f"a competitor's line is {line!r}")
    return Conflict(
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
    return None if value is None else well_formed(value)
