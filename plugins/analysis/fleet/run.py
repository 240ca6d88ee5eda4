"""One stored run, with what the fleet's page needs: typed, hashable, small."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from analysis.fleet import lenient
from analysis.fleet.lenient import FormError
from analysis.render import units

KINDS = ("cold", "warm")
TIME_METRICS = ("cold_time_to_first_token_s", "warm_time_to_first_token_s", "cold_load_real_s", "warm_load_real_s")
"""The compared times of a run, in seconds."""
TOKEN_METRICS = ("cold_steady_token_s", "warm_steady_token_s")
"""What a token costs once nothing is done for the first time, in seconds: shown, and no reason to call a host odd."""
COUNTS = ("cold", "warm", "lukewarm", "failed")
_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[a-z0-9]{1,16})?", re.ASCII)


@dataclass(frozen=True)
class Estimate:
    """A median with its 95 % interval, None below three samples, in the metric's own unit; `n` samples."""

    median: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Setting:
    """One knob of a host: wanted, runtime, persisted. `verdict` is `clean` or `drift`."""

    knob: str
    desired: str | None
    runtime: str | None
    persisted: str | None
    verdict: str
    detail: str | None


@dataclass(frozen=True)
class Environment:
    """The environment of a run. Text for people; None if unknown."""

    model: str | None
    dtype: str | None
    gpu: str | None
    driver: str | None
    cuda: str | None
    disk: str | None
    read_ahead: str | None
    filesystem: str | None
    kernel: str | None
    distribution: str | None
    cpu: str | None
    memory: str | None
    python: str | None
    torch: str | None
    transformers: str | None
    bytecode: str | None
    cold_scope: str | None
    init: str | None

    @property
    def task(self) -> tuple[str | None, ...]:
        """Return the values that two runs must share for their times to be comparable."""
        return (self.model, self.dtype, self.gpu, self.cold_scope)


FACTS = tuple(each.name for each in fields(Environment))
LEAST_GAP_RATIO = 1.1
"""A cold start less than this over its lower bound has no saving worth reporting; the report has the same rule."""
REMEDIES = ("bytecode", "kernels", "replay")
"""Remedies that can save time before the first token, in the order in which they are applied."""


@dataclass(frozen=True)
class FirstTokenGap:
    """How soon a first token could come, in seconds; None if a run does not say.

    `now_s` is cold, `lower_bound_s` the bound by disk and remaining work, `saves` seconds by the names of REMEDIES.
    `limit` is what determines the lower bound: `disk`, or a phase. `problem` says why there is no bound.
    """

    now_s: float | None = None
    lower_bound_s: float | None = None
    warm_s: float | None = None
    saves: Mapping[str, float] = field(default_factory=dict)
    limit: str | None = None
    problem: str | None = None
    ratio_low: float | None = None

    @property
    def saving_s(self) -> float | None:
        """Return the seconds that a start could save; 0 if the gap is small or may be noise, None if unknown."""
        if self.now_s is None or self.lower_bound_s is None:
            return None
        gap = self.now_s - self.lower_bound_s
        sure = self.ratio_low is None or self.ratio_low > 1
        return gap if self.now_s >= LEAST_GAP_RATIO * self.lower_bound_s and sure else 0.0


@dataclass(frozen=True)
class Run:
    """One baseline run. `times` has the names of TIME_METRICS; phases are seconds by name, cold and warm.

    `tokens` has the names of TOKEN_METRICS, none in older documents. `idle_pool_bytes` is memory of reserved huge pages
    that nothing used; `noisy` counts valid samples that other work may have disturbed, None if no sample records it.
    Both are None in documents without them.
    """

    host: str
    run_id: str
    file: str
    started_at: datetime
    environment: Environment
    settings: tuple[Setting, ...]
    times: Mapping[str, Estimate]
    memory_bytes: float | None
    disk_bytes_per_s: float | None
    counts: tuple[int, ...]
    phases: Mapping[str, Mapping[str, float]]
    reason: str | None
    first_token: FirstTokenGap = field(default_factory=FirstTokenGap)
    idle_pool_bytes: int | None = None
    noisy: int | None = None
    tokens: Mapping[str, Estimate] = field(default_factory=dict)

    def figure(self, metric: str) -> float | None:
        """Return a metric of COMPARED_METRICS or TOKEN_METRICS in its own unit; None if not measured."""
        if metric == "disk_bytes_per_s":
            return self.disk_bytes_per_s
        found = self.times.get(metric) or self.tokens.get(metric)
        return found.median if found else None


