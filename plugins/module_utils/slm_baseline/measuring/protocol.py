"""The measuring protocol: a sample is one loader run in a verified state of the page cache; a block is cold, then warm.

docs/measuring.md describes the protocol, the thresholds and the reasons; verdict.py judges.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..host.clock import now
from ..host.errors import SettingError
from ..host.files import Host
from .install.interpreter import Interpreter
from .loader.events import LoaderMemory, LoaderReport, Mark, phases, read_between
from .loader.process import Loader, Observation, observe
from .loader.replay import ReplayRecord, replaying
from .loader.template import Template, TemplateFailed
from .model.files import Model
from .probes import page_cache
from .probes.canary import CanaryReading, compare, read_canary, wait_for_quiet
from .probes.disk_bandwidth import Ceiling, host_cached, measure_ceiling
from .probes.gpu import GpuFacts, gpu_use, read_gpus
from .probes.noise import Noise, judge_noise, read_activity
from .probes.process_memory import MemoryReading, moved, read_memory, read_thp_counters
from .sample import CeilingRecord, CeilingTrial, Sample, Trial, failed_sample
from .verdict import Evidence, Verdict, verdict_of

WANTED = ("cold", "warm")
SCOPES = ("host", "app", "weights")
NEW_TOKENS = 12
"""In a baseline's sample: on two H200 the third token took four times the fifth (1,040, 400, 92, 93 ms)."""
FEWEST_STEADY = 4
"""Tokens, from the second on, whose later half can be called steady."""
MEMORY_TOLERANCE_SHARE = 0.02
MEMORY_TOLERANCE_BYTES = 16 << 20
_ALWAYS_TOLD = ("thp_fault_alloc", "thp_fault_fallback", "compact_stall")


@dataclass(frozen=True)
class Subject:
    """What is measured and how. `loader` lacks the arguments and environment that differ between arms.

    Residency and reads are judged on the model's weight files; all its files are evicted and warmed. `new_tokens` is
    how many tokens each run makes.
    """

    loader: Loader
    model: Model
    interpreter: Interpreter
    scope: str = "host"
    new_tokens: int = 2

    def loader_of(self, trial: Trial) -> Loader:
        """Return the loader with this trial's arguments and environment."""
        loader = self.loader
        model = ("--model", self.model.path, "--dtype", trial.dtype, "--new-tokens", str(self.new_tokens))
        return replace(loader, arguments=(*loader.arguments, *model), env=(*loader.env, *trial.env.items()))

    @property
    def weights(self) -> list[Path]:
        return [Path(file.path) for file in self.model.weight_files]

    @property
    def files(self) -> list[Path]:
        return [Path(file.path) for file in self.model.files]


@dataclass(frozen=True)
class HeldReading:
    """What the observer reads while the loader holds the model, outside the measured time; `pid` is the loader's.

    `weights` is how much of the weight files is in the page cache then: later reads do not belong to the first token.
    """

    pid: int
    memory: MemoryReading
    gpus: GpuFacts
    weights: page_cache.Residency


def read_held(host: Host, subject: Subject, pid: int, with_gpus: bool) -> HeldReading:
    """Read the state of a loader that holds its model; OSError or SettingError where it cannot be read."""
    memory = read_memory(host, pid)
    gpus = read_gpus(host) if with_gpus else GpuFacts(None)
    return HeldReading(pid, memory, gpus, page_cache.residency(subject.weights))


@dataclass(frozen=True)
class Prepared:
    """The state in which a loader starts: residency of weights and libraries, GPUs, and the canary before it.

    `best` is the canary's best of the run so far; the sample waited `waited_s` seconds for `quiet` to come near it.
    """

    weights: page_cache.Residency
    app_resident: float | None
    gpus: GpuFacts
    quiet: CanaryReading
    best: CanaryReading | None
    waited_s: float
    started_at: str


@dataclass(frozen=True)
class Watched:
    """One run of the loader as observed from outside. `held` is None where the loader never held its model.

    `after` is what is in the page cache after its end, `vmstat` which of the kernel's THP counters changed.
    """

    run: Observation
    held: HeldReading | None
    after: page_cache.Residency
    vmstat: dict[str, int]
    noise: Noise
    replay: ReplayRecord | None


@dataclass(frozen=True)
class WholeRun:
    """A run that kept the protocol: the loader's report, and what was read of it while it was held."""

    run: Observation
    report: LoaderReport
    held: HeldReading


