"""The page of one host's rollback: what was restored, and what others have changed since, which is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.render.markdown import Markdown, code, md, table


def has_restored(answer: Mapping[str, Any], first_token: Mapping[str, Any] | None = None) -> bool:
    """Return whether a rollback found any of our changes, so that it has something to report."""
    starts = first_token or {}
    return answer.get("status", "nothing") != "nothing" or bool(starts.get("removed") or starts.get("left"))


def rollback_page(
    answer: Mapping[str, Any], host: str, run_id: str, first_token: Mapping[str, Any] | None = None
) -> str:
    """Return Markdown from what memory_snapshot returned for `state: restored`, and first_token for `state: absent`.

    Every value is text of unknown origin.
    """
    starts = first_token or {}
    removed, kept = starts.get("removed") or (), starts.get("left") or ()
    changes = [
        *(answer.get("changes") or ()),
        *({"knob": path, "before": "there", "after": "absent"} for path in removed),
    ]
    left = [*(answer.get("left") or ()), *({"knob": path, "found": "changed", "before": "absent"} for path in kept)]
    status = "restored" if removed and answer.get("status") in (None, "nothing") else answer.get("status")
    parts = [
        f"# Rollback of {md(host)}",
        f"Run {code(run_id)}: {md(status)}.",
        _section("Restored", ("setting", "was", "is"), changes, ("knob", "before", "after")),
        _section(
            "Changed by others since, left",
            ("setting", "is", "was before the tuning"),
            left,
            ("knob", "found", "before"),
        ),
    ]
    problems = answer.get("problems") or ()
    if problems:
        parts.append(_listed("Not restored", [_sentence(problem) for problem in problems]))
    if answer.get("note"):
        parts.append(f"{md(str(answer['note']))}.")
    for attempt in reversed(answer.get("attempts") or ()):
        parts.append(_attempt(attempt))
    if left:
        parts.append("Set by hand what is not wanted; `-e rollback_force=true` restores the recorded values there too.")
    return "\n\n".join([*parts, ""])


def _section(title: str, header: Sequence[str], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Markdown:
    body = (
        table(header, [[code(_value(row, name)) for name in names] for row in rows]) if rows else Markdown("Nothing.")
    )
    return Markdown(f"## {title}\n\n{body}")


def _value(row: Mapping[str, Any], name: str) -> object:
    """Return a cell; of the content of a file, which has several lines, only how many these are."""
    value = row.get(name)
    if name == "knob" or not isinstance(value, str):
        return value
    lines = value.strip().splitlines()
    return f"{len(lines)} lines" if str(row.get("knob")).startswith("/") and len(lines) > 1 else value


def _attempt(attempt: Mapping[str, Any]) -> Markdown:
    """Return what an earlier, unfinished rollback did."""
    about = f"Run {code(attempt.get('run_id'))}, begun {md(str(attempt.get('began_at')))}."
    title = "Restored by an earlier, incomplete rollback"
    done = _section(title, ("setting", "was", "is"), attempt.get("changes") or (), ("knob", "before", "after"))
    return Markdown(f"{done}\n\n{about} " + "; ".join(md(str(problem)) for problem in attempt.get("problems") or ()))


def _listed(title: str, items: Sequence[str]) -> Markdown:
    return Markdown(f"## {title}\n\n" + "\n".join(f"- {md(item)}" for item in items))


def _sentence(problem: Mapping[str, Any]) -> str:
    """Return a module's error, which has five parts, as one sentence."""
    wanted, found = problem.get("wanted"), problem.get("found")
    return (
        f"{problem.get('knob')}: wanted {wanted}; found {found}. {problem.get('why')} Next: {problem.get('next_step')}"
    )
