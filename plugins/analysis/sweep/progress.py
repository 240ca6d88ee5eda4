"""The progress of a sweep: what it will do, how far it is, and when it has measured enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.documents.decode import typed
from analysis.render import units
from analysis.sweep.metrics import CONTROL, KINDS, REFERENCE, TIMES, TOTALS, WEIGHTS, Metric
from analysis.sweep.rule import FEWEST_PAIRS, Array, expected_half_width, is_settled, scatter_within_blocks
from analysis.sweep.sweep import Arm, ArmLeftOut, SharedBytecode, SharedKernels, Stopping

NOISY_SHARE = 0.25
"""Share of noisy samples from which on a host is called noisy."""
_MOST_BLOCKS = 2000
"""The limit of forecasts: nobody would wait longer."""


@dataclass(frozen=True)
class Times:
    """The times of one valid sample."""

    block: int
    arm: str
    dtype_asked: str
    kind: str
    time_to_first_token_s: float | None
    load_real_s: float | None
    weights_to_first_token_s: float | None = None
    measurement: str = "full"

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.arm, self.dtype_asked, self.kind


@dataclass(frozen=True)
class CanaryFigures:
    """Canary times of the samples so far over the best one: median and worst."""

    samples: int = 0
    noisy: int = 0
    slowdown: float | None = None
    worst_slowdown: float | None = None

    def words(self) -> str | None:
        """Return how noisy the host is; None if there are too few samples to say."""
        if not self.samples or self.noisy < NOISY_SHARE * self.samples:
            return None
        said = f"this host is noisy: {self.noisy} of {self.samples} samples"
        if self.slowdown is None or self.worst_slowdown is None:
            return said
        canary = f"{self.slowdown:.2f} times its best in the median and up to {self.worst_slowdown:.1f}"
        return f"{said}, the canary took {canary}"


@dataclass(frozen=True)
class Progress:
    """The progress of a sweep: finished blocks, seconds measured, the times so far, and the arms with their dtypes.

    `weights_pairs` is 0 if no template measures, `cell_s` has the mean seconds of a cell by measurement.
    """

    done: int
    spent_s: float
    times: tuple[Times, ...]
    cells: tuple[tuple[str, ...], ...]
    last_block: int | None = None
    weights_pairs: int = 0
    cell_s: Mapping[str, float] = field(default_factory=dict)
    noise: CanaryFigures = CanaryFigures()


@dataclass(frozen=True)
class Next:
    """What the next block will measure."""

    measurement: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Plan:
    """What a sweep will measure."""

    run_id: str
    seed: int
    dtypes: tuple[str, ...]
    arms: tuple[Arm, ...]
    left_out: tuple[ArmLeftOut, ...]
    weights_pairs: int = 0
    no_template: str = ""
    bytecode: SharedBytecode | None = None
    kernels: SharedKernels | None = None


@dataclass(frozen=True)
class Planned:
    """What `slm_sweep` returns for a planned or resumed sweep."""

    plan: Plan
    progress: Progress
    restored: object
    is_resumed: bool


def outlook(planned: Mapping[str, Any], stopping: Mapping[str, Any]) -> list[str]:
    """Return what a planned or resumed sweep will do, in plain words, one line each."""
    start, rules = typed(Planned, planned), typed(Stopping, stopping)
    plan, done = start.plan, start.progress.done
    arms = ", ".join(arm.name for arm in plan.arms)
    lines = [
        f"{units.counted(rules.blocks, 'block')} of {len(plan.arms)} arms ({arms}), "
        f"as {' and '.join(plan.dtypes)}, cold and warm, "
        f"within {units.seconds(rules.budget_s)}; seed {plan.seed}.",
    ]
    if plan.weights_pairs:
        lines.append(
            f"The first {rules.full_blocks} blocks measure whole loads, later ones the weights alone, by templates. "
            "An arm whose intervals are narrow enough is left out of later blocks."
        )
    if plan.no_template:
        lines.append(f"Every load is a fresh process's: {plan.no_template}.")
    lines += [cache.sentence() for cache in (plan.bytecode, plan.kernels) if cache]
    if start.restored:
        lines.append("An earlier sweep was cut short; the settings it had left behind are restored.")
    if start.is_resumed:
        lines.append(f"Goes on with sweep {plan.run_id}, {done} of whose blocks are measured.")
    lines += [f"{each.arm} is left out. {each.why}" for each in plan.left_out]
    if rules.blocks < FEWEST_PAIRS:
        lines.append(f"Nothing is claimed from fewer than {FEWEST_PAIRS} blocks.")
    return lines


def progress_line(progress: Mapping[str, Any], stopping: Mapping[str, Any]) -> str:
    """Return a line for the end of a block: how far the sweep is, and what precision the rest of its budget will give.

    `block 3 of 8: stock's first token 7.02 s cold, 4.31 s warm; about 24 min 10 s left; 8 blocks give about ±5 %`
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
    over = stop_reason(progress, stopping)
    parts.append(over or f"about {units.seconds(left_s)} left")
    affordable = min(rules.blocks, now.done + int(left_s / block_s)) if block_s else rules.blocks
    if not over and affordable < FEWEST_PAIRS:
        parts.append(
            f"that is {units.counted(affordable, 'block')}, and nothing is claimed from fewer than {FEWEST_PAIRS}"
        )
    elif now.done < affordable:
        parts += _outcome(now, affordable, rules)
    noise = now.noise.words()
    return f"{head}: {'; '.join([*parts, *([noise] if noise else [])])}"


