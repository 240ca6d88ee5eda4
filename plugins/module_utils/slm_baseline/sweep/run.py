"""A sweep's life on a host: planned or resumed, a block at a time, finished, closed. Each step is one module call."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..host.clock import now
from ..host.errors import SettingError
from ..host.files import Host
from ..host.machine import machine_key
from ..measuring.loader.template import TemplateFailed, template
from ..measuring.model.files import expected_bytes
from ..measuring.probes.canary import best_canary
from ..measuring.protocol import Subject
from ..measuring.run import (
    Request,
    make_subject,
    parse_request,
    require_idle_gpus,
    require_loadable,
    require_model_memory,
    run_facts,
    subject_record,
)
from ..measuring.sample import Trial
from ..measuring.store import shared_of
from ..settings.kinds.memory_guard import Guard
from ..settings.rollback.restore import undo_sweep
from ..settings.rollback.snapshot import refuse_unfinished_sweep, take
from .block import run_block
from .block_runner import BlockRunner
from .design import (
    CONTROL,
    MEASUREMENTS,
    REFERENCE,
    Arm,
    Cell,
    distinct_dtypes,
    feasible_arms,
    order,
    parse_arms,
    parse_dtypes,
)
from .plan import Plan, attempts, finished_attempts, load_plan, progress, require_same, save_plan
from .sample import read_sweep_samples
from .shared_caches import SharedCaches, remove_shared, using
from .start_assist import Recorder, Starts, forget_starts, record_starts, require_recorded, without_gain

_MOST_PAIRS = 100
_PROTOCOL = ("cold_scope", "timeout_s", "user", "loader_sha256")


@dataclass(frozen=True)
class SweepRequest:
    """The user's request, checked for validity.

    `subject` says what is measured and how; a resumed sweep must have the same. `stored_dtype` is the dtype of the
    model's weights in their files. `recorder` starts the subject for first-token arms; `caches` are those that the
    starts may share, None where they stay unchanged.
    """

    arms: list[Arm]
    dtypes: list[str]
    seed: int
    run_id: str
    started_at: str
    guard: Guard
    subject: Mapping[str, Any]
    stored_dtype: str
    weights_pairs: int = 0
    is_new: bool = False
    recorder: Recorder | None = None
    caches: SharedCaches | None = None


def perform(host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the module's parameters ask for; return the module's result."""
    if given["state"] == "closed":
        return {"changed": close_sweep(host)}
    request = _measuring_request(given)
    subject = make_subject(host, request)
    if given["state"] == "planned":
        planned = _plan(host, given, request, subject)
        return {"changed": planned["restored"], **planned}
    if given["state"] == "block":
        choose_cells(host, given.get("measurement") or "full", given.get("cells"))
        # Checked again, since others may have taken memory meanwhile.
        require_model_memory(host, subject.model, _current(host).dtypes)
        return {"changed": False, **measure_next_block(host, subject)}
    finished = finish_sweep(host)
    shared = shared_of(host, finished["plan"]["run_id"])
    facts = run_facts(host, request, subject, [shared[number] for number in sorted(shared)])
    protocol = {name: facts["protocol"][name] for name in _PROTOCOL}
    return {"changed": False, **finished, **facts, "protocol": protocol}


def _plan(host: Host, given: Mapping[str, Any], request: Request, subject: Subject) -> dict[str, Any]:
    """Plan or resume the sweep, once it is clear that every block can load the model."""
    asked = parse_sweep(given, subject.model.weight_bytes)
    require_model_memory(host, subject.model, asked.dtypes)
    # Without a GPU no start compiles kernels.
    has_gpu = bool(require_idle_gpus(host, request).gpus)
    require_loadable(host, request.environment, request.trial, subject.model, subject.loader.account)
    wanted = {name: given[name] for name in ("share_bytecode", "share_kernels")}
    about = {**subject_record(host, request, subject), **wanted}
    recorder = Recorder.of(subject, given["programs"], has_gpu)
    asked = replace(asked, subject=about, stored_dtype=subject.model.dtype, recorder=recorder)
    shares_kernels = given["share_kernels"] and has_gpu
    if given["share_bytecode"] or shares_kernels:
        caches = SharedCaches(subject, request.environment.home, given["share_bytecode"], shares_kernels)
        asked = replace(asked, caches=caches)
    return plan_sweep(host, asked, lambda: why_no_template(subject, asked.dtypes))


