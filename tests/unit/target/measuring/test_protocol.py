"""The protocol: what makes a sample cold, warm or lukewarm; a block of fake loads from end to end; its line."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring import protocol
from ansible.module_utils.slm_baseline.measuring.install.interpreter import Interpreter
from ansible.module_utils.slm_baseline.measuring.loader.events import (
    FORKED_ORDER,
    Events,
    LoaderMemory,
    LoaderReport,
    Mark,
)
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader, Observation, Usage
from ansible.module_utils.slm_baseline.measuring.loader.replay import Replay, replay_record, replaying
from ansible.module_utils.slm_baseline.measuring.model.files import Model, ModelFile
from ansible.module_utils.slm_baseline.measuring.probes import page_cache
from ansible.module_utils.slm_baseline.measuring.probes.disk_bandwidth import Ceiling, ReadMethod, WayTried
from ansible.module_utils.slm_baseline.measuring.probes.gpu import Gpu, GpuFacts, GpuProcess
from ansible.module_utils.slm_baseline.measuring.probes.page_cache import Residency
from ansible.module_utils.slm_baseline.measuring.probes.process_memory import MemoryReading
from ansible.module_utils.slm_baseline.measuring.protocol import (
    HeldReading,
    Progress,
    Subject,
    WholeRun,
    against_ceiling,
    ceiling_record,
    figures_of,
    measure_sample,
    memory_disagreement,
    prepare_cache,
    steady_token,
)
from ansible.module_utils.slm_baseline.measuring.sample import Sample, Trial, failed_sample, to_document
from hypothesis import given
from hypothesis import strategies as st

from analysis.documents.schema import validate
from tests.conftest import REPOSITORY

FAKE = REPOSITORY / "tests" / "support" / "fake_loader.py"


def test_memory_figures_must_agree() -> None:
    seen = MemoryReading(1000 << 20, 2000 << 20, 900 << 20, 0, 0, 0, 0, 0)
    told = LoaderMemory(rss_bytes=1000 << 20, vsz_bytes=2000 << 20, uss_bytes=0, pss_bytes=910 << 20)
    assert memory_disagreement(told, seen) is None
    assert "pss_bytes" in (memory_disagreement(replace(told, pss_bytes=800 << 20), seen) or "")


@pytest.mark.parametrize("name", ["rss_bytes", "pss_bytes", "vsz_bytes"])
@pytest.mark.parametrize(("seen", "apart"), [(100 << 20, 16 << 20), (2000 << 20, 40 << 20)])
def test_memory_figures_may_differ_by_a_fiftieth_or_16_mib(name: str, seen: int, apart: int) -> None:
    ours = MemoryReading(seen, seen, seen, 0, 0, 0, 0, 0)
    theirs = LoaderMemory(rss_bytes=seen, vsz_bytes=seen, uss_bytes=0, pss_bytes=seen)
    for difference in (apart, -apart):
        assert memory_disagreement(replace(theirs, **{name: seen + difference}), ours) is None
        further = seen + difference + (1 if difference > 0 else -1)
        assert name in (memory_disagreement(replace(theirs, **{name: further}), ours) or "")


@pytest.mark.parametrize(
    ("scope", "wanted", "share"),
    [("app", "cold", 0.0), ("app", "warm", None), ("host", "cold", None), ("weights", "cold", None)],
)
def test_libraries_are_looked_at_where_they_are_evicted(
    tmp_path: Path, cache: FakeCache, scope: str, wanted: str, share: float | None
) -> None:
    weights, app = prepare_cache(Host(), subject(tmp_path, "good", scope), wanted)
    assert (app, weights.share) == (share, 1.0 if wanted == "warm" else 0.0)


def test_a_replay_has_read_no_more_weights_than_the_kernel_read_for_it() -> None:
    assert replay_record("ahead", "weights_read_bytes=500 stale=0", 300, 0.1).weights_read_bytes == 300
    assert replay_record("ahead", "weights_read_bytes=-5 ended_s=none", 300, 0.1).weights_read_bytes == 0
    assert "too little memory" in (replay_record("ahead", "memory=imports only", 0, 0.1).problem or "")


class FakeCache:
    """A page cache of one bit: warming sets it, evicting and dropping clear it; what was done is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.share = 0.5
        self.done: list[str] = []
        for name, share in (("warm", 1.0), ("evict", 0.0), ("drop_host_caches", 0.0)):
            monkeypatch.setattr(page_cache, name, self._doing(name, share))
        monkeypatch.setattr(page_cache, "residency", lambda paths: Residency(1000, int(1000 * self.share), "cachestat"))

    def _doing(self, name: str, share: float) -> Any:
        def do(_: object) -> None:
            self.done.append(name)
            self.share = share

        return do


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> FakeCache:
    return FakeCache(monkeypatch)


