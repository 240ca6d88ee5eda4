"""The per-host report: what a result says, as the sections of its page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from analysis.baseline import tables as tables
from analysis.baseline.document import validate
from analysis.baseline.notes.collect import notes
from analysis.baseline.reading import Document, median, same_load, valid
from analysis.text import statistics, units
from analysis.text.markdown import Markdown, bullets, code, fenced, md, plain


def readme(document: Document) -> dict[str, str]:
    """The Markdown of each section of the report's template; "" for one that this result has nothing for.

    Raises DocumentError where the document breaks its schema: a stored result may be of another version, or edited.
    """
    validate(document)
    sections: Mapping[str, str] = {
        "host": md(document["host"]["name"]),
        "headline": bullets(_headline(document)),
        "notes": bullets(notes(document)),
        "model": tables.model(document),
        "settings": tables.settings(document),
        "times": tables.times(document),
        "phases": tables.phase_table(document),
        "memory": tables.memory(document),
        "disk": tables.disk(document),
        "pools": tables.pools(document),
        "gpus": tables.gpus(document),
        "noise": tables.noise(document),
        "samples": tables.samples(document),
        "last_words": tables.last_words(document),
        "setup": tables.setup(document),
        "undo": _undo(document),
        "run_id": code(document["run_id"]),
        "finished_at": md(document["finished_at"]),
        "file": code(f"{document['run_id']}.json"),
    }
    # Plain text for Ansible, which knows no subclass of it.
    return {name: str.__str__(text) for name, text in sections.items()}


def _headline(document: Document) -> list[Markdown]:
    lines = [_speed(document, kind) for kind in statistics.MEASURED_KINDS]
    return [Markdown(line) for line in (*lines, _ratio(document), _tuned(document), _held(document)) if line]


def _speed(document: Document, kind: str) -> str:
    load, token = (document["summary"][f"{kind}_{metric}"] for metric in ("load_real_s", "time_to_first_token_s"))
    if load["n"] == 0:
        return f"**{kind.capitalize()} load: no valid sample.**"
    return (
        f"**{kind.capitalize()} load: {units.interval(load, units.seconds)}**; "
        f"first token after {units.interval(token, units.seconds)}."
    )


def _ratio(document: Document) -> str:
    figure = document["summary"]["cold_to_warm_load_ratio"]
    if not figure["n"]:
        return ""
    said = f"A cold load takes {units.ratio(figure['median'])} as long as a warm one"
    if same_load(document):
        return f"**Cold and warm loads do not differ beyond noise.** {said}, {_pairs(figure)}."
    # Bold is for what the samples bear out.
    return f"{said if figure['ci_low'] is None else f'**{said}**'}, {_pairs(figure)}."


def _pairs(figure: Mapping[str, Any]) -> str:
    blocks = f"{figure['n']} block{'s' if figure['n'] != 1 else ''}"
    if figure["ci_low"] is None:
        return f"paired in {blocks}, too few for an interval"
    return f"between {units.ratio(figure['ci_low'])} and {units.ratio(figure['ci_high'])}, paired in {blocks}"


def _tuned(document: Document) -> str:
    asked = [row for row in document["tuning"]["rows"] if row["desired"] is not None]
    off = [row for row in document["tuning"]["rows"] if row["verdict"] == "drift"]
    if off:
        share = f"{len(off)} of {len(document['tuning']['rows'])} settings"
        return f"**Not tuned as asked for:** {share} not in force or not kept over a reboot, see below."
    if not asked:
        return "**Not tuned:** nothing was asked for."
    if document["host"]["systemd"] is False:
        return f"**Tuned and verified:** all {len(asked)} settings are in force; keeping them waits for systemd."
    return f"**Tuned and verified:** all {len(asked)} settings are in force and kept over a reboot."


def _held(document: Document) -> str:
    if not valid(document):
        return ""
    kind = "warm" if median(document, "warm_rss_bytes") is not None else "cold"
    rss, huge, pool = (median(document, f"{kind}_{name}_bytes") for name in ("rss", "anon_huge", "hugetlb"))
    return (
        f"Holding the model ({kind}): {units.size(rss)} resident, of which {units.size(huge)} THP-backed; "
        f"{units.size(pool)} from reserved pools."
    )


def _undo(document: Document) -> Markdown:
    # Quoted for the shell: an inventory name may hold anything that a shell would take for a command.
    limit = shlex.quote(plain(document["host"]["name"]))
    command = f"ansible-playbook rollback.yml -l {limit}"
    return fenced(f"{command}\n{command} -e rollback_purge=true    # removes what the measurement installed, too")
