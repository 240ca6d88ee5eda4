"""Unit files and their drop-ins, found the way systemd finds them: systemd.unit(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .conflict import Scanner

_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
"""The unit folders, in order of precedence."""
_NO_BOOT = frozenset(
    f"{name}.target"
    for name in [
        "rescue",
        "emergency",
        "shutdown",
        "reboot",
        "poweroff",
        "halt",
        "kexec",
        "exit",
        "umount",
        "final",
        "soft-reboot",
        "factory-reset",
        "sleep",
        "suspend",
        "hibernate",
        "hybrid-sleep",
        "suspend-then-hibernate",
        "system-update",
        "initrd",
        "ctrl-alt-del",
    ]
)
"""Targets that no ordinary boot reaches: systemd.special(7)."""


class UnitFiles:
    """The unit folders; each is listed once."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._names = {folder: scanner.host.names(folder) for folder in _FOLDERS}
        self._known = {folder: frozenset(names) for folder, names in self._names.items()}
        self._sizes: dict[str, int | None] = {}
        self._started: dict[str, bool] | None = None

    def files(self, suffix: str) -> Iterator[tuple[str, str]]:
        """Yield every unit of a type, by name and path."""
        for folder, names in self._names.items():
            yield from ((name, f"{folder}/{name}") for name in names if name.endswith(suffix))

    def path(self, name: str) -> str | None:
        """Return the unit file that systemd uses: the one in the first folder that has it; None for a masked one."""
        for path in self._candidates(name):
            size = self._size(path)
            if size is not None:
                return path if size else None
        return None

    def is_masked(self, name: str) -> bool:
        """Return whether the first file of that name is empty or leads to nothing, so that the unit never starts."""
        return any(self._size(path) == 0 for path in self._candidates(name)[:1])

    def _candidates(self, name: str) -> list[str]:
        return [f"{folder}/{name}" for folder, known in self._known.items() if name in known]

    def _size(self, path: str) -> int | None:
        """Return a unit file's size; 0 for one that masks: empty, or a link to /dev/null; None where it is missing."""
        if path not in self._sizes:
            resolved = self._scanner.resolve(path)
            try:
                at = self._scanner.host.name(resolved)
                self._sizes[path] = 0 if resolved == "/dev/null" else os.stat(at).st_size
            except OSError:
                self._sizes[path] = None
        return self._sizes[path]

    def drop_ins(self, unit: str) -> list[str]:
        """Return a unit's drop-ins: its own, those of its name's prefixes up to a dash, and those of its type.

        Sorted by file name; one in an earlier folder hides one of the same name.
        """
        stem, _, kind = unit.rpartition(".")
        parts = stem.split("-")
        owners = [unit, *(f"{'-'.join(parts[:count])}-.{kind}" for count in range(1, len(parts))), kind]
        known = self._known.items()
        folders = [f"{folder}/{owner}.d" for owner in owners for folder, names in known if f"{owner}.d" in names]
        chosen: dict[str, str] = {}
        for folder in folders:
            for name in self._scanner.host.names(folder):
                if name.endswith(".conf"):
                    chosen.setdefault(name, f"{folder}/{name}")
        return [chosen[name] for name in sorted(chosen) if not self._scanner.is_masked(chosen[name])]

    def started(self) -> dict[str, bool]:
        """Return the services that are enabled, by any name, and those that enabled timers, paths and sockets start.

        The value is whether a boot starts it for certain: one that only a suspend or a rescue shell wants is not,
        nor is one that waits for a path or a connection.
        """
        if self._started is None:
            self._started = self._find_started()
        return self._started

    def _find_started(self) -> dict[str, bool]:
        enabled: dict[str, bool] = {}
        for folder, names in self._names.items():
            for wants in names:
                if wants.endswith((".wants", ".requires")):
                    at_boot = not self._is_left_out(wants.rpartition(".")[0])
                    for name in self._scanner.host.names(f"{folder}/{wants}"):
                        # A link that enables an alias leads to the real unit.
                        for one in {name, self._link_name(f"{folder}/{wants}/{name}")} - {""}:
                            enabled[one] = enabled.get(one, False) or at_boot
        for name, at_boot in list(enabled.items()):
            path = self.path(name)
            alias = self._link_name(path) if path else ""
            if alias:
                enabled[alias] = enabled.get(alias, False) or at_boot
        for name, at_boot in list(enabled.items()):
            if name.endswith((".timer", ".path", ".socket")) and not self.is_masked(name):
                for started in self._started_by(name):
                    enabled[started] = enabled.get(started, False) or (at_boot and name.endswith(".timer"))
        return {
            name: at_boot
            for name, at_boot in enabled.items()
            if name.endswith(".service") and "@." not in name and not self.is_masked(name)
        }

    def _started_by(self, name: str) -> list[str]:
        """Return what a timer, path or socket starts: the unit that it names, else the service of its own name."""
        path = self.path(name)
        lines = [text.partition("=") for _, text in self._scanner.lines(path)] if path else []
        named = [value.strip() for key, _, value in lines if key.strip() in ("Unit", "Service")]
        return named or [f"{name.rpartition('.')[0]}.service"]

    def _is_left_out(self, target: str) -> bool:
        if target != "graphical.target":
            return target in _NO_BOOT
        default = next(
            (f"{folder}/default.target" for folder, known in self._known.items() if "default.target" in known), ""
        )
        return self._link_name(default) == "multi-user.target"

    def _link_name(self, path: str) -> str:
        try:
            name = os.path.basename(os.readlink(self._scanner.host.name(path)))
        except OSError:
            return ""
        return "" if name == "null" else name


def conditions_hold(scanner: Scanner, conditions: list[tuple[str, str]]) -> bool | None:
    """Return whether a boot finds the conditions fulfilled; None where only systemd can tell."""
    holds: bool | None = True
    for key, value in conditions:
        if key.endswith("PathExists") and not value.startswith("|") and "%" not in value:
            if scanner.host.exists(value.lstrip("!")) is value.startswith("!"):
                return False
        else:
            holds = None
    return holds
