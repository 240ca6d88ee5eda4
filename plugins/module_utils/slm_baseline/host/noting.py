"""A host that records the places this user may not read, so that a verdict can say what it did not see."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .files import Host


@dataclass(frozen=True)
class NotingHost(Host):
    """A Host that also records each existing file or folder that this user may not read, as it is skipped.

    Missing files and files of another kind are not recorded: a search for writers skips both.
    """

    _unreadable: dict[str, str] = field(default_factory=dict, compare=False)

    def read_or_none(self, path: str | Path) -> str | None:
        try:
            return self.read(path)
        except PermissionError as error:
            self.note(path, error)
        except OSError:
            pass
        return None

    def names(self, path: str | Path) -> list[str]:
        try:
            return sorted(os.listdir(self.name(path)))
        except PermissionError as error:
            self.note(path, error)
        except OSError:
            pass
        return []

    def note(self, path: str | Path, error: OSError) -> None:
        """Record a place that could not be read, for callers that open it by other means."""
        self._unreadable[str(path)] = error.strerror or "cannot be read"

    @property
    def unreadable(self) -> list[dict[str, str]]:
        """Return the recorded places in order, each with `path` and `reason`."""
        return [{"path": path, "reason": reason} for path, reason in sorted(self._unreadable.items())]
