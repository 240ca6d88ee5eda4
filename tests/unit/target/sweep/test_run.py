"""A sweep's life on a host made of files: planned, measured, interrupted, resumed, finished."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import SWEEP_PLAN
from ansible.module_utils.slm_baseline.measuring import run as measuring
from ansible.module_utils.slm_baseline.measuring.loader.events import LoaderReport
from ansible.module_utils.slm_baseline.measuring.model.files import Model, ModelFile
from ansible.module_utils.slm_baseline.measuring.probes.canary import Canary, CanaryReading
from ansible.module_utils.slm_baseline.measuring.probes.disk_bandwidth import Ceiling
from ansible.module_utils.slm_baseline.measuring.probes.gpu import GpuProcess, parse_nvidia_smi
from ansible.module_utils.slm_baseline.measuring.probes.noise import Noise
from ansible.module_utils.slm_baseline.measuring.sample import Sample, Trial, failed_sample
from ansible.module_utils.slm_baseline.measuring.store import shared_of
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.sweep import block_runner, run
from ansible.module_utils.slm_baseline.sweep.design import Arm, order, parse_arms
from ansible.module_utils.slm_baseline.sweep.plan import load_plan
from ansible.module_utils.slm_baseline.sweep.run import SweepRequest, parse_seed, parse_sweep
from ansible.module_utils.slm_baseline.sweep.sample import read_sweep_samples
from ansible.module_utils.slm_baseline.sweep.start_assist import Recorder

from tests.conftest import REPOSITORY
from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import build_host

ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
REQUEST = SweepRequest(
    arms=parse_arms([{"name": "stock"}, {"name": "stock-again"}, {"name": "always", "thp": {"enabled": "always"}}]),
    dtypes=["auto"],
    seed=7,
    run_id="20260101T000000Z",
    started_at="2026-01-01T00:00:00Z",
    subject={"model": "tiny"},
    stored_dtype="bfloat16",
    guard=Guard(keep_bytes=0, max_share=0.5),
)


@pytest.fixture
def host(tmp_path: Path) -> FakeKernel:
    return FakeKernel(build_host(tmp_path))


class Loads:
    """Stands in for the loader; raises at its sample number `fail_at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_at: int | None = None
        self.arms: list[str | None] = []
        self.bests: list[CanaryReading | None] = []
        monkeypatch.setattr(block_runner, "measure_sample", self.measure)
        monkeypatch.setattr(block_runner, "ceiling_passes", lambda subject, passes: [Ceiling(())] * passes)

    def measure(
        self, host: Host, subject: Any, trial: Trial, ceiling: Ceiling, best: CanaryReading | None, template: object
    ) -> tuple[Sample, LoaderReport | None]:
        self.bests.append(best)
        self.arms.append(trial.arm)
        if len(self.arms) == self.fail_at:
            raise KeyboardInterrupt
        reading = CanaryReading(1.0 / len(self.bests), 0.02, None)
        noise = Noise(False, (), 0.0, 0.0, 0.0, None, 0, Canary(reading, reading, 0.0, 1.0).seconds())
        sample = replace(failed_sample(trial, "", ""), kind=trial.wanted, reason=None, load_real_s=1.0, noise=noise)
        return replace(sample, time_to_first_token_s=2.0, ceiling_bytes_per_s=ceiling.bytes_per_s), None

    def block(self, host: FakeKernel) -> dict[str, Any]:
        self.arms.clear()
        return run.measure_next_block(host, subject=None)  # type: ignore[arg-type]  # nothing is loaded


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


def test_a_sweep_is_planned_measured_and_finished(host: FakeKernel, loads: Loads) -> None:
    planned = run.plan_sweep(host, REQUEST)
    assert (planned["is_resumed"], planned["progress"]["done"]) == (False, 0)
    assert [loads.block(host)["block"] for _ in range(2)] == [1, 2]
    finished = run.finish_sweep(host)
    assert finished["finished_blocks"] == {"1": 1, "2": 1}
    assert len(finished["samples"]) == 2 * 3 * 2
    assert finished["plan"]["stock"]["thp.enabled"] == "madvise"
    # Until its samples are stored elsewhere, nothing but the same sweep is taken up.
    later = replace(REQUEST, run_id="20260102T000000Z")
    assert run.plan_sweep(host, later)["is_resumed"]
    assert run.finish_sweep(host) == finished
    assert [run.close_sweep(host), run.close_sweep(host)] == [True, False]
    assert not run.plan_sweep(host, later)["is_resumed"]


def test_the_canarys_best_lasts_from_block_to_block(host: FakeKernel, loads: Loads) -> None:
    run.plan_sweep(host, REQUEST)
    loads.block(host)
    loads.block(host)
    assert [best and round(1 / best.cpu_s) for best in loads.bests] == [None, *range(1, 12)]


def test_an_interrupted_block_is_measured_again_in_the_same_order(host: FakeKernel, loads: Loads) -> None:
    run.plan_sweep(host, REQUEST)
    loads.block(host)
    loads.fail_at = 4
    with pytest.raises(KeyboardInterrupt):
        loads.block(host)
    assert list(shared_of(host, REQUEST.run_id)) == [1]
    assert host.read(ENABLED) == "always [madvise] never\n"
    later = replace(REQUEST, run_id="20260102T000000Z", seed=8)
    planned = run.plan_sweep(host, later)
    assert (planned["is_resumed"], planned["progress"]["done"], planned["plan"]["seed"]) == (True, 1, 7)
    loads.fail_at = None
    assert loads.block(host)["block"] == 2
    assert list(shared_of(host, REQUEST.run_id)) == [1, 2]
    stored = load_plan(host)
    assert stored is not None
    assert loads.arms[::2] == [cell.arm for cell in order(7, 2, stored.cells())]
    finished = run.finish_sweep(host)
    assert finished["finished_blocks"] == {"1": 1, "2": 2}
    # The three samples of the block that was hit are kept.
    assert len(finished["samples"]) == 2 * 6 + 3


def test_what_a_block_measures_is_kept_before_it_begins_and_outlives_an_interruption(
    host: FakeKernel, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_runner, "template", lambda loader: contextlib.nullcontext(object()))
    subject = SimpleNamespace(loader_of=lambda trial: None)
    run.plan_sweep(host, replace(REQUEST, weights_pairs=2))
    loads.block(host)
    stocks = [["stock", "auto"], ["stock-again", "auto"]]
    run.choose_cells(host, "weights", stocks)
    loads.arms.clear()
    loads.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        run.measure_next_block(host, subject)  # type: ignore[arg-type]  # nothing is loaded
    run.choose_cells(host, "full", None)
    loads.fail_at = None
    loads.arms.clear()
    told = run.measure_next_block(host, subject)  # type: ignore[arg-type]  # nothing is loaded
    assert (told["block"], Counter(loads.arms)) == (2, {"stock": 4, "stock-again": 4})
    assert told["progress"]["done"] == 2
    measured = run.finish_sweep(host)["samples"]
    assert [each["measurement"] for each in measured if each["block"] == 2] == ["weights"] * (2 + 8)


@pytest.mark.parametrize(
    ("measurement", "cells"),
    [
        ("weights", None),
        ("half", None),
        ("full", []),
        ("full", [["stock", "auto"], ["always", "auto"]]),
        ("full", [["stock", "auto"], ["stock-again", "auto"], ["other", "auto"]]),
    ],
)
def test_a_block_without_both_stocks_or_of_another_plan_is_refused(
    host: FakeKernel, measurement: str, cells: list[list[str]] | None
) -> None:
    run.plan_sweep(host, REQUEST)
    with pytest.raises(SettingError, match="both stocks"):
        run.choose_cells(host, measurement, cells)


def test_a_host_that_can_have_no_template_measures_whole_loads_and_says_why(host: FakeKernel) -> None:
    asked: list[str] = []

    def why_not() -> str:
        asked.append("")
        return "it cannot fork"

    assert run.plan_sweep(host, REQUEST, why_not)["plan"]["no_template"] == ""
    assert asked == []
    new = replace(REQUEST, weights_pairs=2, is_new=True)
    plan = run.plan_sweep(host, new, why_not)["plan"]
    assert (plan["weights_pairs"], plan["no_template"]) == (0, "it cannot fork")
    assert run.plan_sweep(host, new, lambda: "")["plan"]["weights_pairs"] == 2


def test_a_host_whose_own_values_changed_meanwhile_is_refused(host: FakeKernel) -> None:
    run.plan_sweep(host, REQUEST)
    host.write_kernel(ENABLED, "never")
    with pytest.raises(SettingError, match="sweep stock"):
        run.plan_sweep(host, REQUEST)
    assert not run.plan_sweep(host, replace(REQUEST, is_new=True))["is_resumed"]


def test_a_writer_between_two_blocks_does_not_become_stock(host: FakeKernel, loads: Loads) -> None:
    run.plan_sweep(host, REQUEST)
    loads.block(host)
    host.write_kernel(ENABLED, "never")
    with pytest.raises(SettingError, match="sweep stock"):
        loads.block(host)


def test_a_sweep_goes_on_though_an_arm_no_longer_fits(host: FakeKernel) -> None:
    arms = [*REQUEST.arms, *parse_arms_of({"name": "pool", "pool": {"size": "2M", "count": 64}})]
    planned = run.plan_sweep(host, replace(REQUEST, arms=arms))
    assert [arm["name"] for arm in planned["plan"]["arms"]][-1] == "pool"
    short = host.read("/proc/meminfo").replace("MemAvailable:   14000000", "MemAvailable:   1000")
    host.path("/proc/meminfo").write_text(short)
    again = run.plan_sweep(host, replace(REQUEST, arms=arms))
    assert again["is_resumed"]
    assert again["plan"] == planned["plan"]


def parse_arms_of(arm: dict[str, Any]) -> list[Arm]:
    return parse_arms([{"name": "stock"}, {"name": "stock-again"}, arm])[2:]


def test_a_cast_to_the_stored_dtype_is_no_cast(host: FakeKernel) -> None:
    planned = run.plan_sweep(host, replace(REQUEST, dtypes=["auto", "float32"], stored_dtype="float32"))
    assert planned["plan"]["dtypes"] == ["auto"]
    assert planned["plan"]["left_out"] == [
        {"arm": "float32", "why": "This model's weights are stored as float32: it is the same load as `auto`."}
    ]
    both = replace(REQUEST, dtypes=["auto", "float32"], is_new=True)
    assert run.plan_sweep(host, both)["plan"]["dtypes"] == ["auto", "float32"]


def test_a_damaged_plan_does_not_stand_in_the_way_of_a_new_sweep(host: FakeKernel) -> None:
    run.plan_sweep(host, REQUEST)
    host.path(SWEEP_PLAN).write_text("{")
    with pytest.raises(SettingError, match="sweep_new=true"):
        run.plan_sweep(host, REQUEST)
    assert run.plan_sweep(host, replace(REQUEST, is_new=True))["progress"]["done"] == 0


def test_a_plan_that_is_only_foreseen_is_not_kept(host: FakeKernel) -> None:
    assert [arm["name"] for arm in run.new_plan(host, REQUEST).arms] == ["stock", "stock-again", "always"]
    assert load_plan(host) is None


def test_a_block_without_a_plan_is_refused(host: FakeKernel, loads: Loads) -> None:
    with pytest.raises(SettingError, match="state=planned"):
        loads.block(host)


def test_a_seed_is_a_whole_number_or_follows_the_run() -> None:
    assert parse_seed(7, "a") == parse_seed("7", "b") == 7
    assert parse_seed(None, "a") == parse_seed("", "a") != parse_seed(None, "b")
    for bad in (True, -1, 1.5, "x", [1]):
        with pytest.raises(SettingError, match="sweep_seed"):
            parse_seed(bad, "a")


def test_a_sweep_without_a_finished_block_has_nothing_to_tell(host: FakeKernel) -> None:
    run.plan_sweep(host, REQUEST)
    with pytest.raises(SettingError, match="a finished block"):
        run.finish_sweep(host)


GIVEN: dict[str, Any] = {
    "arms": [{"name": "stock"}, {"name": "stock-again"}],
    "dtypes": ["auto"],
    "seed": None,
    "run": {"id": "run-1"},
    "margin": "1G",
    "max_share": "0.5",
    "new": False,
}


def test_the_guard_keeps_twice_the_weights_beside_its_margin() -> None:
    request = parse_sweep(GIVEN, weight_bytes=5)
    assert request.guard == Guard((1 << 30) + 10, 0.5, 10)


@pytest.mark.parametrize(
    ("name", "value", "knob"),
    [
        ("max_share", 50.0, "hugepages_max_share"),
        ("max_share", "nan", "hugepages_max_share"),
        ("margin", "much", "hugepages_margin"),
        ("dtypes", "auto", "sweep_dtypes"),
        ("arms", None, "sweep_arms"),
        ("weights_pairs", -1, "sweep_weights_pairs"),
        ("weights_pairs", "0000000000999", "sweep_weights_pairs"),
        ("weights_pairs", "101", "sweep_weights_pairs"),
        ("weights_pairs", True, "sweep_weights_pairs"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: object, knob: str) -> None:
    with pytest.raises(SettingError) as raised:
        parse_sweep({**GIVEN, name: value}, weight_bytes=0)
    assert raised.value.knob == knob


def test_a_foreseen_sweep_keeps_nothing(host: FakeKernel) -> None:
    about = {"model": "tiny", "revision": "", "hf_home": "", "home": "/opt/slm-baseline", "python": "", "offline": True}
    given = {**GIVEN, **about, "state": "planned", "scope": "host", "timeout_s": 600, "user": "nobody"}
    foreseen = run.foresee_sweep(host, given)
    assert (foreseen["changed"], foreseen["progress"]["cells"]) == (False, [["stock", "auto"], ["stock-again", "auto"]])
    assert run.foresee_sweep(host, {**given, "state": "block"}) == {"changed": False}
    assert load_plan(host) is None


class Asked:
    """`perform` on a host whose model is a stand-in: 2 GiB in bfloat16, tried by the program that is given."""

    def __init__(self, host: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        files = (ModelFile("model.safetensors", "/srv/m/model.safetensors", 2 << 30, "weights"),)
        self.model = Model("/srv/m", "local", "/srv/m", None, files, "bfloat16", 1 << 30)
        loader = SimpleNamespace(account=None)
        monkeypatch.setattr(run, "make_subject", lambda host, request: SimpleNamespace(loader=loader, model=self.model))
        monkeypatch.setattr(run, "subject_record", lambda host, request, subject: {})
        monkeypatch.setattr(Recorder, "of", lambda subject, programs, has_gpu: None)

    def plan(self, **more: Any) -> dict[str, Any]:
        about = {"model": "/srv/m", "revision": "", "hf_home": "", "home": "/opt/slm-baseline", "offline": True}
        about |= {"python": sys.executable, "scope": "host", "timeout_s": 600, "user": "nobody", "programs": {}}
        return run.perform(
            self.host, {**GIVEN, **about, "state": "planned", "share_bytecode": False, "share_kernels": False, **more}
        )

    def set_memory(self, available_bytes: int) -> None:
        text = self.host.read("/proc/meminfo")
        available = f"MemAvailable:   {available_bytes >> 10} kB"
        self.host.path("/proc/meminfo").write_text(re.sub("MemAvailable:.*kB", available, text))


@pytest.fixture
def asked(host: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(host, monkeypatch)


def test_memory_is_looked_at_for_the_largest_dtype_before_a_sweep_is_planned(asked: Asked) -> None:
    asked.set_memory(4 << 30)
    with pytest.raises(SettingError, match=r"5\.0 GiB of memory .* 4\.0 GiB available"):
        asked.plan(dtypes=["auto", "float32"])
    assert load_plan(asked.host) is None
    assert asked.plan()["plan"]["dtypes"] == ["auto"]


def test_memory_is_looked_at_again_before_each_block(asked: Asked) -> None:
    asked.plan(dtypes=["auto", "float32"])
    asked.set_memory(4 << 30)
    with pytest.raises(SettingError, match=r"5\.0 GiB of memory"):
        asked.plan(state="block", run={"id": "run-2"})
    assert read_sweep_samples(asked.host, "run-1") == []


def test_a_model_that_its_trial_refuses_is_not_planned(asked: Asked) -> None:
    problem = {"wanted": "a tokenizer", "found": "nothing", "why": "W.", "install": None}
    refusing = f"print({json.dumps({'problem': problem})!r})"
    with pytest.raises(SettingError, match=r"wanted a tokenizer; found .*/srv/m: nothing"):
        asked.plan(trial=refusing)
    assert load_plan(asked.host) is None
    # Tried before in the same play, or made by our own builder: it is not tried.
    assert asked.plan(trial="")["plan"]
    asked.model = replace(asked.model, source="embedded")
    assert asked.plan(trial=refusing)["plan"]


def test_a_gpu_that_others_use_is_told_before_a_sweep_is_planned(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = parse_nvidia_smi((REPOSITORY / "tests/golden/nvidia_smi/h100.xml").read_text())
    busy = replace(facts, gpus=tuple(replace(gpu, processes=(GpuProcess(4711, "x", 1),)) for gpu in facts.gpus))
    monkeypatch.setattr(measuring, "read_gpus", lambda host: busy)
    monkeypatch.setattr(FakeKernel, "is_live", True)
    with pytest.raises(SettingError, match="process 4711"):
        asked.plan()
    assert load_plan(asked.host) is None
    assert asked.plan(allow_busy_gpu=True)["plan"]