def subject(tmp_path: Path, mode: str, scope: str = "host", weight_bytes: int = 1000) -> Subject:
    (tmp_path / "library").mkdir(exist_ok=True)
    file = ModelFile("model.safetensors", str(tmp_path / "weights"), weight_bytes, "weights")
    return Subject(
        Loader(
            sys.executable,
            str(FAKE),
            (mode,),
            None,
            20.0,
            env=(("FAKE_OPENED", str(tmp_path / "weights")),),
            scratch=str(tmp_path),
        ),
        Model("tiny", "local", str(tmp_path), None, (file,), "bfloat16", 7),
        Interpreter((3, 11, 2), {}, (str(tmp_path / "library"),), (), sys.executable),
        scope,
    )


def check_schema(sample: Sample) -> None:
    validate(sample.to_json(), "result", "/$defs/sample")
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


def test_a_warm_sample_of_a_good_loader(tmp_path: Path, cache: FakeCache) -> None:
    trial = Trial(2, "warm", 1, arm="always", settings={"thp.enabled": "always"}, env={"A": "1"})
    sample, report = measure_sample(Host(), subject(tmp_path, "good"), trial, ceiling(2e9))
    check_schema(sample)
    assert (sample.kind, sample.reason, sample.block, sample.order) == ("warm", None, 2, 1)
    assert (sample.arm, sample.env, sample.settings) == ("always", {"A": "1"}, {"thp.enabled": "always"})
    assert cache.done == ["warm"]
    assert report is not None
    assert report.software == {"torch": "2"}
    seconds = [phase.seconds for phase in sample.phases]
    assert sum(seconds[:6]) == pytest.approx(sample.load_real_s)
    assert sum(seconds[:7]) == pytest.approx(sample.time_to_first_token_s)
    assert (sample.read_bytes, sample.minor_faults, sample.pss_bytes) == (1000, 10, 3072)
    assert (sample.resident_before, sample.resident_at_token, sample.needed_share) == (1.0, 1.0, None)
    # Four tokens at one instant: three took no time.
    assert (len(sample.tokens_s), sample.tokens_s[1:], sample.steady_token_s) == (4, (0.0, 0.0, 0.0), 0.0)
    # What the loader says of itself here is made up, and the observer looked.
    assert sample.noise is not None
    assert any("memory figures disagree" in reason for reason in sample.noise.reasons)


def whole_run(order: tuple[str, ...] = Events(0).order) -> WholeRun:
    """A run that was started at 2 s; each event has counters of its own, so that none can stand in for another."""
    instants = (2_100, 4_000, 5_000, 5_500, 6_000, 8_000, 8_500, 8_600, 10_000, 11_000, 12_000)
    marks = {
        name: Mark(instant * 10**6, number**2 * 100, number**2 * 10, number**2, number * 0.5, number * 0.25)
        for number, (name, instant) in enumerate(zip(Events(0).order, instants, strict=True), 1)
        if name in order
    }
    memory = LoaderMemory(rss_bytes=1, vsz_bytes=2, uss_bytes=3, pss_bytes=4)
    report = LoaderReport(memory, "cpu", "bfloat16", 7, {}, ())
    events = Events(2 * 10**9, marks, report, order, tokens_s=(1.0, 0.5, 0.25, 0.75))
    run = Observation(events, None, 0, None, "", Usage(1.0, 2.0))
    held = HeldReading(1, MemoryReading(10, 20, 30, 40, 50, 60, 70, 80, 90), GpuFacts(None), Residency(1000, 1000, ""))
    return WholeRun(run, report, held)


