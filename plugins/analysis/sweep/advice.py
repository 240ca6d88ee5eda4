"""The advice of a sweep: the smallest set of settings that made a time faster and none slower, per dtype."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from analysis.sweep.metrics import TIMES
from analysis.sweep.sweep import Advice, Arm, Group, StartAid, Sweep

_TIMES = tuple(metric.name for metric in TIMES)


def advise(sweep: Sweep, groups: Sequence[Group]) -> tuple[Advice, ...]:
    """Return one piece of advice for each dtype.

    An arm is supported if a time is claimed to be faster and none to be slower. The best is the one whose interval
    promises most; of those that lie within the best one's interval, the one with the fewest changes to the host is
    taken. `changes` counts knobs whose value differs from the unchanged one, environment variables, bytecode and
    replay.
    """
    times = [group for group in groups if group.metric in _TIMES]
    return tuple(
        _for_dtype(sweep, dtype, [group for group in times if group.dtype == dtype]) for dtype in sweep.protocol.dtypes
    )


def _for_dtype(sweep: Sweep, dtype: str, groups: Sequence[Group]) -> Advice:
    slower = {each.arm for group in groups for each in group.arms if each.verdict == "more"}
    faster = [
        _Promise(each.arm, each.estimate, each.high, group)
        for group in groups
        for each in group.arms
        if each.verdict == "less" and each.arm not in slower and each.estimate is not None and each.high is not None
    ]
    if not faster:
        return Advice(dtype, None, {}, {}, 0)
    best = min(faster, key=lambda each: each.high)
    as_good = {each.arm for each in faster if each.group is best.group and each.estimate <= best.high}
    arms = [arm for arm in sweep.arms if arm.name in as_good]
    chosen = min(arms, key=lambda arm: (_changes(arm, sweep.stock), arm.name != best.arm, arm.name))
    return Advice(dtype, chosen.name, chosen.settings, chosen.env, _changes(chosen, sweep.stock))


class _Promise(NamedTuple):
    """An arm that is claimed to be faster in one group."""

    arm: str
    estimate: float
    high: float
    group: Group


def _changes(arm: Arm, stock: Mapping[str, str]) -> int:
    different = [knob for knob, value in arm.settings.items() if stock.get(knob) != value]
    start = arm.first_token
    return len(different) + len(arm.env) + (start.bytecode + start.kernels + (start.replay != "none") if start else 0)


def first_token_vars(start: StartAid) -> str:
    """Return the YAML lines for group_vars that make this permanent for the measurement's loader."""
    caches = f"bytecode: {str(start.bytecode).lower()}, kernels: {str(start.kernels).lower()}"
    return f"first_token_targets:\n  - {{name: slm_load, {caches}, replay: {start.replay}}}"


def group_vars(settings: Mapping[str, str]) -> str:
    """Return the YAML lines for group_vars that make these knobs permanent; empty without knobs."""
    lines = [
        f"{knob.replace('.', '_')}: {json.dumps(value)}"
        for knob, value in settings.items()
        if knob.startswith("thp.") and not knob.startswith(("thp.sizes.", "thp.khugepaged."))
    ]
    lines += _nested("thp_sizes", ((knob.split(".")[2], value) for knob, value in _under(settings, "thp.sizes.")))
    lines += _nested(
        "thp_khugepaged", ((knob.split(".")[2], value) for knob, value in _under(settings, "thp.khugepaged."))
    )
    pools = list(_under(settings, "hugepages."))
    if pools:
        lines.append("hugepages_pools:")
        lines += [f"  - {{size: {knob.rsplit('.', 1)[1]}, count: {count}{_node(knob)}}}" for knob, count in pools]
    return "\n".join(lines)


def _under(settings: Mapping[str, str], prefix: str) -> Iterable[tuple[str, str]]:
    return ((knob, value) for knob, value in settings.items() if knob.startswith(prefix))


def _nested(variable: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    inner = [f"  {name}: {json.dumps(value)}" for name, value in pairs]
    return [f"{variable}:", *inner] if inner else []


def _node(knob: str) -> str:
    parts = knob.split(".")
    return f", node: {parts[1].removeprefix('node')}" if len(parts) == 3 else ""
