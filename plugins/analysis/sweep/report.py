"""The report of a sweep, rendered from its document: the answer first, then the values behind it."""

from __future__ import annotations

import math
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.documents.decode import typed
from analysis.documents.storage import as_json
from analysis.documents.subject import COLD_SCOPES, Image
from analysis.render import units
from analysis.render.markdown import Markdown, bullets, code, fenced, md, plain, table
from analysis.sweep.advice import first_token_vars, group_vars
from analysis.sweep.figures import arm_memory_svg, arm_phases_svg, forest_svg
from analysis.sweep.metrics import CONTROL, FLOOR, KINDS, METRICS, REFERENCE, TIMES, dtype_words, percent_bound
from analysis.sweep.no_harm import harm_words
from analysis.sweep.progress import NOISY_SHARE
from analysis.sweep.sweep import Advice, AnalysedSweep, Arm, Comparison, Group, StartAid

_TOKEN, _WEIGHTS = "time_to_first_token_s", "weights_to_first_token_s"
_FORESTS = {
    "sweep-first-token.svg": _TOKEN,
    "sweep-load.svg": "load_real_s",
    "sweep-weights-to-first-token.svg": _WEIGHTS,
}
PICTURES = {
    "sweep-first-token.svg": "Time to first token of each arm against stock, with intervals and the noise band",
    "sweep-load.svg": "Load time of each arm against stock, with intervals and the noise band",
    "sweep-weights-to-first-token.svg": "Weights to first token of each arm against stock, without the imports",
    "sweep-phases.svg": "Phases up to the first token for each arm",
    "sweep-memory.svg": "What backs the memory of each arm",
}
"""Pictures beside the report, with their descriptions."""
DOCUMENT = "sweep.json"
"""The samples and analysis that a report shows, stored beside it."""


def sweep_files(document: Mapping[str, Any]) -> dict[str, str]:
    """Return report, pictures and document, text by file name; `document` is one that `analysed` has made."""
    sweep = typed(AnalysedSweep, document)
    return {
        "sweep.md": sweep_report(sweep),
        DOCUMENT: as_json(document),
        **{name: forest_svg(sweep, metric) for name, metric in _FORESTS.items()},
        "sweep-phases.svg": arm_phases_svg(sweep),
        "sweep-memory.svg": arm_memory_svg(sweep),
    }


def sweep_report(sweep: AnalysedSweep) -> str:
    """Return `sweep.md` as text. External values are escaped; the text depends on the document alone."""
    few = _is_too_few(sweep)
    sections = [
        _answer(sweep),
        *(_seen_so_far(sweep) if few else _judged_times(sweep)),
        *_replays(sweep),
        Markdown("## Where the time goes"),
        _pictures(["sweep-phases.svg"]),
        Markdown("## What backs the memory"),
        _pictures(["sweep-memory.svg"]),
        Markdown(_NOT_IN_RSS),
        *(_verdicts(sweep, metric.name) for metric in METRICS if not metric.is_time and not few),
        Markdown("## How it was measured"),
        _protocol(sweep),
        _arms(sweep),
        Markdown("## What to do with it"),
        *_advice(sweep),
    ]
    # Convert to `str`, because Ansible does not accept its subclasses.
    return str.__str__("\n\n".join(sections) + "\n")


def _is_too_few(sweep: AnalysedSweep) -> bool:
    """Return whether there are too few blocks to judge anything at all."""
    return all(group.is_too_few for group in sweep.analysis.groups)


def _judged_times(sweep: AnalysedSweep) -> Sequence[Markdown]:
    return [
        _pictures(_FORESTS),
        Markdown("## Verdicts"),
        Markdown(_HOW_TO_READ),
        *([Markdown(_FIRST_TOKEN_FIRST)] if sweep.first_token_arms else []),
        *(_verdicts(sweep, metric.name) for metric in METRICS if metric.is_time),
    ]


_SEEN = (
    ("first token, cold", _TOKEN, "cold"),
    ("first token, warm", _TOKEN, "warm"),
    ("minor faults", "minor_faults", "warm"),
    ("THP-backed memory", "anon_huge_bytes", "warm"),
    ("RSS", "rss_bytes", "warm"),
)
"""The columns of what is shown without a claim: heading, metric and kind. Memory is that of warm starts."""


