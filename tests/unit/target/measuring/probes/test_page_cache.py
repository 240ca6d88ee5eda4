"""Residency: the arithmetic with verifiers that are given, and both system calls on a real file."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.probes import page_cache
from ansible.module_utils.slm_baseline.measuring.probes.page_cache import (
    CachestatUnavailable,
    Residency,
    measured_residency,
    resident_by_cachestat,
    resident_by_mincore,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel tells page cache residency to root alone")


def unavailable(descriptor: int, size: int) -> int:
    raise CachestatUnavailable("Function not implemented")


def test_the_last_page_is_not_counted_beyond_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (mmap.PAGESIZE + 1))
    all_pages = measured_residency([file], lambda descriptor, size: 2 * mmap.PAGESIZE, unavailable)
    assert all_pages == Residency(mmap.PAGESIZE + 1, mmap.PAGESIZE + 1, "cachestat")
    assert all_pages.share == 1.0


def test_one_verifier_answers_for_all_files(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_bytes(b"x" * mmap.PAGESIZE)
    asked: list[int] = []

    def first_only(descriptor: int, size: int) -> int:
        asked.append(size)
        if len(asked) == 2:
            raise CachestatUnavailable("Operation not supported")
        return size

    assert measured_residency(files, first_only, lambda descriptor, size: 0) == Residency(
        2 * mmap.PAGESIZE, 0, "mincore"
    )


def test_files_without_bytes_count_as_resident(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert measured_residency([tmp_path / "empty"], unavailable, unavailable).share == 1.0


def test_what_has_gone_since_it_was_listed_or_is_no_file_holds_nobody(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"x" * 10)
    os.mkfifo(tmp_path / "pipe")
    files = [tmp_path / "gone", kept, tmp_path / "pipe", kept / "below"]
    assert measured_residency(files, lambda descriptor, size: size, unavailable) == Residency(10, 10, "cachestat")
    assert page_cache.warm(files) == 10
    page_cache.evict(files)


def test_nobody_but_root_is_asked_to_believe_mincore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SettingError, match="root alone"):
        page_cache.residency([])


@needs_root
def test_eviction_and_warming_are_seen_by_both_calls(tmp_path: Path) -> None:
    blob, link = tmp_path / "blob", tmp_path / "link"
    blob.write_bytes(os.urandom(1 << 20))
    link.symlink_to(blob)
    page_cache.evict([link])
    assert both(blob) == (0, 0)
    assert page_cache.warm([link]) == 1 << 20
    assert both(blob) == (1 << 20, 1 << 20)
    assert page_cache.residency([link]).share == 1.0
    with blob.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[0] is not None
        page_cache.evict([blob])
        assert page_cache.residency([blob]).share > 0, "mapped pages cannot be evicted, and residency says so"


def both(path: Path) -> tuple[int, int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        by_mincore = resident_by_mincore(descriptor, size)
        try:
            return resident_by_cachestat(descriptor, size), by_mincore
        except CachestatUnavailable:
            return by_mincore, by_mincore
    finally:
        os.close(descriptor)


def test_drop_caches_is_one_write_and_its_refusal_readable(tmp_path: Path) -> None:
    knob = tmp_path / "proc/sys/vm/drop_caches"
    with pytest.raises(SettingError, match="drop_caches"):
        page_cache.drop_host_caches(Host(tmp_path))
    knob.parent.mkdir(parents=True)
    knob.write_text("")
    page_cache.drop_host_caches(Host(tmp_path))
    assert knob.read_text() == "3"
