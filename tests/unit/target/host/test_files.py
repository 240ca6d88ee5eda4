"""Files of a host: durable replacement, kernel writes, and text as the kernel gave it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host, missing_folders, open_plain, temporary_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")


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


def test_a_path_of_the_host_lies_below_its_root(tmp_path: Path) -> None:
    for host, root in ((Host(tmp_path), str(tmp_path)), (Host(), "")):
        assert host.name("/proc/meminfo") == f"{root}/proc/meminfo"
        assert str(host.path("/proc/meminfo")) == f"{root}/proc/meminfo"
    assert (Host().is_live, Host(tmp_path).is_live) == (True, False)
    (tmp_path / "there").touch()
    assert Host(tmp_path).exists("/there")
    assert not Host(tmp_path).exists("/nowhere")


@as_root
@pytest.mark.parametrize(
    ("owner", "found"), [({"uid": 7, "gid": 8}, (7, 8)), ({"uid": 7}, (7, 0)), ({"gid": 8}, (0, 8)), ({}, (0, 0))]
)
def test_a_durable_write_gives_the_file_to_whom_it_is_for(
    tmp_path: Path, owner: dict[str, int], found: tuple[int, int]
) -> None:
    os.chown(tmp_path, 0, 0)
    Host(tmp_path).write_durably("/file", b"x", **owner)
    status = (tmp_path / "file").stat()
    assert (status.st_uid, status.st_gid) == found


def test_a_kernel_file_gets_its_value_by_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "knob").write_text("madvise")
    writes: list[bytes] = []
    flags: list[int] = []
    real = os.open

    def opened(path: Path, given: int) -> int:
        flags.append(given)
        return real(path, given)

    def written(descriptor: int, data: bytes) -> int:
        writes.append(data)
        return len(data)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", written)
    Host(tmp_path).write_kernel("/knob", "never")
    assert (writes, flags) == ([b"never"], [os.O_WRONLY | os.O_CLOEXEC])
    # Not cut, as a plain file would be.
    assert (tmp_path / "knob").read_text() == "madvise"


def test_what_is_removed_is_the_link_and_what_is_gone_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    synced: list[Path] = []
    monkeypatch.setattr(Host, "sync_folder", staticmethod(synced.append))
    Host(tmp_path).remove_durably("/link")
    Host(tmp_path).remove_durably("/link")
    assert (Host(tmp_path).names("/"), synced) == (["file"], [tmp_path])


def test_folders_that_are_not_there_are_named_outermost_first(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to("nowhere")
    assert missing_folders(Host(tmp_path), "/a/b/c") == ["/a/b", "/a/b/c"]
    assert missing_folders(Host(tmp_path), "/a/link") == missing_folders(Host(tmp_path), "/") == []


def test_no_descriptor_of_a_file_that_is_none_stays_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match="No plain file") as caught:
            open_plain(tmp_path / "pipe")
        assert caught.value.errno == errno.EINVAL
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder/below").mkdir(parents=True)
    with pytest.raises(OSError, match="director"):
        Host(tmp_path).write_durably("/folder", b"x")
    assert Host(tmp_path).names("/") == ["folder"]


def test_a_new_file_follows_no_link_is_nobody_elses_until_it_is_whole_and_then_everybodys_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[int, int]] = []
    real = os.open

    def note(path: Path, flags: int, mode: int = 0) -> int:
        opened.append((flags, mode))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", note)
    Host(tmp_path).write_durably("/file", b"x")
    assert opened == [
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600),
        (os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0),
    ]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