def prepare_cache(host: Host, subject: Subject, wanted: str) -> tuple[page_cache.Residency, float | None]:
    """Bring the page cache into the wanted state; return residency of weights, and in scope `app` of libraries."""
    if wanted == "warm":
        # The cold run just before has read what it uses of the libraries. All of their files are three times that:
        # reading them takes seconds, and on a small host evicts the model.
        page_cache.warm(subject.files)
    elif subject.scope == "app":
        page_cache.evict([*subject.interpreter.all_files(), *subject.files])
    else:
        if subject.scope == "host":
            page_cache.drop_host_caches(host)
        else:
            # Otherwise only the first sample would include the libraries' reads, and pass for a cold load of the
            # weights.
            page_cache.warm(subject.interpreter.all_files())
        page_cache.evict(subject.files)
    app = None
    if wanted == "cold" and subject.scope == "app":
        app = page_cache.residency(subject.interpreter.library_files()).share
    return page_cache.residency(subject.weights), app


def prepare_weights(subject: Subject, wanted: str) -> page_cache.Residency:
    """Prepare the weights for a template's child: it uses only these; what the template maps stays in memory."""
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
    """Run the loader once in the wanted state; return its sample, and its report while it held the model.

    With a `template`, made of the subject's loader for this trial, the run is a child of it: the sample has only the
    weights and the tokens, and of the page cache only the model's files are brought into the wanted state.

    `best` is the canary's best of the run so far: the sample waits a few seconds until the machine is about as quick
    again. A loader that fails in any way is a sample of kind `failed`. Raises SettingError where the host does not let
    us prepare or start, and ControllerGone.
    """
    prepared = prepare(host, subject, trial, best, is_forked=template is not None)
    try:
        watched = watch(host, subject, trial, prepared, template)
    except TemplateFailed as error:
        return failed_sample(trial, str(error), prepared.started_at), None
    return build_sample(subject, trial, prepared, watched, ceiling), watched.run.events.report


def prepare(host: Host, subject: Subject, trial: Trial, best: CanaryReading | None, is_forked: bool) -> Prepared:
    """Bring the machine into the wanted state and verify it.

    SettingError where the model's files differ from those that were checked.
    """
    gpus = read_gpus(host)
    # Before the page cache is prepared: some filesystems read into it even on a direct read.
    quiet, waited_s = wait_for_quiet(lambda: read_canary(subject.weights[0]), best)
    if is_forked:
        weights, app_resident = prepare_weights(subject, trial.wanted), None
    else:
        weights, app_resident = prepare_cache(host, subject, trial.wanted)
    if weights.file_bytes != subject.model.weight_bytes:
        raise SettingError(
            "slm_benchmark_model",
            f"{subject.model.weight_bytes} bytes of weights, as checked",
            f"{weights.file_bytes} bytes",
            f"The files of {subject.model.path} have changed since.",
            "run again once nothing writes there.",
        )
    return Prepared(weights, app_resident, gpus, quiet, best, waited_s, now())


def watch(host: Host, subject: Subject, trial: Trial, prepared: Prepared, template: Template | None) -> Watched:
    """Run the loader once and observe it from outside. Raises TemplateFailed where a template forks no child."""
    readings: list[HeldReading] = []

    def on_held(pid: int) -> None:
        readings.append(read_held(host, subject, pid, with_gpus=bool(prepared.gpus.gpus)))

    with replaying(trial.replay, subject.loader.account, subject.loader.timeout_s) as replay:
        # The cold state was verified before this, so the sample is cold, whoever reads the files now.
        replay.run_ahead()
        counters, activity = read_thp_counters(host), read_activity(host)
        if template is None:
            run = observe(subject.loader_of(trial), on_held, replay.start if replay.is_together else None)
        else:
            run = template.observe(on_held)
        replay.finish()
    held = readings[0] if readings else None
    after = page_cache.residency(subject.weights)
    own_cpu_s = run.usage.cpu_user_s + run.usage.cpu_system_s
    if replay.record and replay.is_together:
        own_cpu_s += replay.record.cpu_s
    noise = judge_noise(activity, read_activity(host), own_cpu_s, _foreign_processes(prepared.gpus, held))
    counted = moved(counters, read_thp_counters(host))
    canary = compare(prepared.quiet, read_canary(subject.weights[0]), prepared.best, prepared.waited_s)
    return Watched(
        run,
        held,
        after,
        {name: counted.get(name, 0) for name in {*counted, *_ALWAYS_TOLD} if name in counters},
        noise.with_canary(canary, prepared.best),
        replay.record,
    )