def test_each_figure_is_taken_between_its_own_two_events(tmp_path: Path) -> None:
    figures = figures_of(subject(tmp_path, "good", weight_bytes=4800), whole_run(), 480.0)
    assert {name: figures[name] for name in ("load_real_s", "time_to_first_token_s", "second_token_s")} == {
        "load_real_s": pytest.approx(6.0),
        "time_to_first_token_s": pytest.approx(6.5),
        "second_token_s": pytest.approx(1.0),
    }
    assert (figures["tokens_s"], figures["steady_token_s"]) == ((1.0, 0.5, 0.25, 0.75), 0.5)
    # 2,400 bytes of 4,800 in the 2.5 s from the tokenizer to the first token.
    assert (figures["read_bytes"], figures["read_share"]) == (4900, 0.5)
    assert (figures["ceiling_bytes_per_s"], figures["ceiling_share"]) == (960.0, 1.0)
    assert (figures["minor_faults"], figures["major_faults"]) == (490, 49)
    assert (figures["cpu_user_s"], figures["cpu_system_s"]) == (3.5, 1.75)
    # The loader's own view of its memory counts, and the kernel's of what the loader does not tell.
    memory = [figures[f"{name}_bytes"] for name in ("rss", "vsz", "uss", "pss", "anon", "swap")]
    assert memory == [1, 2, 3, 4, 40, 90]


def test_a_forked_childs_figures_begin_with_its_weights(tmp_path: Path) -> None:
    figures = figures_of(subject(tmp_path, "good", weight_bytes=4800), whole_run(FORKED_ORDER), None)
    assert (figures["load_real_s"], figures["time_to_first_token_s"]) == (None, None)
    assert (figures["second_token_s"], figures["read_bytes"], figures["read_share"]) == (1.0, 2400, 0.5)
    assert (figures["minor_faults"], figures["major_faults"]) == (240, 24)
    assert (figures["cpu_user_s"], figures["cpu_system_s"]) == (1.0, 0.5)
    assert (figures["ceiling_bytes_per_s"], figures["ceiling_share"]) == (None, None)


def test_reads_that_the_kernel_does_not_tell_are_no_figure(tmp_path: Path) -> None:
    whole = whole_run()
    whole.run.events.marks["first_token"] = replace(whole.run.events.marks["first_token"], read_bytes=None)
    figures = figures_of(subject(tmp_path, "good"), whole, 1e9)
    assert (figures["read_bytes"], figures["read_share"], figures["ceiling_share"]) == (None, None, None)


def test_a_loader_has_the_trials_arguments_and_environment_after_its_own(tmp_path: Path) -> None:
    base = replace(subject(tmp_path, "good"), new_tokens=12)
    loader = base.loader_of(Trial(1, "cold", dtype="float32", env={"A": "1"}))
    assert loader.arguments == ("good", "--model", str(tmp_path), "--dtype", "float32", "--new-tokens", "12")
    assert loader.env == (*base.loader.env, ("A", "1"))
    assert replace(loader, arguments=("good",), env=base.loader.env) == base.loader


