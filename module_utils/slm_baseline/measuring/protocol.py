"""The measuring protocol: a sample is one loader run in a verified state of the page cache; a block is cold, then warm.

docs/measuring.md tells the protocol and the thresholds, and why.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..host.clock import now
from ..host.files import Host
from . import page_cache
from .disk_ceiling import Ceiling, is_cached_below, measure_ceiling
from .gpu import GpuFacts, gpu_use, read_gpus
from .interpreter import Interpreter
from .loader_events import Events, Mark, phases, read_between
from .loader_process import Loader, Observation, environment_tuple, observe
from .model_files import Model
from .noise import judge_noise, read_activity
from .process_memory import MemoryReading, moved, read_memory, read_thp_counters

WANTED = ("cold", "warm")
SCOPES = ("host", "app", "weights")
COLD_RESIDENT_SHARE = 0.01
COLD_READ_SHARE = 0.95
WARM_RESIDENT_SHARE = 0.99
WARM_READ_SHARE = 0.01
WARM_READ_FLOOR_BYTES = 8 << 20
"""A tiny model's 1 % is less than what one stray fault reads: a whole read-ahead window of the disk."""
MEMORY_TOLERANCE_SHARE = 0.02
MEMORY_TOLERANCE_BYTES = 16 << 20
_ALWAYS_TOLD = ("thp_fault_alloc", "thp_fault_fallback", "compact_stall")


@dataclass(frozen=True)
class Subject:
    """What is measured and how. `loader` lacks the arguments and environment that differ from arm to arm.

    Residency and reads are judged on the model's weight files; all its files are evicted and warmed.
    """

    loader: Loader
    model: Model
    interpreter: Interpreter
    scope: str = "host"

    @property
    def weights(self) -> list[Path]:
        return [Path(file.path) for file in self.model.weight_files]

    @property
    def files(self) -> list[Path]:
        return [Path(file.path) for file in self.model.files]


@dataclass(frozen=True)
class Verdict:
    """What a sample turned out to be, and why where that is not what was wanted."""

    kind: str
    reason: str | None = None


@dataclass
class Held:
    """What the observer reads while the loader holds the model; off the clock."""

    host: Host
    gpus: bool
    memory: MemoryReading | None = None
    gpu_facts: GpuFacts = field(default_factory=lambda: GpuFacts(None))

    def read(self, pid: int) -> None:
        self.memory = read_memory(self.host, pid)
        if self.gpus:
            self.gpu_facts = read_gpus(self.host)


def judge(
    wanted: str,
    resident_before: float,
    read_bytes: int | None,
    read_share: float | None,
    weight_bytes: int,
    resident_after: float = 1.0,
    app_resident: float | None = None,
) -> Verdict:
    """Cold, warm or lukewarm, from shares 0..1 of the model's weights; `app_resident` is asked in scope `app` alone.

    `read_bytes` is everything the loader read by its first token, `read_share` what it read after its tokenizer was
    ready, so that reading libraries never passes for reading weights. Libraries imported later are in it all the same:
    that the model itself was read shows in `resident_after`, since little of it was in the page cache before.
    """
    if read_bytes is None or read_share is None:
        return Verdict("lukewarm", "the kernel does not tell what the loader read, so nothing is verified")
    if wanted == "cold":
        if resident_before >= COLD_RESIDENT_SHARE:
            return Verdict("lukewarm", f"{resident_before:.1%} of the model was resident before")
        if app_resident is not None and app_resident >= COLD_RESIDENT_SHARE:
            return Verdict("lukewarm", f"{app_resident:.1%} of the libraries stayed resident: other processes use them")
        if read_share < COLD_READ_SHARE:
            return Verdict("lukewarm", f"only {read_share:.1%} of the model's bytes were read by first token")
        if resident_after < COLD_READ_SHARE:
            return Verdict("lukewarm", f"only {resident_after:.1%} of the model was in the page cache after the run")
        return Verdict("cold")
    if resident_before < WARM_RESIDENT_SHARE:
        return Verdict("lukewarm", f"only {resident_before:.1%} of the model was resident before")
    if read_bytes >= max(WARM_READ_SHARE * weight_bytes, WARM_READ_FLOOR_BYTES):
        return Verdict("lukewarm", f"{read_bytes / 2**20:.1f} MiB were read from disk during the run")
    return Verdict("warm")