def foresee_sweep(host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """Predict what `perform` would do, for check mode; reads only.

    Environment and model may not exist yet, and another run may be using them.
    """
    if given["state"] == "closed":
        return {"changed": False}
    request = _measuring_request(given)
    if given["state"] != "planned":
        return {"changed": False}
    refuse_unfinished_sweep(host)
    plan = new_plan(host, parse_sweep(given, expected_bytes(host, request.place)))
    empty = progress([], plan)
    return {"changed": False, "plan": plan.to_json(), "is_resumed": False, "restored": False, "progress": empty}


def _measuring_request(given: Mapping[str, Any]) -> Request:
    # The sweep builds no environment and has its own blocks and dtypes.
    return parse_request({**given, "base_python": "", "requirements": "", "dtype": "auto", "blocks": 1})


def parse_sweep(given: Mapping[str, Any], weight_bytes: int) -> SweepRequest:
    """Parse the module's parameters to a request; SettingError names the role's variable that holds a bad one."""
    run_id = given["run"]["id"]
    arms = parse_arms(given["arms"])
    _require_whole_cold(arms, given.get("scope"))
    _require_process(arms, given.get("image"))
    return SweepRequest(
        arms=arms,
        dtypes=parse_dtypes(given["dtypes"]),
        seed=parse_seed(given["seed"], run_id),
        run_id=run_id,
        started_at=now(),
        # Cast to float32, the weights take twice their size beside the page cache.
        guard=Guard.parse(given["margin"], given["max_share"], beside_bytes=2 * weight_bytes),
        subject={},
        stored_dtype="",
        weights_pairs=_parse_pairs(given.get("weights_pairs") or 0),
        is_new=bool(given["new"]),
    )


def _require_whole_cold(arms: Sequence[Arm], scope: object) -> None:
    """Raise SettingError for first-token arms unless scope is `host`: only it makes imports and bytecode cold."""
    aided = [arm.name for arm in arms if arm.is_first_token]
    if aided and scope not in (None, "host"):
        raise SettingError(
            "slm_benchmark_cold_scope",
            f"host, for {', '.join(aided)}",
            repr(scope),
            "These arms shorten the imports too, which only this scope makes cold.",
            "set slm_benchmark_cold_scope to host for this sweep, or leave these arms out.",
        )


def _require_process(arms: Sequence[Arm], image: object) -> None:
    """Raise SettingError for first-token arms in an image: the start that they replay is that of a host's process."""
    aided = [arm.name for arm in arms if arm.is_first_token]
    if aided and image:
        raise SettingError(
            "slm_benchmark_image",
            f"nothing, for {', '.join(aided)}",
            str(image)[:200],
            "The start that these arms replay is recorded as a process of the host.",
            "leave these arms out in an image (sweep_first_token: false); first_token.yml records a container.",
        )


def _parse_pairs(value: object) -> int:
    """Parse the user's `sweep_weights_pairs`; SettingError for anything but a small whole number."""
    text = str(value)
    is_whole = text.isascii() and text.isdigit() and len(text) <= 3 and not isinstance(value, bool)
    if not is_whole or int(text) > _MOST_PAIRS:
        raise SettingError(
            "sweep_weights_pairs",
            f"a whole number from 0 to {_MOST_PAIRS}",
            repr(value)[:80],
            "So many pairs of cold and warm a template measures in a block.",
            "correct it; 0 measures by fresh processes alone.",
        )
    return int(text)


def parse_seed(value: object, run_id: str) -> int:
    """Parse the user's `sweep_seed`, or draw one from the run's id; SettingError for anything but a whole number."""
    if value is None or value == "":
        return zlib.crc32(run_id.encode())
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise SettingError(
            "sweep_seed", "a whole number from 0", repr(value)[:80], "It decides the order of arms.", "correct it."
        )
    return int(text)


def why_no_template(subject: Subject, dtypes: Sequence[str]) -> str:
    """Try a template once, warm, under unchanged settings; return why no child made its tokens, empty if one did."""
    if subject.loader.launcher.record():
        return "each load in an image is a container of its own, so none forks from a template"
    trial = Trial(0, "warm", dtype=dtypes[0])
    try:
        with template(subject.loader_of(trial)) as running:
            return running.observe(lambda pid: None).problem or ""
    except TemplateFailed as error:
        return str(error)


def plan_sweep(host: Host, request: SweepRequest, why_not: Callable[[], str] = lambda: "") -> dict[str, Any]:
    """Make or resume the plan: `plan`, `is_resumed`, `restored` (what an interrupted block had left), `progress`.

    `why_not` is called for a new plan that wants templates; it returns why this host can have none, empty where it can.
    """
    restored = bool(undo_sweep(host))
    fresh = new_plan(host, request)
    stored = None if request.is_new else load_plan(host)
    unfinished = stored if stored and not stored.is_finished else None
    if unfinished:
        # The host's free memory may change which arms it can run: the arms chosen at the beginning stay.
        same = ("machine", "asked", "dtypes", "stock", "subject")
        require_same(unfinished, **{name: getattr(fresh, name) for name in same})
    starts = record_starts(host, request.arms, request.recorder)
    if unfinished:
        chosen = unfinished
        if request.caches:
            request.caches.ensure(host, chosen.shared_caches)
    else:
        chosen = _with_template(_with_caches(_without_gain(fresh, starts), host, request.caches), why_not)
        save_plan(host, chosen)
    return {
        "plan": chosen.to_json(),
        "is_resumed": unfinished is not None,
        "restored": restored,
        "progress": progress(read_sweep_samples(host, chosen.run_id), chosen),
    }


def _without_gain(plan: Plan, starts: Starts) -> Plan:
    """Return the plan without arms whose bytecode the host has already."""
    arms, left_out = without_gain([Arm.from_dict(arm) for arm in plan.arms], starts)
    return replace(plan, arms=[arm.as_dict() for arm in arms], left_out=[*plan.left_out, *left_out])


def _with_caches(plan: Plan, host: Host, caches: SharedCaches | None) -> Plan:
    """Add caches that all starts share to the plan, where that is wanted, saves time and biases no comparison.

    Bytecode is itself a first-token arm, and the cold scope `app` evicts libraries without it.
    """
    asks_imports = any(Arm.from_dict(arm).is_first_token for arm in plan.asked)
    if caches is None or asks_imports or caches.subject.scope == "app":
        return plan
    shared = caches.share(host)
    return replace(plan, bytecode=shared["bytecode"], kernels=shared["kernels"])


def _with_template(plan: Plan, why_not: Callable[[], str]) -> Plan:
    """Remove blocks of weights from the plan where a template cannot measure them, and record why."""
    if not plan.weights_pairs:
        return plan
    if any(Arm.from_dict(arm).is_first_token for arm in plan.arms):
        reason = "arms of the first token act on imports, which a template has behind it"
    else:
        reason = why_not()
    return replace(plan, weights_pairs=0, no_template=reason) if reason else plan


def new_plan(host: Host, request: SweepRequest) -> Plan:
    """Return what a sweep that begins now would measure; reads only."""
    arms, left_out = feasible_arms(host, request.arms, request.guard)
    dtypes, same = distinct_dtypes(request.dtypes, request.stored_dtype)
    return Plan(
        run_id=request.run_id,
        seed=request.seed,
        started_at=request.started_at,
        asked=[arm.as_dict() for arm in request.arms],
        arms=[arm.as_dict() for arm in arms],
        left_out=[*left_out, *same],
        dtypes=dtypes,
        stock=_stock(host, request.run_id),
        subject=dict(request.subject),
        weights_pairs=request.weights_pairs,
        machine=machine_key(host),
    )


def _stock(host: Host, run_id: str) -> dict[str, str]:
    """Return the host's own values, by knob."""
    return take(host, [], now(), run_id).values()


def choose_cells(host: Host, measurement: str, cells: Sequence[Sequence[str]] | None) -> None:
    """Store what the next block is to measure; one that was already begun keeps its cells.

    `cells` are arms with dtypes, None for all: `stock` and `stock-again` are required for each dtype.
    """
    current = _current(host)
    number = str(_next_block(host, current))
    if number in current.drawn:
        return
    known = current.cells()
    wanted = known if cells is None else [cell for cell in known if [*cell] in [list(each) for each in cells]]
    dtypes = {cell.dtype for cell in wanted}
    missing = [f"{arm} {dtype}" for dtype in dtypes for arm in (REFERENCE, CONTROL) if Cell(arm, dtype) not in wanted]
    if (
        measurement not in MEASUREMENTS
        or (measurement == "weights" and not current.weights_pairs)
        or not wanted
        or missing
        or (cells is not None and len(wanted) != len(cells))
    ):
        raise SettingError(
            "slm_sweep",
            f"a measurement and cells of sweep {current.run_id}, both stocks among them",
            f"{measurement} of {cells!r}"[:200],
            "A block compares arms of its own plan with both stocks.",
            "leave the choice to the role sweep.",
        )
    drawn = {number: {"measurement": measurement, "cells": [list(cell) for cell in wanted]}}
    save_plan(host, replace(current, drawn={**current.drawn, **drawn}))


def _next_block(host: Host, current: Plan) -> int:
    return int(progress(read_sweep_samples(host, current.run_id), current)["next_block"])


def measure_next_block(host: Host, subject: Subject) -> dict[str, Any]:
    """Measure the next block of the host's plan; return its `block` number and the sweep's `progress` after it."""
    current = _current(host)
    undo_sweep(host)
    require_same(current, machine=machine_key(host), stock=_stock(host, current.run_id))
    subject = using(host, subject, current.shared_caches)
    before = read_sweep_samples(host, current.run_id)
    number = _next_block(host, current)
    design = current.design(number)
    bench = BlockRunner(host, subject, current.run_id, number, attempts(before, number) + 1)
    bench.best = best_canary(each.sample.canary for each in before)
    bench.measurement = design.measurement
    arms = [Arm.from_dict(arm) for arm in current.arms]
    bench.starts = require_recorded(host, arms)
    ordered = replace(design, cells=tuple(order(current.seed, number, design.cells)))
    run_block(host, arms, ordered, bench)
    bench.close()
    return {"block": number, "progress": progress(read_sweep_samples(host, current.run_id), current)}


def finish_sweep(host: Host) -> dict[str, Any]:
    """Return what the host's sweep has measured: its plan, samples and finished blocks; reads only."""
    current = _current(host)
    samples = read_sweep_samples(host, current.run_id)
    finished = finished_attempts(samples, current)
    if not finished:
        raise SettingError(
            "sweep",
            "a finished block",
            "none",
            "Samples of a block that was cut short cannot be compared.",
            "measure one first.",
        )
    return {
        "plan": current.to_json(),
        "samples": [sample.to_json() for sample in samples],
        "finished_blocks": {str(number): attempt for number, attempt in finished.items()},
        "progress": progress(samples, current),
    }


def close_sweep(host: Host) -> bool:
    """End the host's sweep once its samples are stored elsewhere; the next begins anew. Return whether it was open."""
    current = _current(host)
    if current.is_finished:
        return False
    forget_starts(host)
    remove_shared(host, current.shared_caches)
    save_plan(host, replace(current, is_finished=True))
    return True


def _current(host: Host) -> Plan:
    current = load_plan(host)
    if current is None:
        raise SettingError(
            "sweep", "a planned sweep", "none", "A block belongs to a plan.", "call slm_sweep with state=planned first."
        )
    return current