def test_processes_of_others_on_the_gpus_are_counted_once_and_the_loader_is_none_of_them(
    tmp_path: Path, cache: FakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = [7, 8]

    def read(host: Host) -> GpuFacts:
        processes = tuple(GpuProcess(pid, None, None) for pid in pids)
        gpu = Gpu(0, "x", None, None, None, None, None, None, None, None, None, None, processes)
        return GpuFacts("1", gpus=(gpu,))

    def seen(host: Host, pid: int) -> MemoryReading:
        pids[:] = [8, 9, pid]
        return MemoryReading(1, 2, 3, 4, 5, 6, 7, 8)

    monkeypatch.setattr(protocol, "read_gpus", read)
    monkeypatch.setattr(protocol, "read_memory", seen)
    sample, _ = measure_sample(Host(), subject(tmp_path, "good"), Trial(1, "warm"))
    assert sample.noise is not None
    assert sample.noise.foreign_gpu_processes == 3


def test_a_token_is_steady_where_nothing_is_done_for_the_first_time() -> None:
    assert steady_token((1.04, 0.4, 0.092, 0.093)) == pytest.approx(0.0925)
    assert steady_token((1.04, 0.4, 0.1, 0.09, 0.092)) == pytest.approx(0.092)
    assert steady_token((1.04, 0.4, 0.09)) is None


def test_a_decoy_is_told_by_its_path(tmp_path: Path, cache: FakeCache) -> None:
    trial = Trial(1, "warm", env={"FAKE_OPENED": str(tmp_path / "decoy")})
    sample, report = measure_sample(Host(), subject(tmp_path, "good"), trial)
    check_schema(sample)
    assert (sample.kind, report is not None) == ("lukewarm", True)
    assert f"the loader opened '{tmp_path}/decoy'" in (sample.reason or "")


def test_a_link_to_the_weights_is_the_weights(tmp_path: Path, cache: FakeCache) -> None:
    (tmp_path / "blob").touch()
    (tmp_path / "weights").symlink_to("blob")
    trial = Trial(1, "warm", env={"FAKE_OPENED": str(tmp_path / "blob")})
    assert measure_sample(Host(), subject(tmp_path, "good"), trial)[0].kind == "warm"


def test_files_that_changed_since_they_were_checked_stop_the_block(tmp_path: Path, cache: FakeCache) -> None:
    with pytest.raises(SettingError, match="have changed since") as raised:
        measure_sample(Host(), subject(tmp_path, "good", weight_bytes=999), Trial(1, "warm"))
    assert raised.value.knob == "slm_benchmark_model"


def test_swapped_out_memory_is_a_figure_and_noise(
    tmp_path: Path, cache: FakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = MemoryReading(1, 2, 3, 4, 5, 6, 7, 8, swap_bytes=3 << 20)
    monkeypatch.setattr(protocol, "read_memory", lambda host, pid: seen)
    sample, _ = measure_sample(Host(), subject(tmp_path, "good"), Trial(1, "warm"))
    check_schema(sample)
    assert sample.swap_bytes == 3 << 20
    assert sample.noise is not None
    assert "3.0 MiB of the loader were swapped out" in sample.noise.reasons


@pytest.mark.parametrize(
    ("scope", "done"), [("host", ["drop_host_caches", "evict"]), ("app", ["evict"]), ("weights", ["warm", "evict"])]
)
def test_each_scope_evicts_its_own(tmp_path: Path, cache: FakeCache, scope: str, done: list[str]) -> None:
    sample, _ = measure_sample(Host(), subject(tmp_path, "good", scope), Trial(1, "cold"))
    assert cache.done == done
    assert sample.resident_before == 0.0
    # The fake loader's counters stand still after the tokenizer: it read nothing of the weights.
    assert (sample.kind, sample.read_share) == ("lukewarm", 0.0)
    check_schema(sample)


@pytest.mark.parametrize("when", ["ahead", "together"])
def test_a_cold_state_is_verified_before_a_replay_reads(tmp_path: Path, cache: FakeCache, when: str) -> None:
    seen: list[str] = []
    note = tmp_path / "note"
    command = f"open({str(note)!r}, 'w').close(); print('weights_read_bytes=990 ended_s=0.25 stale=0')"
    replay = Replay((sys.executable, "-c", command), when)

    def residency(paths: Any) -> Residency:
        seen.append("after" if note.exists() else "before")
        return Residency(1000, 1000 if note.exists() else 0, "cachestat")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_cache, "residency", residency)
        sample, _ = measure_sample(Host(), subject(tmp_path, "good"), Trial(1, "cold", replay=replay))
    check_schema(sample)
    # Before the start, at the first token, after the end.
    assert (len(seen), seen[0], seen[-1]) == (3, "before", "after")
    assert sample.replay is not None
    assert (sample.replay.when, sample.replay.ended_s, sample.replay.problem) == (when, 0.25, None)
    assert sample.replay.cpu_s > 0


def test_a_replay_that_refuses_its_plan_is_no_such_start(tmp_path: Path, cache: FakeCache) -> None:
    replay = Replay((sys.executable, "-c", "import sys; sys.exit('slm_replay: it is no plan')"), "together")
    sample, _ = measure_sample(Host(), subject(tmp_path, "good"), Trial(1, "warm", replay=replay))
    check_schema(sample)
    assert (sample.kind, sample.reason) == ("lukewarm", "the replay was not the one planned: slm_replay: it is no plan")


def test_a_replay_that_cannot_be_started_is_one_error(tmp_path: Path, cache: FakeCache) -> None:
    with pytest.raises(SettingError, match=r"first_token\.replay"):
        measure_sample(Host(), subject(tmp_path, "good"), Trial(1, "warm", replay=Replay(("/nonexistent",), "ahead")))


def test_a_replay_that_never_ends_is_ended_and_told() -> None:
    sleeping = Replay((sys.executable, "-c", "import time; time.sleep(60)"), "ahead")
    with replaying(sleeping, None, timeout_s=0.3) as replay:
        replay.run_ahead()
    assert replay.record is not None
    assert replay.record.problem == "it was still reading after 0.3 s"
    with replaying(replace(sleeping, when="together"), None, 60) as other:
        pid = other.start()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("mode", "word"), [("crash", "exit code 1"), ("killed", "SIGKILL"), ("rubbish", "JSON")])
