"""A sweep on its way: what it will do, how far it is, and when it has measured enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.sweep.metrics import CONTROL, KINDS, REFERENCE, TOTALS, Metric, things
from analysis.sweep.rule import FEWEST_PAIRS, Array, is_tight
from analysis.text import units


def outlook(planned: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    """What a planned or resumed sweep is going to do, in plain words, one line each."""
    plan, done = planned["plan"], planned["progress"]["done"]
    arms = ", ".join(arm["name"] for arm in plan["arms"])
    lines = [
        f"{things(protocol['blocks'], 'block')} of {len(plan['arms'])} arms ({arms}), "
        f"as {' and '.join(plan['dtypes'])}, cold and warm, "
        f"within {units.seconds(protocol['budget_s'])}; seed {plan['seed']}.",
    ]
    if planned["restored"]:
        lines.append("An earlier sweep was cut short; the settings it had left behind are restored.")
    if planned["is_resumed"]:
        lines.append(f"Goes on with sweep {plan['run_id']}, {done} of whose blocks are measured.")
    lines += [f"{each['arm']} is left out. {each['why']}" for each in plan["left_out"]]
    if protocol["blocks"] < FEWEST_PAIRS:
        lines.append(f"Nothing is claimed from fewer than {FEWEST_PAIRS} blocks.")
    return lines


def line(progress: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """`block 3 of 8: stock's first token 7.02 s cold, 4.31 s warm; 24 min 10 s left`, after a block."""
    done = progress["done"]
    head = f"block {done} of {protocol['blocks']}"
    if not done:
        return head
    stock = {
        kind: statistics.median(times)
        for kind in KINDS
        if (
            times := [
                row["time_to_first_token_s"]
                for row in progress["times"]
                if (row["arm"], row["kind"], row["block"]) == (REFERENCE, kind, progress["last_block"])
            ]
        )
    }
    reason = stop_reason(progress, protocol)
    left_s = min(
        progress["spent_s"] / done * (protocol["blocks"] - done), max(0.0, protocol["budget_s"] - progress["spent_s"])
    )
    parts = [f"stock's first token {', '.join(f'{units.seconds(value)} {kind}' for kind, value in stock.items())}"]
    return f"{head}: {'; '.join([*(parts if stock else []), reason or f'about {units.seconds(left_s)} left'])}"


def stop_reason(progress: Mapping[str, Any], protocol: Mapping[str, Any]) -> str | None:
    """Why a sweep should not start another block, or None where it should.

    `progress` is what `slm_sweep` returns after a block: `done` (finished blocks), `spent_s` (time measured so far),
    `times` (rows of block, arm, dtype, kind and the two times), `cells` (arms with their dtypes). `protocol` has
    `blocks`, `budget_s` and `precision` (half the width of an interval, as a share).
    """
    done, spent = progress["done"], progress["spent_s"]
    if done >= protocol["blocks"]:
        return f"{things(done, 'block')} {'is' if done == 1 else 'are'} measured, as many as asked for"
    if done and spent + spent / done > protocol["budget_s"]:
        return f"another block would not fit the budget of {protocol['budget_s'] / 60:.0f} minutes"
    if _intervals_are_tight(progress, protocol["precision"]):
        return f"every interval of load and time to first token is within ±{protocol['precision'] * 100:.0f} %"
    return None


def _intervals_are_tight(progress: Mapping[str, Any], precision: float) -> bool:
    """Whether width alone allows an end; where the intervals lie must not matter, or chance could pick the moment.

    An arm that has no valid samples has no interval, so it is never tight.
    """
    rows: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {}
    for row in progress["times"]:
        rows.setdefault((row["arm"], row["dtype_asked"], row["kind"]), {})[row["block"]] = row
    blocks = sorted({block for found in rows.values() for block in found})
    arms = sorted({arm for arm, _ in progress["cells"]} - {REFERENCE, CONTROL})
    groups = sorted({(dtype, kind) for _, dtype in progress["cells"] for kind in KINDS})
    if not arms:
        return False

    def values(metric: Metric, arm: str, dtype: str, kind: str) -> Array:
        found = rows.get((arm, dtype, kind), {})
        return np.array([metric.compared(found.get(block, {}).get(metric.name)) for block in blocks], dtype=float)

    return all(
        bool(
            is_tight(
                np.array([values(metric, arm, *group) - values(metric, REFERENCE, *group) for arm in arms]),
                len(arms) * len(groups),
                math.log1p(precision),
            )
        )
        for metric in TOTALS
        for group in groups
    )