def evidence_of(subject: Subject, prepared: Prepared, watched: Watched, whole: WholeRun) -> Evidence:
    """Collect a verdict's evidence: reads and residency from the kernel, opened files from the loader."""
    marks = whole.run.events.marks
    return Evidence(
        weight_bytes=subject.model.weight_bytes,
        resident_before_bytes=prepared.weights.resident_bytes,
        resident_bytes=whole.held.weights.resident_bytes,
        read_bytes=read_between(whole.run.events.beginning, marks["first_token"]),
        weights_read_bytes=read_between(marks["tokenizer"], marks["first_token"]),
        checked=frozenset(os.path.realpath(path) for path in subject.weights),
        loaded=frozenset(whole.report.files),
        app_resident=prepared.app_resident,
    ).with_replay(watched.replay)


def build_sample(
    subject: Subject, trial: Trial, prepared: Prepared, watched: Watched, ceiling: Ceiling | None
) -> Sample:
    """Judge one run and build its sample, with all that was measured of it."""
    run, report, held = watched.run, watched.run.events.report, watched.held
    limit = ceiling.bytes_per_s if ceiling else None
    if run.problem is not None or report is None or held is None:
        verdict = Verdict("failed", run.problem or "it ended before its memory was read")
        measured: dict[str, Any] = {
            "dtype": None if trial.dtype == "auto" else trial.dtype,
            "ceiling_bytes_per_s": limit,
            "noise": watched.noise,
        }
    else:
        whole = WholeRun(run, report, held)
        evidence = evidence_of(subject, prepared, watched, whole)
        verdict = verdict_of(trial.wanted, evidence)
        odd_memory = (memory_disagreement(report.memory, held.memory), _swapped(held.memory))
        measured = {
            **figures_of(subject, whole, limit),
            "needed_share": evidence.needed_share if trial.wanted == "cold" else None,
            "gpu": gpu_use(report.gpus, prepared.gpus, held.gpus, (held.pid,)),
            "noise": watched.noise.with_reason(odd_memory[0]).with_reason(odd_memory[1]),
        }
    return Sample(
        block=trial.block,
        wanted=trial.wanted,
        kind=verdict.kind,
        reason=verdict.reason,
        started_at=prepared.started_at,
        arm=trial.arm,
        order=trial.order,
        settings=dict(trial.settings),
        env=dict(trial.env),
        container_start_s=run.events.container_start_s,
        phases=phases(run.events),
        resident_before=prepared.weights.share,
        resident_at_token=held.weights.share if held else None,
        resident_after=watched.after.share,
        residency_by=prepared.weights.by,
        model_bytes=subject.model.weight_bytes,
        vmstat=watched.vmstat,
        exit_code=run.exit_code,
        signal=run.signal,
        stderr_tail=run.stderr_tail or None,
        replay=watched.replay,
        **measured,
    )


def figures_of(subject: Subject, whole: WholeRun, ceiling: float | None) -> dict[str, Any]:
    """Return times, reads, faults and memory of a run that kept the protocol. Counters are those at the first token."""
    events, report = whole.run.events, whole.report
    ready, first, since = events.marks["tokenizer"], events.marks["first_token"], events.beginning
    weights_read = read_between(ready, first)
    limit, share = against_ceiling(weights_read, (first.t_ns - ready.t_ns) / 1e9, ceiling)
    return {
        "dtype": report.dtype,
        "device": report.device,
        "load_real_s": None if events.is_forked else _since_spawn(events.spawn_ns, events.marks["weights"]),
        "time_to_first_token_s": None if events.is_forked else _since_spawn(events.spawn_ns, first),
        "second_token_s": (events.marks["second_token"].t_ns - events.marks["resumed"].t_ns) / 1e9,
        "steady_token_s": steady_token(events.tokens_s),
        "tokens_s": events.tokens_s,
        "read_bytes": read_between(since, first),
        "read_share": None if weights_read is None else weights_read / subject.model.weight_bytes,
        "ceiling_bytes_per_s": limit,
        "ceiling_share": share,
        **vars(whole.held.memory),
        **vars(report.memory),
        "minor_faults": first.minor_faults - since.minor_faults,
        "major_faults": first.major_faults - since.major_faults,
        "cpu_user_s": first.cpu_user_s - since.cpu_user_s,
        "cpu_system_s": first.cpu_system_s - since.cpu_system_s,
    }


