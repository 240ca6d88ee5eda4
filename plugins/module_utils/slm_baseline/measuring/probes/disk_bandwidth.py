"""The disk's bandwidth: the model's own files read in several ways, each from a verified cold state; the best counts.

No one way is fastest everywhere: some disks want many requests at once, some large ones, and on some a buffered read
beats O_DIRECT, because the kernel's read-ahead makes larger requests than a page-pinning direct read can.
"""

from __future__ import annotations

import mmap
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...host import libc
from ...host.foreign_files import open_foreign
from . import page_cache

_MIB = 1 << 20
_MADV_POPULATE_READ = 22
"""madvise(2), Linux 5.14: fault a mapping's pages in, reading what is not in the page cache. EINVAL before."""
TRIAL_S = 0.3
"""After this time a trial begins no further read."""
PASS_S = 5.0
"""After this time a pass begins no further trial. Eight take half of it; a slow disk must not take minutes."""
SLICE_BYTES = 64 * _MIB
"""The least that a trial reads where the files are large enough: with less, starting the streams would count."""
_MOST_RESIDENT_SHARE = 0.01
"""Share of a trial's bytes: with more in the page cache beforehand, the trial does not measure the disk."""
DIRECT_RESIDENT_SHARE = 0.1
"""Share of the bytes read directly: a direct read leaves almost none in the page cache, a buffered one nearly all."""
BUFFERED_RESIDENT_SHARE = 0.95
"""Share of the bytes read through the page cache: with fewer there afterwards, another layer held them."""
CACHED_BELOW_RATIO = 1.5
"""A second pass that is faster by this factor was served by a cache below this kernel, such as a hypervisor's."""

Chunk = tuple[int, int, int]
"""Index of a file, offset and length in bytes."""


@dataclass(frozen=True)
class ReadMethod:
    """How files are read: `direct` (O_DIRECT), `buffered` (read) or `populate` (MADV_POPULATE_READ).

    `streams` threads each ask for `chunk_bytes` at a time.
    """

    how: str
    streams: int
    chunk_bytes: int