def _seen_so_far(sweep: AnalysedSweep) -> Sequence[Markdown]:
    """Return plain medians by arm: what can be shown of a sweep with too few blocks for any claim."""
    analysis = sweep.analysis
    about = (
        f"A claim needs {analysis.rule.fewest_pairs} blocks, and there "
        f"{'is' if analysis.blocks == 1 else 'are'} {analysis.blocks}: too few to say what any arm does to any "
        "metric. These are plain medians; how far `stock-again` lies from `stock` is noise. Faults and memory: "
        "warm starts."
    )
    tables = []
    for dtype in sweep.protocol.dtypes:
        rows = [[code(arm.name), *(_seen(sweep, arm, dtype, *cell[1:]) for cell in _SEEN)] for arm in sweep.arms]
        found = table(["arm", *(heading for heading, *_ in _SEEN)], rows, numbers=range(1, 1 + len(_SEEN)))
        tables.append(Markdown(f"**{dtype_words(dtype).capitalize()}**\n\n{found}"))
    return [Markdown("## Seen so far, nothing claimed"), Markdown(about), *tables]


def _seen(sweep: AnalysedSweep, arm: Arm, dtype: str, name: str, kind: str) -> Markdown:
    """Return the median of an arm's valid samples; of whole loads alone, since a template's child has no whole time."""
    metric = next(each for each in METRICS if each.name == name)
    values = [
        metric.value(each.sample)
        for each in sweep.measurements
        if each.is_valid and each.is_full and (each.arm, each.dtype_asked, each.sample.kind) == (arm.name, dtype, kind)
    ]
    known = [value for value in values if value is not None]
    return Markdown(metric.unit(statistics.median(known) if known else None))


_HOW_TO_READ = """Ratios are arm over stock within the same block, so that drift between blocks cancels; times
are given as speed-ups, against the mean of both stock arms. The intervals of one metric hold jointly with 95 %. An
effect on a time is claimed where an interval of a stricter level excludes no effect, one on memory or faults where its
interval lies outside of the noise band, which is what stock shows against itself. Every claim is listed; "±4 % at most"
is the largest effect, either way, that the data leaves possible for the least certain of the others. Load and time to
first token count from the start of the process. *Weights to first token* leaves out interpreter, imports and tokenizer:
it is where the weights are handled, and what grows with the model. It is the primary
endpoint, and the whole times follow it."""

_FIRST_TOKEN_FIRST = """Bytecode and a replay act on the imports too, so the primary endpoint of arms with these is
the whole *time to first token*. A replay `ahead` has ended before the start, as at boot:
its own time is not on the clock. One that runs `together` is started at the same instant as the loader."""

_NOT_IN_RSS = """Pages of a reserved pool count in neither RSS nor PSS (the kernel's way): where an arm uses a pool, its
lower RSS is no saving. The picture shows them."""


def _answer(sweep: AnalysedSweep) -> Markdown:
    """Return five lines: title, blank, one line for each dtype, and the data behind them."""
    lines = [
        f"# What {_subject(sweep)} {md(sweep.model.id)} on {md(sweep.host.name)}",
        "",
        *(f"- **{dtype_words(dtype).capitalize()}**: {_sentence(sweep, dtype)}" for dtype in sweep.protocol.dtypes),
        f"- {_basis(sweep)}",
    ]
    return Markdown("\n".join(lines))


def _subject(sweep: AnalysedSweep) -> str:
    """Return what the arms are, for the title: a sweep answers one question, or both if the user asked both."""
    tried = [arm for arm in sweep.arms if arm.name not in (REFERENCE, CONTROL)]
    if tried and len(sweep.first_token_arms) == len(tried):
        return "bytecode and replay do to the first token of"
    return f"huge pages{', bytecode and replay' if sweep.first_token_arms else ''} do to loading"


