"""Files of a host: durable replacement, kernel writes, and text as the kernel gave it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host, temporary_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@given(content=st.binary(max_size=2000), mode=st.sampled_from([0o600, 0o644, 0o400, 0o755]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_durable_write_replaces_bytes_and_mode_and_leaves_nothing_else(
    tmp_path: Path, content: bytes, mode: int
) -> None:
    host = Host(tmp_path)
    host.write_durably("/file", content, mode)
    status = os.lstat(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert stat.S_IMODE(status.st_mode) == mode
    assert host.names("/") == ["file"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path)
    host.write_durably("/file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        host.write_durably("/file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert host.names("/") == ["file"]


def test_a_leftover_temporary_file_or_a_planted_link_does_not_get_in_the_way(tmp_path: Path) -> None:
    host = Host(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    os.symlink(victim, tmp_path / temporary_name("/file").lstrip("/"))
    host.write_durably("/file", b"new")
    assert victim.read_text() == "mine"
    assert host.names("/") == ["file", "victim"]


def test_a_missing_kernel_file_never_becomes_a_plain_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Host(tmp_path).write_kernel("/knob", "1")
    assert not (tmp_path / "knob").exists()


def test_text_keeps_carriage_returns_and_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\rb\r\n\xff")
    assert Host(tmp_path).read("/file") == "a\rb\r\n\udcff"


def test_symlinks_anywhere_on_the_way_are_seen(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "real" / "deep").mkdir(parents=True)
    os.symlink("real", tmp_path / "link")
    assert host.is_symlink_free("/real/deep/not-there-yet")
    assert not host.is_symlink_free("/link/deep")
    assert not host.is_symlink_free("/link")


def test_a_read_that_fails_is_none_and_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert Host(tmp_path).read_or_none("/no") is None
    assert Host(tmp_path).names("/no") == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_others_put_in_the_place_of_a_file_is_neither_waited_for_nor_read(
    fake_host: Host, make: Callable[[Path], object]
) -> None:
    make(fake_host.path("/etc/odd"))
    with pytest.raises(OSError, match="No plain file"):
        fake_host.read("/etc/odd")
    assert fake_host.read_or_none("/etc/odd") is None
