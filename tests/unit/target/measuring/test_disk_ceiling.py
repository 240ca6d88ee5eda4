"""The disk's ceiling: which chunks are read, a real file past the page cache, and a filesystem that refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.measuring.disk_ceiling import Ceiling, is_cached_below, measure_ceiling, spread
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 10_000), max_size=6), st.integers(1, 20_000), st.integers(1, 500))
def test_chunks_keep_to_the_limit_and_start_every_file_that_fits(sizes: list[int], limit: int, chunk: int) -> None:
    chunks = spread(sizes, limit, chunk)
    assert len(chunks) <= max(1, limit // chunk)
    assert len(set(chunks)) == len(chunks)
    assert all(offset < sizes[index] and offset % chunk == 0 for index, offset in chunks)
    if sum(-(-size // chunk) for size in sizes) <= limit // chunk:
        assert sum(min(chunk, sizes[index] - offset) for index, offset in chunks) == sum(sizes)


def test_a_limit_spreads_over_the_whole_file() -> None:
    assert spread([100], 30, 10) == [(0, 0), (0, 40), (0, 80)]


def test_real_files_are_read_whole(tmp_path: Path) -> None:
    sizes = [(5 << 20) + 123, 4096, 1]
    files = [tmp_path / str(size) for size in sizes]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(os.urandom(size))
    ceiling = measure_ceiling(files, streams=3)
    if ceiling.bytes_per_s is None:
        pytest.skip(f"no direct reads here: {ceiling.reason}")
    assert ceiling.read_bytes == sum(sizes)
    assert ceiling.bytes_per_s > 0


@pytest.mark.parametrize("at", ["open", "preadv"])
def test_a_filesystem_that_refuses_gives_a_reason_and_no_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    (tmp_path / "file").write_bytes(b"x" * 8192)
    real_open = os.open

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    if at == "open":
        monkeypatch.setattr(os, "open", refuse)
    else:
        monkeypatch.setattr(os, "open", lambda path, flags: real_open(path, flags & ~os.O_DIRECT))
        monkeypatch.setattr(os, "preadv", refuse)
    ceiling = measure_ceiling([tmp_path / "file"])
    assert ceiling.bytes_per_s is None
    assert "Invalid argument" in (ceiling.reason or "")


def test_empty_files_have_no_ceiling(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert measure_ceiling([tmp_path / "file"]).bytes_per_s is None


def test_a_much_faster_second_pass_gives_a_cache_away() -> None:
    slow, fast, unknown = Ceiling(1e9, 1, 4), Ceiling(1.6e9, 1, 4), Ceiling(None, 0, 4, "refused")
    assert is_cached_below(slow, fast) is True
    assert is_cached_below(fast, slow) is False
    assert is_cached_below(slow, unknown) is None
