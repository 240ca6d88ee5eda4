"""A sweep on its way: what it will do, how far it is, and when it has measured enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.sweep.metrics import CONTROL, KINDS, REFERENCE, TOTALS, Metric
from analysis.sweep.rule import FEWEST_PAIRS, Array, expected_half_width, is_tight, scatter_within_blocks
from analysis.sweep.sweep import Arm, ArmLeftOut, Stopping
from analysis.text import units
from analysis.text.typed import typed

_MOST_BLOCKS = 2000
"""No forecast goes beyond: nobody would wait for it."""


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
    left_out: tuple[ArmLeftOut, ...]


@dataclass(frozen=True)
class Planned:
    """What `slm_sweep` returns for a planned or resumed sweep."""

    plan: Plan
    progress: Progress
    restored: object
    is_resumed: bool


def outlook(planned: Mapping[str, Any], stopping: Mapping[str, Any]) -> list[str]:
    """What a planned or resumed sweep is going to do, in plain words, one line each."""
    start, rules = typed(Planned, planned), typed(Stopping, stopping)
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
    """`block 3 of 8: stock's first token 7.02 s cold, 4.31 s warm; about 24 min 10 s left; 8 blocks give about ±5 %`.

    After a block: how far the sweep is, and what precision the rest of its budget will buy.
    """
    now, rules = typed(Progress, progress), typed(Stopping, stopping)
    head = f"block {now.done} of {rules.blocks}"
    if not now.done:
        return head
    stock = {kind: _stock_median(now, kind) for kind in KINDS}
    first = ", ".join(f"{units.seconds(value)} {kind}" for kind, value in stock.items() if value is not None)
    block_s = now.spent_s / now.done
    left_s = min(block_s * (rules.blocks - now.done), max(0.0, rules.budget_s - now.spent_s))
    parts = [f"stock's first token {first}"] if first else []
    parts.append(stop_reason(progress, stopping) or f"about {units.seconds(left_s)} left")
    affordable = min(rules.blocks, now.done + int(left_s / block_s)) if block_s else rules.blocks
    if now.done < affordable and affordable >= FEWEST_PAIRS:
        parts += _outcome(now, affordable, rules.precision)
    return f"{head}: {'; '.join(parts)}"


def _outcome(now: Progress, blocks: int, precision: float) -> list[str]:
    """What so many blocks will give at the scatter seen so far, and what the wanted precision would take."""
    width = _expected(now, blocks)
    if width is None:
        return []
    found = f"{blocks} blocks give about ±{math.ceil(100 * math.expm1(width))} %"
    more = _needed(now, precision)
    return [f"{found}, {more}" if width > math.log1p(precision) and more else found]


def _expected(now: Progress, blocks: int) -> float | None:
    """The widest half-width to expect of load and time to first token, on the log scale; None where none is known."""
    table = _Table(now)
    scatters = [scatter_within_blocks(values) for values in table.groups()]
    known = [scatter for scatter in scatters if math.isfinite(scatter)]
    if not table.arms or not known:
        return None
    return expected_half_width(max(known), blocks, len(table.arms), table.comparisons)


def _needed(now: Progress, precision: float) -> str | None:
    """`±3 % would need about 70 blocks (5.8 h)`, by the scatter seen so far."""
    enough = (
        blocks
        for blocks in range(max(FEWEST_PAIRS, now.done + 1), _MOST_BLOCKS)
        if (width := _expected(now, blocks)) is not None and width <= math.log1p(precision)
    )
    blocks = next(enough, None) if _expected(now, FEWEST_PAIRS) is not None else None
    if blocks is None or not now.done:
        return None
    seconds = blocks * now.spent_s / now.done
    duration = f"{seconds / 3600:.1f} h" if seconds >= 2 * 3600 else f"{math.ceil(seconds / 60)} min"
    return f"±{precision * 100:.3g} % would need about {blocks} blocks ({duration})"


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
    """Why a sweep should not start another block, or None where it should; with what the precision would have taken.

    `progress` is what `slm_sweep` returns after a block, `stopping` the rules (blocks, budget_s, precision).
    """
    now, rules = typed(Progress, progress), typed(Stopping, stopping)
    if now.done and _intervals_are_tight(now, rules.precision):
        return f"every interval of load and time to first token is within ±{rules.precision * 100:.0f} %"
    if now.done >= rules.blocks:
        reason = f"{units.counted(now.done, 'block')} {'is' if now.done == 1 else 'are'} measured, as many as asked for"
    elif now.done and now.spent_s + now.spent_s / now.done > rules.budget_s:
        reason = f"another block would not fit the budget of {rules.budget_s / 60:.0f} minutes"
    else:
        return None
    more = _needed(now, rules.precision)
    return f"{reason}; {more}" if more else reason


class _Table:
    """The times so far as arrays: the two stocks, then the arms, by block."""

    def __init__(self, now: Progress) -> None:
        self._rows: dict[tuple[str, str, str], dict[int, Times]] = {}
        for times in now.times:
            self._rows.setdefault(times.cell, {})[times.block] = times
        self._blocks = sorted({block for found in self._rows.values() for block in found})
        self._places = sorted({(cell[1], kind) for cell in now.cells for kind in KINDS})
        self.arms = sorted({cell[0] for cell in now.cells} - {REFERENCE, CONTROL})
        self.comparisons = len(self.arms) * len(self._places)

    def groups(self) -> Iterator[Array]:
        """Values of shape (2 + arms, blocks) of each whole time, dtype and kind; NaN where there is none."""
        for metric in TOTALS:
            for dtype, kind in self._places:
                names = (REFERENCE, CONTROL, *self.arms)
                yield np.array([self._values(metric, name, dtype, kind) for name in names]).reshape(len(names), -1)

    def _values(self, metric: Metric, arm: str, dtype: str, kind: str) -> list[float]:
        found = self._rows.get((arm, dtype, kind), {})
        times = (getattr(found[block], metric.name) if block in found else None for block in self._blocks)
        return [metric.compared(each) for each in times]


def _intervals_are_tight(now: Progress, precision: float) -> bool:
    """Whether width alone allows an end; where the intervals lie must not matter, or chance could pick the moment.

    An arm that has no valid samples has no interval, so it is never tight.
    """
    table = _Table(now)
    if not table.arms:
        return False
    return all(bool(is_tight(values, table.comparisons, math.log1p(precision))) for values in table.groups())
