"""The canary: what counts as slower, how long a sample waits, and the pieces of work on a real file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.measuring.probes import canary
from ansible.module_utils.slm_baseline.measuring.probes.canary import (
    CanaryReading,
    best_canary,
    compare,
    noise_reasons,
    read_canary,
    wait_for_quiet,
)
from ansible.module_utils.slm_baseline.measuring.probes.noise import Noise

QUIET = CanaryReading(0.010, 0.020, 0.030)
BUSY = CanaryReading(0.013, 0.020, 0.030)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (QUIET, []),
        (replace(QUIET, cpu_s=0.0119), []),
        (replace(QUIET, cpu_s=0.012), ["computing took 1.2 times its best"]),
        (replace(QUIET, memory_s=0.028), ["touching memory took 1.4 times its best"]),
        (replace(QUIET, read_s=0.09), ["reading past the page cache took 3.0 times its best"]),
        (replace(QUIET, read_s=None), []),
    ],
)
def test_a_piece_that_takes_longer_than_its_best_makes_a_sample_noisy(after: CanaryReading, words: list[str]) -> None:
    for before, later in ((QUIET, after), (after, QUIET), (after, after)):
        seen = compare(before, later, QUIET, 0.0)
        noise = Noise(False, (), 0.0, 0.0, 0.0, None, 0).with_canary(seen, QUIET)
        assert (noise.noisy, list(noise.reasons)) == (bool(words), words)
        assert noise.canary == seen.seconds()
        assert (noise.canary_slowdown, noise.canary_waited_s) == (seen.slowdown, 0.0)
    assert noise_reasons(compare(QUIET, QUIET, None, 0.0), None) == []


def test_without_a_best_yet_before_and_after_are_compared() -> None:
    seen = compare(QUIET, BUSY, None, 0.0)
    assert seen.slowdown == pytest.approx(1.3)
    assert noise_reasons(seen, None) == ["computing took 1.3 times its best"]


def test_the_best_is_that_of_each_piece() -> None:
    assert best_canary([]) is None
    without_reads = compare(BUSY, replace(BUSY, read_s=None), None, 0.0).seconds()
    assert "read_after_s" not in without_reads
    seen = [without_reads, None, {"of another": 0.001}, compare(QUIET, BUSY, None, 0.0).seconds()]
    assert best_canary(seen) == QUIET
    assert best_canary([], QUIET) == QUIET


class Clock:
    """Time that passes while something sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_sample_waits_until_the_machine_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, readings = Clock(monkeypatch), iter([BUSY, BUSY, QUIET])
    assert wait_for_quiet(lambda: next(readings), QUIET) == (QUIET, 1.0)
    assert clock.now == 101.0


def test_a_sample_does_not_wait_for_ever_nor_without_a_best(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def busy() -> Iterator[CanaryReading]:
        while True:
            yield BUSY

    readings = busy()
    assert wait_for_quiet(lambda: next(readings), None) == (BUSY, 0.0)
    reading, waited_s = wait_for_quiet(lambda: next(readings), QUIET)
    assert reading == BUSY
    assert 0 < waited_s <= canary.WAIT_S
    assert clock.now <= 100 + canary.WAIT_S


def test_the_pieces_are_done_on_this_machine(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"x" * (1 << 20))
    seen = read_canary(weights)
    assert seen.cpu_s > 0
    assert seen.memory_s > 0
    assert read_canary(tmp_path / "missing").read_s is None
