"""What a sweep supports: the smallest set of settings that made something faster and nothing slower, per dtype."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.sweep.metrics import TIMES

_TIMES = tuple(metric.name for metric in TIMES)


def advise(document: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One piece of advice for each dtype: `dtype`, `arm` (None: nothing is supported), `settings`, `env`, `changes`.

    An arm is supported where a time is claimed to be faster and none to be slower. The best is the one whose interval
    promises most; of those that lie within the best one's interval, the one with the fewest changes to the host is
    taken. `changes` counts knobs whose value differs from stock's, and variables of the environment.
    """
    return [
        _for_dtype(
            document, dtype, [group for group in groups if group["dtype"] == dtype and group["metric"] in _TIMES]
        )
        for dtype in document["protocol"]["dtypes"]
    ]


def _for_dtype(document: Mapping[str, Any], dtype: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    arms = {arm["name"]: arm for arm in document["arms"]}
    found: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for group in groups:
        for result in group["arms"]:
            found.setdefault(result["arm"], []).append((group, result))
    supported = {
        name: [(group, result) for group, result in results if result["verdict"] == "less"]
        for name, results in found.items()
        if any(result["verdict"] == "less" for _, result in results)
        and not any(result["verdict"] == "more" for _, result in results)
    }
    if not supported:
        return {"dtype": dtype, "arm": None, "settings": {}, "env": {}, "changes": 0}
    promise = {name: min(results, key=lambda pair: pair[1]["high"]) for name, results in supported.items()}
    best = min(promise, key=lambda name: promise[name][1]["high"])
    group, leader = promise[best]
    as_good = {
        result["arm"]
        for result in group["arms"]
        if result["arm"] in supported and result["verdict"] == "less" and result["estimate"] <= leader["high"]
    }
    chosen = arms[min(as_good | {best}, key=lambda name: (_changes(arms[name], document["stock"]), name != best, name))]
    return {
        "dtype": dtype,
        "arm": chosen["name"],
        "settings": chosen["settings"],
        "env": chosen["env"],
        "changes": _changes(chosen, document["stock"]),
    }


def _changes(arm: Mapping[str, Any], stock: Mapping[str, str]) -> int:
    different = [knob for knob, value in arm["settings"].items() if stock.get(knob) != value]
    return len(different) + len(arm["env"])


def group_vars(settings: Mapping[str, str]) -> str:
    """The YAML lines for group_vars that set these knobs for good; empty where there are none."""
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
