"""A sweep on the host's disk: its plan, its finished blocks, and its samples."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..host.errors import ParseError, SettingError, os_problem
from ..host.files import Host
from ..host.paths import RUNS, SWEEP_PLAN
from ..measuring.sample import Sample
from .design import MEASUREMENTS, Arm, BlockDesign, Cell
from .sample import SweepSample

"""Beside the runs' samples, so that a purge removes both."""

_KEPT_HERE = ("asked", "drawn", "machine", "is_finished")


@dataclass(frozen=True)
class Plan:
    """What makes samples comparable: a run that resumes must ask the same of the same host.

    `asked` are the arms as the user gave them, `arms` those of them that the host could do when the sweep was planned.
    `stock` maps knob names to the host's own values, `subject` says what is measured and how (model, interpreter, cold
    scope, kernel); its content is opaque here. `weights_pairs` is how many pairs a template's children measure in each
    cell of a block of weights; where it is 0, `no_template` says why there is no such block. `drawn` says what each
    block measures, by number, and is stored before the block begins; a block of an older plan measures everything.
    `machine` is the host that it was planned on (`machine_key`), so that no clone resumes it. `bytecode` and `kernels`
    say which caches all starts share (`SharedCaches.share`), None where they share none.
    """

    run_id: str
    seed: int
    started_at: str
    arms: list[dict[str, Any]]
    left_out: list[dict[str, str]]
    dtypes: list[str]
    stock: dict[str, str]
    subject: dict[str, Any]
    # An older plan lacks this field: its finished blocks can still be told from unfinished ones.
    asked: list[dict[str, Any]] = field(default_factory=list)
    weights_pairs: int = 0
    no_template: str = ""
    bytecode: dict[str, Any] | None = None
    kernels: dict[str, Any] | None = None
    drawn: dict[str, dict[str, Any]] = field(default_factory=dict)
    machine: str = ""
    is_finished: bool = False

    @property
    def shared_caches(self) -> dict[str, dict[str, Any] | None]:
        """Return the caches that all starts share, by name; None where they share none of that name."""
        return {"bytecode": self.bytecode, "kernels": self.kernels}

    def cells(self) -> list[Cell]:
        """Return every arm with every dtype."""
        return [Cell(arm["name"], dtype) for arm in self.arms for dtype in self.dtypes]

    def design(self, block: int) -> BlockDesign:
        """Return what a block measures."""
        drawn = self.drawn.get(str(block), {"measurement": "full", "cells": self.cells()})
        measurement = drawn["measurement"]
        cells = tuple(Cell(*cell) for cell in drawn["cells"])
        return BlockDesign(measurement, cells, self.weights_pairs if measurement == "weights" else 1)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the control node sees it."""
        return {name: value for name, value in vars(self).items() if name not in _KEPT_HERE}


def load_plan(host: Host) -> Plan | None:
    """Read the host's latest sweep, None where there was none; SettingError where its file is damaged."""
    try:
        text = host.read(SWEEP_PLAN)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_problem(SWEEP_PLAN, "a readable plan", error) from error
    try:
        return _typed(Plan(**json.loads(text)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ParseError(SWEEP_PLAN, "the plan of a sweep", text, "set sweep_new=true to begin a new sweep.") from error


def _typed(plan: Plan) -> Plan:
    """Check that the plan's values have the types of its fields; an arm must be what `Arm.as_dict` returns."""
    kinds: dict[str, type] = {"run_id": str, "seed": int, "started_at": str, "is_finished": bool, "machine": str}
    kinds.update(weights_pairs=int, no_template=str, drawn=dict)
    kinds.update(dict.fromkeys(("asked", "arms", "left_out", "dtypes"), list), stock=dict, subject=dict)
    for name, kind in kinds.items():
        if not isinstance(getattr(plan, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    if not all(isinstance(value, str) for value in (*plan.dtypes, *plan.stock.values())):
        raise TypeError("dtypes and stock values are text")
    if not all(isinstance(cache["folder"], str) for cache in plan.shared_caches.values() if cache is not None):
        raise TypeError("a cache has a folder")
    for arm in (*plan.asked, *plan.arms):
        Arm.from_dict(arm)
    for block in plan.drawn:
        plan.design(int(block))
    return plan


def save_plan(host: Host, plan: Plan) -> None:
    """Store the plan durably before anything is measured under it."""
    try:
        host.path(RUNS).mkdir(mode=0o755, parents=True, exist_ok=True)
        host.write_durably(SWEEP_PLAN, json.dumps(asdict(plan), indent=1).encode() + b"\n", mode=0o600)
    except OSError as error:
        raise os_problem(SWEEP_PLAN, "a durable plan", error) from error


def require_same(plan: Plan, **now: Any) -> None:
    """Raise SettingError where one of these fields of an unfinished sweep has changed.

    Blocks of both could not be compared.
    """
    for name, value in now.items():
        before = getattr(plan, name)
        # An older plan without this field does not say where it was made.
        if before != value and not (name == "machine" and "" in (before, value)):
            raise SettingError(
                f"sweep {_WORDS.get(name, name)}",
                _shown(name, before, value),
                _shown(name, value, before),
                f"Sweep {plan.run_id} is unfinished and was planned otherwise; blocks of both cannot be compared.",
                "go back to those settings to finish it, or start a new sweep with -e sweep_new=true.",
            )


_WORDS = {"asked": "arms", "machine": "host"}


def _shown(name: str, value: Any, other: Any) -> str:
    """Format one side of a difference: the arms in short, of a mapping only the entries that differ."""
    if name == "asked":
        shown = ((arm["name"], {**arm["settings"], **arm["env"], **arm.get("first_token", {})}) for arm in value)
        return ", ".join(f"{arm} {json.dumps(sets)}" for arm, sets in shown)
    if isinstance(value, dict):
        value = {key: value[key] for key in value if key not in other or other[key] != value[key]}
    return json.dumps(value, sort_keys=True)


def attempts(samples: Sequence[SweepSample], block: int) -> int:
    """Return how many times a block has been begun."""
    return max((each.position.attempt for each in samples if each.sample.block == block), default=0)


def finished_attempts(samples: Sequence[SweepSample], plan: Plan) -> dict[int, int]:
    """Return finished blocks and the attempt that finished each: it has every sample of the block's design.

    A failed sample is a sample: a cell that cannot be measured must not make the block repeat for ever.
    """
    found: dict[tuple[int, int], Counter[tuple[str, str, str, str]]] = {}
    for each in samples:
        key, position = (each.sample.block, each.position.attempt), each.position
        what = (each.sample.arm or "", position.dtype_asked, each.sample.wanted, position.measurement)
        found.setdefault(key, Counter())[what] += 1
    return {
        block: attempt
        for (block, attempt), have in sorted(found.items())
        if all(have[what] >= count for what, count in plan.design(block).trials().items())
    }


def spent_s(samples: Sequence[SweepSample], finished: Mapping[int, int]) -> dict[int, float]:
    """Return the seconds that each finished block took, cold preparation and settings included."""
    ends: dict[int, float] = {}
    for each in samples:
        block = each.sample.block
        if finished.get(block) == each.position.attempt:
            ends[block] = max(ends.get(block, 0.0), each.position.elapsed_s)
    return ends


def progress(samples: Sequence[SweepSample], plan: Plan) -> dict[str, Any]:
    """Return only what the control node needs to decide on another block: this is sent back after each.

    `times` holds the valid samples of finished blocks, `cells` every arm and dtype that should be among them, `cell_s`
    the mean seconds of a cell by measurement, `noise` the canary's summary of all samples of finished blocks.
    """
    finished = finished_attempts(samples, plan)
    seconds = spent_s(samples, finished)
    kept = [each for each in samples if finished.get(each.sample.block) == each.position.attempt]
    return {
        "done": len(finished),
        "last_block": max(finished, default=0),
        "next_block": next(block for block in range(1, len(finished) + 2) if block not in finished),
        "spent_s": round(sum(seconds.values()), 3),
        "cells": [list(cell) for cell in plan.cells()],
        "weights_pairs": plan.weights_pairs,
        "cell_s": _cell_s(seconds, plan),
        "noise": _noise([each.sample for each in kept]),
        "times": [
            {
                "block": sample.block,
                "arm": sample.arm,
                "dtype_asked": each.position.dtype_asked,
                "kind": sample.kind,
                "measurement": each.position.measurement,
                "load_real_s": sample.load_real_s,
                "time_to_first_token_s": sample.time_to_first_token_s,
                "weights_to_first_token_s": _weights_to_first_token_s(sample),
            }
            for each in kept
            for sample in (each.sample,)
            if sample.is_valid
        ],
    }


def _noise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return how many samples there are, how many are noisy, and how much slower than its best the canary was."""
    noises = [sample.noise for sample in samples if sample.noise]
    slowdowns = [noise.canary_slowdown for noise in noises if noise.canary_slowdown is not None]
    return {
        "samples": len(samples),
        "noisy": sum(noise.noisy for noise in noises),
        "slowdown": round(statistics.median(slowdowns), 3) if slowdowns else None,
        "worst_slowdown": max(slowdowns, default=None),
    }


def _cell_s(seconds: Mapping[int, float], plan: Plan) -> dict[str, float]:
    told = {}
    for measurement in MEASUREMENTS:
        blocks = [block for block in seconds if plan.design(block).measurement == measurement]
        cells = sum(len(plan.design(block).cells) for block in blocks)
        if cells:
            told[measurement] = round(sum(seconds[block] for block in blocks) / cells, 3)
    return told


def _weights_to_first_token_s(sample: Sample) -> float | None:
    parts = [phase.seconds for phase in sample.phases if phase.name in ("weights", "first_token")]
    return sum(parts) if len(parts) == 2 else None
