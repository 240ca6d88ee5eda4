"""One deadline for a piece of work, shared by every wait in it."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """A moment of CLOCK_MONOTONIC, in seconds."""

    at_s: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        """Return the deadline that many seconds from now."""
        return Deadline(time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.at_s

    def left_s(self, most_s: float = float("inf")) -> float:
        """Return the seconds that a wait may still take: at least 0, at most `most_s`."""
        return max(0.0, min(most_s, self.at_s - time.monotonic()))
