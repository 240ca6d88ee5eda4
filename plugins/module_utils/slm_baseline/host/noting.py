"""A host that remembers which places this user was not let into, so that a verdict can say what it could not see."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from .files import Host


@dataclass(frozen=True)
class NotingHost(Host):
    """As Host; a file or folder that is there and that this user may not read is noted as it is left out.

    What is missing is nothing to note, nor is a file of another kind: whoever looks for a writer passes both over.
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
        """Note a place that could not be read, for whoever opens it by other means."""
        self._unreadable[str(path)] = error.strerror or "cannot be read"

    @property
    def unreadable(self) -> list[dict[str, str]]:
        """The places in order, each with `path` and `reason`."""
        return [{"path": path, "reason": reason} for path, reason in sorted(self._unreadable.items())]
