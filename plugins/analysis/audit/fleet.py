"""The fleet audit: all hosts' statuses as one document and a summary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from analysis.audit.answer import HostAudit, judge_host
from analysis.documents.names import natural, well_formed
from analysis.documents.schema import validate
from analysis.render.markdown import plain
from analysis.render.units import counted

SCHEMA_VERSION = 1
STATUSES = ("clean", "drift", "unreachable", "error")

Key = TypeVar("Key")


@dataclass(frozen=True)
class Audit:
    """A fleet's audit; hosts in natural order (`gpu-2` before `gpu-10`). `waiting` counts hosts not asked yet."""

    run_id: str
    started_at: str
    finished_at: str
    hosts: dict[str, HostAudit]
    waiting: int = 0

    def totals(self) -> dict[str, int]:
        """Return the number of hosts, in all and by status, and the numbers of drifted rows and conflicts."""
        by_status = Counter(host.status for host in self.hosts.values())
        return {
            "hosts": len(self.hosts),
            **{status: by_status[status] for status in STATUSES},
            "drifted_rows": sum(row.drifted for host in self.hosts.values() for row in host.rows),
            "competitors": sum(len(host.competitors) for host in self.hosts.values()),
        }

    def document(self) -> dict[str, Any]:
        """Return the document for plugins/schemas/audit.schema.json; raise DocumentError if it breaks that schema."""
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
                    "possible_writers": [asdict(writer) for writer in host.possible],
                    **({"unreadable": [asdict(place) for place in host.unreadable]} if host.unreadable else {}),
                }
                for name, host in self.hosts.items()
            },
        }
        validate(document, "audit")
        return document

    def summary(self) -> list[str]:
        """Return a few lines of plain text: totals, then each finding with its hosts, the most frequent first."""
        totals = self.totals()
        lines = [
            f"{counted(totals['hosts'], 'host')}: {', '.join(f'{totals[status]} {status}' for status in STATUSES)}"
        ]
        if self.waiting:
            lines.append(f"{counted(self.waiting, 'host')} still to be asked: this is no verdict on them")
        findings = group((str(found), name) for name, host in self.hosts.items() for found in host.drift)
        lines += [f"{hosts_of(names)}: {plain(found)}" for found, names in findings.items()]
        unseen = group(
            (f"could not read {place}", name)
            for name, host in self.hosts.items()
            if host.status == "drift"
            for place in host.unreadable
        )
        lines += [f"{hosts_of(names)}: {plain(place)}" for place, names in unseen.items()]
        silent = group(
            (_unreachable(host.problem) if host.status == "unreachable" else f"error: {host.problem}", name)
            for name, host in self.hosts.items()
            if host.problem
        )
        lines += [f"{hosts_of(names)}: {plain(problem)}" for problem, names in silent.items()]
        notes = group((str(writer), name) for name, host in self.hosts.items() for writer in host.possible)
        return lines + [f"{hosts_of(names)}: note: {plain(note)}" for note, names in notes.items()]


def _unreachable(problem: str) -> str:
    """Return why hosts cannot be reached, in the words that all such hosts share: without a host's name or address."""
    reason = problem.strip().rstrip(".").rpartition(": ")[2]
    reason = re.sub(r" (by|to|from) \S+( port \d+)?$", "", reason)
    return f"unreachable: {reason}" if reason else "unreachable"


def audit(
    answers: Mapping[str, object],
    started_at: str,
    finished_at: str,
    tolerance: Mapping[str, object] | None = None,
    waiting: int = 0,
) -> Audit:
    """Return the audit of a fleet from `memory_info`'s registered answers by host name.

    Instants are written as `2026-03-14T09:20:00Z`. `tolerance` has each host's raw `tuning_tolerate_competitors`. Where
    it is true, conflicts are reported but are no drift; where it is no boolean, the host's status is an error.
    `waiting` hosts of the play are not in `answers`, because they have not been asked yet.
    """
    names = sorted(answers, key=natural)
    return Audit(
        run_id=re.sub(r"[-:]", "", started_at),
        started_at=started_at,
        finished_at=finished_at,
        hosts={well_formed(name): judge_host(answers[name], (tolerance or {}).get(name, False)) for name in names},
        waiting=waiting,
    )


def group(pairs: Iterable[tuple[Key, str]]) -> dict[Key, list[str]]:
    """Group hosts by key, the largest group first; a host occurs once in a group, in the order given."""
    groups: dict[Key, dict[str, None]] = {}
    for key, host in pairs:
        groups.setdefault(key, {})[host] = None
    return {key: list(hosts) for key, hosts in sorted(groups.items(), key=lambda item: -len(item[1]))}


def hosts_of(names: list[str], limit: int = 5) -> str:
    """Return `3 hosts (a, b, c)`, the list cut at `limit` names; audit.json has all of them."""
    shown = ", ".join(plain(name) for name in names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{counted(len(names), 'host')} ({shown}{more})"
