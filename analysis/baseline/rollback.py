"""The page of one host's rollback: what was restored, and what others changed since and is therefore left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.text.markdown import Markdown, code, md, table


def rollback_page(answer: Mapping[str, Any], host: str, run_id: str) -> str:
    """Markdown from what memory_snapshot returned for `state: restored`; every value is text of unknown origin."""
    parts = [
        f"# Rollback of {md(host)}",
        f"Run {code(run_id)}: {md(answer.get('status'))}.",
        _section("Restored", ("setting", "was", "is"), answer.get("changes") or (), ("knob", "before", "after")),
        _section(
            "Changed by others since, left",
            ("setting", "is", "was before the tuning"),
            answer.get("left") or (),
            ("knob", "found", "before"),
        ),
    ]
    if answer.get("left"):
        parts.append("Set by hand what is not wanted; `-e rollback_force=true` restores the recorded values there too.")
    return "\n\n".join([*parts, ""])


def _section(title: str, header: Sequence[str], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Markdown:
    body = table(header, [[code(row.get(name)) for name in names] for row in rows]) if rows else Markdown("Nothing.")
    return Markdown(f"## {title}\n\n{body}")
