"""Kernels that a start compiles: whether the next one finds them, and what is said where it does not."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import kernels
from ansible.module_utils.slm_baseline.first_token.kernels import find_unkept, kernel_note
from ansible.module_utils.slm_baseline.first_token.recorder.start import Identity
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.host.files import Host

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
