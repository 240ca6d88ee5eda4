"""The last lines of a run: what changed, the results, where the pages are, what failed, and how to undo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from analysis.render.markdown import plain

SETTERS = ("thp", "hugepages", "hugetlbfs")
_NAMES_SHOWN = 5
_KNOBS_SHOWN = 12
_PROBLEM_LIMIT = 300


@dataclass
class HostStory:
    """What happened to one host, according to its tasks."""

    is_clean: bool = False
    changes: list[str] = field(default_factory=list)
    figures: str = ""
    pages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    can_undo: bool = False


@dataclass
class Closing:
    """A collector of tasks' results that summarises all hosts in a few lines, hosts with the same story together."""

    check_mode: bool = False
    hosts: dict[str, HostStory] = field(default_factory=dict)

    def note(self, host: str, action: str, result: Mapping[str, Any]) -> None:
        """Record a task that succeeded. `action` is the module's name without its collection."""
        story = self.hosts.setdefault(host, HostStory())
        if action == "memory_info":
            rows = result.get("rows") or ()
            story.is_clean = bool(rows) and all(row.get("verdict") == "clean" for row in rows)
        elif action in SETTERS:
            story.changes += _changes(result)
            story.can_undo |= bool(story.changes)
        elif action == "memory_snapshot":
            self._note_rollback(story, result)
        elif action == "slm_benchmark":
            story.figures = figures(result) or story.figures
            story.can_undo |= bool(story.figures)
        elif action == "first_token":
            # A change that is only announced is reported by its own task.
            told = [one for one in _items(result) if self.check_mode or "plan" in one or not one.get("changed")]
            notes = [plain(str(one["summary"])) for one in told if one.get("summary")]
            story.notes += [note for note in notes if note not in story.notes]
            story.can_undo |= any(one.get("changed") for one in _items(result))
        elif action in ("report_page", "rollback_report") and isinstance(result.get("page"), str):
            story.pages.append(result["page"])

    def note_failure(self, host: str, result: Mapping[str, Any], unreachable: bool = False) -> None:
        """Record a task that failed on a host, or could not reach it."""
        story = self.hosts.setdefault(host, HostStory())
        said = plain(str(result.get("msg") or "no reason given"))
        story.problem = f"{'unreachable' if unreachable else 'failed'}: {said[:_PROBLEM_LIMIT]}"

    def _note_rollback(self, story: HostStory, result: Mapping[str, Any]) -> None:
        if result.get("status") not in ("restored", "nothing", "incomplete"):
            return
        story.changes += _changes(result)
        if result.get("note"):
            story.notes.append(plain(str(result["note"])))
        left = [str(one.get("knob")) for one in result.get("left") or ()]
        if left:
            story.notes.append(plain(f"left, since others changed it: {_few(left, _KNOBS_SHOWN)}"))

    def lines(self) -> list[str]:
        """Return the lines, hosts with the same story together, in the order in which they came."""
        told: dict[tuple[str, ...], list[str]] = {}
        for host, story in self.hosts.items():
            sentences = tuple(self._sentences(story))
            if sentences:
                told.setdefault(sentences, []).append(host)
        lines = [
            f"{_few(hosts, _NAMES_SHOWN)}: {sentence}" for sentences, hosts in told.items() for sentence in sentences
        ]
        undo = [host for host, story in self.hosts.items() if story.can_undo and not self.check_mode]
        if undo:
            limit = ",".join(undo) if len(undo) <= _NAMES_SHOWN else "gpu-hosts"
            lines.append(f"to undo: ansible-playbook rollback.yml -l {limit}")
        return lines

    def _sentences(self, story: HostStory) -> list[str]:
        done = "would change" if self.check_mode else "changed"
        sentences = []
        if story.changes:
            sentences.append(f"{done} {_few(story.changes, _KNOBS_SHOWN)}")
        elif story.is_clean and not story.problem:
            sentences.append("every setting is as wanted, nothing was changed")
        sentences += [story.figures] if story.figures else []
        sentences += story.notes
        sentences += [story.problem] if story.problem else []
        return sentences + [f"page {page}" for page in dict.fromkeys(story.pages)]


def figures(result: Mapping[str, Any]) -> str:
    """Return cold and warm TTFT over all samples of a measurement; empty if none is valid."""
    samples = [
        sample
        for one in _items(result)
        for sample in one.get("samples") or ()
        if isinstance(sample, Mapping) and isinstance(sample.get("time_to_first_token_s"), (int, float))
    ]
    parts = []
    for kind in ("cold", "warm"):
        times = [float(sample["time_to_first_token_s"]) for sample in samples if sample.get("kind") == kind]
        if times:
            parts.append(f"{median(times):.2f} s {kind} ({len(times)})")
    return f"first token {', '.join(parts)}: medians of so many samples" if parts else ""


def _items(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the results of a loop, or the one result if there is no loop."""
    results = result.get("results")
    return [one for one in results if isinstance(one, Mapping)] if isinstance(results, list) else [result]


def _changes(result: Mapping[str, Any]) -> list[str]:
    """Return settings with their values before and after; without any, the number of files for the next boot."""
    changes = [one for one in result.get("changes") or () if isinstance(one, Mapping)]
    return [
        plain(f"{one.get('knob')} {one.get('before')} -> {one.get('after')}")
        for one in changes
        if not str(one.get("knob")).startswith("/")
    ] or ([f"{len(changes)} file{'s' * (len(changes) > 1)} for the next boot"] if changes else [])


def _few(items: Sequence[str], most: int) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
