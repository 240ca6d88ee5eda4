"""What is to start sooner: a systemd unit or a command, how to tell that it is ready, and where its files are."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host
from ..host.paths import TARGETS
from ..host.sizes import is_number
from ..host.systemd import UNITS

READY = ("notify", "port", "url", "exit")
REPLAY = ("together", "ahead", "both", "none")
SWEEP_PREFIX = "slm_sweep"
"""Names that begin so are a sweep's: what it records for itself, until it ends."""
_LAST_PORT = 65535
_LONGEST_S = 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,120}\.service")


@dataclass(frozen=True)
class Target:
    """One target. Either `unit`, or `command` with the `user` it runs as. `ready_at` is a port or a URL."""

    name: str
    unit: str = ""
    command: tuple[str, ...] = ()
    user: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    ready: str = "exit"
    ready_at: str = ""
    timeout_s: float = 600.0
    replay: str = "both"
    bytecode: bool = True

    @property
    def folder(self) -> str:
        return f"{TARGETS}/{self.name}"

    @property
    def plan(self) -> str:
        return f"{self.folder}/plan"

    @property
    def pycache(self) -> str:
        return f"{self.folder}/pycache"

    @property
    def record(self) -> str:
        return f"{self.folder}/target.json"

    @property
    def replay_unit(self) -> str:
        return f"{UNITS}/slm-first-token-{self.name}.service"

    @property
    def boot_link(self) -> str:
        return f"{UNITS}/basic.target.wants/slm-first-token-{self.name}.service"

    @property
    def has_boot_link(self) -> bool:
        return bool(self.unit) and self.replay in ("ahead", "both")

    @property
    def drop_in(self) -> str:
        return f"{UNITS}/{self.unit}.d/slm-first-token.conf"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "command": list(self.command), "environment": dict(self.environment)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Target:
        """TypeError, KeyError or ValueError for a document that is none of ours."""
        values = dict(document)
        values["command"] = tuple(values["command"])
        values["environment"] = tuple(sorted(values["environment"].items()))
        return cls(**values)


def parse_target(given: Mapping[str, Any]) -> Target:
    """A target from the module's options; SettingError for anything odd in it."""
    name = parse_name(given["name"])
    if name.startswith(SWEEP_PREFIX):
        raise SettingError(
            "first_token.name",
            f"a name that does not begin with {SWEEP_PREFIX}",
            name,
            "A sweep records starts of its own under such names, and removes them at its end.",
            "choose another name.",
        )
    knob = f"first_token.{name}"
    unit, command = given.get("unit") or "", tuple(given.get("command") or ())
    ready = given.get("ready") or {}
    how = ready.get("type") or ("notify" if unit else "exit")
    at = str(ready.get("port") or ready.get("url") or "")
    if bool(unit) == bool(command):
        raise SettingError(
            knob,
            "a unit or a command",
            "both" if unit else "neither",
            "One of them is what starts.",
            "give `unit: NAME.service`, or `command: [program, argument]` with `user`.",
        )
    if unit and not _UNIT.fullmatch(unit):
        raise SettingError(
            f"{knob}.unit", "the name of a service unit", repr(unit), "Only services start.", "write NAME.service."
        )
    if command and not (given.get("user") and str(command[0]).startswith("/")):
        raise SettingError(
            f"{knob}.command",
            "an absolute program, and the user it runs as",
            f"{command[0]!r} as {given.get('user') or 'nobody in particular'}",
            "Nothing of a target's runs as root, and no PATH decides which program is meant.",
            "give the program's whole path, and `user`.",
        )
    needs = {"port": "port", "url": "url"}.get(how)
    if (needs and not ready.get(needs)) or (how == "notify" and not unit) or (how == "exit" and unit and needs):
        raise SettingError(
            f"{knob}.ready",
            f"a rule that fits {how}",
            json.dumps(ready),
            "Without it nobody can tell when the start is over, and where the recording ends.",
            "give {type: notify}, {type: port, port: 8000}, {type: url, url: 'http://127.0.0.1:8000/health'} or"
            " {type: exit}; notify needs a unit.",
        )
    return Target(
        name,
        unit,
        tuple(str(word) for word in command),
        given.get("user") or "",
        tuple(sorted((str(key), str(value)) for key, value in (given.get("environment") or {}).items())),
        how,
        _address(f"{knob}.ready", how, at) if needs else "",
        _seconds(f"{knob}.ready.timeout_s", ready.get("timeout_s", 600)),
        given.get("replay") or "both",
        bool(given.get("bytecode", True)),
    )


def _address(knob: str, how: str, at: str) -> str:
    """A port or URL that can be asked; SettingError."""
    if how == "port":
        if not is_number(at) or not 0 < int(at) <= _LAST_PORT:
            raise SettingError(
                f"{knob}.port", f"a port from 1 to {_LAST_PORT}", at, "No other can be asked.", "correct the number."
            )
        return at
    try:
        url = urllib.parse.urlsplit(at)
        is_one = url.scheme == "http" and bool(url.hostname) and (url.port is None or url.port > 0) and at.isprintable()
    except ValueError:
        is_one = False
    if not is_one or " " in at:
        raise SettingError(
            f"{knob}.url",
            "http://HOST:PORT/PATH",
            repr(at)[:200],
            "It is asked without TLS, as on the host itself.",
            "give such an address, or {type: port, port: ...}, which a service with TLS opens as well.",
        )
    return at


def _seconds(knob: str, value: object) -> float:
    """How long a start may take, in seconds; SettingError. NaN never ends a wait, and infinity makes it one."""
    try:
        seconds = 600.0 if value is None else float(str(value))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_S:
        raise SettingError(
            knob,
            f"seconds, more than 0 and at most {_LONGEST_S:g}",
            str(value),
            "The recording waits so long for the start.",
            "correct the number.",
        )
    return seconds


def parse_name(name: object) -> str:
    """A target's name: what a folder and a unit can be called; SettingError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SettingError(
            "first_token.name",
            "letters, digits, dot, underscore and hyphen",
            repr(name)[:80],
            "It names a folder and a unit.",
            "choose a shorter, plainer name.",
        )
    return name


def recorded_targets(host: Host) -> dict[str, Target | None]:
    """The targets that this host has, by name; None for one whose record cannot be read."""
    found: dict[str, Target | None] = {}
    for name in host.names(TARGETS):
        try:
            found[name] = Target.from_json(json.loads(host.read(f"{TARGETS}/{name}/target.json"))["target"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            found[name] = None
    return found
