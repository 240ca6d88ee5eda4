"""The last lines of a run: what changed, the results, where the pages are, what failed, and how to undo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from analysis.console.invocation import Invocation
from analysis.render.markdown import plain

SETTERS = ("thp", "hugepages", "hugetlbfs")
_NAMES_SHOWN = 5
_KNOBS_SHOWN = 12
_PROBLEM_LIMIT = 300
_NOT_TUNED = ("first_token.", "persistence.", "sweep")
"""Beginnings of rows that tuning does not set."""


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
    drifted: list[str] = field(default_factory=list)
    can_set: bool = False


@dataclass
class Closing:
    """A collector of tasks' results that summarises all hosts in a few lines, hosts with the same story together."""

    check_mode: bool = False
    hosts: dict[str, HostStory] = field(default_factory=dict)
    invocation: Invocation = field(default_factory=Invocation)
    audit_page: str = ""

    def note(self, host: str, action: str, result: Mapping[str, Any]) -> None:
        """Record a task that succeeded. `action` is the module's name without its collection."""
        story = self.hosts.setdefault(host, HostStory())
        if action == "memory_info":
            rows = result.get("rows") or ()
            story.drifted = [str(row.get("knob")) for row in rows if row.get("verdict") != "clean"]
            story.is_clean = bool(rows) and not story.drifted
        elif action in SETTERS:
            story.changes += _changes(result)
            story.can_undo |= bool(story.changes)
        elif action == "memory_snapshot":
            self._note_rollback(story, result)
        elif action == "audit_report":
            self.audit_page = str(Path(str(result.get("folder"))) / "audit.md")
        elif action == "slm_environment":
            removed = [str(path) for path in result.get("removed") or ()]
            verb = "would remove" if self.check_mode else "removed"
            story.notes += [plain(f"{verb} {_few(removed, _NAMES_SHOWN)}")] if removed else []
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
        has_drift = result.get("status") == "drift"
        kind = "unreachable" if unreachable else "drift" if has_drift else "failed"
        story.problem = f"{kind}: {said[:_PROBLEM_LIMIT]}"
        # A recorded start that drifted says itself what to do: tuning does not change it.
        story.can_set = has_drift and any(not knob.startswith(_NOT_TUNED) for knob in story.drifted)

    def _note_rollback(self, story: HostStory, result: Mapping[str, Any]) -> None:
        if result.get("status") not in ("restored", "nothing", "incomplete"):
            return
        story.changes += _changes(result)
        removed = (result.get("first_token") or {}).get("removed") or ()
        targets = [Path(path).name for path in removed if Path(path).parent.name == "targets"]
        if targets:
            verb = "would remove" if self.check_mode else "removed"
            story.notes.append(plain(f"{verb} the recorded start of {_few(targets, _NAMES_SHOWN)}"))
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
        if self.audit_page and any(story.problem for story in self.hosts.values()):
            lines.append(f"page {self.audit_page}")
        to_set = [host for host, story in self.hosts.items() if story.can_set]
        if to_set:
            tune = self.invocation.command("baseline", "-l", _limit(to_set), "--tags", "tune")
            lines.append(f"to set what differs: {tune}")
        undo = [host for host, story in self.hosts.items() if story.can_undo and not self.check_mode]
        if undo:
            lines.append(f"to undo: {self.invocation.command('rollback', '-l', _limit(undo))}")
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
    valid = [sample for sample in samples if sample.get("kind") in ("cold", "warm")]
    for kind in ("cold", "warm"):
        times = [float(sample["time_to_first_token_s"]) for sample in valid if sample["kind"] == kind]
        if times:
            parts.append(f"{median(times):.2f} s {kind} (median of {len(times)})")
    noisy = sum(bool((sample.get("noise") or {}).get("noisy")) for sample in valid)
    busy = f"; other work disturbed {noisy} of {len(valid)} samples, trust them less" if noisy else ""
    return f"first token {', '.join(parts)}{busy}" if parts else ""


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


def _limit(hosts: Sequence[str]) -> str:
    return ",".join(hosts) if len(hosts) <= _NAMES_SHOWN else "gpu-hosts"


def _few(items: Sequence[str], most: int) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
