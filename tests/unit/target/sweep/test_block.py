"""A block on a host made of files: settings per arm, and the host restored whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.paths import SWEEP_PRIOR
from ansible.module_utils.slm_baseline.measuring.loader.template import Template, TemplateFailed
from ansible.module_utils.slm_baseline.measuring.sample import Sample, Trial, failed_sample
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import load
from ansible.module_utils.slm_baseline.sweep import block_runner as bench_module
from ansible.module_utils.slm_baseline.sweep.block import run_block
from ansible.module_utils.slm_baseline.sweep.block_runner import BlockRunner
from ansible.module_utils.slm_baseline.sweep.design import Arm, BlockDesign, Cell

from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import build_host
from tests.support.killed_sweep import leave_arm

ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
ARMS = [Arm("stock"), Arm("always", thp={"thp.enabled": "always"}, env={"A": "1"})]
ORDER = [Cell("always", "auto"), Cell("stock", "auto")]


@pytest.fixture
def host(tmp_path: Path) -> FakeKernel:
    return FakeKernel(build_host(tmp_path))


class Loads(BlockRunner):
    """A bench whose loader remembers what was set when each sample ran, and may fail or be told to stop."""

    def __init__(self, host: FakeKernel, fail_at: int | None = None, error: BaseException | None = None) -> None:
        super().__init__(host, subject=None, run_id="run", block=1)  # type: ignore[arg-type]  # nothing is loaded
        self.fail_at, self.error = fail_at, error
        self.seen: list[tuple[str | None, str, str]] = []
        self.kept: list[Sample] = []
        self.prior_was_stored: list[bool] = []
        self.meanwhile: Callable[[Trial], object] = lambda trial: None

    def measure(self, trial: Trial, running: Template | None = None) -> Sample:
        enabled = next(word[1:-1] for word in self.host.read(ENABLED).split() if word[0] == "[")
        self.seen.append((trial.arm, trial.wanted, enabled))
        self.prior_was_stored.append(load(self.host, SWEEP_PRIOR) is not None)
        if len(self.seen) == self.fail_at:
            if self.error is not None:
                raise self.error
            os.kill(os.getpid(), signal.SIGTERM)
        self.meanwhile(trial)
        return replace(failed_sample(trial, "", ""), kind=trial.wanted, reason=None)

    def keep(self, sample: Sample, dtype_asked: str, elapsed_s: float) -> None:
        self.kept.append(sample)

    def run(self, arms: list[Arm] = ARMS, order: list[Cell] = ORDER, pairs: int = 1) -> list[str]:
        """Measure the block; what its samples turned out to be."""
        run_block(self.host, arms, BlockDesign(self.measurement, tuple(order), pairs), self)
        return [sample.kind for sample in self.kept]


def test_each_arm_runs_under_its_own_settings_cold_then_warm(host: FakeKernel) -> None:
    bench = Loads(host)
    bench.run()
    assert bench.seen == [
        ("always", "cold", "always"),
        ("always", "warm", "always"),
        ("stock", "cold", "madvise"),
        ("stock", "warm", "madvise"),
    ]
    assert [sample.order for sample in bench.kept] == [0, 0, 1, 1]
    assert bench.kept[0].settings == {"thp.enabled": "always"}
    assert bench.kept[0].env == {"A": "1"}
    assert all(bench.prior_was_stored)


class Templates:
    """Stands in for what makes templates: remembers the THP setting under which each began, and which still runs."""

    def __init__(self, host: FakeKernel, fails: bool = False) -> None:
        self.host, self.fails = host, fails
        self.began: list[str] = []
        self.running = 0

    @contextlib.contextmanager
    def __call__(self, loader: object) -> Iterator[None]:
        if self.fails:
            raise TemplateFailed("it cannot import torch")
        self.began.append(self.host.read(ENABLED))
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1


class Subject:
    """What a bench asks for the loader of a trial."""

    def loader_of(self, trial: Trial) -> None:
        return None


def _weights(host: FakeKernel, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> tuple[Loads, Templates]:
    templates = Templates(host, fails)
    monkeypatch.setattr(bench_module, "template", templates)
    bench = Loads(host)
    bench.measurement, bench.subject = "weights", Subject()  # type: ignore[assignment]  # nothing is loaded
    return bench, templates


def test_a_template_begins_under_its_arm_and_ends_with_its_cell(
    host: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, templates = _weights(host, monkeypatch)
    running: list[int] = []
    bench.meanwhile = lambda trial: running.append(templates.running)
    bench.run(pairs=2)
    assert templates.began == ["[always] madvise never\n", "always [madvise] never\n"]
    assert running == [1] * 8
    assert templates.running == 0
    assert [wanted for _, wanted, _ in bench.seen] == ["cold", "warm"] * 4


def test_a_cell_without_a_template_has_failed_samples_and_the_block_goes_on(
    host: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = _weights(host, monkeypatch, fails=True)
    assert bench.run(pairs=2) == ["failed"] * 8
    assert {sample.reason for sample in bench.kept} == {"it cannot import torch"}
    assert host.read(ENABLED) == "always [madvise] never\n"


def test_the_host_is_as_before_after_a_block(host: FakeKernel) -> None:
    Loads(host).run()
    assert host.read(ENABLED) == "always [madvise] never\n"
    assert load(host, SWEEP_PRIOR) is None


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), None])
def test_the_host_is_as_before_after_an_error_or_a_signal(host: FakeKernel, error: BaseException | None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    bench = Loads(host, fail_at=2, error=error)
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        bench.run()
    assert host.read(ENABLED) == "always [madvise] never\n"
    assert load(host, SWEEP_PRIOR) is None
    assert len(bench.kept) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_while_the_host_is_restored_cuts_nothing_short(
    host: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Loads(host)
    written = FakeKernel.write_kernel

    def write(kernel: FakeKernel, path: str | Path, value: str) -> None:
        if len(bench.kept) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        written(kernel, path, value)

    monkeypatch.setattr(FakeKernel, "write_kernel", write)
    bench.run(order=ORDER[::-1])
    assert host.read(ENABLED) == "always [madvise] never\n"
    assert load(host, SWEEP_PRIOR) is None


def test_what_a_killed_block_left_is_restored_by_the_next_one(host: FakeKernel) -> None:
    # As SIGKILL leaves it: the arm's value in force, the prior state on disk.
    leave_arm(host, {"thp.enabled": "always"})
    bench = Loads(host)
    bench.run()
    assert bench.seen[-1] == ("stock", "warm", "madvise")
    assert host.read(ENABLED) == "always [madvise] never\n"
    assert not host.exists(SWEEP_PRIOR)


def test_an_arm_that_the_kernel_refuses_fails_alone(host: FakeKernel) -> None:
    bench = Loads(host)
    kinds = bench.run([Arm("stock"), Arm("always", thp={"thp.enabled": "sometimes"})])
    assert kinds == ["failed", "failed", "cold", "warm"]
    assert "sometimes" in (bench.kept[0].reason or "")
    assert host.read(ENABLED) == "always [madvise] never\n"


def test_a_sample_under_which_another_writer_changed_a_knob_has_failed(host: FakeKernel) -> None:
    bench = Loads(host)

    def write(trial: Trial) -> None:
        if (trial.arm, trial.wanted) == ("always", "warm"):
            host.write_kernel(ENABLED, "never")

    bench.meanwhile = write
    assert bench.run() == ["cold", "failed", "failed", "failed"]
    assert bench.kept[1].reason == "another writer changed thp.enabled from always to never meanwhile"
    assert bench.kept[2].reason == "another writer changed thp.enabled from madvise to never since the block began"
    assert "[never]" in host.read(ENABLED)


def test_a_host_that_cannot_be_restored_says_so_and_keeps_the_prior_state(host: FakeKernel) -> None:
    bench = Loads(host)
    bench.meanwhile = lambda trial: host.stuck.add(ENABLED)
    with pytest.raises(SettingError, match=r"thp\.enabled"):
        bench.run()
    assert load(host, SWEEP_PRIOR) is not None


def test_a_pool_arm_gets_its_pages_and_gives_them_back(host: FakeKernel) -> None:
    bench, seen = Loads(host), []
    bench.meanwhile = lambda trial: seen.append((trial.arm, host.pages(2 << 20)))
    bench.run([Arm("stock"), Arm("always", pools=[PoolSpec(2 << 20, 64)])])
    assert seen == [("always", {0: 64})] * 2 + [("stock", {0: 0})] * 2


def test_a_pool_granted_in_part_fails_its_arm_and_is_given_back(host: FakeKernel) -> None:
    host.room[2 << 20, 0] = 10
    bench = Loads(host)
    kinds = bench.run([Arm("stock"), Arm("always", pools=[PoolSpec(2 << 20, 64)])])
    assert kinds == ["failed", "failed", "cold", "warm"]
    assert "got 10" in (bench.kept[0].reason or "")
    assert host.pages(2 << 20) == {0: 0}
