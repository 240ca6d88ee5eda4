"""The time as documents have it."""

from __future__ import annotations

from datetime import datetime, timezone


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
