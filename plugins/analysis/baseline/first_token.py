"""What the report says about the first token: possible gain, by which remedy, and which imports take the time."""

from __future__ import annotations

from analysis.baseline.floor import FirstToken
from analysis.baseline.imports import Bytecode
from analysis.baseline.result import Result
from analysis.render import phases, units
from analysis.render.markdown import Markdown, md, table

NOTICEABLE_SHARE = 0.01


def headline(result: Result) -> str:
    """Return one line: how much sooner it can come and by which remedy, or no gap, or why this is unknown.

    A factor and bold type need at least three quiet blocks.
    """
    found = result.first_token
    if found.problem:
        return f"How much sooner a first token could come is not known: {md(found.problem)}."
    floor = f"{units.seconds(found.floor_s)} ({_limit(found)})"
    at_most = "" if found.bytecode_s is not None else "at most "
    if not found.is_borne_out:
        return (
            f"Estimate from {_blocks(found.blocks)}: a first token now takes {units.seconds(found.now_s)} cold, and "
            f"{at_most}{floor} is the lower bound. What would count: {_remedies(found)}."
        )
    if not found.has_gap:
        return (
            f"**First token comes about as soon as this host allows:** {units.seconds(found.now_s)} cold, with a lower "
            f"bound of {floor}. Bytecode, kept kernels and replay have little left to save."
        )
    return (
        f"**First token could come {units.ratio(found.ratio)} sooner on this host: {_remedies(found)}; the lower bound "
        f"is {at_most}{floor}.**"
    )


def _remedies(found: FirstToken) -> str:
    """Return the remedies with a noticeable gain: `bytecode -6.10 s, kept kernels -600 ms, replay up to -4.90 s`."""
    parts = [
        ("bytecode -", found.bytecode_s),
        ("kept kernels -", found.kernels_s),
        ("replay up to -", found.replay_s),
    ]
    told = [f"{name}{units.seconds(saved)}" for name, saved in parts if saved and _is_noticeable(saved, found)]
    return ", ".join(told if found.bytecode_s is not None else ["bytecode unknown", *told]) or "nothing"


def _limit(found: FirstToken) -> str:
    if found.limit == "disk":
        return f"the disk: {units.size(found.read_bytes)} at {units.rate(found.disk_bytes_per_s)}"
    return f"CPU, mostly {'imports' if found.limit == 'imports' else md(phases.label(found.limit or ''))}"


def section(result: Result) -> Markdown:
    """Return the figures behind the headline."""
    return Markdown(_figures(result.first_token))


def imports(result: Result) -> Markdown:
    """Return what the imports cost, with the picture; "" if they were not measured."""
    return Markdown(_imports(result))


def _figures(found: FirstToken) -> str:
    if found.problem:
        return f"The lower bound is not known: {md(found.problem)}."
    interval = (
        f" [{units.ratio(found.ratio_low)}, {units.ratio(found.ratio_high)}]" if found.ratio_low is not None else ""
    )
    gap = (found.now_s or 0.0) - (found.floor_s or 0.0)
    shares = [
        (found.bytecode_s, "Bytecode for every module would save, at least"),
        # None: not measured, as on every host without a GPU.
        (found.kernels_s or 0.0, "Kernels kept from start to start would save, at least"),
        (found.replay_s, "Reading everything before it is needed would save, at most"),
    ]
    over = f"{units.ratio(found.ratio)}{interval}, {_blocks(found.blocks)}"
    rows = [
        ["First token now, cold", Markdown(units.seconds(found.now_s))],
        ["The lower bound", Markdown(f"{units.seconds(found.floor_s)} ({_limit(found)})")],
        *([["Now over the lower bound", Markdown(over)]] if found.is_borne_out else []),
        *(
            [words, Markdown("unknown" if saved is None else f"{units.seconds(saved)}{_share(saved, gap)}")]
            for saved, words in shares
            if saved is None or _is_noticeable(saved, found)
        ),
    ]
    return table(["", "Median"], rows)


def basis(result: Result) -> Markdown:
    """Return the figures that the lower bound is made of; "" if it is not known."""
    found = result.first_token
    if found.problem:
        return Markdown("")
    rows = [
        [_ALL_THERE[found.kernels_s is not None], Markdown(units.seconds(found.warm_s))],
        ["Read from the disk, cold", Markdown(units.size(found.read_bytes))],
        ["What the disk gives", Markdown(units.rate(found.disk_bytes_per_s))],
    ]
    return table(["", "Median"], rows)


def _is_noticeable(saved_s: float, found: FirstToken) -> bool:
    """Return whether a saving is at least 1 % of the time to first token; a smaller one is nothing to act on."""
    return saved_s > 0 and saved_s >= NOTICEABLE_SHARE * (found.now_s or 0.0)


_ALL_THERE = {
    False: "Everything in memory and bytecode there",
    True: "Everything in memory, bytecode there and kernels kept",
}


def _share(saved: float, gap: float) -> str:
    return f", {units.percent(min(1.0, saved / gap))} of the gap" if gap > 0 else ""


def _blocks(count: int) -> str:
    return f"{count} quiet block{'' if count == 1 else 's'}"


def _imports(result: Result) -> str:
    imports = result.imports
    if imports is None:
        return ""
    if imports.problem or imports.bytecode is None:
        return f"The imports could not be looked at: {md(imports.problem)}"
    bytecode = imports.bytecode
    sources = bytecode.valid + bytecode.lacking
    lines = [
        "![Seconds in each package's own modules during one warm start](imports.svg)",
        f"One more warm start, with the interpreter's import timing: {units.count(imports.modules)} modules in "
        f"{units.seconds(imports.seconds)}. Of {units.count(sources)} with a source, {units.count(bytecode.valid)} "
        "have bytecode that the loader's user can read and that fits"
        + (f"; {_lacking(bytecode)}." if bytecode.lacking else "."),
    ]
    if imports.not_required:
        rows = [
            [
                md(each.distribution),
                md(each.importer or "a function, at run time"),
                Markdown(units.seconds(each.seconds)),
            ]
            for each in imports.not_required
        ]
        lines.append(table(["Imported, though nothing requires it", "By", "Costs"], rows, numbers=(2,)))
    return "\n\n".join(lines)


def _lacking(bytecode: Bytecode) -> str:
    kinds = {"missing": bytecode.missing, "stale": bytecode.stale, "unreadable": bytecode.unreadable}
    named = ", ".join(f"{units.count(count)} {name}" for name, count in kinds.items() if count)
    partly = "" if bytecode.compiled >= bytecode.lacking else f" (for {units.count(bytecode.compiled)} of them)"
    return f"{named}: compiling these takes each start {units.seconds(bytecode.saving_s)} more than reading it{partly}"
