"""Whether the disk below a plan has to seek: on such a disk one reader is fastest, and a second one slows it down.

The kernel's own flag does not help: a virtual disk reports itself as rotational whatever is below it
(/sys/block/*/queue/rotational is 1 for virtio), so random reads are timed instead.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence

from ...host.foreign_files import open_foreign
from ..plan import PlanFile

READS = 15
SEEK_S = 0.003
"""A spinning disk needs 4 to 12 ms for a random read: half a turn and a seek. Flash, also behind a network, needs less
than 2 ms."""
LEAST_BYTES = 32 << 20
"""In a smaller file all reads lie on neighbouring tracks."""


def random_reads_s(file: PlanFile) -> list[float]:
    """Return the seconds of each of some direct reads of a page; OSError where the file system has no O_DIRECT."""
    descriptor = open_foreign(file.path, os.O_NOFOLLOW | os.O_DIRECT)
    try:
        # An anonymous mapping is aligned to pages, as O_DIRECT requires.
        with mmap.mmap(-1, mmap.PAGESIZE) as buffer:
            times = []
            for _ in range(READS):
                offset = random.randrange(file.size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
                began = time.monotonic()
                os.preadv(descriptor, [buffer], offset)
                times.append(time.monotonic() - began)
            return times
    finally:
        os.close(descriptor)


def disk_seeks(files: Sequence[PlanFile], read_s: Callable[[PlanFile], list[float]] = random_reads_s) -> bool:
    """Return whether random reads of the largest file take as long as a seek; False where that is unknown.

    `read_s` times the reads of one file, in seconds.
    """
    largest = max(files, key=lambda file: file.size_bytes, default=None)
    if largest is None or largest.size_bytes < LEAST_BYTES:
        return False
    try:
        times = read_s(largest)
    except OSError:
        return False
    return statistics.median(times) > SEEK_S
