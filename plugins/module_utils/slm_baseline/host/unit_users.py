"""Units that need another unit: they stop with it, or do not start without it (systemd.unit(5))."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .files import Host
from .systemd import UNITS, mount_unit, systemd_runs

_FOLDERS = (UNITS, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_LINE = re.compile(r"\s*(?P<how>BindsTo|Requires|Requisite|RequiresMountsFor)\s*=(?P<names>.*)")
_ASKED = {"BoundBy": "BindsTo", "RequiredBy": "Requires", "RequisiteOf": "Requisite"}


@dataclass(frozen=True)
class UnitUser:
    """A unit that needs another; `how` is the directive, `source` its `path:line`, or `systemd` if that reported it."""

    name: str
    how: str
    source: str

    @property
    def is_bound(self) -> bool:
        """Return whether it stops as soon as the other unit is gone, for whatever reason."""
        return self.how == "BindsTo"

    def __str__(self) -> str:
        return f"{self.name} ({self.how}=, {self.source})"


def users_of_mount(host: Host, path: str) -> list[UnitUser]:
    """Return the units that need the mount at a path: by their files, and by what a running systemd knows."""
    unit = mount_unit(path)
    found = {user.name: user for user in _written(host, unit, path)}
    for user in _known(host, unit):
        found.setdefault(user.name, user)
    return [user for name, user in sorted(found.items()) if name != unit]


def _written(host: Host, unit: str, path: str) -> Iterator[UnitUser]:
    for folder in _FOLDERS:
        for name in host.names(folder):
            owner, _, drop_in = name.rpartition(".d")
            files = [f"{folder}/{name}/{one}" for one in host.names(f"{folder}/{name}") if one.endswith(".conf")]
            for file in files if owner and not drop_in else [f"{folder}/{name}"]:
                for number, line in enumerate((host.read_or_none(file) or "").splitlines(), 1):
                    match = _LINE.match(line)
                    if match and _names(match["how"], match["names"].split(), unit, path):
                        how = "Requires" if match["how"] == "RequiresMountsFor" else match["how"]
                        yield UnitUser(owner if owner and not drop_in else name, how, f"{file}:{number}")


def _names(how: str, words: list[str], unit: str, path: str) -> bool:
    if how == "RequiresMountsFor":
        return any(f"{os.path.normpath(word)}/".startswith(f"{path}/") for word in words if word.startswith("/"))
    return unit in words


def _known(host: Host, unit: str) -> Iterator[UnitUser]:
    text = _ask(host, "show", f"--property={','.join(_ASKED)}", "--", unit)
    for line in text.splitlines():
        name, _, units = line.partition("=")
        for user in units.split():
            if name in _ASKED:
                yield UnitUser(user, _ASKED[name], "systemd")


def bound_services(host: Host, path: str) -> list[str]:
    """Return the running units that stop as soon as the mount at a path is gone."""
    if not (host.is_live and systemd_runs(host)):
        return []
    return [user.name for user in users_of_mount(host, path) if user.is_bound and is_active(host, user.name)]


def start_again(host: Host, units: Sequence[str]) -> list[str]:
    """Start units once the mount that they are bound to is back; return those that do not run then."""
    for unit in units:
        _ask(host, "start", "--", unit)
    return [unit for unit in units if not is_active(host, unit)]


def is_active(host: Host, unit: str) -> bool:
    """Return whether a running systemd has the unit started; False where systemd does not run."""
    return _ask(host, "show", "--property=ActiveState", "--", unit).strip() in (
        "ActiveState=active",
        "ActiveState=activating",
        "ActiveState=reloading",
    )


def _ask(host: Host, *arguments: str) -> str:
    """Return systemctl's output; "" where systemd does not run, or does not answer within a minute."""
    if not (host.is_live and systemd_runs(host)):
        return ""
    from .trust import find_program

    systemctl = find_program(host, "systemctl")
    if systemctl is None:
        return ""
    try:
        done = subprocess.run(
            [systemctl, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
