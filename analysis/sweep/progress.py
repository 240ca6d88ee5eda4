"""A sweep on its way: what it will do, how far it is, and when it has measured enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.sweep.metrics import CONTROL, KINDS, REFERENCE, TOTALS, Metric
from analysis.sweep.rule import FEWEST_PAIRS, Array, is_tight
from analysis.sweep.sweep import Arm, LeftOut, Stopping
from analysis.text import units
from analysis.text.typed import read


@dataclass(frozen=True)
class Times:
    """The times of one valid sample."""

    block: int
    arm: str
    dtype_asked: str
    kind: str
    time_to_first_token_s: float | None
    load_real_s: float | None

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.arm, self.dtype_asked, self.kind


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: finished blocks, seconds measured, the times so far, and the arms with their dtypes."""

    done: int
    spent_s: float
    times: tuple[Times, ...]
    cells: tuple[tuple[str, ...], ...]
    last_block: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a sweep is going to measure."""

    run_id: str
    seed: int
    dtypes: tuple[str, ...]
    arms: tuple[Arm, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Planned:
    """What `slm_sweep` returns for a planned or resumed sweep."""

    plan: Plan
    progress: Progress
    restored: object
    is_resumed: bool


def outlook(planned: Mapping[str, Any], stopping: Mapping[str, Any]) -> list[str]:
    """What a planned or resumed sweep is going to do, in plain words, one line each."""
    start, rules = read(Planned, planned), read(Stopping, stopping)
    plan, done = start.plan, start.progress.done
    arms = ", ".join(arm.name for arm in plan.arms)
    lines = [
        f"{units.counted(rules.blocks, 'block')} of {len(plan.arms)} arms ({arms}), "
        f"as {' and '.join(plan.dtypes)}, cold and warm, "
        f"within {units.seconds(rules.budget_s)}; seed {plan.seed}.",
    ]
    if start.restored:
        lines.append("An earlier sweep was cut short; the settings it had left behind are restored.")
    if start.is_resumed:
        lines.append(f"Goes on with sweep {plan.run_id}, {done} of whose blocks are measured.")
    lines += [f"{each.arm} is left out. {each.why}" for each in plan.left_out]
    if rules.blocks < FEWEST_PAIRS:
        lines.append(f"Nothing is claimed from fewer than {FEWEST_PAIRS} blocks.")
    return lines


def progress_line(progress: Mapping[str, Any], stopping: Mapping[str, Any]) -> str:
    """`block 3 of 8: stock's first token 7.02 s cold, 4.31 s warm; 24 min 10 s left`, after a block."""
    now, rules = read(Progress, progress), read(Stopping, stopping)
    head = f"block {now.done} of {rules.blocks}"
    if not now.done:
        return head
    stock = {kind: _stock_median(now, kind) for kind in KINDS}
    parts = [f"{units.seconds(value)} {kind}" for kind, value in stock.items() if value is not None]
    left_s = min(now.spent_s / now.done * (rules.blocks - now.done), max(0.0, rules.budget_s - now.spent_s))
    end = stop_reason(progress, stopping) or f"about {units.seconds(left_s)} left"
    return f"{head}: stock's first token {', '.join(parts)}; {end}" if parts else f"{head}: {end}"


def _stock_median(now: Progress, kind: str) -> float | None:
    """Stock's median time to first token in the last block, over all dtypes."""
    found = [
        times.time_to_first_token_s
        for times in now.times
        if (times.arm, times.kind, times.block) == (REFERENCE, kind, now.last_block)
        and times.time_to_first_token_s is not None
    ]
    return statistics.median(found) if found else None


def stop_reason(progress: Mapping[str, Any], stopping: Mapping[str, Any]) -> str | None:
    """Why a sweep should not start another block, or None where it should.

    `progress` is what `slm_sweep` returns after a block, `stopping` the rules (blocks, budget_s, precision).
    """
    now, rules = read(Progress, progress), read(Stopping, stopping)
    if now.done >= rules.blocks:
        return f"{units.counted(now.done, 'block')} {'is' if now.done == 1 else 'are'} measured, as many as asked for"
    if now.done and now.spent_s + now.spent_s / now.done > rules.budget_s:
        return f"another block would not fit the budget of {rules.budget_s / 60:.0f} minutes"
    if _intervals_are_tight(now, rules.precision):
        return f"every interval of load and time to first token is within ±{rules.precision * 100:.0f} %"
    return None


def _intervals_are_tight(now: Progress, precision: float) -> bool:
    """Whether width alone allows an end; where the intervals lie must not matter, or chance could pick the moment.

    An arm that has no valid samples has no interval, so it is never tight.
    """
    rows: dict[tuple[str, str, str], dict[int, Times]] = {}
    for times in now.times:
        rows.setdefault(times.cell, {})[times.block] = times
    blocks = sorted({block for found in rows.values() for block in found})
    arms = sorted({cell[0] for cell in now.cells} - {REFERENCE, CONTROL})
    groups = sorted({(cell[1], kind) for cell in now.cells for kind in KINDS})
    if not arms:
        return False

    def values(metric: Metric, arm: str, dtype: str, kind: str) -> Array:
        found = rows.get((arm, dtype, kind), {})
        times = (getattr(found[block], metric.name) if block in found else None for block in blocks)
        return np.array([metric.compared(each) for each in times], dtype=float)

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