def next_block(progress: Mapping[str, Any], stopping: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the next block will measure: `measurement` and `cells`, with both unchanged arms of each dtype.

    Whole loads come first, for the counters and the whole times; then the weights alone as long as an interval of
    theirs is wider than wanted, then whole loads again. A cell whose intervals are all narrow enough is left out, and
    its time goes to the others. The choice never depends on where the intervals lie.
    """
    now, rules = typed(Progress, progress), typed(Stopping, stopping)
    chosen = _next(now, rules)
    return {"measurement": chosen.measurement, "cells": [list(cell) for cell in chosen.cells]}


def _next(now: Progress, rules: Stopping) -> Next:
    table = _Table(now)
    precision = math.log1p(rules.precision)
    if not now.weights_pairs or table.full_blocks < rules.full_blocks:
        return Next("full", table.pending(TIMES, precision))
    weights = table.pending((WEIGHTS,), precision)
    return Next("weights", weights) if weights else Next("full", table.pending(TOTALS, precision))


def _next_s(now: Progress, rules: Stopping) -> float:
    """Return the seconds that the next block will take, from the cells so far."""
    chosen = _next(now, rules)
    known = now.cell_s.get(chosen.measurement, max(now.cell_s.values(), default=None))
    return len(chosen.cells) * known if known is not None else now.spent_s / now.done


def _outcome(now: Progress, blocks: int, rules: Stopping) -> list[str]:
    """Return what so many blocks will give at the scatter seen so far, and what the wanted precision would take."""
    full = min(blocks, rules.full_blocks) if now.weights_pairs and rules.full_blocks else blocks
    width = _expected(now, full, TOTALS)
    if width is None:
        return []
    found = f"{full} blocks give about ±{_percent(width)} %"
    weights = _expected(now, blocks, (WEIGHTS,)) if now.weights_pairs else None
    if weights is not None:
        found = f"{found} of the whole times, {blocks} about ±{_percent(weights)} % of weights to first token"
    more = _needed(now, rules.precision)
    return [f"{found}, {more}" if width > math.log1p(rules.precision) and more else found]


def _percent(width: float) -> int:
    return math.ceil(100 * math.expm1(width))


def _expected(now: Progress, blocks: int, metrics: Sequence[Metric] = TOTALS) -> float | None:
    """Return the largest expected half-width of these times, on the log scale; None if none is known."""
    table = _Table(now)
    scatters = [scatter_within_blocks(values) for _, values in table.groups(metrics)]
    known = [scatter for scatter in scatters if math.isfinite(scatter)]
    if not table.arms or not known:
        return None
    return expected_half_width(max(known), blocks, len(table.arms), table.comparisons)


def _needed(now: Progress, precision: float) -> str | None:
    """Return `±3 % would need about 70 blocks (5.8 h)`, by the scatter seen so far."""
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
    """Return the unchanged arm's median TTFT in the last block, over all dtypes."""
    found = [
        times.time_to_first_token_s
        for times in now.times
        if (times.arm, times.kind, times.block) == (REFERENCE, kind, now.last_block)
        and times.time_to_first_token_s is not None
    ]
    return statistics.median(found) if found else None


def stop_reason(progress: Mapping[str, Any], stopping: Mapping[str, Any]) -> str | None:
    """Return why a sweep should stop, with the blocks that the wanted precision would need; None if it should go on.

    `progress` is what `slm_sweep` returns after a block, `stopping` the rules (blocks, budget_s, precision).
    """
    now, rules = typed(Progress, progress), typed(Stopping, stopping)
    if now.done and not _next(now, rules).cells:
        return f"every interval of the times is within ±{rules.precision * 100:.3g} %"
    if now.done >= rules.blocks:
        reason = f"{units.counted(now.done, 'block')} {'is' if now.done == 1 else 'are'} measured, as many as asked for"
    elif now.done and now.spent_s + _next_s(now, rules) > rules.budget_s:
        reason = f"another block would not fit the budget of {rules.budget_s / 60:.0f} minutes"
    else:
        return None
    more = _needed(now, rules.precision)
    return f"{reason}; {more}" if more else reason


class _Table:
    """The times so far as arrays: the two unchanged arms, then the others, by block."""

    def __init__(self, now: Progress) -> None:
        self._rows: dict[tuple[str, str, str], dict[int, list[Times]]] = {}
        for times in now.times:
            self._rows.setdefault(times.cell, {}).setdefault(times.block, []).append(times)
        measured = {times.block: times.measurement for times in now.times}
        self._blocks = sorted(measured)
        self._full = [block for block in self._blocks if measured[block] == "full"]
        self._cells = now.cells
        self._places = sorted({(cell[1], kind) for cell in now.cells for kind in KINDS})
        self.arms = sorted({cell[0] for cell in now.cells} - {REFERENCE, CONTROL})
        self.comparisons = len(self.arms) * len(self._places)

    @property
    def full_blocks(self) -> int:
        """Return how many blocks have measured whole loads."""
        return len(self._full)

    def groups(self, metrics: Sequence[Metric]) -> Iterator[tuple[str, Array]]:
        """Yield the dtype and values (2 + arms, blocks) of each time, dtype and kind; NaN if there is none."""
        for metric in metrics:
            for dtype, kind in self._places:
                names = (REFERENCE, CONTROL, *self.arms)
                values = [self._values(metric, name, dtype, kind) for name in names]
                yield dtype, np.array(values).reshape(len(names), -1)

    def pending(self, metrics: Sequence[Metric], precision: float) -> tuple[tuple[str, ...], ...]:
        """Return the cells with a wider interval, and the unchanged arms they are compared with, in the plan's order.

        A cell that has no valid samples has no interval, so it is never settled.
        """
        wide: set[tuple[str, str]] = set()
        for dtype, values in self.groups(metrics):
            if self.arms:
                settled = is_settled(values, self.comparisons, precision)
                wide |= {(arm, dtype) for arm, is_narrow in zip(self.arms, settled, strict=True) if not is_narrow}
        dtypes = {dtype for _, dtype in wide} if self.arms else {cell[1] for cell in self._cells}
        wide |= {(stock, dtype) for stock in (REFERENCE, CONTROL) for dtype in dtypes}
        return tuple(cell for cell in self._cells if (cell[0], cell[1]) in wide)

    def _values(self, metric: Metric, arm: str, dtype: str, kind: str) -> list[float]:
        found = self._rows.get((arm, dtype, kind), {})
        blocks = self._blocks if metric is WEIGHTS else self._full
        return [self._mean(metric, found.get(block, [])) for block in blocks]

    @staticmethod
    def _mean(metric: Metric, times: Sequence[Times]) -> float:
        """Return the mean: pairs within a block count as one."""
        return float(np.mean([metric.compared(getattr(each, metric.name)) for each in times])) if times else math.nan
