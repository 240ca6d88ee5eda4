"""One deadline for a piece of work, which every wait in it shares."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment of CLOCK_MONOTONIC, in seconds."""

    at_s: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        """The deadline so many seconds from now."""
        return Deadline(time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at_s

    def left_s(self, most_s: float = float("inf")) -> float:
        """Seconds that a wait may still take, never less than 0 nor more than `most_s`."""
        return max(0.0, min(most_s, self.at_s - time.monotonic()))
