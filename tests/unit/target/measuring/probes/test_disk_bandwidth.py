"""The disk's ceiling: which chunks are read, real files in every way, filesystems that refuse or go round the rules."""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.measuring.probes import disk_bandwidth, page_cache
from ansible.module_utils.slm_baseline.measuring.probes.disk_bandwidth import (
    WAYS,
    Ceiling,
    ReadMethod,
    WayTried,
    host_cached,
    measure_ceiling,
    slice_of,
    spread,
)
from ansible.module_utils.slm_baseline.measuring.probes.page_cache import Residency
from hypothesis import given
from hypothesis import strategies as st

DIRECT, BUFFERED, POPULATE = (
    ReadMethod("direct", 3, 1 << 20),
    ReadMethod("buffered", 3, 1 << 20),
    ReadMethod("populate", 3, 1 << 20),
)


class FakeCache:
    """Residency of the files as a test wants it: before a trial, and after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: int, after: int) -> None:
        self.answers: list[int] = []
        self.evicted = 0
        self.before, self.after = before, after
        monkeypatch.setattr(page_cache, "evict", self.evict)
        monkeypatch.setattr(page_cache, "residency", lambda files: Residency(0, self.answers.pop(0), "cachestat"))

    def evict(self, files: object) -> None:
        self.evicted += 1
        self.answers = [self.before, self.after]


def trial(rate: float | None, way: ReadMethod = DIRECT) -> WayTried:
    return WayTried(way, rate, 1, None if rate else "refused")


@given(
    st.lists(st.integers(0, 10_000), max_size=6), st.integers(0, 30_000), st.integers(0, 20_000), st.integers(1, 500)
)
def test_chunks_are_those_that_begin_in_the_slice(sizes: list[int], start: int, length: int, chunk: int) -> None:
    chunks = spread(sizes, start, length, chunk)
    assert len({(index, offset) for index, offset, _ in chunks}) == len(chunks)
    assert all(offset % chunk == 0 and 0 < size <= chunk for _, offset, size in chunks)
    assert all(offset + size <= sizes[index] for index, offset, size in chunks)
    assert sum(size for _, _, size in chunks) <= length + chunk
    everything = spread(sizes, 0, sum(sizes), chunk)
    assert sum(size for _, _, size in everything) == sum(sizes)
    assert set(chunks) <= set(everything)


@given(st.integers(0, 1 << 40), st.integers(1, 12))
def test_slices_lie_in_the_files_and_apart_where_there_is_room(total: int, count: int) -> None:
    slices = [slice_of(total, index, count) for index in range(count)]
    assert all(start >= 0 and start + length <= total for start, length in slices)
    if total >= count * disk_bandwidth.SLICE_BYTES + count:
        assert all(start + length <= following for (start, length), (following, _) in itertools.pairwise(slices))


@pytest.mark.parametrize("way", [DIRECT, BUFFERED, POPULATE], ids=lambda way: way.how)
def test_real_files_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: ReadMethod) -> None:
    FakeCache(monkeypatch, before=0, after=0 if way.how == "direct" else 1 << 30)
    sizes = [(5 << 20) + 123, 4096, 1]
    files = [tmp_path / str(size) for size in sizes]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(os.urandom(size))
    (tried,) = measure_ceiling(files, [way]).trials
    if tried.reason:
        pytest.skip(f"not here: {tried.reason}")
    assert tried.read_bytes == sum(sizes)
    assert (tried.bytes_per_s or 0) > 0


def test_each_way_is_tried_from_an_evicted_cache_and_the_best_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FakeCache(monkeypatch, before=0, after=0)
    (tmp_path / "file").write_bytes(b"x" * 8192)
    rates = iter([(4000, 2.0), (9000, 1.0), (1000, 1.0)])
    monkeypatch.setattr(disk_bandwidth, "_timed", lambda *_: next(rates))
    ceiling = measure_ceiling([tmp_path / "file"], [DIRECT] * 3)
    assert cache.evicted == 3
    assert [each.bytes_per_s for each in ceiling.trials] == [2000, 9000, 1000]
    assert (ceiling.bytes_per_s, ceiling.best, ceiling.reason) == (9000, ceiling.trials[1], None)


@pytest.mark.parametrize(
    ("way", "before", "after", "reason"),
    [
        (DIRECT, 0, 99, None),
        (DIRECT, 0, 100, "the filesystem reads through the page cache"),
        (BUFFERED, 0, 950, None),
        (POPULATE, 0, 949, "what was read did not stay in the page cache"),
        (BUFFERED, 10, 1000, None),
        (BUFFERED, 11, 1000, "the model's files cannot be evicted from the page cache"),
        (DIRECT, 1000, 1000, "the model's files cannot be evicted from the page cache"),
    ],
)
def test_a_trial_counts_where_the_page_cache_bears_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: ReadMethod, before: int, after: int, reason: str | None
) -> None:
    FakeCache(monkeypatch, before, after)
    (tmp_path / "file").write_bytes(b"x" * 1000)
    monkeypatch.setattr(disk_bandwidth, "_timed", lambda *_: (1000, 1.0))
    ceiling = measure_ceiling([tmp_path / "file"], [way])
    assert (ceiling.bytes_per_s, ceiling.reason) == ((1000, None) if reason is None else (None, reason))


@pytest.mark.parametrize("at", ["open", "preadv"])
def test_a_filesystem_that_refuses_gives_a_reason_and_no_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    FakeCache(monkeypatch, before=0, after=0)
    (tmp_path / "file").write_bytes(b"x" * 8192)
    real_open = os.open

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    if at == "open":
        monkeypatch.setattr(os, "open", refuse)
    else:
        monkeypatch.setattr(os, "open", lambda path, flags: real_open(path, flags & ~os.O_DIRECT))
        monkeypatch.setattr(os, "preadv", refuse)
    ceiling = measure_ceiling([tmp_path / "file"], [DIRECT])
    assert ceiling.bytes_per_s is None
    assert "direct reads of the model's files failed: Invalid argument" in (ceiling.reason or "")


def test_a_kernel_without_populate_gives_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCache(monkeypatch, before=0, after=0)
    (tmp_path / "file").write_bytes(b"x" * 8192)
    # No advice of that number: what an older kernel answers.
    monkeypatch.setattr(disk_bandwidth, "_MADV_POPULATE_READ", 99)
    ceiling = measure_ceiling([tmp_path / "file"], [POPULATE])
    assert ceiling.reason == "populating mappings of the model's files failed: Invalid argument"


def test_empty_files_have_no_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCache(monkeypatch, before=0, after=0)
    (tmp_path / "file").touch()
    ceiling = measure_ceiling([tmp_path / "file"])
    assert ceiling.bytes_per_s is None
    assert {each.read_bytes for each in ceiling.trials} == {0}


def test_a_pass_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCache(monkeypatch, before=0, after=0)
    (tmp_path / "file").write_bytes(b"x" * 8192)
    now = [100.0]

    def slow(*_: object) -> tuple[int, float]:
        now[0] += 2.0
        return 1000, 2.0

    monkeypatch.setattr(disk_bandwidth, "_timed", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert [each.way for each in measure_ceiling([tmp_path / "file"]).trials] == list(WAYS[:3])


def test_a_much_faster_second_pass_gives_a_cache_away() -> None:
    first = Ceiling((trial(1e9), trial(2e9, BUFFERED), trial(None)))
    again = Ceiling((trial(1.6e9), trial(3.2e9, BUFFERED), trial(9e9)))
    assert host_cached(first, again) is True
    assert host_cached(again, first) is False
    # One of three that came out fast is chance; a way is compared with itself alone.
    three = Ceiling((trial(1e9), trial(1e9), trial(2e9, BUFFERED)))
    assert host_cached(three, Ceiling((trial(3e9), trial(1e9), trial(2e9, BUFFERED)))) is False
    assert host_cached(first, Ceiling((trial(None), trial(None), trial(1e9)))) is None
