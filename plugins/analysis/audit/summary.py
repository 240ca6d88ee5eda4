"""The audit as Markdown: identical findings of several hosts are one line."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.audit.fleet import Audit, group, hosts_of
from analysis.render.markdown import Markdown, bullets, code, md, table


def markdown(audit: Audit) -> str:
    """Return the page: totals, findings, then tables of drift, conflicts and hosts without an answer."""
    hosts = audit.hosts.items()
    drifted = group((row, name) for name, host in hosts for row in host.rows if row.drifted)
    competing = group((writer, name) for name, host in hosts for writer in host.competitors)
    possible = group((writer, name) for name, host in hosts for writer in host.possible)
    unread = group((place, name) for name, host in hosts for place in host.unreadable)
    sections = [
        Markdown("# Tuning audit"),
        Markdown(f"Run {code(audit.run_id)}, {md(audit.started_at)} to {md(audit.finished_at)}."),
        bullets(audit.summary()),
        *_section(
            "Drift",
            ["Hosts", "Knob", "Desired", "Runtime", "Persisted", "Boot", "Source", "Finding"],
            [
                [hosts_of(names), code(row.knob), row.desired, row.runtime, row.persisted, row.boot, row.source, row]
                for row, names in drifted.items()
            ],
        ),
        *_section(
            "Competing writers",
            ["Hosts", "Knob", "Value", "Set by", "Where"],
            [
                [hosts_of(names), code(writer.knob), writer.value, writer.kind, f"{writer.path}:{writer.line}"]
                for writer, names in competing.items()
            ],
        ),
        *_section(
            "Possible writers (notes, no drift)",
            ["Hosts", "Knob", "Value", "Written by", "Where"],
            [
                [hosts_of(names), code(writer.knob), writer.value, writer.kind, f"{writer.path}:{writer.line}"]
                for writer, names in possible.items()
            ],
        ),
        *_section(
            "Not read",
            ["Hosts", "Place", "Reason"],
            [[hosts_of(names), code(place.path), place.reason] for place, names in unread.items()],
        ),
        *_section(
            "Hosts without an answer",
            ["Host", "Status", "Problem"],
            [[name, host.status, host.problem] for name, host in hosts if host.problem and not host.rows],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[Markdown]:
    return [Markdown(f"## {title}"), table(header, rows)] if rows else []
