"""Kernels that a start compiles: whether the next one finds them, and what is said where it does not."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import kernels
from ansible.module_utils.slm_baseline.first_token.fit import SANDBOX, Fit
from ansible.module_utils.slm_baseline.first_token.kernels import (
    Kernels,
    find_unkept,
    kernel_note,
    kernels_of,
    places_of,
)
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile
from ansible.module_utils.slm_baseline.first_token.recorder.start import Identity
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.kernel_caches import MAX_BYTES, Held

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a user without a home has no place that lasts")

OPENED = ["/usr/lib/libcuda.so.1", "/venv/triton/knobs.py", "/venv/torch/_inductor/config.py"]
COMMAND = Target("app", command=("/bin/true",), user="app")
UNIT = Unit("app.service", "simple", "app", "", False, "active", "/system.slice/app.service", (), facts=())
ME = Identity(os.getuid(), os.getgid())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(kernels, "read_mountinfo", lambda host: [])
    home = pwd.getpwuid(os.getuid()).pw_dir
    (tmp_path / home.lstrip("/")).mkdir(parents=True)
    return Host(tmp_path)


def names(host: Host, target: Target = COMMAND, unit: Unit | None = None, identity: Identity | None = ME) -> list[str]:
    return [cache.name for cache in find_unkept(host, OPENED, target, unit, identity)]


def test_a_command_without_a_home_keeps_nothing_and_one_with_a_home_keeps_what_lies_in_it(host: Host) -> None:
    assert names(host) == ["cuda", "triton", "inductor"]
    home = ("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    assert names(host, replace(COMMAND, environment=(home,))) == ["inductor"]
    named = (("CUDA_CACHE_PATH", "/c"), ("TORCHINDUCTOR_CACHE_DIR", "/i"), ("TRITON_CACHE_DIR", "/t"))
    assert names(host, replace(COMMAND, environment=named)) == []


@as_root
def test_a_unit_has_its_user_s_home_unless_it_hides_it(host: Host) -> None:
    assert names(host, unit=UNIT) == ["inductor"]
    hidden = replace(UNIT, facts=(("ProtectHome", "yes"),))
    assert names(host, unit=hidden) == ["cuda", "triton", "inductor"]
    named = replace(UNIT, facts=(("Environment", "A=b TORCHINDUCTOR_CACHE_DIR=/i"),))
    assert names(host, unit=named) == []
    # Nobody's place lasts for a user that exists while its unit runs.
    assert names(host, unit=replace(UNIT, has_dynamic_user=True), identity=None) == ["cuda", "triton", "inductor"]


def test_without_a_gpu_nothing_is_said(host: Host) -> None:
    assert find_unkept(host, OPENED[1:], COMMAND, None, ME) == []
    assert kernel_note([], COMMAND, None) == ""


def test_the_note_names_the_variables_and_where_they_go(host: Host) -> None:
    caches = find_unkept(host, OPENED[:1], COMMAND, None, ME)
    assert kernel_note(caches, COMMAND, None) == (
        "kernels: this user has no place that lasts for CUDA_CACHE_PATH, so each start compiles GPU kernels anew; set"
        " it by the environment of app, each a folder of its own that lasts and belongs to its user."
    )
    assert "CacheDirectory=NAME in app.service" in kernel_note(caches, COMMAND, UNIT)
    objection = "/var/cache/NAME. They are not kept by us, since it is so."
    assert kernel_note(caches, COMMAND, UNIT, "it is so.").endswith(objection)


def test_what_its_processes_were_started_with_decides(host: Host) -> None:
    """An environment file is not in what systemd shows."""
    seen = {"CUDA_CACHE_PATH": "/c", "TRITON_CACHE_DIR": "/t"}
    assert [cache.name for cache in find_unkept(host, OPENED, COMMAND, None, ME, seen)] == ["inductor"]
    off = {"CUDA_CACHE_DISABLE": "1"}
    assert [cache.name for cache in find_unkept(host, OPENED, COMMAND, None, ME, off)] == ["triton", "inductor"]
    on = {"CUDA_CACHE_DISABLE": "0"}
    assert [cache.name for cache in find_unkept(host, OPENED, COMMAND, None, ME, on)] == ["cuda", "triton", "inductor"]


def test_of_an_environment_only_places_of_caches_are_read(tmp_path: Path) -> None:
    for pid, words in ((12, b"HOME=/later\0TMPDIR=/t"), (7, b"HOME=/a=b\0HF_TOKEN=secret\0\xff\0NUMBA_CACHE_DIR=\0")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(words)
    assert places_of([12, 7, 99], str(tmp_path)) == {"HOME": "/a=b", "TMPDIR": "/t", "NUMBA_CACHE_DIR": ""}


def test_a_process_cannot_make_us_read_without_end(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/environ").write_bytes(b"HOME=/own\0" + b"x" * (1 << 20) + b"\0TMPDIR=/late\0")
    assert places_of([7], str(tmp_path)) == {"HOME": "/own"}


def test_each_cache_has_a_folder_of_its_own_in_ours(host: Host) -> None:
    caches = find_unkept(host, OPENED, COMMAND, None, ME)
    found = kernels_of(COMMAND, None, caches)
    assert (found.cache.path, found.names) == (COMMAND.kernel_folder, ("cuda", "triton", "inductor"))
    assert found.held == Held(0, 0)
    assert dict(found.environment) == {
        "CUDA_CACHE_PATH": f"{COMMAND.kernel_folder}/cuda",
        "TRITON_CACHE_DIR": f"{COMMAND.kernel_folder}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{COMMAND.kernel_folder}/inductor",
    }
    dynamic = kernels_of(Target("app", unit="app.service"), replace(UNIT, has_dynamic_user=True), caches[:1])
    assert dict(dynamic.environment) == {"CUDA_CACHE_PATH": "/var/cache/slm-kernels-app/cuda"}
    assert dynamic.cache.lines[0] == "CacheDirectory=slm-kernels-app slm-kernels-app/cuda"


def test_what_is_kept_is_counted_and_described(host: Host, tmp_path: Path) -> None:
    found = kernels_of(COMMAND, None, find_unkept(host, OPENED[:1], COMMAND, None, ME))
    folder = host.path(f"{COMMAND.kernel_folder}/cuda")
    folder.mkdir(parents=True)
    (folder / "index").write_bytes(b"12345")
    assert found.with_held(host).held == Held(1, 5)
    unit = replace(UNIT, facts=(("ProtectSystem", "full"),))
    fit = found.added_to(host, Fit("", "", 0, "7", (), (), ()), unit)
    assert fit.kernels == (COMMAND.kernel_folder, host.path(COMMAND.kernel_folder).stat().st_ino)
    assert dict(fit.variables) == {"CUDA_CACHE_PATH": f"{COMMAND.kernel_folder}/cuda"}
    assert fit.sandbox == tuple((name, "full" if name == "ProtectSystem" else "") for name in SANDBOX)
    assert found.added_to(host, fit, None).sandbox == ()


def test_a_plan_has_no_file_that_each_start_may_write_anew() -> None:
    """The driver's index makes a plan stale at the next start."""
    kernels = replace(kernels_of(COMMAND, None, []), names=("cuda",))
    paths = (f"{COMMAND.kernel_folder}/cuda/index", f"{COMMAND.kernel_folder}.txt", "/srv/a.so")
    plan = Plan({}, [COMMAND.kernel_folder, "/srv"], [PlanFile(path, False, 1, 2, 3) for path in paths])
    found = kernels.left_out_of(plan)
    assert [file.path for file in found.files] == list(paths[1:])
    assert found.folders == ["/srv"]


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Held(3, 100), ""),
        (Held(0, 0), "later starts fill the cache"),
        (Held(1, MAX_BYTES + 1), "so there is none"),
        (Held(1, 1, is_whole=False), "so there is none"),
    ],
)
def test_one_note_at_most_tells_what_was_left_in_it(held: Held, words: str) -> None:
    kernels: Kernels = replace(kernels_of(COMMAND, None, []), held=held)
    assert (words in kernels.note) if words else (kernels.note == "")


@as_root
@pytest.mark.parametrize("uid", [0, 1])
def test_no_folder_belongs_to_a_dynamic_user(host: Host, uid: int) -> None:
    """Its user id is another user's at the next boot."""
    host.path("/own").mkdir()
    os.chown(host.path("/own"), uid, uid)
    seen = {"HOME": "/own"}
    dynamic = replace(UNIT, has_dynamic_user=True)
    assert [cache.name for cache in find_unkept(host, OPENED[:1], COMMAND, dynamic, None, seen)] == ["cuda"]
    assert (find_unkept(host, OPENED[:1], COMMAND, UNIT, ME, seen) == []) is (uid == 0)
