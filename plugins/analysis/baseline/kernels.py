"""The compiled kernels of a result; plugins/schemas/result.schema.json describes the fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.documents.samples import Sample


@dataclass(frozen=True)
class KernelSeconds:
    """Seconds of the phases in which kernels are compiled and loaded."""

    first_token: float
    second_token: float


@dataclass(frozen=True)
class Kernels:
    """Two warm runs that share kernel caches; `problem` says why there are no times, which are None then."""

    problem: str | None
    files: int | None = None
    bytes: int | None = None
    compiling: KernelSeconds | None = None
    kept: KernelSeconds | None = None

    def saving_s(self, warm: Iterable[Sample]) -> float | None:
        """Return what cached kernels save a start up to its first token, at least, in seconds; None if unknown.

        It compares the fastest of all runs that compiled, warm samples included, with the run that found kernels
        cached.
        """
        if self.problem or self.compiling is None:
            return None
        if self.kept is None:
            return 0.0
        seconds = [sample.phase_seconds("first_token") for sample in warm]
        soonest = min([self.compiling.first_token, *(each for each in seconds if each is not None)])
        return max(0.0, soonest - self.kept.first_token)
