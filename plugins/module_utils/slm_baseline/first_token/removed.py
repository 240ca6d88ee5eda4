"""What removing targets did. Apart from setup.py: a rollback of a host without targets needs no more than this."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Removal:
    """The paths that were removed, or would be, and those that others changed since and that are therefore left."""

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        """What is for the user to do, where anything was left."""
        if not self.left:
            return None
        return f"changed by others since, left: {'; '.join(self.left)}. Next: remove by hand what is not wanted."

    @property
    def diff(self) -> str:
        """What was there before, a line a path."""
        return "".join(f"{path}: there\n" for path in self.removed)
