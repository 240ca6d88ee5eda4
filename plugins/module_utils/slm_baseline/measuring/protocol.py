"""The measuring protocol: a sample is one loader run in a verified state of the page cache; a block is cold, then warm.

docs/measuring.md tells the protocol and the thresholds, and why.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..host.clock import now
from ..host.errors import SettingError
from ..host.files import Host
from .install.interpreter import Interpreter
from .loader.events import Events, LoaderMemory, LoaderReport, Mark, phases, read_between
from .loader.process import Loader, observe
from .loader.replay import ReplayRecord, replaying
from .loader.template import Template, TemplateFailed
from .model.files import Model
from .probes import page_cache
from .probes.canary import CanaryReading, compare, read_canary, wait_for_quiet
from .probes.disk_bandwidth import Ceiling, host_cached, measure_ceiling
from .probes.gpu import GpuFacts, gpu_use, read_gpus
from .probes.noise import judge_noise, read_activity
from .probes.process_memory import MemoryReading, moved, read_memory, read_thp_counters
from .sample import CeilingRecord, CeilingTrial, Sample, Trial, failed_sample

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

    def loader_of(self, trial: Trial) -> Loader:
        """The loader with what this trial adds to it."""
        loader = self.loader
        return replace(
            loader,
            arguments=(*loader.arguments, "--model", self.model.path, "--dtype", trial.dtype),
            env=(*loader.env, *trial.env.items()),
        )

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


@dataclass(frozen=True)
class HeldReading:
    """What the observer reads while the loader holds the model, off the clock; `pid` is the loader's."""

    pid: int
    memory: MemoryReading
    gpus: GpuFacts


