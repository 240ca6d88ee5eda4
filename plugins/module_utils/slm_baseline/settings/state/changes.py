"""Changes: apply, read back, reverse. A list is applied whole or, as far as the kernel allows, not at all."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

from ...host.errors import SettingError, os_problem
from ...host.files import Host


class Change(Protocol):
    """One step from a known state to another; `before` and `after` are text for people and for --diff.

    It is the only way in which anything on a host is set: undoing applies the reverse, a rollback applies the change
    from the found state to the recorded one.
    """

    @property
    def name(self) -> str: ...
    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...
    def apply(self, host: Host) -> None:
        """Set `after`, whatever is there now, and verify it by reading back; OSError or SettingError."""

    def reverse(self) -> Change:
        """Return the change back to `before`."""


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
            change.reverse().apply(host)
        except (OSError, SettingError) as error:
            left.append(f"{change.name} ({error})")
    return left


def described(changes: Sequence[Change]) -> list[dict[str, str]]:
    """Return the changes in the form of a module's result."""
    return [{"knob": change.name, "before": change.before, "after": change.after} for change in changes]


def no_longer_wanted(changes: Sequence[Change], wanted: Container[str]) -> list[Change]:
    """Return the changes that give a knob its prior value back because it is no longer wanted."""
    return [change for change in changes if change.name not in wanted and not change.name.startswith("/")]


def tell_restored(changes: Sequence[Change], when: str) -> str | None:
    """Return a sentence on knobs that are no longer wanted; None for none. `when` is `will be` or `are`."""
    if not changes:
        return None
    values = ", ".join(f"{change.name} ({change.before} -> {change.after})" for change in changes)
    return (
        f"no longer asked for, {when} restored to what the host had before: {values}. "
        "Next: ask for it again where it is to stay."
    )


def diff(changes: Sequence[Change], dropped: Sequence[Change] = ()) -> dict[str, str]:
    """Return Ansible's before/after pair for --diff, one line a knob, file contents indented; marks `dropped` ones."""

    def text(values: list[tuple[str, str]]) -> str:
        return "".join(f"{name}: {_inline(value)}\n" for name, value in values)

    def after(change: Change) -> str:
        return f"{change.after}    (no longer asked for)" if change in dropped else change.after

    return {
        "before": text([(change.name, change.before) for change in changes]),
        "after": text([(change.name, after(change)) for change in changes]),
    }


def _inline(value: str) -> str:
    return value if "\n" not in value else "\n" + "".join(f"    {line}\n" for line in value.splitlines()).rstrip("\n")


def outcome(changes: Sequence[Change], dropped: Sequence[Change] = (), **more: Any) -> dict[str, Any]:
    """Return the result of every setter: changed, changes, dropped ones, diff, and further fields."""
    return {
        "changed": bool(changes),
        "changes": described(changes),
        "dropped": described(dropped),
        "diff": diff(changes, dropped),
        **more,
    }