def prepare(host: Host, subject: Subject, wanted: str) -> tuple[page_cache.Residency, float | None]:
    """Bring the page cache into the wanted state; residency of the weights, and in scope `app` of the libraries."""
    if wanted == "warm":
        # The cold run just before has read in what it uses of the libraries. All of their files are thrice that: to
        # read them takes seconds, and on a small host evicts the model.
        page_cache.warm(subject.files)
    elif subject.scope == "app":
        page_cache.evict([*subject.interpreter.all_files(), *subject.files])
    else:
        if subject.scope == "host":
            page_cache.drop_host_caches(host)
        else:
            # Else the first sample alone would carry the libraries' reads, and pass for a cold load of the weights.
            page_cache.warm(subject.interpreter.all_files())
        page_cache.evict(subject.files)
    app = None
    if wanted == "cold" and subject.scope == "app":
        app = page_cache.residency(subject.interpreter.library_files()).share
    return page_cache.residency(subject.weights), app


def measure_sample(
    host: Host,
    subject: Subject,
    wanted: str,
    *,
    block: int,
    order: int,
    dtype: str = "auto",
    arm: str | None = None,
    env: Mapping[str, object] | None = None,
    settings: Mapping[str, str] | None = None,
    ceiling: Ceiling | None = None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """One loader run in the wanted state: the sample of docs/architecture.md, and what the loader said at `held`.

    A loader that fails in any way is a sample of kind `failed`. Raises SettingError where the host does not let us
    prepare or start, and ControllerGone.
    """
    pairs = environment_tuple(env or {})
    loader = replace(
        subject.loader,
        arguments=(*subject.loader.arguments, "--model", subject.model.path, "--dtype", dtype),
        env=(*subject.loader.env, *pairs),
    )
    gpus_before = read_gpus(host)
    before, app_resident = prepare(host, subject, wanted)
    started_at = now()
    counters, activity = read_thp_counters(host), read_activity(host)
    held = Held(host, bool(gpus_before.gpus))
    pids: list[int] = []

    def on_held(pid: int) -> None:
        pids.append(pid)
        held.read(pid)

    run = observe(loader, on_held)
    after = page_cache.residency(subject.weights)
    foreign = {process.pid for gpu in gpus_before.gpus for process in gpu.foreign_processes(())}
    foreign |= {process.pid for gpu in held.gpu_facts.gpus for process in gpu.foreign_processes(pids)}
    own_cpu_s = run.usage.cpu_user_s + run.usage.cpu_system_s
    noise = judge_noise(activity, read_activity(host), own_cpu_s, len(foreign))
    counted = moved(counters, read_thp_counters(host))
    sample = {
        **empty_sample(block, wanted, "failed", run.problem or "it ended before its memory was read", started_at),
        "arm": arm,
        "order": order,
        "dtype": None if dtype == "auto" else dtype,
        "settings": dict(settings or {}),
        "env": dict(pairs),
        "phases": phases(run.events),
        "resident_before": before.share,
        "resident_after": after.share,
        "residency_by": before.by,
        "model_bytes": subject.model.weight_bytes,
        "vmstat": {name: counted.get(name, 0) for name in {*counted, *_ALWAYS_TOLD} if name in counters},
        "noise": noise,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "stderr_tail": run.stderr_tail or None,
        "ceiling_bytes_per_s": ceiling.bytes_per_s if ceiling else None,
    }
    said = run.events.held
    if run.problem is None and said is not None and held.memory is not None:
        sample.update(_figures(run, said, held, subject, sample["ceiling_bytes_per_s"]))
        sample["gpu"] = gpu_use(said["gpu"] or [], gpus_before, held.gpu_facts, pids) if said["gpu"] else []
        verdict = judge(
            wanted,
            before.share,
            sample["read_bytes"],
            sample["read_share"],
            subject.model.weight_bytes,
            after.share,
            app_resident,
        )
        sample.update(kind=verdict.kind, reason=verdict.reason)
        disagreement = memory_disagreement(said["memory"], held.memory)
        if disagreement:
            noise["noisy"] = True
            noise["reasons"].append(disagreement)
    return sample, said


def empty_sample(block: int, wanted: str, kind: str, reason: str, started_at: str) -> dict[str, Any]:
    """A sample that measured nothing: null in every field that would hold a figure."""
    names = (
        "arm order dtype device settings env load_real_s time_to_first_token_s second_token_s "
        "resident_before resident_after residency_by read_bytes read_share model_bytes "
        "rss_bytes vsz_bytes pss_bytes uss_bytes anon_bytes anon_huge_bytes file_pmd_bytes shmem_pmd_bytes "
        "hugetlb_bytes minor_faults major_faults cpu_user_s cpu_system_s vmstat gpu ceiling_bytes_per_s ceiling_share "
        "noise exit_code signal stderr_tail"
    )
    sample: dict[str, Any] = dict.fromkeys(names.split())
    return {
        **sample,
        "block": block,
        "wanted": wanted,
        "kind": kind,
        "reason": reason,
        "started_at": started_at,
        "phases": [],
    }


def memory_disagreement(said: Mapping[str, int], seen: MemoryReading) -> str | None:
    """How the loader's own view (psutil) differs from the observer's (smaps_rollup), beyond tolerance, in words."""
    for name in ("rss_bytes", "pss_bytes", "vsz_bytes"):
        ours = getattr(seen, name)
        if abs(said[name] - ours) > max(MEMORY_TOLERANCE_SHARE * ours, MEMORY_TOLERANCE_BYTES):
            return f"memory figures disagree: psutil says {name} {said[name]}, smaps_rollup {ours}"
    return None


def _figures(
    run: Observation, said: Mapping[str, Any], held: Held, subject: Subject, ceiling: float | None
) -> dict[str, Any]:
    """The figures of a run that kept the protocol. Counters are those at first token, before the hold."""
    events, memory = run.events, held.memory
    first = events.marks["first_token"]
    weights_read = read_between(events.marks["tokenizer"], first)
    weights_s = (first.t_ns - events.marks["tokenizer"].t_ns) / 1e9
    limit, share = against_ceiling(weights_read, weights_s, ceiling)
    return {
        "dtype": said["dtype"],
        "device": said["device"],
        "load_real_s": _since_spawn(events, events.marks["weights"]),
        "time_to_first_token_s": _since_spawn(events, first),
        "second_token_s": (events.marks["second_token"].t_ns - events.marks["resumed"].t_ns) / 1e9,
        "read_bytes": first.read_bytes,
        "read_share": None if weights_read is None else weights_read / subject.model.weight_bytes,
        "ceiling_bytes_per_s": limit,
        "ceiling_share": share,
        **(vars(memory) if memory else {}),
        **said["memory"],
        "minor_faults": first.minor_faults,
        "major_faults": first.major_faults,
        "cpu_user_s": first.cpu_user_s,
        "cpu_system_s": first.cpu_system_s,
    }


def against_ceiling(read_bytes: int | None, seconds: float, ceiling: float | None) -> tuple[float | None, float | None]:
    """The ceiling in bytes per second, and the share 0..1 of it that so many bytes in so many seconds reached.

    Disks drift, and what a sample reached the disk can do: the ceiling is at least that.
    """
    if read_bytes is None or ceiling is None or not seconds:
        return ceiling, None
    limit = max(ceiling, read_bytes / seconds)
    return limit, read_bytes / seconds / limit


def _since_spawn(events: Events, mark: Mark) -> float:
    return (mark.t_ns - events.spawn_ns) / 1e9


def ceiling_passes(subject: Subject, passes: int) -> list[Ceiling]:
    """Passes over the model's weights, one after another."""
    return [measure_ceiling(subject.weights) for _ in range(passes)]


def ceiling_record(passes: Sequence[Ceiling]) -> dict[str, Any]:
    """The `ceiling` of the result document, from one block's passes; `bytes_per_s` is empty where it is unknown."""
    best = passes[0].best
    return {
        "bytes_per_s": [each.bytes_per_s for each in passes if each.bytes_per_s],
        "streams": best.way.streams if best else None,
        "trials": [trial.as_dict() for each in passes for trial in each.trials],
        "guest_cold": is_cached_below(passes[0], passes[-1]) if len(passes) > 1 else None,
    }


@dataclass
class Progress:
    """What a block's line says: which block, each sample, and the time left."""

    block: int
    blocks: int
    began: float = field(default_factory=time.monotonic)

    def line(self, samples: Iterable[Mapping[str, Any]]) -> str:
        told = ", ".join(_told(sample) for sample in samples)
        left_s = (time.monotonic() - self.began) * (self.blocks - self.block)
        tail = f"about {left_s:.0f} s left" if self.blocks > self.block else "done"
        return f"block {self.block} of {self.blocks}: {told}, {tail}"


def _told(sample: Mapping[str, Any]) -> str:
    """`cold 8.31 s`, `cold turned out lukewarm 5.20 s (why)` or `cold failed (why)`."""
    wanted, kind, reason = sample["wanted"], sample["kind"], sample["reason"]
    if kind == "failed":
        return f"{wanted} failed ({reason})"
    seconds = f"{sample['load_real_s']:.2f} s"
    return f"{wanted} {seconds}" if kind == wanted else f"{wanted} turned out lukewarm {seconds} ({reason})"
