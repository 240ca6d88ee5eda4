"""The caches that all starts of a sweep share: when they are made, who gets them, and that they go."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.install.interpreter import Interpreter
from ansible.module_utils.slm_baseline.measuring.loader.process import BareLauncher, Loader
from ansible.module_utils.slm_baseline.measuring.model.files import Model
from ansible.module_utils.slm_baseline.measuring.protocol import Subject
from ansible.module_utils.slm_baseline.measuring.sample import Trial
from ansible.module_utils.slm_baseline.sweep import run, shared_caches
from ansible.module_utils.slm_baseline.sweep.design import parse_arms
from ansible.module_utils.slm_baseline.sweep.shared_caches import SharedCaches, using

from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import build_host
from tests.unit.target.sweep.test_run import REQUEST, Loads

HOME = "/opt/slm-baseline"
FOLDER = f"{HOME}/bytecode"
KERNELS = f"{HOME}/kernels"


@pytest.fixture
def host(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(build_host(tmp_path))
    kernel.path("/opt/slm-baseline").mkdir(parents=True)
    return kernel


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """A program that imports one module which has no bytecode, as a loader that cannot write beside it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "imported_by_the_loader.py").write_text("answer = 42\n")
    script = tmp_path / "slm_load.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(tmp_path / 'lib')!r})\nimport imported_by_the_loader\n")
    loader = Loader(sys.executable, str(script), (), None, 30.0, scratch=str(tmp_path))
    model = Model("tiny", "local", "/opt/model", None, (), "bfloat16", 1)
    return Subject(loader, model, Interpreter((3, 11, 0), {}, (), (), sys.executable))


def _lacks(monkeypatch: pytest.MonkeyPatch, saving_s: float | None) -> None:
    """The host's imports as they were looked at; None where they could not be."""
    found = {"missing": 20, "stale": 2, "unreadable": 1, "valid": 5, "saving_s": saving_s}
    told = {"problem": "no"} if saving_s is None else {"bytecode": found}
    monkeypatch.setattr(shared_caches, "profile_imports", lambda loader, files: told)


def _environment(subject: Subject) -> dict[str, str]:
    return dict(subject.loader_of(Trial(1, "cold")).env)


def test_the_loader_itself_fills_a_cache_of_its_own_users(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacks(monkeypatch, 11.0)
    shared = SharedCaches(subject, HOME).share(host)
    assert shared == {"bytecode": {"folder": FOLDER, "modules": 23, "saving_s": 11.0}, "kernels": None}
    folder = host.path(FOLDER)
    assert "imported_by_the_loader" in {path.name.partition(".")[0] for path in folder.rglob("*.pyc")}
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.getuid())
    assert _environment(using(host, subject, shared)) == {"PYTHONPYCACHEPREFIX": str(folder)}


class InContainers(BareLauncher):
    """Stands in for containers: the loader runs bare, and is recorded as one in an image."""

    def record(self) -> dict[str, str] | None:
        return {"name": "i", "digest": "d", "runtime": "docker"}