def _sentence(sweep: AnalysedSweep, dtype: str) -> Markdown:
    groups = [sweep.analysis.group(_TOKEN, dtype, kind) for kind in KINDS]
    if all(group.is_too_few for group in groups):
        return Markdown("too few blocks to say.")
    if all(result.verdict == "none" for group in groups for result in group.arms):
        bounds = " and ".join(f"±{_bound(group)} % {group.kind}" for group in groups)
        answer = f"no arm changes the time to first token beyond noise ({bounds})."
    else:
        answer = f"first token {'; '.join(_kind_sentence(group) for group in groups)}."
    parts = [sweep.analysis.group(_WEIGHTS, dtype, kind) for kind in KINDS]
    moved = [_kind_sentence(group) for group in parts if any(result.is_claim for result in group.arms)]
    return Markdown(answer + (f" Weights to first token alone {'; '.join(moved)}." if moved else ""))


def _kind_sentence(group: Group) -> str:
    """Return what one kind of load shows. An arm with too few pairs is named, else it would seem to have no effect."""
    if group.is_too_few:
        return f"{group.kind}: too few pairs to say"
    if group.control_moved:
        return f"{group.kind}: nothing can be said, stock differs from itself"
    claimed = sorted((result for result in group.arms if result.is_claim), key=lambda each: each.estimate or 0.0)
    parts = [f"{code(result.arm)} {result.words}" for result in claimed]
    if not claimed and any(result.verdict == "none" for result in group.arms):
        parts = [f"no effect beyond noise (±{_bound(group)} %)"]
    parts += [f"{code(result.arm)} too few pairs to say" for result in group.arms if result.verdict == "too_few"]
    return f"{group.kind}: {', '.join(parts)}"


def _bound(group: Group) -> int:
    """Return the largest bound of the arms without effect, in per cent: that of the least certain one."""
    judged = [end for result in group.arms if result.verdict == "none" for end in (result.low, result.high)]
    return percent_bound(*(end for end in judged if end is not None), *(math.exp(each) for each in (-FLOOR, FLOOR)))


def _basis(sweep: AnalysedSweep) -> Markdown:
    analysis, counts = sweep.analysis, sweep.analysis.counts
    return Markdown(
        f"{units.counted(analysis.blocks, 'block')} of {len(sweep.arms)} arms in random order, "
        f"{counts['cold']} cold and {counts['warm']} warm samples; the two stock arms {_control(sweep)}."
        + (f" The host was noisy: {noise}." if (noise := _noise(sweep, NOISY_SHARE)) else "")
    )


def _noise(sweep: AnalysedSweep, least: float) -> str:
    """Return how many samples were noisy and what their canaries show; empty if the share is below `least`."""
    kept = [each.sample.noise for each in sweep.measurements if not each.abandoned and each.sample.noise]
    noisy = sum(noise.noisy for noise in kept)
    if not noisy or noisy < least * len(kept):
        return ""
    slowdowns = [noise.canary_slowdown for noise in kept if noise.canary_slowdown is not None]
    if not slowdowns:
        return units.counted(noisy, "sample")
    canary = f"{statistics.median(slowdowns):.2f} times its best in the median and up to {max(slowdowns):.1f}"
    return f"{noisy} of {units.counted(len(kept), 'sample')}; the canary took {canary}"


def _control(sweep: AnalysedSweep) -> str:
    """Return what the two unchanged arms show of each other, over all metrics."""
    groups, fewest = sweep.analysis.groups, sweep.analysis.rule.fewest_pairs
    if sweep.analysis.blocks < fewest:
        return f"need {fewest} blocks to be compared"
    titles = {metric.name: metric.title for metric in METRICS}
    moved = [f"{titles[group.metric]} {_place(group)}" for group in groups if group.control_moved]
    if moved:
        return f"differ, as they must not: {', '.join(moved)}"
    few = [_place(group) for group in groups if group.metric == _TOKEN and group.is_too_few]
    return f"have too few pairs to be compared {', '.join(few)}" if few else "show no effect, as they must"


def _place(group: Group) -> str:
    return f"{group.kind} {dtype_words(group.dtype)}"


def _pictures(names: Iterable[str]) -> Markdown:
    return Markdown("\n\n".join(f"![{PICTURES[name]}]({name})" for name in names))