def test_a_loader_that_fails_is_a_failed_sample(tmp_path: Path, cache: FakeCache, mode: str, word: str) -> None:
    sample, report = measure_sample(Host(), subject(tmp_path, mode), Trial(1, "cold"))
    check_schema(sample)
    assert (sample.kind, report) == ("failed", None)
    assert word in (sample.reason or "")
    assert sample.load_real_s is None
    assert [phase.name for phase in sample.phases] == ["interpreter", "import_torch"]
    if mode == "crash":
        assert "here" in (sample.stderr_tail or "")


@pytest.mark.parametrize(("mode", "word"), [("good", "cannot be read"), ("hasty", "before its memory was read")])
def test_a_loader_that_cannot_be_read_is_a_failed_sample_with_a_reason(
    tmp_path: Path, cache: FakeCache, monkeypatch: pytest.MonkeyPatch, mode: str, word: str
) -> None:
    def gone(host: Host, pid: int) -> MemoryReading:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(protocol, "read_memory", gone)
    sample, _ = measure_sample(Host(), subject(tmp_path, mode), Trial(1, "warm", 1))
    check_schema(sample)
    assert sample.kind == "failed"
    assert word in (sample.reason or "")
    assert sample.load_real_s is None


def test_a_sample_that_measured_nothing_fits_the_schema() -> None:
    check_schema(failed_sample(Trial(1, "cold"), "the kernel refused", "2026-01-02T03:04:05Z"))


def test_a_block_tells_its_times_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = Sample(2, "cold", "cold", None, "", load_real_s=8.312)
    warm = Sample(2, "warm", "lukewarm", "only 90.0% of the model was resident before", "", load_real_s=4.02)
    failed = failed_sample(Trial(2, "warm"), "killed by SIGKILL", "")
    monkeypatch.setattr(time, "monotonic", lambda: 114.0)
    line = Progress(2, 3, began=100.0).line([cold, warm])
    assert line == (
        "block 2 of 3: cold 8.31 s, warm turned out lukewarm 4.02 s (only 90.0% of the model was resident before), "
        "about 14 s left"
    )
    assert Progress(3, 3, began=100.0).line([failed]) == "block 3 of 3: warm failed (killed by SIGKILL), done"


def ceiling(rate: float | None) -> Ceiling:
    return Ceiling((WayTried(ReadMethod("direct", 4, 1 << 20), rate, 1, None if rate else "Invalid argument"),))


def test_an_unknown_ceiling_is_empty_and_not_zero() -> None:
    record = ceiling_record([ceiling(None), ceiling(None)])
    assert (record.bytes_per_s, record.streams, record.guest_cold) == ((), None, None)
    assert [trial.reason for trial in record.trials] == ["Invalid argument"] * 2
    validate(to_document(record), "result", "/properties/ceiling")
    assert ceiling_record([ceiling(1e9)]).guest_cold is None
    record = ceiling_record([ceiling(1e9), ceiling(3e9)])
    assert (record.bytes_per_s, record.streams, record.guest_cold) == ((1e9, 3e9), 4, True)
    validate(to_document(record), "result", "/properties/ceiling")
    assert protocol.WANTED == ("cold", "warm")


@given(st.integers(0, 10**12), st.one_of(st.none(), st.floats(1, 1e12)))
def test_no_sample_passes_its_ceiling(read_bytes: int, rate: float | None) -> None:
    limit, share = against_ceiling(read_bytes, 2.0, rate)
    assert (limit is None) == (share is None) == (rate is None)
    if limit is not None and share is not None and rate is not None:
        assert limit >= rate
        assert 0 <= share <= 1
        assert share * limit == pytest.approx(read_bytes / 2)


def test_without_bytes_or_time_there_is_no_share() -> None:
    assert against_ceiling(None, 2.0, 1e9) == (1e9, None)
    assert against_ceiling(10, 0.0, 1e9) == (1e9, None)