def test_a_container_is_given_the_shared_folders_to_write(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacks(monkeypatch, 11.0)
    subject = replace(subject, loader=replace(subject.loader, launcher=InContainers()))
    shared = SharedCaches(subject, HOME).share(host)
    loader = using(host, subject, shared).loader
    folder = str(host.path(FOLDER))
    assert loader.writable == (folder,)
    # An image's own environment may switch the writing off.
    assert dict(loader.env) == {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
    assert "a container of its own" in run.why_no_template(subject, ["auto"])


@pytest.mark.parametrize("saving_s", [None, 0.0, 0.49])
def test_where_little_is_to_be_saved_starts_stay_as_they_are(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch, saving_s: float | None
) -> None:
    _lacks(monkeypatch, saving_s)
    left_over = host.path(f"{FOLDER}/of/an/earlier/sweep.pyc")
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    nothing = {"bytecode": None, "kernels": None}
    assert SharedCaches(subject, HOME).share(host) == nothing
    assert not host.exists(FOLDER)
    assert using(host, subject, nothing) is subject


@pytest.mark.parametrize(("scope", "arm"), [("app", {}), ("host", {"first_token": {"bytecode": True}})])
def test_it_is_shared_only_where_it_blurs_nothing(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch, scope: str, arm: dict[str, Any]
) -> None:
    _lacks(monkeypatch, 11.0)
    caches = SharedCaches(replace(subject, scope=scope), HOME)
    arms = [*REQUEST.arms, *(parse_arms([{"name": "stock"}, {"name": "stock-again"}, {"name": "a", **arm}])[2:])]
    plan = run.plan_sweep(host, replace(REQUEST, arms=arms if arm else REQUEST.arms, caches=caches))["plan"]
    assert plan["bytecode"] is None


def test_every_sample_of_a_sweep_uses_the_cache_and_its_end_removes_it(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacks(monkeypatch, 11.0)
    loads, seen = Loads(monkeypatch), []
    measure = loads.measure

    def measured(host: Host, subject: Subject, *rest: Any) -> Any:
        seen.append(_environment(subject).get("PYTHONPYCACHEPREFIX"))
        return measure(host, subject, *rest)

    monkeypatch.setattr("ansible.module_utils.slm_baseline.sweep.block_runner.measure_sample", measured)
    asked = replace(REQUEST, caches=SharedCaches(subject, HOME))
    assert run.plan_sweep(host, asked)["plan"]["bytecode"]["modules"] == 23
    run.measure_next_block(host, subject)
    assert seen == [str(host.path(FOLDER))] * 6
    run.close_sweep(host)
    assert not host.exists(FOLDER)


def test_a_sweep_whose_cache_was_purged_measures_nothing_until_it_is_filled_again(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacks(monkeypatch, 11.0)
    Loads(monkeypatch)
    asked = replace(REQUEST, caches=SharedCaches(subject, HOME))
    run.plan_sweep(host, asked)
    for path in sorted(host.path(FOLDER).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    host.path(FOLDER).rmdir()
    with pytest.raises(SettingError, match="sweep_share_bytecode"):
        run.measure_next_block(host, subject)
    assert run.plan_sweep(host, asked)["is_resumed"]
    assert list(host.path(FOLDER).rglob("*.pyc"))
    assert run.measure_next_block(host, subject)["block"] == 1


def _compiles(monkeypatch: pytest.MonkeyPatch, compiling_s: float, kept_s: float | None, problem: str = "") -> None:
    """The host's first token as it was looked at, with kernels compiled and kept; None where a start kept none."""
    kept = None if kept_s is None else {"first_token": kept_s}
    told = {"problem": problem or None, "files": 6, "compiling": {"first_token": compiling_s}, "kept": kept}
    monkeypatch.setattr(
        shared_caches, "profile_kernels", lambda loader, files: {"problem": problem} if problem else told
    )


def test_kernels_are_compiled_once_for_all_samples_and_the_end_removes_them(
    host: FakeKernel, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacks(monkeypatch, None)
    _compiles(monkeypatch, 0.95, 0.5)
    caches = SharedCaches(subject, HOME, wants_kernels=True)
    plan = run.plan_sweep(host, replace(REQUEST, caches=caches))["plan"]
    assert plan["kernels"] == {"folder": KERNELS, "files": 6, "saving_s": 0.45}
    folder = host.path(KERNELS)
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.getuid())
    environment = _environment(using(host, subject, {"bytecode": None, "kernels": plan["kernels"]}))
    assert environment["CUDA_CACHE_PATH"] == f"{folder}/cuda"
    assert "PYTHONPYCACHEPREFIX" not in environment
    Loads(monkeypatch)
    run.measure_next_block(host, subject)
    run.close_sweep(host)
    assert not host.exists(KERNELS)


@pytest.mark.parametrize(
    ("compiling_s", "kept_s", "problem", "is_wanted"),
    [(0.5, 0.46, "", True), (0.5, None, "", True), (0.0, 0.0, "it failed", True), (0.9, 0.4, "", False)],
    ids=["little to save", "nothing kept", "a loader that failed", "no GPU, or not wanted"],
)
def test_kernels_that_save_a_start_nothing_are_not_shared(
    host: FakeKernel,
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    compiling_s: float,
    kept_s: float | None,
    problem: str,
    is_wanted: bool,
) -> None:
    _lacks(monkeypatch, None)
    _compiles(monkeypatch, compiling_s, kept_s, problem)
    assert SharedCaches(subject, HOME, wants_kernels=is_wanted).share(host)["kernels"] is None
    assert not host.exists(KERNELS)