COMPARED_METRICS = (*TIME_METRICS, "disk_bytes_per_s")
"""Metrics by which hosts are compared."""


@dataclass(frozen=True)
class Document:
    """Another document of a host, such as a sweep: its kind, when it was begun, and its conclusion in a line.

    `settings` are those that a tuning read back.
    """

    host: str
    kind: str
    run_id: str
    file: str
    started_at: datetime
    words: str
    settings: tuple[Setting, ...] = ()


def read_run(document: Mapping[str, Any], file: str) -> Run:
    """Return a run from a result document of any schema version that has the form; raise FormError if one lacks it."""
    host, summary = lenient.part(document, "host"), lenient.part(document, "summary")
    tuning = lenient.part(document, "tuning")
    counts = lenient.part(summary, "counts")
    memory = _estimate(summary, "warm_rss_bytes") or _estimate(summary, "cold_rss_bytes")
    rates = lenient.numbers(lenient.part(document, "ceiling"), "bytes_per_s")
    samples = lenient.parts(document, "samples")
    return Run(
        host=lenient.text(host, "name"),
        run_id=_run_id(document),
        file=file,
        started_at=instant(document, "started_at"),
        environment=_environment(document, samples),
        settings=read_settings(tuning, "rows"),
        times=_estimates(summary, TIME_METRICS),
        memory_bytes=memory.median if memory else None,
        disk_bytes_per_s=statistics.median(rates) if rates else None,
        counts=tuple(int(lenient.number(counts, kind) or 0) for kind in COUNTS),
        phases={kind: _phases(summary, kind) for kind in KINDS},
        reason=next((why for why in (lenient.optional_text(each, "reason") for each in samples) if why), None),
        first_token=_first_token(lenient.part(document, "first_token")),
        idle_pool_bytes=_idle_pool_bytes(tuning),
        noisy=_noisy(samples),
        tokens=_estimates(summary, TOKEN_METRICS),
    )


def read_document(document: Mapping[str, Any], file: str) -> Document:
    """Return a sweep, a tuning, or another document with the same head."""
    kind = lenient.text(document, "kind")
    return Document(
        host=lenient.text(lenient.part(document, "host"), "name"),
        kind=kind,
        run_id=_run_id(document),
        file=file,
        started_at=instant(document, "started_at"),
        words=_advice(document) if kind == "sweep" else "",
        settings=read_settings(document, "rows") if kind == "tuning" else (),
    )


def read_settings(document: Mapping[str, Any], key: str) -> tuple[Setting, ...]:
    """Return the rows of a result or an audit."""
    return tuple(
        Setting(
            knob=lenient.text(row, "knob"),
            desired=lenient.optional_text(row, "desired"),
            runtime=lenient.optional_text(row, "runtime"),
            persisted=lenient.optional_text(row, "persisted"),
            verdict=lenient.text(row, "verdict"),
            detail=lenient.optional_text(row, "detail"),
        )
        for row in lenient.parts(document, key)
    )


def instant(document: Mapping[str, Any], key: str) -> datetime:
    """Return a UTC instant in ISO 8601."""
    written = lenient.text(document, key)
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        raise FormError(f"{key} is no instant") from None
    if found.tzinfo is None:
        raise FormError(f"{key} has no time zone")
    return found


def _run_id(document: Mapping[str, Any]) -> str:
    run_id = lenient.text(document, "run_id")
    if not _RUN_ID.fullmatch(run_id):
        raise FormError("run_id does not begin with an instant")
    return run_id


def _estimates(summary: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Estimate]:
    found = {metric: _estimate(summary, metric) for metric in metrics}
    return {metric: estimate for metric, estimate in found.items() if estimate}


def _estimate(summary: Mapping[str, Any], key: str) -> Estimate | None:
    figure = lenient.part(summary, key)
    median = lenient.number(figure, "median")
    if median is None:
        return None
    return Estimate(
        median,
        lenient.number(figure, "ci_low"),
        lenient.number(figure, "ci_high"),
        int(lenient.number(figure, "n") or 0),
    )