def steady_token(tokens_s: Sequence[float]) -> float | None:
    """Return the seconds of a token once all first-time work is done: the median of the later half.

    None where too few were made. `tokens_s` are those from the second token on.
    """
    return statistics.median(tokens_s[len(tokens_s) // 2 :]) if len(tokens_s) >= FEWEST_STEADY else None


def _foreign_processes(before: GpuFacts, held: HeldReading | None) -> int:
    """Count the processes other than the loader on the GPUs, before it or beside it."""
    pids = {process.pid for gpu in before.gpus for process in gpu.foreign_processes(())}
    if held:
        pids |= {process.pid for gpu in held.gpus.gpus for process in gpu.foreign_processes((held.pid,))}
    return len(pids)


def memory_disagreement(told: LoaderMemory, seen: MemoryReading) -> str | None:
    """Return in words how the loader's own view (psutil) differs from the observer's (smaps_rollup), if it does."""
    for name in ("rss_bytes", "pss_bytes", "vsz_bytes"):
        ours, theirs = getattr(seen, name), getattr(told, name)
        if abs(theirs - ours) > max(MEMORY_TOLERANCE_SHARE * ours, MEMORY_TOLERANCE_BYTES):
            return f"memory figures disagree: psutil says {name} {theirs}, smaps_rollup {ours}"
    return None


def _swapped(memory: MemoryReading) -> str | None:
    return f"{memory.swap_bytes / 2**20:.1f} MiB of the loader were swapped out" if memory.swap_bytes else None


def against_ceiling(read_bytes: int | None, seconds: float, ceiling: float | None) -> tuple[float | None, float | None]:
    """Return the ceiling in bytes per second, and the share 0..1 of it that a read reached.

    Disks drift, and the disk can do what a sample reached: the ceiling is at least that.
    """
    if read_bytes is None or ceiling is None or not seconds:
        return ceiling, None
    limit = max(ceiling, read_bytes / seconds)
    return limit, read_bytes / seconds / limit


def _since_spawn(spawn_ns: int, mark: Mark) -> float:
    return (mark.t_ns - spawn_ns) / 1e9


def ceiling_passes(subject: Subject, passes: int) -> list[Ceiling]:
    """Measure passes over the model's weights, one after another."""
    return [measure_ceiling(subject.weights) for _ in range(passes)]


def ceiling_record(passes: Sequence[Ceiling]) -> CeilingRecord:
    """Return one block's passes as documents have them."""
    best = passes[0].best
    return CeilingRecord(
        bytes_per_s=tuple(each.bytes_per_s for each in passes if each.bytes_per_s),
        streams=best.way.streams if best else None,
        guest_cold=host_cached(passes[0], passes[-1]) if len(passes) > 1 else None,
        trials=tuple(CeilingTrial(**trial.as_dict()) for each in passes for trial in each.trials),
    )


@dataclass
class Progress:
    """The progress line of a block: which block, each sample, and the time left."""

    block: int
    blocks: int
    began: float = field(default_factory=time.monotonic)

    def line(self, samples: Iterable[Sample]) -> str:
        shown = ", ".join(_shown(sample) for sample in samples)
        left_s = (time.monotonic() - self.began) * (self.blocks - self.block)
        tail = f"about {left_s:.0f} s left" if self.blocks > self.block else "done"
        return f"block {self.block} of {self.blocks}: {shown}, {tail}"


def _shown(sample: Sample) -> str:
    """Format `cold 8.31 s`, `cold turned out lukewarm 5.20 s (why)` or `cold failed (why)`; noise with its causes."""
    noise = f" (noisy: {'; '.join(sample.noise.reasons)})" if sample.noise and sample.noise.reasons else ""
    if sample.kind == "failed":
        return f"{sample.wanted} failed ({sample.reason})"
    seconds = f"{sample.load_real_s:.2f} s"
    told = f" {seconds}" if sample.is_valid else f" turned out lukewarm {seconds} ({sample.reason})"
    return sample.wanted + told + noise
