"""A sweep's sample: a sample of the benchmark, and its position in the sweep."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from ..host.files import Host
from ..measuring.sample import NotASample, Sample, read_document, to_document
from ..measuring.store import append_line, read_lines


@dataclass(frozen=True)
class Position:
    """A sample's position in a sweep. An interrupted block is begun again as another `attempt`, from 1.

    `elapsed_s` counts from the beginning of its block, `measurement` is one of design.MEASUREMENTS.
    """

    dtype_asked: str
    attempt: int
    elapsed_s: float
    measurement: str = "full"


@dataclass(frozen=True)
class SweepSample:
    """A sample and its position in the sweep; one flat object in JSON."""

    sample: Sample
    position: Position

    def to_json(self) -> dict[str, Any]:
        return {**self.sample.to_json(), **to_document(self.position)}

    @staticmethod
    def from_json(document: object) -> SweepSample:
        """Parse what `to_json` returned; NotASample for anything else."""
        return SweepSample(Sample.from_json(document), read_document(Position, document))


def append_sweep_sample(host: Host, run_id: str, sample: SweepSample) -> None:
    """Append a sample durably."""
    append_line(host, run_id, sample.to_json())


def read_sweep_samples(host: Host, run_id: str) -> list[SweepSample]:
    """Read a sweep's samples in order; other lines are left out."""
    samples = []
    for line in read_lines(host, run_id):
        with contextlib.suppress(NotASample):
            samples.append(SweepSample.from_json(line))
    return samples