def _verdicts(sweep: AnalysedSweep, name: str) -> Markdown:
    """Return one metric: the unchanged host, then every claim, then one bound for all that show no effect."""
    metric = next(each for each in METRICS if each.name == name)
    title = metric.title[0].upper() + metric.title[1:]
    groups = [sweep.analysis.group(name, dtype, kind) for dtype in sweep.protocol.dtypes for kind in KINDS]
    medians = "; ".join(f"{metric.unit(group.stock_median)} {_column(group)}" for group in groups)
    items, without = [], []
    for group in groups:
        unsaid: dict[str, list[str]] = {}
        for result in (group.control, *group.arms):
            if result.verdict == "none" and not result.dropped:
                without += [result] if result is not group.control else []
            elif result.verdict in ("less", "more", "moved"):
                items.append(Markdown(f"{code(result.arm)}, {_column(group)}: {_verdict(result)}"))
            else:
                unsaid.setdefault(_verdict(result), []).append(code(result.arm))
        items += [Markdown(f"{', '.join(arms)}, {_column(group)}: {words}") for words, arms in unsaid.items()]
    bounds = (re.search(r"\((±[^)]+)\)", result.words) for result in sorted(without, key=_extent, reverse=True))
    largest = next((bound[1] for bound in bounds if bound), "")
    if without:
        rest = "All others: no effect" if items else "No arm has an effect"
        items.append(Markdown(f"{rest} beyond noise{f' ({largest} at most)' if largest else ''}"))
    return Markdown(f"**{title}** (unchanged: {medians})\n\n{bullets(items)}")


def _column(group: Group) -> str:
    return f"{dtype_words(group.dtype)}, {group.kind}"


def _extent(result: Comparison) -> float:
    """Return how large an effect a comparison without one leaves possible, comparable within one metric."""
    share = re.search(r"±(\d+) %", result.words)
    ends = [end for end in (result.low, result.high) if end is not None]
    return float(share[1]) if share else max((abs(end) for end in ends), default=0.0)


def _verdict(result: Comparison) -> Markdown:
    words = result.words
    if result.dropped:
        words = f"{words}; {units.counted(result.dropped, 'block')} without a pair"
    return Markdown(f"**{words}**" if result.verdict in ("less", "more", "moved") else words)


def _replays(sweep: AnalysedSweep) -> Sequence[Markdown]:
    """Return whether replays harm a warm start, and what each of them did; empty if no arm has one."""
    arms = [arm for arm in sweep.first_token_arms if arm.first_token and arm.first_token.replay != "none"]
    if not arms:
        return []
    verdicts = [
        Markdown(f"{code(arm.name)}, {dtype_words(dtype)}: {harm_words(sweep.analysis, arm, dtype)}.")
        for dtype in sweep.protocol.dtypes
        for arm in arms
    ]
    rows = [[code(arm.name), kind, *_replay_cells(sweep, arm, kind)] for arm in arms for kind in KINDS]
    done = table(["arm", "start", "first request after", "ended after", "read from disk", "CPU"], rows)
    return [
        Markdown("## Does a replay harm a warm start?"),
        Markdown(
            "Where all is in memory already it has nothing to give, and must not cost more than 1 % beyond noise."
        ),
        *([] if _is_too_few(sweep) else [bullets(verdicts)]),
        Markdown(f"**What the replays did** (medians; beside the loader's own figures)\n\n{done}"),
    ]


