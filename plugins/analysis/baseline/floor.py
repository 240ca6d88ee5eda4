"""The lower bound of the time to first token (TTFT) on a host, from its disk and its remaining work, and the remedies.

B is what a cold run reads up to its first token, D the disk's rate, W the TTFT with everything in memory, bytecode
present and kernels cached. No TTFT is below F = max(B / D, W). A tighter bound goes by phase k, because work on
what is read last cannot begin before it is read:

    F* = max(W, max over k of (sum of B up to k) / D + (sum of warm times after k))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis import statistics
from analysis.baseline.imports import Imports
from analysis.baseline.kernels import Kernels
from analysis.documents.samples import Sample

IMPORT_PHASES = ("import_torch", "import_transformers")
LAST_PHASE = "first_token"
GAP_RATIO = 1.1
"""A smaller gap is not reported: the goal of replaying ahead is 1.05, and medians of few blocks vary by as much."""
DISK_OVER_WORK = 1.02
"""The disk determines the lower bound if that exceeds a warm run's work by this factor."""


@dataclass(frozen=True)
class Step:
    """One phase: bytes read cold, and seconds warm."""

    name: str
    read_bytes: int
    warm_s: float


@dataclass(frozen=True)
class FirstToken:
    """The gap between a host's TTFT and its lower bound. If `problem` says why it is unknown, all else is None.

    `now_s` is the cold TTFT of the host as measured, `ratio` that over the lower bound; `ratio_low` and `ratio_high`
    are its interval, None below three blocks. `bytecode_s` is what bytecode would save at least (None if the imports
    were not measured), `kernels_s` what cached kernels would save at least (None if not measured), `replay_s` what
    reading everything in time would save at most. `limit` is what determines the lower bound: `disk`, or the phase in
    which a warm run spends most, where all imports together are `imports`.
    """

    problem: str | None
    blocks: int = 0
    now_s: float | None = None
    warm_s: float | None = None
    read_bytes: float | None = None
    disk_bytes_per_s: float | None = None
    simple_floor_s: float | None = None
    floor_s: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    bytecode_s: float | None = None
    kernels_s: float | None = None
    replay_s: float | None = None
    limit: str | None = None

    @property
    def is_borne_out(self) -> bool:
        """Return whether there are enough quiet blocks for an interval; with fewer, no factor is claimed."""
        return self.blocks >= statistics.FEWEST_FOR_INTERVAL

    @property
    def has_gap(self) -> bool:
        """Return whether the first token could come sooner, beyond noise."""
        if self.ratio is None or self.ratio < GAP_RATIO:
            return False
        return self.ratio_low is None or self.ratio_low > 1


def simple_floor_s(steps: Sequence[Step], bytes_per_s: float) -> float:
    """Return F in seconds: the longer of reading everything and of doing all work."""
    return max(sum(step.read_bytes for step in steps) / bytes_per_s, sum(step.warm_s for step in steps))


def floor_s(steps: Sequence[Step], bytes_per_s: float) -> float:
    """Return F* in seconds: as F, but work on what is read last comes after the read; never less than F."""
    left_s = sum(step.warm_s for step in steps)
    floor, read_bytes = left_s, 0
    for step in steps:
        read_bytes += step.read_bytes
        left_s -= step.warm_s
        floor = max(floor, read_bytes / bytes_per_s + left_s)
    return max(floor, simple_floor_s(steps, bytes_per_s))


def with_bytecode(steps: Sequence[Step], saving_s: float) -> list[Step]:
    """Return the steps of a host that compiles no modules: the imports lose the saving, in proportion to their time."""
    spent = sum(step.warm_s for step in steps if step.name in IMPORT_PHASES)
    left = max(0.0, 1 - saving_s / spent) if spent else 1.0
    return [
        Step(step.name, step.read_bytes, step.warm_s * left) if step.name in IMPORT_PHASES else step for step in steps
    ]


def with_kernels(steps: Sequence[Step], saving_s: float) -> list[Step]:
    """Return the steps of a host with cached kernels: the first token's own phase loses the saving."""
    return [
        Step(step.name, step.read_bytes, max(0.0, step.warm_s - saving_s)) if step.name == LAST_PHASE else step
        for step in steps
    ]


@dataclass(frozen=True)
class BlockBound:
    """What one quiet block tells: the cold TTFT measured, each phase's bytes and warm work, and the disk's rate."""

    now_s: float
    steps: Sequence[Step]
    disk_bytes_per_s: float

    @property
    def work_s(self) -> float:
        """Return the seconds of a warm run."""
        return sum(step.warm_s for step in self.steps)

    @property
    def read_bytes(self) -> int:
        return sum(step.read_bytes for step in self.steps)

    @property
    def simple_floor_s(self) -> float:
        return simple_floor_s(self.steps, self.disk_bytes_per_s)

    @property
    def floor_s(self) -> float:
        return floor_s(self.steps, self.disk_bytes_per_s)

    @property
    def ratio(self) -> float:
        return self.now_s / self.floor_s


