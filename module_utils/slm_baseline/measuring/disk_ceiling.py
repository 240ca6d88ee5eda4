"""What the disk can do: the model's own files read past the page cache (O_DIRECT) by several streams."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STREAMS = 4
LIMIT_BYTES = 2 << 30
CHUNK_BYTES = 4 << 20
CACHED_BELOW_RATIO = 1.5
"""A second pass this much faster than the first was served by a cache below this kernel, such as a hypervisor's."""


@dataclass(frozen=True)
class Ceiling:
    """A rate in bytes per second, or the reason why there is none: an unknown ceiling is never 0."""

    bytes_per_s: float | None
    read_bytes: int
    streams: int
    reason: str | None = None


def spread(sizes: Sequence[int], limit_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> list[tuple[int, int]]:
    """(file index, offset) of chunks that cover the files, or every k-th of them where all would pass the limit."""
    chunks = [(index, offset) for index, size in enumerate(sizes) for offset in range(0, size, chunk_bytes)]
    wanted = max(1, limit_bytes // chunk_bytes)
    return chunks[:: -(-len(chunks) // wanted)] if chunks else []


def measure_ceiling(files: Sequence[Path], streams: int = STREAMS, limit_bytes: int = LIMIT_BYTES) -> Ceiling:
    """One pass over the files' chunks by `streams` threads. A filesystem that refuses O_DIRECT gives a reason."""
    descriptors: list[int] = []
    try:
        for path in files:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT))
        chunks = iter(spread([os.fstat(descriptor).st_size for descriptor in descriptors], limit_bytes))
        started = time.monotonic()
        read_bytes = _read_all(descriptors, chunks, streams)
        seconds = time.monotonic() - started
    except OSError as error:
        return Ceiling(None, 0, streams, f"direct reads of the model's files failed: {error.strerror}")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if not read_bytes:
        return Ceiling(None, 0, streams, "the model's files are empty")
    return Ceiling(read_bytes / seconds, read_bytes, streams)


def _read_all(descriptors: Sequence[int], chunks: Iterator[tuple[int, int]], streams: int) -> int:
    """Bytes read; the first stream's OSError where one fails."""
    lock = threading.Lock()
    counts: list[int] = []
    errors: list[OSError] = []

    def stream() -> None:
        # An anonymous mapping is aligned to pages, as O_DIRECT wants its buffers.
        with mmap.mmap(-1, CHUNK_BYTES) as buffer:
            count = 0
            while not errors:
                with lock:
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                try:
                    count += os.preadv(descriptors[chunk[0]], [buffer], chunk[1])
                except OSError as error:
                    errors.append(error)
            counts.append(count)

    threads = [threading.Thread(target=stream) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts)


def is_cached_below(first: Ceiling, second: Ceiling) -> bool | None:
    """Whether two passes give a cache below this kernel away ("guest-cold"); None where the ceiling is unknown."""
    if not (first.bytes_per_s and second.bytes_per_s):
        return None
    return second.bytes_per_s >= first.bytes_per_s * CACHED_BELOW_RATIO
