"""The fleet as one value: hosts with their history, and which of them are outliers or have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from analysis.documents.names import natural
from analysis.fleet import outliers as likeness
from analysis.fleet.causes import Cause, causes, slow_hosts
from analysis.fleet.change_points import Change, changes
from analysis.fleet.consensus import Consensus, consensus
from analysis.fleet.outliers import Difference, Odd
from analysis.fleet.run import FACTS, Document, Run, Setting
from analysis.fleet.spread import reaches
from analysis.fleet.stored import AuditPart, LeftOut, Stored

HOST_STATUSES = ("clean", "drift", "unreachable", "error", "unknown")
MEASURED = ("measured", "stale", "failed", "never")


@dataclass(frozen=True)
class Host:
    """One host: runs and other documents oldest first, `older` skipped runs, and its part in the last audit."""

    name: str
    groups: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    documents: tuple[Document, ...] = ()
    older: int = 0
    audit: AuditPart | None = None
    in_inventory: bool = True

    @property
    def latest(self) -> Run | None:
        """Return the newest run; it may have failed."""
        return self.runs[-1] if self.runs else None

    @property
    def audited(self) -> bool:
        """Return whether the audit is newer than the newest run, so that it shows the host's state."""
        return self.audit is not None and (self.latest is None or self.audit.at >= self.latest.started_at)

    @property
    def event(self) -> Document | None:
        """Return the newest tuning or rollback, if that is newer than the newest run and the audit; else None."""
        events = [each for each in self.documents if each.kind in ("tuning", "rollback")]
        newest = max(events, key=lambda each: each.started_at, default=None)
        seen = [self.latest.started_at] if self.latest else []
        seen += [self.audit.at] if self.audit else []
        return newest if newest and all(newest.started_at > each for each in seen) else None

    @property
    def rolled_back_at(self) -> datetime | None:
        """Return when the host was rolled back, if nobody has looked since; else None."""
        return self.event.started_at if self.event and self.event.kind == "rollback" else None

    @property
    def tuned_at(self) -> datetime | None:
        """Return when the host was tuned, if neither a run nor an audit is newer; else None."""
        return self.event.started_at if self.event and self.event.kind == "tuning" else None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Return the settings last seen, by an audit, a run or a tuning; empty after a rollback or if nobody looked."""
        if self.event:
            return self.event.settings
        if self.audited and self.audit and self.audit.settings:
            return self.audit.settings
        return self.latest.settings if self.latest else ()

    @property
    def settings_at(self) -> datetime | None:
        """Return when `settings` were seen; None if there are none."""
        if not self.settings:
            return None
        if self.event:
            return self.event.started_at
        if self.audited and self.audit and self.audit.settings:
            return self.audit.at
        return self.latest.started_at if self.latest else None

    @property
    def facts(self) -> dict[str, str | None]:
        """Return the environment of the newest run, and the runtime settings last seen."""
        found = {fact: getattr(self.latest.environment, fact) for fact in FACTS} if self.latest else {}
        return found | {row.knob: row.runtime for row in self.settings}

    @property
    def status(self) -> str:
        """Return one of HOST_STATUSES: the audit's verdict if it is the newest, else that of the settings last seen.

        `unknown` after a rollback, until the next audit, run or tuning.
        """
        if self.audited and self.audit and not self.event:
            return self.audit.status
        if not self.settings:
            return "unknown"
        return "drift" if any(row.verdict != "clean" for row in self.settings) else "clean"

    def measured(self, now: datetime, stale_after: timedelta) -> str:
        """Return one of MEASURED: `failed` if the newest run has no valid sample."""
        if self.latest is None:
            return "never"
        if not self.latest.times:
            return "failed"
        return "stale" if now - self.latest.started_at > stale_after else "measured"


@dataclass(frozen=True)
class Outlier:
    """An outlier: its outlying metrics, the largest first, and how it differs from like hosts.

    `phase` is the cold or warm (`phase_kind`) phase that makes most of the difference: name, seconds, the like hosts'
    median.
    """

    host: str
    odd: tuple[Odd, ...]
    differs: tuple[Difference, ...]
    phase_kind: str
    phase: tuple[str, float, float] | None


@dataclass(frozen=True)
class Fleet:
    """Everything the page shows. Hosts in natural order; `left_out` names the files that could not be read."""

    at: datetime
    stale_after: timedelta
    hosts: tuple[Host, ...]
    settings: tuple[Consensus, ...]
    outliers: tuple[Outlier, ...]
    changes: tuple[Change, ...]
    left_out: tuple[LeftOut, ...] = field(default=())
    causes: tuple[Cause, ...] = ()
    reaches: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def overview(self) -> dict[str, int]:
        """Return the number of hosts, in all, by status and by what was measured."""
        statuses = Counter(host.status for host in self.hosts)
        measured = Counter(host.measured(self.at, self.stale_after) for host in self.hosts)
        return {
            "hosts": len(self.hosts),
            **{status: statuses[status] for status in HOST_STATUSES},
            **{state: measured[state] for state in MEASURED},
        }


def fleet(stored: Stored, inventory: Mapping[str, Sequence[str]], at: datetime, stale_after: timedelta) -> Fleet:
    """Return the fleet from stored documents and an inventory (host name -> its groups), with the hosts of both."""
    names = sorted({*inventory, *stored.runs, *stored.documents, *stored.audit}, key=natural)
    hosts = tuple(_host(name, stored, inventory, at) for name in names)
    histories = {host.name: host.runs for host in hosts if host.runs}
    outliers, changed = _outliers(hosts), changes(histories.values())
    slow = slow_hosts([_finding(each) for each in outliers], changed, histories)
    return Fleet(
        at=at,
        stale_after=stale_after,
        hosts=hosts,
        settings=tuple(consensus({host.name: host.settings for host in hosts})),
        outliers=tuple(outliers),
        changes=tuple(changed),
        left_out=tuple(stored.left_out),
        causes=tuple(causes(slow, {host.name: host.facts for host in hosts})),
        reaches=reaches(histories),
    )


def _finding(found: Outlier) -> tuple[str, list[tuple[str, float, float]], dict[tuple[str, str | None], str | None]]:
    """Return an outlier in the form that `causes` takes."""
    odd = [(each.metric, each.value, each.median) for each in found.odd]
    return found.host, odd, {(each.fact, each.here): each.usual for each in found.differs}


def _host(name: str, stored: Stored, inventory: Mapping[str, Sequence[str]], at: datetime) -> Host:
    # A run that began later than now had a clock that was ahead, and is not news.
    runs = {run.run_id: run for run in stored.runs.get(name, ())}
    return Host(
        name=name,
        groups=tuple(inventory.get(name, ())),
        runs=tuple(sorted(runs.values(), key=lambda run: (run.started_at <= at, run.started_at, run.run_id))),
        documents=tuple(sorted(stored.documents.get(name, ()), key=lambda each: each.started_at)),
        older=stored.older.get(name, 0),
        audit=stored.audit.get(name),
        in_inventory=name in inventory,
    )


def _outliers(hosts: Sequence[Host]) -> list[Outlier]:
    latest = [host.latest for host in hosts if host.latest and host.latest.times]
    found = []
    for group in likeness.groups(latest):
        odd, counted = likeness.odd_ones(group), likeness.common(group)
        runs = {run.host: run for run in group}
        for host in dict.fromkeys(each.host for each in odd):
            own = tuple(each for each in odd if each.host == host)
            kind = "warm" if own[0].metric.startswith("warm") else "cold"
            differs = tuple(likeness.differences(runs[host], counted, len(group)))
            found.append(Outlier(host, own, differs, kind, likeness.slowest_phase(runs[host], group, kind)))
    return sorted(found, key=lambda outlier: -abs(outlier.odd[0].share))
