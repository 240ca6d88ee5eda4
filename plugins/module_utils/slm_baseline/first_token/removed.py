"""The result of removing targets. Separate from remove.py: a rollback without targets needs no more than this."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Removal:
    """The paths that were removed, or would be, and those that are left since others changed them.

    `started` are units that an interrupted recording had left stopped. `problems` are the targets that could not be
    removed, with the reason.
    """

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        """Return what the user should know or do; None for nothing."""
        words = []
        if self.started:
            words.append(f"started again after a recording that was cut short: {', '.join(self.started)}.")
        if self.left:
            words.append(
                f"changed or mounted by others since, left: {'; '.join(self.left)}."
                " Next: remove by hand what is not wanted."
            )
        return " ".join(words) or None

    @property
    def diff(self) -> str:
        """Return what was there before, one path a line."""
        return "".join(f"{path}: there\n" for path in self.removed)
