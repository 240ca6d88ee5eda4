"""The canary: fixed pieces of work, timed before and after each sample, that show other load on the machine.

The counters of /proc/stat and PSI do not show a slow neighbour on the same core, memory bus or disk; constant work
does. Each piece takes some ten milliseconds, and the best of a few repeats counts: what slows all of them would have
slowed the loader too.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ...host.foreign_files import open_foreign

REPEATS = 3
SLOWER = {"cpu_s": 1.2, "memory_s": 1.35, "read_s": 2.5}
"""Threshold of noise: the time of a piece over the best of the run so far. Disks scatter more than CPUs."""
WAIT_S = 5.0
"""How long a sample may wait for the machine to become quiet."""
_PAUSE_S = 0.5
_HASHED_MIB = 32
_TOUCHED_BYTES = 32 << 20
_READ_BYTES = 16 << 20
_MADV_NOHUGEPAGE = 15
_PIECES = {"cpu_s": "computing", "memory_s": "touching memory", "read_s": "reading past the page cache"}


@dataclass(frozen=True)
class CanaryReading:
    """Seconds of each piece of work; `read_s` is None where the filesystem refuses direct reads."""

    cpu_s: float
    memory_s: float
    read_s: float | None

    def best_of(self, other: CanaryReading | None) -> CanaryReading:
        """Return the better time of each piece."""
        if other is None:
            return self
        reads = [seconds for seconds in (self.read_s, other.read_s) if seconds is not None]
        return CanaryReading(
            min(self.cpu_s, other.cpu_s), min(self.memory_s, other.memory_s), min(reads) if reads else None
        )

    def slower_than(self, best: CanaryReading) -> dict[str, float]:
        """Return by piece this time over the best one."""
        pairs = {each.name: (getattr(self, each.name), getattr(best, each.name)) for each in fields(self)}
        return {name: mine / least for name, (mine, least) in pairs.items() if mine is not None and least}


@dataclass(frozen=True)
class Canary:
    """The readings beside one sample, and the seconds that it waited for a quiet machine.

    `slowdown` is the largest ratio of a piece's time to the best of the run so far, this sample's own included.
    """

    before: CanaryReading
    after: CanaryReading
    waited_s: float
    slowdown: float

    def seconds(self) -> dict[str, float]:
        """Return seconds by piece and time, such as `cpu_before_s`; a piece that could not be done is left out."""
        named = {
            f"{each.name[: -len('_s')]}_{when}_s": getattr(reading, each.name)
            for when, reading in (("before", self.before), ("after", self.after))
            for each in fields(CanaryReading)
        }
        return {name: seconds for name, seconds in named.items() if seconds is not None}


def read_canary(path: Path) -> CanaryReading:
    """Do the pieces now; `path` is a file of the model, whose first bytes are read."""
    return CanaryReading(
        cpu_s=min(_seconds(_compute) for _ in range(REPEATS)),
        memory_s=min(_seconds(_touch) for _ in range(REPEATS)),
        read_s=_read(path),
    )


def wait_for_quiet(
    read: Callable[[], CanaryReading], best: CanaryReading | None, wait_s: float = WAIT_S
) -> tuple[CanaryReading, float]:
    """Wait until the machine is quiet; return that reading, or after the timeout the latest, and the seconds waited."""
    reading = read()
    began, waited_s = time.monotonic(), 0.0
    while best is not None and reasons(reading, best) and time.monotonic() - began + _PAUSE_S < wait_s:
        time.sleep(_PAUSE_S)
        reading = read()
        waited_s = time.monotonic() - began
    return reading, round(waited_s, 3)


def compare(before: CanaryReading, after: CanaryReading, best: CanaryReading | None, waited_s: float) -> Canary:
    """Compare the readings beside a sample with the best; without one, compare them with each other."""
    least = before.best_of(after).best_of(best)
    ratios = [*before.slower_than(least).values(), *after.slower_than(least).values()]
    return Canary(before, after, waited_s, round(max(ratios, default=1.0), 3))


def reasons(reading: CanaryReading, best: CanaryReading) -> list[str]:
    """Return in words each piece that took so much longer than its best that a sample beside it is noisy."""
    slower = reading.slower_than(best)
    return [
        f"{_PIECES[name]} took {ratio:.1f} times its best" for name, ratio in slower.items() if ratio >= SLOWER[name]
    ]


def noise_reasons(canary: Canary, best: CanaryReading | None) -> list[str]:
    """Return why the sample beside these readings is noisy; each piece at most once."""
    least = canary.before.best_of(canary.after).best_of(best)
    worst = CanaryReading(
        max(canary.before.cpu_s, canary.after.cpu_s),
        max(canary.before.memory_s, canary.after.memory_s),
        max((each for each in (canary.before.read_s, canary.after.read_s) if each is not None), default=None),
    )
    return reasons(worst, least)


def best_canary(
    stored: Iterable[Mapping[str, float] | None], best: CanaryReading | None = None
) -> CanaryReading | None:
    """Return the best time of each piece among samples' canaries (as of `Canary.seconds`) and the earlier best."""
    for seconds in stored:
        # A canary of another form cannot be compared.
        with contextlib.suppress(KeyError):
            for when in ("before", "after") if seconds else ():
                best = _reading(seconds or {}, when).best_of(best)
    return best


def _reading(seconds: Mapping[str, float], when: str) -> CanaryReading:
    return CanaryReading(seconds[f"cpu_{when}_s"], seconds[f"memory_{when}_s"], seconds.get(f"read_{when}_s"))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 6)


def _compute() -> None:
    piece, total = bytes(1 << 20), hashlib.sha256()
    for _ in range(_HASHED_MIB):
        total.update(piece)
    total.digest()


def _touch() -> None:
    """Fault in base pages, whatever THP setting the arm under test has."""
    with mmap.mmap(-1, _TOUCHED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        # A kernel without THP rejects this and has nothing to switch off.
        with contextlib.suppress(OSError):
            memory.madvise(_MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(_TOUCHED_BYTES // mmap.PAGESIZE)


def _read(path: Path) -> float | None:
    """Return the seconds to read the file's first bytes past the page cache."""
    try:
        descriptor = open_foreign(path, os.O_DIRECT)
    except OSError:
        return None
    try:
        # An anonymous mapping is page-aligned, as O_DIRECT requires of its buffers.
        with mmap.mmap(-1, _READ_BYTES) as buffer:
            return min(_seconds(lambda: os.preadv(descriptor, [buffer], 0)) for _ in range(REPEATS))
    except OSError:
        return None
    finally:
        os.close(descriptor)