def explain(samples: Iterable[Sample], imports: Imports | None, kernels: Kernels | None = None) -> FirstToken:
    """Return medians over a run's quiet blocks, each with one valid cold and one valid warm sample."""
    pairs = _pairs(samples)
    if not pairs:
        return FirstToken("no block has both a valid cold and a valid warm sample")
    quiet = [(cold, warm) for cold, warm in pairs if not cold.is_noisy and not warm.is_noisy]
    if not quiet:
        return FirstToken("the host was busy with other work in every block")
    compiling_s = imports.bytecode.saving_s if imports and imports.bytecode else None
    kernels_s = kernels.saving_s(warm for _, warm in pairs) if kernels else None
    steps = [_steps(cold, warm, compiling_s or 0.0, kernels_s or 0.0) for cold, warm in quiet]
    bounds = [bound for (cold, _), each in zip(quiet, steps, strict=True) if (bound := _bound(cold, each))]
    if not bounds:
        lacking = "the disk's ceiling is unknown" if all(steps) else None
        return FirstToken(lacking or "the kernel does not tell what each phase read")
    now, floor = _median(bound.now_s for bound in bounds), _median(bound.floor_s for bound in bounds)
    work = _median(bound.work_s for bound in bounds)
    ratios = statistics.figure(bound.ratio for bound in bounds)
    gap = max(0.0, now - floor)
    # Savings are counted in the order in which the work is done; together they are no more than the gap.
    bytecode_s = None if compiling_s is None else min(compiling_s, gap)
    kept_s = None if kernels_s is None else min(kernels_s, gap - (bytecode_s or 0.0))
    return FirstToken(
        problem=None,
        blocks=len(bounds),
        now_s=now,
        warm_s=work,
        read_bytes=_median(bound.read_bytes for bound in bounds),
        disk_bytes_per_s=_median(bound.disk_bytes_per_s for bound in bounds),
        simple_floor_s=_median(bound.simple_floor_s for bound in bounds),
        floor_s=floor,
        ratio=ratios.median,
        ratio_low=ratios.ci_low,
        ratio_high=ratios.ci_high,
        bytecode_s=bytecode_s,
        kernels_s=kept_s,
        replay_s=max(0.0, gap - (bytecode_s or 0.0) - (kept_s or 0.0)),
        limit="disk" if floor > DISK_OVER_WORK * work else _longest([bound.steps for bound in bounds]),
    )


def _bound(cold: Sample, steps: Sequence[Step]) -> BlockBound | None:
    """Return a block's bound; None if its TTFT, its phases or its disk are unknown."""
    rate, now_s = _disk(cold), cold.time_to_first_token_s
    return BlockBound(now_s, steps, rate) if steps and rate and now_s else None


def quiet_blocks(samples: Iterable[Sample]) -> int:
    """Return how many blocks have a valid cold and a valid warm sample and no noisy one."""
    return sum(not cold.is_noisy and not warm.is_noisy for cold, warm in _pairs(samples))


def _pairs(samples: Iterable[Sample]) -> list[tuple[Sample, Sample]]:
    """Return the valid cold and warm sample of each block that has both."""
    blocks: dict[int, dict[str, Sample]] = {}
    for sample in samples:
        if sample.kind in statistics.MEASURED_KINDS:
            blocks.setdefault(sample.block, {})[sample.kind] = sample
    return [(block["cold"], block["warm"]) for block in blocks.values() if len(block) == 2]


def _steps(cold: Sample, warm: Sample, compiling_s: float, kernels_s: float) -> list[Step]:
    """Return the phases up to the first token; an empty list if bytes or seconds of any phase are unknown."""
    steps = []
    for phase in cold.phases:
        warm_s = warm.phase_seconds(phase.name)
        if phase.read_bytes is None or warm_s is None:
            return []
        steps.append(Step(phase.name, phase.read_bytes, warm_s))
        if phase.name == LAST_PHASE:
            return with_kernels(with_bytecode(steps, compiling_s), kernels_s)
    return []


def _disk(cold: Sample) -> float | None:
    """Return the disk's rate for this sample, at least what it reached: older results could measure less."""
    rate = cold.ceiling_bytes_per_s
    return rate * max(1.0, cold.ceiling_share or 0.0) if rate else None


def _longest(runs: Sequence[Sequence[Step]]) -> str:
    """Return where a warm run spends most: the name of a phase, or `imports`."""
    seconds: dict[str, float] = {}
    for step in (step for steps in runs for step in steps):
        name = "imports" if step.name in IMPORT_PHASES else step.name
        seconds[name] = seconds.get(name, 0.0) + step.warm_s
    return max(seconds, key=lambda name: seconds[name])


def _median(values: Iterable[float | int | None]) -> float:
    return statistics.figure(values).median or 0.0