WAYS = (
    ReadMethod("direct", 4, 4 * _MIB),
    ReadMethod("populate", 8, 2 * _MIB),
    ReadMethod("direct", 16, 1 * _MIB),
    ReadMethod("buffered", 4, 4 * _MIB),
    ReadMethod("direct", 2, 16 * _MIB),
    ReadMethod("buffered", 16, 1 * _MIB),
    ReadMethod("direct", 32, _MIB // 2),
    ReadMethod("populate", 1, 8 * _MIB),
)
"""The likeliest first: where a pass runs out of time, these have been tried."""


@dataclass(frozen=True)
class WayTried:
    """One way that was tried: a rate in bytes per second, or the reason why it gave none."""

    way: ReadMethod
    bytes_per_s: float | None
    read_bytes: int
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the result document has it."""
        return {**vars(self.way), "bytes_per_s": self.bytes_per_s, "read_bytes": self.read_bytes, "reason": self.reason}


@dataclass(frozen=True)
class Ceiling:
    """The best rate of a pass in bytes per second; None where no trial gave one: an unknown ceiling is never 0."""

    trials: tuple[WayTried, ...]

    @property
    def best(self) -> WayTried | None:
        known = [trial for trial in self.trials if trial.bytes_per_s]
        return max(known, key=lambda trial: trial.bytes_per_s or 0.0, default=None)

    @property
    def bytes_per_s(self) -> float | None:
        return self.best.bytes_per_s if self.best else None

    @property
    def reason(self) -> str | None:
        """Return why there is no rate, by the first way tried."""
        return None if self.best or not self.trials else self.trials[0].reason


def spread(sizes: Sequence[int], start: int, length: int, chunk_bytes: int) -> list[Chunk]:
    """Return the chunks of concatenated files that begin in [start, start + length); offsets are whole chunks."""
    chunks, base = [], 0
    for index, size in enumerate(sizes):
        chunks += [
            (index, offset, min(chunk_bytes, size - offset))
            for offset in range(0, size, chunk_bytes)
            if start <= base + offset < start + length
        ]
        base += size
    return chunks


def slice_of(total_bytes: int, index: int, count: int) -> tuple[int, int]:
    """Return (start, length) of the part that trial `index` of `count` reads.

    Parts do not overlap where the files are large enough, so that a cache below this kernel has not seen a trial's
    bytes in the trial before.
    """
    length = min(total_bytes, max(total_bytes // count, SLICE_BYTES))
    return min(index * total_bytes // count, total_bytes - length), length


def measure_ceiling(files: Sequence[Path], ways: Sequence[ReadMethod] = WAYS) -> Ceiling:
    """Measure one pass: every way on its part of the files, evicted before. Takes at most about PASS_S seconds."""
    deadline = time.monotonic() + PASS_S
    trials: list[WayTried] = []
    for index, way in enumerate(ways):
        if trials and time.monotonic() > deadline:
            break
        trials.append(_try(files, way, (index, len(ways))))
    return Ceiling(tuple(trials))


def host_cached(first: Ceiling, second: Ceiling) -> bool | None:
    """Return whether two passes show a cache below this kernel ("guest-cold"); None where no way has a rate in both.

    Each way reads the same bytes in both passes, so it is compared with itself; the median of the ratios decides.
    """
    ratios = [
        again.bytes_per_s / trial.bytes_per_s
        for trial, again in zip(first.trials, second.trials)
        if trial.bytes_per_s and again.bytes_per_s
    ]
    return statistics.median(ratios) >= CACHED_BELOW_RATIO if ratios else None


def _try(files: Sequence[Path], way: ReadMethod, turn: tuple[int, int]) -> WayTried:
    """Try one way on its slice (index, count) of the files."""
    flags = os.O_DIRECT if way.how == "direct" else 0
    with ExitStack() as stack:
        try:
            page_cache.evict(files)
            descriptors = []
            for path in files:
                descriptors.append(open_foreign(path, flags))
                stack.callback(os.close, descriptors[-1])
            sizes = [os.fstat(descriptor).st_size for descriptor in descriptors]
            chunks = spread(sizes, *slice_of(sum(sizes), *turn), way.chunk_bytes)
            wanted = sum(length for _, _, length in chunks)
            if not wanted:
                return WayTried(way, None, 0, "the model's files are empty")
            before = page_cache.residency(files).resident_bytes
            if before > _MOST_RESIDENT_SHARE * wanted:
                return WayTried(way, None, 0, "the model's files cannot be evicted from the page cache")
            read_bytes, seconds = _timed(descriptors, chunks, way)
            came_in = page_cache.residency(files).resident_bytes
        except OSError as error:
            return WayTried(way, None, 0, f"{_WORDS[way.how]} of the model's files failed: {error.strerror}")
    reason = None
    if way.how == "direct" and came_in >= DIRECT_RESIDENT_SHARE * read_bytes:
        reason = "the filesystem reads through the page cache"
    if way.how != "direct" and came_in < BUFFERED_RESIDENT_SHARE * read_bytes:
        reason = "what was read did not stay in the page cache"
    return WayTried(way, None if reason else read_bytes / seconds, read_bytes, reason)


_WORDS = {"direct": "direct reads", "buffered": "buffered reads", "populate": "populating mappings"}


def _timed(descriptors: Sequence[int], chunks: Sequence[Chunk], way: ReadMethod) -> tuple[int, float]:
    """Read the chunks; return bytes and seconds. Raises the first stream's OSError where one fails."""
    queue: Iterator[Chunk] = iter(chunks)
    lock = threading.Lock()
    counts: list[int] = []
    errors: list[OSError] = []
    started = time.monotonic()

    def stream() -> None:
        count = 0
        with ExitStack() as stack:
            read = _reader(way, stack)
            while not errors and time.monotonic() - started < TRIAL_S:
                with lock:
                    chunk = next(queue, None)
                if chunk is None:
                    break
                try:
                    count += read(descriptors[chunk[0]], chunk[1], chunk[2])
                except OSError as error:
                    errors.append(error)
        counts.append(count)

    threads = [threading.Thread(target=stream) for _ in range(way.streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    if errors:
        raise errors[0]
    return sum(counts), seconds


def _reader(way: ReadMethod, stack: ExitStack) -> Callable[[int, int, int], int]:
    """Return a function that reads one chunk (descriptor, offset, length) and returns its bytes."""
    if way.how == "populate":
        return populate
    # An anonymous mapping is page-aligned, as O_DIRECT requires of its buffers.
    buffer = stack.enter_context(mmap.mmap(-1, way.chunk_bytes))
    return lambda descriptor, offset, _: os.preadv(descriptor, [buffer], offset)


def populate(descriptor: int, offset: int, length: int) -> int:
    """Map a part of a file and have the kernel read it (madvise(2), MADV_POPULATE_READ); return its bytes.

    `offset` is a multiple of the page size. OSError, with EINVAL before Linux 5.14.
    """
    with libc.mapped(descriptor, offset, length) as address:
        # Not by mmap.madvise, which keeps the interpreter's lock meanwhile.
        libc.madvise(address, length, _MADV_POPULATE_READ)
    return length
