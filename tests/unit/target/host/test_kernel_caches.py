"""Caches of compiled kernels: which a start fills, where they lie, whether that lasts, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host import kernel_caches
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.kernel_caches import (
    CACHES,
    Held,
    Owner,
    caches_in_use,
    default_place,
    held_in,
    lasts,
    not_kept,
    variables,
)
from ansible.module_utils.slm_baseline.host.rmtree import remove_tree

BY_NAME = {cache.name: cache for cache in CACHES}
ROOT_DISK = [("/", "ext4"), ("/run", "tmpfs"), ("/srv", "tmpfs"), ("/srv/disk", "xfs")]


def owner(home: str = "/home/app", uid: int | None = None) -> Owner:
    return Owner(os.getuid() if uid is None else uid, "app", home)


def test_a_cache_is_in_use_where_a_program_that_fills_it_was_opened() -> None:
    opened = [
        "/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05",
        "/opt/venv/lib/python3.12/site-packages/vllm/engine.py",
        "/opt/venv/lib/python3.12/site-packages/torch/lib/libtorch_cuda.so",
    ]
    assert [cache.name for cache in caches_in_use(opened)] == ["cuda", "torch", "vllm"]
    assert caches_in_use(["/usr/bin/python3", "/srv/vllm-config.json"]) == []


@pytest.mark.parametrize(
    ("name", "environment", "place"),
    [
        ("cuda", {}, "/home/app/.nv/ComputeCache"),
        ("cuda", {"HOME": "/srv/app/"}, "/srv/app/.nv/ComputeCache"),
        ("cuda", {"CUDA_CACHE_PATH": "/c"}, "/c"),
        ("torch", {}, "/home/app/.cache/torch/kernels"),
        ("vllm", {"XDG_CACHE_HOME": "/x"}, "/x/vllm"),
        ("inductor", {}, "/tmp/torchinductor_app"),
        ("inductor", {"TMPDIR": "/var/tmp"}, "/var/tmp/torchinductor_app"),
        ("triton", {"HOME": ""}, None),
        ("numba", {"HOME": "relative"}, None),
    ],
)
def test_where_a_cache_lies_follows_the_target_s_own_environment(
    name: str, environment: dict[str, str], place: str | None
) -> None:
    assert default_place(BY_NAME[name], owner(), environment) == place


def test_every_cache_has_a_variable_of_its_own_and_a_source() -> None:
    assert len({cache.variable for cache in CACHES}) == len(CACHES) == len(BY_NAME)
    assert all(cache.source and cache.uses and cache.default[0] in "~$" for cache in CACHES)


def test_a_place_lasts_where_its_user_may_write_it_on_a_disk(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for folder in ("home/app", "srv/disk/app", "srv/app", "closed/app"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "closed/app").chmod(0o555)
    (tmp_path / "file").write_text("x")

    def told(place: str | None, *lost: str, uid: int | None = None) -> bool:
        return lasts(host, place, owner(uid=uid), ROOT_DISK, lost)

    assert told("/home/app/.nv/ComputeCache")
    assert told("/srv/disk/app/x")
    # A disk that is gone at boot, a folder that its user may not write, another's, a private one, none at all.
    assert not told("/srv/app/x")
    assert not told("/closed/app/x")
    assert not told("/home/app/x", uid=os.getuid() + 1)
    assert not told("/home/app/x", "/home")
    assert told("/home/application/x", "/home/app")
    assert not told("/tmp/torchinductor_app")
    assert not told(None)
    assert not told("/file/x")
    assert not told("relative/x")


def test_a_folder_that_all_may_write_lasts_for_anybody(tmp_path: Path) -> None:
    (tmp_path / "var/tmp").mkdir(parents=True)
    (tmp_path / "var/tmp").chmod(0o1777)
    assert lasts(Host(tmp_path), "/var/tmp/x", owner(uid=os.getuid() + 1), ROOT_DISK, ())


def test_what_is_not_kept_is_what_neither_lasts_nor_was_named_by_the_target(tmp_path: Path) -> None:
    (tmp_path / "home/app").mkdir(parents=True)
    caches = [BY_NAME[name] for name in ("cuda", "triton", "inductor")]
    found = not_kept(Host(tmp_path), caches, owner(), {"TRITON_CACHE_DIR": "/tmp/t"}, ROOT_DISK)
    # The home lasts; /tmp does not, but the target named it.
    assert [cache.name for cache in found] == ["inductor"]
    homeless = not_kept(Host(tmp_path), caches, owner("/nonexistent", uid=os.getuid() + 1), {}, ROOT_DISK)
    assert [cache.name for cache in homeless] == ["cuda", "triton", "inductor"]


def test_each_cache_gets_a_folder_of_its_own() -> None:
    assert variables([BY_NAME["cuda"], BY_NAME["vllm"]], "/k") == {
        "CUDA_CACHE_PATH": "/k/cuda",
        "VLLM_CACHE_ROOT": "/k/vllm",
    }


def test_what_a_folder_holds_is_counted_without_following_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    (folder / "cuda/3").mkdir(parents=True)
    (folder / "cuda/3/kernel").write_bytes(b"x" * 100)
    (folder / "cuda/index").write_bytes(b"x" * 7)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/large").write_bytes(b"x" * 5000)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "cuda/file-link").symlink_to(tmp_path / "elsewhere/large")
    os.mkfifo(folder / "pipe")
    assert held_in(str(folder)) == Held(2, 107)
    assert held_in(str(tmp_path / "none")) == Held(0, 0)


def test_what_a_link_leads_to_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lie on a file system that never answers."""
    (tmp_path / "kernels/a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kernels/link").symlink_to(tmp_path / "elsewhere")
    opened, really = [], os.open

    def spy(*words: Any, **more: Any) -> int:
        descriptor = really(*words, **more)
        opened.append(os.fstat(descriptor).st_ino)
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    assert held_in(str(tmp_path / "kernels")) == Held(0, 0)
    assert (tmp_path / "kernels/a").stat().st_ino in opened
    assert (tmp_path / "elsewhere").stat().st_ino not in opened


def test_folders_that_are_deeper_than_a_process_may_have_open_are_too_large(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    assert held_in(str(tmp_path)).is_too_large
    assert len(os.listdir("/proc/self/fd")) == before
    remove_tree(tmp_path / "d")


def test_a_folder_that_is_filled_without_end_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").write_bytes(b"x")
    assert not held_in(str(tmp_path)).is_too_large
    monkeypatch.setattr(kernel_caches, "MAX_BYTES", 3)
    assert held_in(str(tmp_path)).is_too_large
    monkeypatch.setattr(kernel_caches, "MAX_BYTES", 100)
    monkeypatch.setattr(kernel_caches, "MAX_FILES", 6)
    assert held_in(str(tmp_path)).is_too_large