def _replay_cells(sweep: AnalysedSweep, arm: Arm, kind: str) -> list[str]:
    found = [
        each.sample.replay
        for each in sweep.measurements
        if each.is_valid and (each.arm, each.sample.kind) == (arm.name, kind) and each.sample.replay
    ]

    def median(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    return [
        units.seconds(median(replay.first_request_s for replay in found)),
        units.seconds(median(replay.ended_s for replay in found)),
        units.size(median(replay.read_bytes for replay in found)),
        units.seconds(median(replay.cpu_s for replay in found)),
    ]


def _protocol(sweep: AnalysedSweep) -> Markdown:
    host, protocol, counts = sweep.host, sweep.protocol, sweep.analysis.counts
    rule, stopped = sweep.analysis.rule, sweep.stopped
    shown = [
        f"Host: {md(host.cpu_model)}, {host.cpus} CPUs, {units.size(host.memory_bytes)}, Linux "
        f"{md(host.kernel)}, {md(host.distribution)}.",
        f"Model: {md(sweep.model.id)}, {units.size(sweep.model.bytes)}; "
        + ", ".join(f"{md(name)} {md(version)}" for name, version in sorted(sweep.software.items()) if version)
        + ".",
        *([_image(sweep.image)] if sweep.image else []),
        f"Cold means: {COLD_SCOPES[protocol.cold_scope]}. Warm runs follow the cold run of their own arm.",
        *_measurements(sweep),
        f"Stopped because {md(stopped.reason)}, after {units.seconds(stopped.spent_s)} of measuring.",
        f"Order drawn from seed {protocol.seed} for each block anew.",
        f"Stock has {_stock(sweep.stock)}.",
        f"Student intervals of paired differences; {rule.comparisons} comparisons a metric, whose intervals hold "
        f"jointly with {units.percent(rule.confidence)}. At least {rule.fewest_pairs} pairs for any claim.",
    ]
    shown += [cache.sentence() for cache in (protocol.bytecode, protocol.kernels) if cache]
    odd = [
        (counts["lukewarm"], "lukewarm: neither cold nor warm when verified"),
        (counts["failed"], "failed"),
        (counts["abandoned"], "from blocks that were cut short"),
    ]
    left = "; ".join(f"{number} {words}" for number, words in odd if number)
    shown.append(f"Samples that were kept and left out of every figure: {left or 'none'}.")
    if host.free_page_reporting:
        shown.append(_FREE_PAGE_REPORTING)
    if counts["noisy"]:
        shown.append(f"Noisy, and in the figures all the same: {_noise(sweep, 0) or counts['noisy']}.")
    shown.append(f"Every sample, and the analysis in full: [{DOCUMENT}]({DOCUMENT}).")
    return bullets(Markdown(line) for line in shown)


def _image(image: Image) -> str:
    return (
        f"Image: {md(image.name)} ({md(image.digest)}), in {md(image.runtime)}: each load is a new container, whose "
        "own start is in no figure."
    )


def _measurements(sweep: AnalysedSweep) -> Sequence[str]:
    """Return which value comes from which measurement; empty if every sample was to be a fresh process."""
    blocks = {each.sample.block: each.is_full for each in sweep.measurements if not each.abandoned}
    full, weights = sum(blocks.values()), len(blocks) - sum(blocks.values())
    if sweep.protocol.no_template:
        return [f"Every sample is a fresh process: {md(sweep.protocol.no_template)}."]
    if not weights:
        return []
    return [
        f"{units.counted(full, 'block')} of whole loads, each a fresh process, and {weights} of the weights alone, "
        f"{sweep.protocol.weights_pairs} pairs a cell by the children of a template that had imported everything. "
        "Weights to first token is from both, everything else from the whole loads. An arm whose intervals were narrow "
        "enough is in no later block."
    ]


def _stock(values: Mapping[str, str]) -> Markdown:
    """Return the settings that everything is compared with: THP's selectors, and the pools that hold pages."""
    shown = {
        name: value
        for name, value in values.items()
        if name in ("thp.enabled", "thp.defrag", "thp.shmem_enabled")
        or (name.startswith("hugepages.") and value != "0")
    }
    pools = any(name.startswith("hugepages.") for name in shown)
    return Markdown(f"{_listed(shown)}{'' if pools else ' and no reserved pages'}")


_FREE_PAGE_REPORTING = Markdown(
    "This guest gives freed memory back to its hypervisor (free page reporting), so a load pays for the first touch of "
    "its memory in the hypervisor too, huge page or not; a reserved pool is not given back, and pays once."
)


def _arms(sweep: AnalysedSweep) -> Markdown:
    columns = ["arm", "what it is", "settings", "environment"]
    rows = [[code(arm.name), md(arm.about or None), _listed(arm.settings), _listed(arm.env)] for arm in sweep.arms]
    if sweep.first_token_arms:
        columns.append("first token")
        rows = [[*row, _start(arm.first_token)] for row, arm in zip(rows, sweep.arms, strict=True)]
    found = table(columns, rows)
    if not sweep.left_out:
        return found
    left = bullets(Markdown(f"{code(each.arm)} was left out. {md(each.why, 600)}") for each in sweep.left_out)
    return Markdown(f"{found}\n\nArms that were not measured:\n\n{left}")


def _start(start: StartAid | None) -> Markdown:
    """Return what an arm does for the whole start."""
    if start is None:
        return md(None)
    replay = f"replay {start.replay}"
    parts = (("bytecode", start.bytecode), ("kernels", start.kernels), (replay, start.replay != "none"))
    return Markdown(", ".join(name for name, is_given in parts if is_given))


def _listed(values: Mapping[str, str]) -> Markdown:
    return Markdown(", ".join(code(f"{name}={value}") for name, value in values.items()) or md(None))


def _advice(sweep: AnalysedSweep) -> Sequence[Markdown]:
    if _is_too_few(sweep):
        return [_more_blocks(sweep)]
    return [_advice_for(sweep, advice) for advice in sweep.analysis.advice]


def _more_blocks(sweep: AnalysedSweep) -> Markdown:
    """Return how long a sweep with enough blocks for a claim takes, from the pace of this one."""
    fewest, blocks = sweep.analysis.rule.fewest_pairs, sweep.analysis.blocks
    if not blocks:
        return Markdown("Nothing yet: no block was finished. Give the sweep a larger `sweep_budget_s`.")
    # A tenth more, since blocks differ; in whole minutes.
    budget_s = math.ceil(1.1 * fewest * sweep.stopped.spent_s / blocks / 60) * 60
    limit = shlex.quote(plain(sweep.host.name))
    command = f"ansible-playbook sweep.yml -l {limit} -e sweep_budget_s={budget_s}"
    return Markdown(
        f"Nothing yet. At the pace of this sweep, {fewest} blocks take about {units.seconds(float(budget_s))}; a "
        f"precise answer takes more:\n\n{fenced(command)}"
    )


def _of_what(sweep: AnalysedSweep) -> str:
    return "that was tried" if sweep.first_token_arms else "of huge-page settings"


def _advice_for(sweep: AnalysedSweep, advice: Advice) -> Markdown:
    head = f"**{dtype_words(advice.dtype).capitalize()}**: "
    few = [kind for kind in KINDS if sweep.analysis.group(_TOKEN, advice.dtype, kind).is_too_few]
    if len(few) == len(KINDS):
        return Markdown(f"{head}too few blocks to say.")
    if advice.arm is None:
        unjudged = f" {few[0].capitalize()} loads could not be judged." if few else ""
        return Markdown(f"{head}nothing. This host's data supports no change {_of_what(sweep)} for speed.{unjudged}")
    gains = [
        f"{metric.title}, {group.kind}: {result.words}"
        for metric in TIMES
        for group in (sweep.analysis.group(metric.name, advice.dtype, kind) for kind in KINDS)
        for result in group.arms
        if result.arm == advice.arm and result.verdict == "less"
    ]
    lines = [
        f"{head}the smallest set of settings that this host's data supports is {code(advice.arm)} ({'; '.join(gains)})."
    ]
    variables = group_vars(advice.settings)
    if variables:
        already = [name for name, value in advice.settings.items() if sweep.stock.get(name) == value]
        note = f" ({', '.join(code(name) for name in already)} was so already)" if already else ""
        lines.append(f"In `inventory/group_vars`{note}:\n\n{_yaml(variables)}")
    if advice.env:
        values = "\n".join(f"{name}={value}" for name, value in advice.env.items())
        lines.append(f"In the environment of the serving process:\n\n{fenced(values)}")
    start = next((arm.first_token for arm in sweep.arms if arm.name == advice.arm), None)
    if start:
        lines.append(
            f"In `inventory/group_vars`, and then `ansible-playbook first_token.yml -l HOST`:\n\n"
            f"{_yaml(first_token_vars(start))}\n\n"
            f"A serving engine is a target of its own, with `unit` and `ready`; {_WHEN[start.replay]}."
        )
    return Markdown("\n\n".join(lines))


_WHEN = {
    "none": "it gets its caches the same way",
    "together": "its replay starts as the unit starts",
    "ahead": "`ahead` reads at boot, and `replay: both` also as the unit starts, for a start that is cold later on",
}


def _yaml(text: str) -> Markdown:
    return Markdown(fenced(text).replace("```text", "```yaml", 1))
