"""Changes: apply, read back, undo. A list of them is applied whole or, as far as the kernel allows, not at all."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import SettingError
from .hostfs import Host
from .knobs import Knob


class Change(Protocol):
    """One step from a known state to a wanted one; `before` and `after` are text for people and for --diff."""

    @property
    def name(self) -> str: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...
    def apply(self, host: Host) -> None:
        """Make the change and prove it by reading back; SettingError where it did not take."""

    def undo(self, host: Host) -> None:
        """Return to `before`; OSError or SettingError where that fails."""


def apply_all(host: Host, changes: Sequence[Change]) -> None:
    """Apply in order. When one fails, undo it and those before it, last first, then raise its SettingError."""
    done: list[Change] = []
    for change in changes:
        done.append(change)
        try:
            change.apply(host)
        except (OSError, SettingError) as error:
            failure = error if isinstance(error, SettingError) else os_problem(change.name, change.after, error)
            left = _undo_all(host, done)
            if left:
                failure = SettingError(
                    failure.knob,
                    failure.wanted,
                    failure.found,
                    f"{failure.why} Undoing it failed too: {'; '.join(left)}.",
                    f"{failure.next_step} Then run the rollback.",
                )
            raise failure from error


def _undo_all(host: Host, done: Sequence[Change]) -> list[str]:
    left = []
    for change in reversed(done):
        try:
            change.undo(host)
        except (OSError, SettingError) as error:
            left.append(f"{change.name} ({error})")
    return left


def os_problem(knob: str, wanted: str, error: OSError) -> SettingError:
    """What an operating-system error means to the person on call."""
    reasons = {
        errno.EROFS: ("The file system is read-only, as /sys is in most containers.", "run this on the host itself."),
        errno.EACCES: ("The kernel demands root.", "connect as root, or let become do it."),
        errno.EPERM: ("The kernel demands root with CAP_SYS_ADMIN.", "run this on the host itself, as root."),
        errno.ENOSPC: ("The disk is full.", "free some space, then run again."),
        errno.EIO: ("The disk or kernel reported an I/O error.", "look at the kernel log before anything else."),
        errno.EBUSY: ("Something is using it.", "stop what uses it, then run again."),
        errno.ENOMEM: ("The kernel could not get the memory.", "free some memory, then run again."),
        errno.EINVAL: ("The kernel takes no such value.", "choose a value that the file offers."),
        errno.ENOENT: ("There is no such file.", "check that this kernel has the knob."),
    }
    why, next_step = reasons.get(error.errno or 0, ("The operating system refused.", "look at the kernel log."))
    place = f" on {error.filename}" if error.filename else ""
    return SettingError(knob, wanted, f"{error.strerror or error}{place}", why, next_step)


def described(changes: Sequence[Change]) -> list[dict[str, str]]:
    """The changes for a module's result."""
    return [{"knob": change.name, "before": change.before, "after": change.after} for change in changes]


def diff(changes: Sequence[Change]) -> dict[str, str]:
    """Ansible's before/after pair for --diff, one line a knob, file contents indented."""

    def text(values: list[tuple[str, str]]) -> str:
        return "".join(f"{name}: {_inline(value)}\n" for name, value in values)

    return {
        "before": text([(change.name, change.before) for change in changes]),
        "after": text([(change.name, change.after) for change in changes]),
    }


def _inline(value: str) -> str:
    return value if "\n" not in value else "\n" + "".join(f"    {line}\n" for line in value.splitlines()).rstrip("\n")


def outcome(changes: Sequence[Change], **more: Any) -> dict[str, Any]:
    """What every setter module returns: changed, changes, diff, and whatever else it has to say."""
    return {"changed": bool(changes), "changes": described(changes), "diff": diff(changes), **more}


@dataclass(frozen=True)
class WriteKnob:
    """Set a selector or number and read it back."""

    knob: Knob
    after: str

    @property
    def name(self) -> str:
        return self.knob.name

    @property
    def before(self) -> str:
        return self.knob.value

    def apply(self, host: Host) -> None:
        self._write(host, self.after)

    def undo(self, host: Host) -> None:
        if self.knob.reread(host).value != self.before:
            self._write(host, self.before)

    def _write(self, host: Host, value: str) -> None:
        host.write_kernel(self.knob.path, value)
        found = self.knob.reread(host).value
        if found != value:
            raise SettingError(
                self.name,
                value,
                found,
                f"The write to {self.knob.path} succeeded, but the kernel reads back something else.",
                "look for another writer of this file.",
            )
