"""Which samples a run counts: those of one subject, under one set of settings, for one request."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring import run
from ansible.module_utils.slm_baseline.measuring.install.interpreter import PACKAGES, Interpreter
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader
from ansible.module_utils.slm_baseline.measuring.model.files import Model, ModelFile
from ansible.module_utils.slm_baseline.measuring.probes.disk_bandwidth import Ceiling
from ansible.module_utils.slm_baseline.measuring.protocol import Subject
from ansible.module_utils.slm_baseline.measuring.run import SettingsWatch
from ansible.module_utils.slm_baseline.measuring.sample import Sample, Trial, failed_sample
from ansible.module_utils.slm_baseline.settings.kinds.effective_values import changed_settings

from tests.support.fakes import put


class Measured:
    """A run on a tree that stands for a host, whose samples are made up; `settings` are in force."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.settings = {"thp.enabled": "madvise", "hugepages.2M": "0"}
        self.params: dict[str, Any] = {
            **{"home": "/opt/slm", "python": "/usr/bin/python3", "base_python": "", "requirements": ""},
            **{"model": "tiny", "revision": "", "hf_home": "", "offline": True},
            **{"dtype": "auto", "scope": "host", "blocks": 3, "timeout_s": 600, "user": "nobody"},
        }
        self.meanwhile: Callable[[Trial], object] = lambda trial: None
        self.count = 0
        put(host.root, "/opt/slm/slm_load.py", "")
        put(host.root, "/opt/slm/weights", "1")
        monkeypatch.setattr(run, "make_subject", lambda host, request: self.subject())
        monkeypatch.setattr(run, "measure_sample", self.sample)
        monkeypatch.setattr(run, "ceiling_passes", lambda subject, passes: [Ceiling(())] * passes)
        monkeypatch.setattr(run, "host_facts", lambda host, path: {})

    def subject(self) -> Subject:
        weights = ModelFile("model.safetensors", "/opt/slm/weights", 1, "weights")
        model = Model("tiny", "local", "/opt/slm", None, (weights,), "bfloat16", 7)
        interpreter = Interpreter((3, 11, 2), dict.fromkeys(PACKAGES, "1"), (), (), "/usr/bin/python3")
        loader = Loader("/usr/bin/python3", "", (), None, float(self.params["timeout_s"]))
        return Subject(loader, model, interpreter, self.params["scope"])

    def sample(self, host: Host, subject: Subject, trial: Trial, ceiling: Ceiling, best: Any) -> tuple[Sample, None]:
        self.count += 1
        self.meanwhile(trial)
        return replace(
            failed_sample(trial, "", ""), kind=trial.wanted, reason=None, load_real_s=float(self.count)
        ), None

    def block(self, number: int) -> dict[str, Any]:
        watch = SettingsWatch(lambda host: dict(self.settings), changed_settings)
        return run.measure_block(self.host, run.parse_request(self.params), "run-1", number, watch)

    def play(self) -> list[dict[str, Any]]:
        """Every block of a play; the samples of its result."""
        results = [self.block(number) for number in range(1, self.params["blocks"] + 1)]
        samples: list[dict[str, Any]] = results[-1]["benchmark"]["samples"]
        return samples


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(Host(tmp_path), monkeypatch)


def test_a_block_that_is_asked_for_again_is_not_measured_again(measured: Measured) -> None:
    assert measured.play() == measured.play()
    assert measured.count == 6
    measured.params["blocks"] = 2
    assert len(measured.play()) == 4


@pytest.mark.parametrize(
    "changed",
    [
        lambda measured: measured.settings.update({"thp.enabled": "always"}),
        lambda measured: measured.params.update(dtype="float32"),
        lambda measured: measured.params.update(scope="weights"),
        lambda measured: measured.params.update(timeout_s=60),
        lambda measured: put(measured.host.root, "/opt/slm/slm_load.py", "another loader"),
        lambda measured: os.utime(measured.host.path("/opt/slm/weights"), (1, 1)),
    ],
    ids=["settings", "dtype", "scope", "timeout", "loader", "model"],
)
def test_two_plays_in_one_process_share_no_samples(measured: Measured, changed: Callable[[Measured], object]) -> None:
    first = measured.play()
    changed(measured)
    measured.params["blocks"] = 2
    second = measured.play()
    assert [sample["load_real_s"] for sample in first] == [1, 2, 3, 4, 5, 6]
    assert [sample["load_real_s"] for sample in second] == [7, 8, 9, 10]


def test_settings_that_change_while_a_sample_runs_make_it_a_failed_one(measured: Measured) -> None:
    def write(trial: Trial) -> None:
        if (trial.block, trial.wanted) == (2, "cold"):
            measured.settings["thp.enabled"] = "never"
        if (trial.block, trial.wanted) == (3, "cold"):
            measured.settings["thp.enabled"] = "madvise"

    measured.meanwhile = write
    samples = measured.play()
    assert [sample["kind"] for sample in samples] == ["cold", "warm", "failed", "failed", "failed", "warm"]
    reason = "another writer changed thp.enabled from madvise to never meanwhile"
    assert {sample["reason"] for sample in samples[2:5]} == {reason}


def test_settings_that_change_between_two_blocks_do_not_become_the_tuned_ones(measured: Measured) -> None:
    measured.block(1)
    measured.settings["hugepages.2M"] = "64"
    measured.block(2)
    samples = measured.block(3)["benchmark"]["samples"]
    assert [sample["kind"] for sample in samples] == ["cold", "warm", "failed", "failed", "failed", "failed"]
    assert "hugepages.2M from 0 to 64" in samples[-1]["reason"]
