"""The per-host report: one result as a page."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from analysis import statistics
from analysis.baseline import first_token, tables
from analysis.baseline.notes.collect import notes
from analysis.baseline.result import Result, read_result
from analysis.documents.state import State
from analysis.render import units
from analysis.render.markdown import Markdown, bullets, code, fenced, md, plain
from analysis.statistics import Figure


def host_report(document: object, state: State | None = None) -> str:
    """Return the page of one stored result. External values are escaped; the text depends on the arguments alone.

    `state` is the latest state stored beside the host's results: if it is later than the result, the page begins with
    it.

    Raises DocumentError if the document breaks its schema: a stored result may be of another version, or edited.
    """
    result = read_result(document)
    gpus, failures = tables.gpus(result), tables.failures(result)
    sections = [
        f"# Huge-page baseline of {md(result.host.name)}",
        *_since(result, state),
        bullets(_headline(result)),
        f"Model: {tables.model_line(result)} Measured {md(result.finished_at)}, run {code(result.run_id)}.",
        "## What to make of it",
        bullets(notes(result)),
        _ONE_STATE,
        "## What the first token waits for",
        first_token.section(result),
        "## Settings",
        tables.settings(result),
        "Settings act on memory mapped from now on; processes that already run keep what they have.",
        "## Time",
        tables.times(result),
        *filter(None, [tables.loaded(result)]),
        _MEDIANS,
        "## Phases",
        "![Seconds of each phase up to the first token, cold above warm](phases.svg)",
        tables.phases_table(result),
        "Medians of each phase; they need not add up to the median of the whole.",
        "## Memory",
        tables.memory(result),
        _WHILE_HELD,
        "## Disk",
        tables.disk(result),
        "## Reserved pools",
        tables.pools(result),
        *(["## GPUs", gpus] if gpus else []),
        "## Noise",
        tables.noise(result),
        "## Samples",
        tables.samples(result),
        *([failures] if failures else []),
        "## Measured on",
        tables.setup(result),
        "## Undo",
        "From the repository's root, on the control node, with the `-i` of the run, if it had one:",
        _undo(result),
        f"The figures, every sample and the settings are in {code(f'{result.run_id}.json')} of this host's results "
        "folder, in the form of\n`plugins/schemas/result.schema.json`.",
    ]
    # Convert to `str`, because Ansible does not accept its subclasses.
    return str.__str__("\n\n".join(sections) + "\n")


_ONE_STATE = (
    "This page describes one state of one host. What a setting contributes only a comparison can tell: `sweep.yml` "
    "makes it."
)

_MEDIANS = (
    "Medians, with a nominal 95 % interval of the median and the number of valid samples. Cold and warm were verified; "
    "a sample that\nturned out to be neither is in no figure."
)

_WHILE_HELD = (
    "Medians while the model is held after the first token; faults and bytes read count from the start of the process."
)


def _since(result: Result, state: State | None) -> list[Markdown]:
    """Return what happened to the host after it was measured."""
    if state is None or state.at < datetime.fromisoformat(result.finished_at):
        return []
    at, run = md(f"{state.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"), code(state.run_id)
    if state.event == "restored":
        told = "**Rolled back since:** the host was put back"
        return [Markdown(f"{told} at {at}, run {run} ([what](rollback.md)). This page describes it as it was before.")]
    return [Markdown(f"**Tuned since:** at {at}, run {run}, without a measurement. The figures are those of before.")]


def _headline(result: Result) -> list[Markdown]:
    lines = [_speed(result, kind) for kind in statistics.MEASURED_KINDS]
    return [
        Markdown(line)
        for line in (first_token.headline(result), *lines, _ratio(result), _tuned(result), _held(result))
        if line
    ]


def _speed(result: Result, kind: str) -> str:
    load, token = (result.summary.figure(f"{kind}_{metric}") for metric in ("load_real_s", "time_to_first_token_s"))
    if load.n == 0:
        return f"**{kind.capitalize()} load: no valid sample.**"
    return (
        f"**{kind.capitalize()} load: {units.interval(load, units.seconds)}**; "
        f"first token after {units.interval(token, units.seconds)}."
    )


def _ratio(result: Result) -> str:
    figure = result.summary.ratio
    if not figure.n:
        return ""
    times = f"A cold load takes {units.ratio(figure.median)} as long as a warm one"
    if result.same_load:
        return f"**Cold and warm loads do not differ beyond noise.** {times}, {_pairs(figure)}."
    # Bold is only for what the samples support.
    return f"{times if figure.ci_low is None else f'**{times}**'}, {_pairs(figure)}."


def _pairs(figure: Figure) -> str:
    blocks = f"{figure.n} block{'s' if figure.n != 1 else ''}"
    if figure.ci_low is None:
        return f"paired in {blocks}, too few for an interval"
    return f"between {units.ratio(figure.ci_low)} and {units.ratio(figure.ci_high)}, paired in {blocks}"


def _tuned(result: Result) -> str:
    asked = [row for row in result.tuning.rows if row.desired is not None]
    off = [row for row in result.tuning.rows if row.verdict == "drift"]
    if off:
        share = f"{len(off)} of {len(result.tuning.rows)} settings"
        return f"**Not tuned as asked for:** {share} not in force or not kept over a reboot, see below."
    if not asked:
        return "**Not tuned:** nothing was asked for."
    if result.host.systemd is False:
        return f"**Tuned and verified:** all {len(asked)} settings are in force; keeping them waits for systemd."
    return f"**Tuned and verified:** all {len(asked)} settings are in force and kept over a reboot."


def _held(result: Result) -> str:
    if not result.valid:
        return ""
    kind = "warm" if result.summary.median("warm_rss_bytes") is not None else "cold"
    rss, huge, pool = (result.summary.median(f"{kind}_{name}_bytes") for name in ("rss", "anon_huge", "hugetlb"))
    return (
        f"Holding the model ({kind}): {units.size(rss)} resident, of which {units.size(huge)} THP-backed; "
        f"{units.size(pool)} from reserved pools."
    )


def _undo(result: Result) -> Markdown:
    # Quoted for the shell: an inventory name may contain shell metacharacters.
    limit = shlex.quote(plain(result.host.name))
    command = f"ansible-playbook rollback.yml -l {limit}"
    return fenced(f"{command}\n{command} -e rollback_purge=true    # removes what the measurement installed, too")
