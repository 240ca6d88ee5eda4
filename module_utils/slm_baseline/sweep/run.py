"""A sweep's life on a host: planned or resumed, a block at a time, finished. Each is one call of the module."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..host.errors import SettingError
from ..host.files import Host
from ..measuring.store import append_sample, read_samples
from ..settings.restore import undo_sweep
from ..settings.snapshot import take
from .block import run_block
from .design import Arm, distinct_dtypes, fitting, order
from .plan import Plan, attempts, finished_blocks, load_plan, progress, require_same, save_plan


class Bench(Protocol):
    """What measures one block: `measure` and `failed` as run_block takes them, `close` once the block is whole."""

    def measure(self, arm: Arm, dtype: str, wanted: str) -> dict[str, Any]: ...
    def failed(self, wanted: str, reason: str) -> dict[str, Any]: ...
    def close(self, run_id: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """What the user asked for. `subject` says what is measured and how; a resumed sweep must have the same.

    `stored_dtype` is the one that the model's weights have in their files.
    """

    arms: list[Arm]
    dtypes: list[str]
    seed: int
    run_id: str
    started_at: str
    subject: Mapping[str, Any]
    stored_dtype: str
    keep_bytes: int
    max_share: float
    is_new: bool = False


def parse_seed(value: object, run_id: str) -> int:
    """The user's `sweep_seed`, or one drawn from the run's id; SettingError for what is no whole number."""
    if value is None or value == "":
        return zlib.crc32(run_id.encode())
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise SettingError(
            "sweep_seed", "a whole number from 0", repr(value)[:80], "It decides the order of arms.", "correct it."
        )
    return int(text)


def plan(host: Host, request: Request) -> dict[str, Any]:
    """Make or resume the plan: `plan`, `is_resumed`, `restored` (what an interrupted block had left), `progress`."""
    restored = bool(undo_sweep(host))
    fresh = new_plan(host, request)
    stored = None if request.is_new else load_plan(host)
    if stored is None or stored.is_finished:
        chosen = fresh
        save_plan(host, chosen)
    else:
        # What a host can do may change with its free memory: the arms chosen at the beginning stay.
        require_same(stored, asked=fresh.asked, dtypes=fresh.dtypes, stock=fresh.stock, subject=fresh.subject)
        chosen = stored
    return {
        "plan": plan_dict(chosen),
        "is_resumed": chosen is not fresh,
        "restored": restored,
        "progress": progress(read_samples(host, chosen.run_id), chosen.cells()),
    }


def new_plan(host: Host, request: Request) -> Plan:
    """What a sweep that begins now would measure; reads only."""
    arms, left_out = fitting(host, request.arms, request.keep_bytes, request.max_share)
    dtypes, same = distinct_dtypes(request.dtypes, request.stored_dtype)
    return Plan(
        run_id=request.run_id,
        seed=request.seed,
        started_at=request.started_at,
        asked=[arm.as_dict() for arm in request.arms],
        arms=[arm.as_dict() for arm in arms],
        left_out=[*left_out, *same],
        dtypes=dtypes,
        stock=_stock(host, request.started_at, request.run_id),
        subject=dict(request.subject),
    )


def _stock(host: Host, taken_at: str, run_id: str) -> dict[str, str]:
    """The host's own values, by knob."""
    return take(host, [], taken_at, run_id).values()


def block(host: Host, bench_of: Callable[[int], Bench], taken_at: str) -> dict[str, Any]:
    """Measure the next block of the host's plan; its `block` number and the sweep's `progress` after it.

    `bench_of` makes what measures the block of that number.
    """
    current = _current(host)
    undo_sweep(host)
    require_same(current, stock=_stock(host, taken_at, current.run_id))
    before = read_samples(host, current.run_id)
    number = int(progress(before, current.cells())["next_block"])
    attempt = attempts(before, number) + 1
    bench = bench_of(number)

    def record(sample: Mapping[str, Any]) -> None:
        append_sample(host, current.run_id, {**sample, "attempt": attempt})

    arms = [Arm.from_dict(arm) for arm in current.arms]
    ordered = order(current.seed, number, current.cells())
    run_block(host, arms, ordered, bench.measure, bench.failed, record, taken_at, current.run_id)
    bench.close(current.run_id)
    return {"block": number, "progress": progress(read_samples(host, current.run_id), current.cells())}


def finish(host: Host) -> dict[str, Any]:
    """What the host's sweep has measured: its plan, samples and finished blocks; reads only."""
    current = _current(host)
    samples = read_samples(host, current.run_id)
    finished = finished_blocks(samples, current.cells())
    if not finished:
        raise SettingError(
            "sweep",
            "a finished block",
            "none",
            "Samples of a block that was cut short cannot be compared.",
            "measure one first.",
        )
    return {
        "plan": plan_dict(current),
        "samples": samples,
        "finished_blocks": {str(number): attempt for number, attempt in finished.items()},
        "progress": progress(samples, current.cells()),
    }


def close(host: Host) -> bool:
    """End the host's sweep, once its samples are stored elsewhere: the next one begins anew. True where it was open."""
    current = _current(host)
    if current.is_finished:
        return False
    save_plan(host, replace(current, is_finished=True))
    return True


def _current(host: Host) -> Plan:
    current = load_plan(host)
    if current is None:
        raise SettingError(
            "sweep", "a planned sweep", "none", "A block belongs to a plan.", "call slm_sweep with state=planned first."
        )
    return current


def plan_dict(plan: Plan) -> dict[str, Any]:
    """A plan as the control node sees it."""
    return {name: value for name, value in vars(plan).items() if name not in ("asked", "is_finished")}
