"""The time as documents store it."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