def _phases(summary: Mapping[str, Any], kind: str) -> dict[str, float]:
    start = f"{kind}_phase_"
    found = {
        key.removeprefix(start).removesuffix("_s"): lenient.number(lenient.part(summary, key), "median")
        for key in summary
        if key.startswith(start) and key != f"{start}second_token_s"
    }
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def _first_token(found: Mapping[str, Any]) -> FirstTokenGap:
    saves = {name: lenient.number(found, f"{name}_s") for name in REMEDIES}
    return FirstTokenGap(
        now_s=lenient.number(found, "now_s"),
        lower_bound_s=lenient.number(found, "floor_s"),
        warm_s=lenient.number(found, "warm_s"),
        saves={name: seconds for name, seconds in saves.items() if seconds is not None},
        limit=lenient.optional_text(found, "limit"),
        problem=lenient.optional_text(found, "problem"),
        ratio_low=lenient.number(found, "ratio_low"),
    )


def _idle_pool_bytes(tuning: Mapping[str, Any]) -> int | None:
    """Return the memory of free unreserved pages, each size once: rows of nodes count the same pages again."""
    if tuning.get("pools") is None:
        return None
    whole = [pool for pool in lenient.parts(tuning, "pools") if pool.get("node") is None]
    counts = [[lenient.number(pool, name) or 0 for name in ("free", "reserved", "size_bytes")] for pool in whole]
    return int(sum(max(0, free - reserved) * size for free, reserved, size in counts))


def _noisy(samples: Sequence[Mapping[str, Any]]) -> int | None:
    told = [lenient.part(sample, "noise") for sample in samples if sample.get("kind") in KINDS]
    known = [noise for noise in told if "noisy" in noise]
    return sum(noise["noisy"] is True for noise in known) if known else None


def _environment(document: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Environment:
    host, software = lenient.part(document, "host"), lenient.part(document, "software")
    disk = lenient.part(host, "disk")
    model, protocol = lenient.part(document, "model"), lenient.part(document, "protocol")
    dtypes = (lenient.optional_text(sample, "dtype") for sample in samples)
    return Environment(
        model=lenient.optional_text(model, "id"),
        dtype=next((dtype for dtype in dtypes if dtype), lenient.optional_text(model, "dtype")),
        gpu=_gpus(host),
        driver=lenient.optional_text(host, "gpu_driver"),
        cuda=lenient.optional_text(host, "cuda"),
        disk=lenient.optional_text(disk, "model") or lenient.optional_text(disk, "device"),
        read_ahead=_binary(lenient.number(disk, "read_ahead_bytes")),
        filesystem=lenient.optional_text(lenient.part(host, "filesystem"), "type"),
        kernel=lenient.optional_text(host, "kernel"),
        distribution=lenient.optional_text(host, "distribution"),
        cpu=lenient.optional_text(host, "cpu_model"),
        memory=_binary(lenient.number(host, "memory_bytes")),
        python=lenient.optional_text(software, "python"),
        torch=lenient.optional_text(software, "torch"),
        transformers=lenient.optional_text(software, "transformers"),
        bytecode=_bytecode(lenient.part(lenient.part(document, "imports"), "bytecode")),
        cold_scope=lenient.optional_text(protocol, "cold_scope"),
        init=_init(host.get("systemd")),
    )


def _init(systemd: object) -> str | None:
    """Return a host's init system, which decides whether persistent settings are applied."""
    return "systemd" if systemd is True else "no systemd" if systemd is False else None


def _bytecode(found: Mapping[str, Any]) -> str | None:
    """Return whether a start finds bytecode of its imports, in classes coarse enough that like hosts agree."""
    valid, *others = (lenient.number(found, name) for name in ("valid", "missing", "stale", "unreadable"))
    absent = sum(number or 0 for number in others)
    if valid is None:
        return None
    if not absent:
        return "complete"
    return "mostly missing" if absent > valid else "partly missing"


def _binary(value: float | None) -> str | None:
    return None if value is None else units.size(value)


def _gpus(host: Mapping[str, Any]) -> str:
    names = [lenient.text(gpu, "name") for gpu in lenient.parts(host, "gpus")]
    counted = {name: names.count(name) for name in names}
    return " + ".join(name if count == 1 else f"{count}x {name}" for name, count in counted.items()) or "none"


def _advice(document: Mapping[str, Any]) -> str:
    advice = lenient.parts(lenient.part(document, "analysis"), "advice")
    arms = [lenient.optional_text(each, "arm") for each in advice]
    found = dict.fromkeys(arm for arm in arms if arm)
    return f"supports: {', '.join(found)}" if found else "supports no change of settings"
