"""The per-host report: one result as a page."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime

from analysis import statistics
from analysis.baseline import first_token, tables
from analysis.baseline.notes import collect
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
    settings = [tables.settings(result), *_listed(result, collect.SETTINGS_TABLE)]
    sections = [
        f"# Huge-page baseline of {md(result.host.name)}",
        *_since(result, state),
        bullets([*_verdict(result), *collect.notes(result, collect.OTHER_DEVICES)]),
        f"Model: {tables.model_line(result)}{tables.image_line(result)} Measured {md(result.finished_at)}, run "
        f"{code(result.run_id)}.",
        "## Next",
        _next(result),
        "## Phases",
        "![Seconds of each phase up to the first token, cold above warm](phases.svg)",
        tables.phases_table(result),
        "## What would help",
        first_token.section(result),
        *_listed(result, collect.HELPS),
        *_section(
            "## Settings",
            *_listed(result, collect.SETTINGS),
            *(settings if _drifted(result) else []),
        ),
        "## Memory",
        tables.held(result),
        *_listed(result, collect.MEMORY),
        *_section("## How far to trust the figures", *_listed(result, collect.TRUST)),
        _FOLDED.format("Settings, samples, disk, pools, devices, host"),
        *([] if _drifted(result) else _section("## All settings", *settings)),
        *_section("## Times and model", tables.times(result), tables.loaded(result)),
        *_section("## What the lower bound rests on", first_token.basis(result)),
        *_section("## Imports", first_token.imports(result)),
        "## More of the memory",
        tables.memory(result),
        *_listed(result, collect.FOLDED_MEMORY),
        *_section("## Disk", tables.disk(result)),
        *_section("## Reserved pools", tables.pools(result)),
        *_section("## GPUs", tables.gpus(result)),
        *_section("## Samples", tables.noise(result), tables.samples(result), tables.failures(result)),
        *_section("## Measured on", tables.setup(result)),
        "</details>",
        _FOLDED.format("Undo"),
        "## Undo",
        "From the repository's root, on the control node, with the `-i` of the run, if it had one:",
        _undo(result),
        f"The figures, every sample and the settings are in {code(f'{result.run_id}.json')} of this host's results "
        "folder, in the form of\n`plugins/schemas/result.schema.json`.",
        "</details>",
    ]
    # Convert to `str`, because Ansible does not accept its subclasses.
    return str.__str__("\n\n".join(sections) + "\n")


_FOLDED = "<details>\n<summary>{}</summary>"
"""The beginning of a folded part; every Markdown renderer that does not know it shows the part."""


def _section(title: str, *parts: str) -> list[str]:
    """Return a section, or nothing if all of its parts are empty."""
    told = [part for part in parts if part]
    return [title, *told] if told else []


def _listed(result: Result, rules: Iterable[collect.NoteRule]) -> list[Markdown]:
    found = collect.notes(result, rules)
    return [bullets(found)] if found else []


def _bold(text: str, result: Result) -> str:
    """Return text in bold, but for a result with too few quiet blocks: there nothing is."""
    return text if result.is_estimate else f"**{text}**"


def _next(result: Result) -> Markdown:
    """Return at most three commands, what matters most first."""
    # Quoted for the shell: an inventory name may contain shell metacharacters.
    limit = shlex.quote(plain(result.host.name))
    # Measured in an image, the host may have no torch of its own.
    image = f" -e slm_benchmark_image={shlex.quote(plain(result.image.name))}" if result.image else ""
    steps = []
    if _drifted(result):
        steps.append((f"baseline.yml -l {limit} --tags tune", "sets what is not as wanted"))
    if result.is_estimate:
        runs = "baseline.yml -l " + limit + " --tags measure,report -e slm_benchmark_runs=6" + image
        steps.append((runs, "while nothing else runs, makes an estimate a finding"))
    if not result.first_token.problem and result.first_token.has_gap:
        recorded = "records a start, and prefetches its files for the next"
        if result.image:
            recorded += ": add the container to first_token_targets"
        steps.append((f"first_token.yml -l {limit}", recorded))
    steps.append(
        (f"sweep.yml -l {limit}{image}", "compares settings: this page cannot tell what one of them contributes")
    )
    return fenced("\n".join(f"ansible-playbook {command}    # {why}" for command, why in steps[:3]))


def _since(result: Result, state: State | None) -> list[Markdown]:
    """Return what happened to the host after it was measured."""
    if state is None or state.at < datetime.fromisoformat(result.finished_at):
        return []
    at, run = md(f"{state.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"), code(state.run_id)
    if state.event == "restored":
        told = "**Rolled back since:** the host was put back"
        return [Markdown(f"{told} at {at}, run {run} ([what](rollback.md)). This page describes it as it was before.")]
    return [Markdown(f"**Tuned since:** at {at}, run {run}, without a measurement. The figures are those of before.")]


def _verdict(result: Result) -> list[Markdown]:
    """Return the verdict, what is known first."""
    lines = [_speed(result, kind) for kind in statistics.MEASURED_KINDS]
    known = [*lines, _ratio(result), _tuned(result)]
    token = first_token.headline(result)
    told = [token, *known] if result.first_token.is_borne_out else [*known, token]
    return [Markdown(line) for line in told if line]


def _speed(result: Result, kind: str) -> str:
    load, token = (result.summary.figure(f"{kind}_{metric}") for metric in ("load_real_s", "time_to_first_token_s"))
    if load.n == 0:
        return _bold(f"{kind.capitalize()} load: no valid sample.", result)
    return (
        f"{_bold(f'{kind.capitalize()} load: {units.interval(load, units.seconds)}', result)}; "
        f"first token after {units.interval(token, units.seconds)}."
    )


def _ratio(result: Result) -> str:
    figure = result.summary.ratio
    if not figure.n:
        return ""
    times = f"A cold load takes {units.ratio(figure.median)} as long as a warm one"
    sure = f"; estimate from {units.counted(result.quiet_blocks, 'quiet block')}" if result.is_estimate else ""
    if result.same_load:
        same = _bold("Cold and warm loads do not differ beyond noise.", result)
        return f"{same} {times}, {_pairs(figure)}{sure}."
    # Bold is only for what the samples support.
    return f"{times if figure.ci_low is None else _bold(times, result)}, {_pairs(figure)}{sure}."


def _pairs(figure: Figure) -> str:
    blocks = f"{figure.n} block{'s' if figure.n != 1 else ''}"
    if figure.ci_low is None:
        return f"paired in {blocks}, too few for an interval"
    return f"between {units.ratio(figure.ci_low)} and {units.ratio(figure.ci_high)}, paired in {blocks}"


def _drifted(result: Result) -> bool:
    return any(row.verdict == "drift" for row in result.tuning.rows)


def _tuned(result: Result) -> str:
    asked = [row for row in result.tuning.rows if row.desired is not None]
    off = [row for row in result.tuning.rows if row.verdict == "drift"]
    if off:
        share = f"{len(off)} of {len(result.tuning.rows)} settings"
        return f"{_bold('Not tuned as asked for:', result)} {share} not in force or not kept over a reboot, see below."
    if not asked:
        return f"{_bold('Not tuned:', result)} nothing was asked for."
    force = f"{_bold('Tuned and verified:', result)} all {len(asked)} settings are in force"
    if result.host.systemd is False:
        return f"{force} until the next boot. Tune again after it, since systemd does not run here."
    return f"{force} and kept over a reboot."


def _undo(result: Result) -> Markdown:
    # Quoted for the shell: an inventory name may contain shell metacharacters.
    limit = shlex.quote(plain(result.host.name))
    command = f"ansible-playbook rollback.yml -l {limit}"
    return fenced(f"{command}\n{command} -e rollback_purge=true    # removes what the measurement installed, too")