def read_held(host: Host, pid: int, with_gpus: bool) -> HeldReading:
    """Look at a loader that holds its model; OSError or SettingError where it cannot be read."""
    return HeldReading(pid, read_memory(host, pid), read_gpus(host) if with_gpus else GpuFacts(None))


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on, shares 0..1 of the model's weights.

    `read_bytes` is everything the loader read by its first token, `read_share` what it read after its tokenizer was
    ready, so that reading libraries never passes for reading weights; None where the kernel does not tell. Both have
    what a replay read besides, the share its weights alone; `replay_problem` says why it was not the one planned.
    `app_resident` is the libraries' share, asked in scope `app` alone. `parameters` counts what the loader holds,
    `stored_parameters` what the files hold.
    """

    resident_before: float
    read_bytes: int | None
    read_share: float | None
    weight_bytes: int
    resident_after: float = 1.0
    app_resident: float | None = None
    parameters: int = 0
    stored_parameters: int = 0
    replay_problem: str | None = None

    def with_replay(self, replay: ReplayRecord | None) -> Evidence:
        """The same, with what a replay read beside the loader: one of them has to read the model.

        A plan takes files of a few megabytes for imports. Where that is the model, all that the replay read counts.
        """
        if replay is None or self.read_bytes is None or self.read_share is None:
            return self
        is_apart = replay.weights_bytes >= COLD_READ_SHARE * self.weight_bytes
        weights = replay.weights_read_bytes if is_apart else replay.read_bytes
        return replace(
            self,
            read_bytes=self.read_bytes + replay.read_bytes,
            read_share=self.read_share + weights / self.weight_bytes,
            replay_problem=replay.problem,
        )


def verdict_of(wanted: str, seen: Evidence) -> Verdict:
    """Cold, warm or lukewarm.

    Libraries imported late are in `read_share` all the same: that the model itself was read shows in `resident_after`,
    since little of it was in the page cache before.
    """
    if seen.read_bytes is None or seen.read_share is None:
        return Verdict("lukewarm", "the kernel does not tell what the loader read, so nothing is verified")
    if seen.parameters != seen.stored_parameters:
        counts = f"the loader holds {seen.parameters} parameters and the model's files {seen.stored_parameters}"
        return Verdict("lukewarm", f"{counts}: what was loaded is not what was checked")
    if seen.replay_problem:
        return Verdict("lukewarm", f"the replay was not the one planned: {seen.replay_problem}")
    if wanted == "cold":
        if seen.resident_before >= COLD_RESIDENT_SHARE:
            return Verdict("lukewarm", f"{seen.resident_before:.1%} of the model was resident before")
        if seen.app_resident is not None and seen.app_resident >= COLD_RESIDENT_SHARE:
            stayed = f"{seen.app_resident:.1%} of the libraries stayed resident"
            return Verdict("lukewarm", f"{stayed}: other processes use them")
        if seen.read_share < COLD_READ_SHARE:
            return Verdict("lukewarm", f"only {seen.read_share:.1%} of the model's bytes were read by first token")
        if seen.resident_after < COLD_READ_SHARE:
            after = f"only {seen.resident_after:.1%} of the model was in the page cache after the run"
            return Verdict("lukewarm", after)
        return Verdict("cold")
    if seen.resident_before < WARM_RESIDENT_SHARE:
        return Verdict("lukewarm", f"only {seen.resident_before:.1%} of the model was resident before")
    if seen.read_bytes >= max(WARM_READ_SHARE * seen.weight_bytes, WARM_READ_FLOOR_BYTES):
        return Verdict("lukewarm", f"{seen.read_bytes / 2**20:.1f} MiB were read from disk during the run")
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


def prepare_weights(subject: Subject, wanted: str) -> page_cache.Residency:
    """The same for a template's child: it uses no file but the model's, and what the template maps stays in memory."""
    if wanted == "warm":
        page_cache.warm(subject.files)
    else:
        page_cache.evict(subject.files)
    return page_cache.residency(subject.weights)


def measure_sample(
    host: Host,
    subject: Subject,
    trial: Trial,
    ceiling: Ceiling | None = None,
    best: CanaryReading | None = None,
    template: Template | None = None,
) -> tuple[Sample, LoaderReport | None]:
    """One loader run in the wanted state: its sample, and what the loader said of itself while it held the model.

    With a `template`, made of the subject's loader for this trial, the run is a child of it: the sample has the weights
    and the tokens alone, in a page cache of which the model's files alone are brought into the wanted state.

    `best` is the canary's best of the run so far: until the machine is about as quick again, the sample waits a few
    seconds. A loader that fails in any way is a sample of kind `failed`. Raises SettingError where the host does not
    let us prepare or start, and ControllerGone.
    """
    gpus_before = read_gpus(host)
    # Before the page cache is prepared: some filesystems read into it whatever one asks.
    quiet, waited_s = wait_for_quiet(lambda: read_canary(subject.weights[0]), best)
    before, app_resident = (
        prepare(host, subject, trial.wanted) if template is None else (prepare_weights(subject, trial.wanted), None)
    )
    if before.file_bytes != subject.model.weight_bytes:
        raise SettingError(
            "slm_benchmark_model",
            f"{subject.model.weight_bytes} bytes of weights, as checked",
            f"{before.file_bytes} bytes",
            f"The files of {subject.model.path} have changed since.",
            "run again once nothing writes there.",
        )
    started_at = now()
    readings: list[HeldReading] = []

    def on_held(pid: int) -> None:
        readings.append(read_held(host, pid, with_gpus=bool(gpus_before.gpus)))

    with replaying(trial.replay, subject.loader.account, subject.loader.timeout_s) as replay:
        # The state was verified before this: what was cold is cold, whoever reads it now.
        replay.run_ahead()
        counters, activity = read_thp_counters(host), read_activity(host)
        try:
            if template is None:
                run = observe(subject.loader_of(trial), on_held, replay.start if replay.is_together else None)
            else:
                run = template.observe(on_held)
        except TemplateFailed as error:
            return failed_sample(trial, str(error), started_at), None
        replay.finish()
    held = readings[0] if readings else None
    after = page_cache.residency(subject.weights)
    own_cpu_s = run.usage.cpu_user_s + run.usage.cpu_system_s
    if replay.record and replay.is_together:
        own_cpu_s += replay.record.cpu_s
    noise = judge_noise(activity, read_activity(host), own_cpu_s, _foreign_processes(gpus_before, held))
    counted = moved(counters, read_thp_counters(host))
    noise = noise.with_canary(compare(quiet, read_canary(subject.weights[0]), best, waited_s), best)
    sample = replace(
        failed_sample(trial, run.problem or "it ended before its memory was read", started_at),
        dtype=None if trial.dtype == "auto" else trial.dtype,
        phases=phases(run.events),
        resident_before=before.share,
        resident_after=after.share,
        residency_by=before.by,
        model_bytes=subject.model.weight_bytes,
        vmstat={name: counted.get(name, 0) for name in {*counted, *_ALWAYS_TOLD} if name in counters},
        noise=noise,
        exit_code=run.exit_code,
        signal=run.signal,
        stderr_tail=run.stderr_tail or None,
        ceiling_bytes_per_s=ceiling.bytes_per_s if ceiling else None,
        replay=replay.record,
    )
    report = run.events.report
    if run.problem is not None or report is None or held is None:
        return sample, report
    sample = _with_figures(sample, run.events, report, held.memory)
    evidence = Evidence(
        resident_before=before.share,
        read_bytes=sample.read_bytes,
        read_share=sample.read_share,
        weight_bytes=subject.model.weight_bytes,
        resident_after=after.share,
        app_resident=app_resident,
        parameters=report.parameters,
        stored_parameters=subject.model.parameters,
    ).with_replay(replay.record)
    verdict = verdict_of(trial.wanted, evidence)
    measured = replace(
        sample,
        kind=verdict.kind,
        reason=verdict.reason,
        gpu=gpu_use(report.gpus, gpus_before, held.gpus, (held.pid,)),
        noise=noise.with_reason(memory_disagreement(report.memory, held.memory)).with_reason(_swapped(held.memory)),
    )
    return measured, report


def _foreign_processes(before: GpuFacts, held: HeldReading | None) -> int:
    """How many processes that are not the loader were on the GPUs, before it or beside it."""
    pids = {process.pid for gpu in before.gpus for process in gpu.foreign_processes(())}
    if held:
        pids |= {process.pid for gpu in held.gpus.gpus for process in gpu.foreign_processes((held.pid,))}
    return len(pids)


def memory_disagreement(told: LoaderMemory, seen: MemoryReading) -> str | None:
    """How the loader's own view (psutil) differs from the observer's (smaps_rollup), beyond tolerance, in words."""
    for name in ("rss_bytes", "pss_bytes", "vsz_bytes"):
        ours, theirs = getattr(seen, name), getattr(told, name)
        if abs(theirs - ours) > max(MEMORY_TOLERANCE_SHARE * ours, MEMORY_TOLERANCE_BYTES):
            return f"memory figures disagree: psutil says {name} {theirs}, smaps_rollup {ours}"
    return None


def _swapped(memory: MemoryReading) -> str | None:
    return f"{memory.swap_bytes / 2**20:.1f} MiB of the loader were swapped out" if memory.swap_bytes else None


def _with_figures(sample: Sample, events: Events, report: LoaderReport, memory: MemoryReading) -> Sample:
    """The sample with the figures of a run that kept the protocol. Counters are those at first token."""
    ready, first, since = events.marks["tokenizer"], events.marks["first_token"], events.beginning
    weights_read = read_between(ready, first)
    weights_s = (first.t_ns - ready.t_ns) / 1e9
    limit, share = against_ceiling(weights_read, weights_s, sample.ceiling_bytes_per_s)
    model_bytes = sample.model_bytes
    return replace(
        sample,
        dtype=report.dtype,
        device=report.device,
        load_real_s=None if events.is_forked else _since_spawn(events, events.marks["weights"]),
        time_to_first_token_s=None if events.is_forked else _since_spawn(events, first),
        second_token_s=(events.marks["second_token"].t_ns - events.marks["resumed"].t_ns) / 1e9,
        read_bytes=read_between(since, first),
        read_share=weights_read / model_bytes if weights_read is not None and model_bytes else None,
        ceiling_bytes_per_s=limit,
        ceiling_share=share,
        **{**vars(memory), **vars(report.memory)},
        minor_faults=first.minor_faults - since.minor_faults,
        major_faults=first.major_faults - since.major_faults,
        cpu_user_s=first.cpu_user_s - since.cpu_user_s,
        cpu_system_s=first.cpu_system_s - since.cpu_system_s,
    )


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


def ceiling_record(passes: Sequence[Ceiling]) -> CeilingRecord:
    """One block's passes as documents have them."""
    best = passes[0].best
    return CeilingRecord(
        bytes_per_s=tuple(each.bytes_per_s for each in passes if each.bytes_per_s),
        streams=best.way.streams if best else None,
        guest_cold=host_cached(passes[0], passes[-1]) if len(passes) > 1 else None,
        trials=tuple(CeilingTrial(**trial.as_dict()) for each in passes for trial in each.trials),
    )


@dataclass
class Progress:
    """What a block's line says: which block, each sample, and the time left."""

    block: int
    blocks: int
    began: float = field(default_factory=time.monotonic)

    def line(self, samples: Iterable[Sample]) -> str:
        shown = ", ".join(_shown(sample) for sample in samples)
        left_s = (time.monotonic() - self.began) * (self.blocks - self.block)
        tail = f"about {left_s:.0f} s left" if self.blocks > self.block else "done"
        return f"block {self.block} of {self.blocks}: {shown}, {tail}"


def _shown(sample: Sample) -> str:
    """`cold 8.31 s`, `cold turned out lukewarm 5.20 s (why)` or `cold failed (why)`."""
    if sample.kind == "failed":
        return f"{sample.wanted} failed ({sample.reason})"
    seconds = f"{sample.load_real_s:.2f} s"
    return sample.wanted + (f" {seconds}" if sample.is_valid else f" turned out lukewarm {seconds} ({sample.reason})")
