"""Every kind of model measured cold and warm on the real kernel, by templates, or refused where it has to be (root)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.accounts import find_account
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.rmtree import remove_tree
from ansible.module_utils.slm_baseline.measuring.install.environment import Environment
from ansible.module_utils.slm_baseline.measuring.install.interpreter import require_packages
from ansible.module_utils.slm_baseline.measuring.install.trial import try_model
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader
from ansible.module_utils.slm_baseline.measuring.loader.template import template
from ansible.module_utils.slm_baseline.measuring.model.files import ModelPlace, resolve_model
from ansible.module_utils.slm_baseline.measuring.protocol import Subject, measure_sample
from ansible.module_utils.slm_baseline.measuring.run import find_model
from ansible.module_utils.slm_baseline.measuring.sample import Sample, Trial

from tests.conftest import REPOSITORY
from tests.live.models import architectures
from tests.live.models.architectures import ROWS, Row, folder_of
from tests.support.torch_python import find_torch_python

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is told the truth about the page cache")
FOLDER = Path("/var/tmp/slm-baseline-models")
FRESH = ("llama", "gpt2 with its old buffers", "decoy by an alias in the config")
"""Rows that are measured by whole processes as well: a template's child shares all but its imports with them."""


def identity(row: Row) -> str:
    return row.name


@pytest.fixture(scope="session")
def python() -> str:
    return find_torch_python()


@pytest.fixture(scope="session")
def said(python: str, worker_id: str) -> Iterator[dict[str, dict[str, Any]]]:
    """All rows' folders, and what the loader's own code said of each."""
    folder = FOLDER / worker_id
    folder.mkdir(parents=True, exist_ok=True)
    FOLDER.chmod(0o755)
    folder.chmod(0o755)
    command = [python, architectures.__file__, "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr[-2000:]
    yield {line["name"]: {**line, "folder": folder} for line in map(json.loads, done.stdout.splitlines())}
    remove_tree(folder)


def subject_of(python: str, folder: Path) -> Subject:
    account = find_account("nobody")
    model = find_model(Host(), ModelPlace("/nonexistent", str(folder), "", "/nonexistent", offline=True), account)
    scratch = folder.parent / "scratch"
    scratch.mkdir(mode=0o711, exist_ok=True)
    loader = Loader(python, str(REPOSITORY / "files/slm_load.py"), (), account, 300.0, scratch=str(scratch))
    # Libraries are not evicted: other tests of this machine are to keep their cache.
    return Subject(loader, model, require_packages(python, account), "weights", new_tokens=6)


def judged(row: Row, samples: list[Sample]) -> None:
    for sample in samples:
        if row.lukewarm:
            assert sample.kind == "lukewarm", sample.reason
            assert row.lukewarm in (sample.reason or "")
        else:
            assert (sample.kind, sample.reason) == (sample.wanted, None), sample.stderr_tail
            assert sample.steady_token_s is not None
            assert len(sample.tokens_s) == 5


@pytest.mark.parametrize("row", [row for row in ROWS if not row.refused], ids=identity)
def test_a_model_is_measured_cold_and_warm(row: Row, python: str, said: dict[str, dict[str, Any]]) -> None:
    subject = subject_of(python, said[row.name]["folder"] / folder_of(row))
    with template(subject.loader_of(Trial(1, "cold"))) as running:
        samples = [
            measure_sample(Host(), subject, Trial(1, wanted), template=running)[0] for wanted in ("cold", "warm")
        ]
    judged(row, samples)


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in FRESH], ids=identity)
def test_so_it_is_by_whole_processes(row: Row, python: str, said: dict[str, dict[str, Any]]) -> None:
    subject = subject_of(python, said[row.name]["folder"] / folder_of(row))
    judged(row, [measure_sample(Host(), subject, Trial(1, wanted))[0] for wanted in ("cold", "warm")])


def refused_by_its_files(folder: Path) -> str | None:
    try:
        resolve_model(Host(), ModelPlace("/nonexistent", str(folder), "", "/nonexistent", offline=True))
    except SettingError as error:
        return str(error)
    return None


@pytest.mark.parametrize("row", [row for row in ROWS if row.refused], ids=identity)
def test_a_model_is_refused_with_the_real_cause(row: Row, python: str, said: dict[str, dict[str, Any]]) -> None:
    """By its files, by the trial, or by the load; the trial's own text was run in the process that made the rows."""
    folder = said[row.name]["folder"] / folder_of(row)
    assert row.refused in (refused_by_its_files(folder) or said[row.name]["refused"])


def test_the_trial_runs_as_the_loaders_user(python: str, said: dict[str, dict[str, Any]]) -> None:
    program = (REPOSITORY / "files/try_model.py").read_text()
    account, environment = find_account("nobody"), Environment("/opt/slm-baseline", python=python)
    folder = next(iter(said.values()))["folder"]
    try_model(program, environment, str(folder / folder_of(ROWS[0])), account)
    row = next(row for row in ROWS if row.dress == "sentencepiece")
    with pytest.raises(SettingError, match="install sentencepiece for"):
        try_model(program, environment, str(folder / folder_of(row)), account)


@pytest.mark.parametrize("read_ahead_kb", [128, 8192])
def test_the_verdict_does_not_depend_on_the_disks_read_ahead(
    read_ahead_kb: int, python: str, said: dict[str, dict[str, Any]]
) -> None:
    row = next(row for row in ROWS if row.name == "qwen3_next")
    folder = said[row.name]["folder"] / folder_of(row)
    device = os.stat(folder).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if not setting.exists():
        pytest.skip(f"no read-ahead to set: {setting}")
    before = setting.read_text()
    subject = replace(subject_of(python, folder), new_tokens=2)
    try:
        setting.write_text(str(read_ahead_kb))
        with template(subject.loader_of(Trial(1, "cold"))) as running:
            sample = measure_sample(Host(), subject, Trial(1, "cold"), template=running)[0]
    finally:
        setting.write_text(before)
    assert (sample.kind, sample.reason) == ("cold", None)
