"""A target: a unit, a container or a command to start sooner, how to tell that it is ready, where its files are."""

from __future__ import annotations

import hashlib
import json
import math
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..containers.command_line import RUNTIMES
from ..host.errors import SettingError
from ..host.files import Host
from ..host.paths import FIT, TARGETS
from ..host.sizes import is_number
from ..host.systemd import UNITS
from ..host.validate import Option
from .places import DROP_IN, FIT_UNITS, REPLAY_UNITS, RUN_UNITS

READY = ("notify", "port", "url", "exit", "health")
REPLAY = ("together", "ahead", "both", "none")
SWEEP_PREFIX = "slm_sweep"
"""The prefix of targets that a sweep records for itself, until it ends."""
_LAST_PORT = 65535
_LONGEST_S = 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,119}\.service")
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}")
"""What docker and podman take as a container's name."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{16}")


@dataclass(frozen=True)
class Ready:
    """How to tell that a target is ready, one of READY, and its time limit. `at` is a port or a URL."""

    how: str = "exit"
    at: str = ""
    timeout_s: float = 600.0

    def __str__(self) -> str:
        return f"{self.how} {self.at}".strip()

    @property
    def is_asked(self) -> bool:
        """Return whether readiness is checked at an address."""
        return self.how in ("port", "url")


@dataclass(frozen=True)
class Target:
    """One target. Either `unit`, or `container`, or `command` with the `user` it runs as.

    A unit may have a `container` as well: the one that it runs. `runtime` is one of RUNTIMES, or empty to find it.
    `environment` is the command's; one that comes from a record has digests in place of values.
    """

    name: str
    unit: str = ""
    command: tuple[str, ...] = ()
    user: str = ""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ready: Ready = Ready()
    replay: str = "both"
    bytecode: bool = True
    kernels: bool = True
    container: str = ""
    runtime: str = ""

    @property
    def starts(self) -> str:
        """Return the name of what starts, for people."""
        return self.unit or (f"container {self.container}" if self.container else " ".join(self.command[:1]))

    @property
    def folder(self) -> str:
        return f"{TARGETS}/{self.name}"

    @property
    def plan(self) -> str:
        return f"{self.folder}/plan"

    @property
    def pycache(self) -> str:
        """Return the path of the bytecode cache, which belongs to the target's user."""
        return f"{self.folder}/pycache"

    @property
    def kernel_folder(self) -> str:
        """Return the path of the folder for caches of compiled kernels, which belongs to the target's user."""
        return f"{self.folder}/kernels"

    @property
    def given(self) -> str:
        """Return the path of the folder for caches that a container is given, which belongs to the container's user."""
        return f"{self.folder}/given"

    @property
    def override(self) -> str:
        """Return the path of the override file for compose."""
        return f"{self.folder}/compose.yaml"

    @property
    def fit(self) -> str:
        """Return the path of the fit description; there is no cache of any kind without it."""
        return f"{self.folder}/bytecode"

    @property
    def record(self) -> str:
        return f"{self.folder}/target.json"

    @property
    def replay_unit(self) -> str:
        return f"{UNITS}/{REPLAY_UNITS}{self.name}.service"

    @property
    def fit_unit(self) -> str:
        return f"{UNITS}/{FIT_UNITS}{self.name}.service"

    @property
    def fit_environment(self) -> str:
        """Return the file in which the fit unit sets the next start's variable; absent where the cache is stale."""
        return f"{FIT}/{self.name}.env"

    @property
    def boot_link(self) -> str:
        return f"{UNITS}/basic.target.wants/{REPLAY_UNITS}{self.name}.service"

    @property
    def has_boot_link(self) -> bool:
        return bool(self.unit or self.container) and self.replay in ("ahead", "both")

    @property
    def drop_in(self) -> str:
        return f"{UNITS}/{self.unit}.d/{DROP_IN}"

    @property
    def recording_drop_in(self) -> str:
        """Return the path of the drop-in that the unit has while it is recorded. It does not survive a reboot."""
        return f"{RUN_UNITS}/{self.unit}.d/zz-slm-first-token-recording.conf"

    def to_json(self) -> dict[str, Any]:
        """Return the target as it is recorded and compared; of the environment only digests, which may be shown."""
        return {
            "name": self.name,
            "unit": self.unit,
            "command": list(self.command),
            "user": self.user,
            "environment": {key: digest(key, value) for key, value in self.environment},
            "ready": self.ready.how,
            "ready_at": self.ready.at,
            "timeout_s": self.ready.timeout_s,
            "replay": self.replay,
            "bytecode": self.bytecode,
            "kernels": self.kernels,
            "container": self.container,
            "runtime": self.runtime,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Target:
        """Return the target from a record; TypeError, KeyError or ValueError where the document is not valid."""
        values = dict(document)
        values["command"] = tuple(values["command"])
        values["environment"] = tuple(sorted((key, digest(key, value)) for key, value in values["environment"].items()))
        values["ready"] = Ready(values["ready"], values.pop("ready_at"), values.pop("timeout_s"))
        return cls(**values)

    def is_same_as(self, other: Target | None) -> bool:
        """Return whether both ask for the same, as far as a record shows."""
        return other is not None and self.to_json() == other.to_json()


def digest(key: str, value: str) -> str:
    """Return the digest that is stored in place of an environment variable's value, which may be a secret."""
    if _DIGEST.fullmatch(value):
        return value
    return f"sha256:{hashlib.sha256(f'{key}={value}'.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def parse_target(given: Mapping[str, Any]) -> Target:
    """Parse a target from the module's options; SettingError for anything invalid in it."""
    name = parse_name(given["name"])
    if name.startswith(SWEEP_PREFIX):
        raise Option("first_token.name", name).error(
            f"a name that does not begin with {SWEEP_PREFIX}",
            name,
            why="A sweep records starts of its own under such names, and removes them at its end.",
            next_step="choose another name.",
        )
    knob = f"first_token.{name}"
    unit, command = given.get("unit") or "", tuple(str(word) for word in given.get("command") or ())
    container, runtime = given.get("container") or "", given.get("runtime") or ""
    _require_one(knob, unit or container, command, given.get("user") or "")
    if unit:
        _require_unit(knob, unit)
    _require_container(knob, container, runtime, bool(unit))
    return Target(
        name,
        unit,
        command,
        given.get("user") or "",
        tuple(sorted((str(key), str(value)) for key, value in (given.get("environment") or {}).items())),
        parse_ready(f"{knob}.ready", given.get("ready") or {}, bool(unit), bool(container) and not unit),
        given.get("replay") or "both",
        bool(given.get("bytecode", True)),
        bool(given.get("kernels", True)),
        container,
        runtime,
    )


def parse_ready(knob: str, given: Mapping[str, Any], is_unit: bool, is_container: bool = False) -> Ready:
    """Parse how to tell that a target is ready; SettingError for a rule that cannot tell it."""
    how = given.get("type") or ("notify" if is_unit else "health" if is_container else "exit")
    needs = how if how in ("port", "url") else ""
    cannot_tell = (how == "notify" and not is_unit) or (how == "health" and not is_container)
    if (needs and not given.get(needs)) or cannot_tell:
        raise Option(knob, given).error(
            f"a rule that fits {how}",
            json.dumps(dict(given)),
            why="Without it nobody can tell when the start is over, and where the recording ends.",
            next_step="give {type: notify}, {type: port, port: 8000}, {type: url, url: 'http://127.0.0.1:8000/health'}"
            " or {type: exit}; notify needs a unit, and health a container without one.",
        )
    at = str(given[needs]) if needs else ""
    if needs:
        (_require_port if how == "port" else _require_url)(f"{knob}.{how}", at)
    return Ready(how, at, _parse_seconds(f"{knob}.timeout_s", given.get("timeout_s", 600)))


def parse_name(name: object) -> str:
    """Return a target's name, valid as the name of a folder and a unit; SettingError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Option("first_token.name", name).error(
            "letters, digits, dot, underscore and hyphen",
            repr(name)[:80],
            why="It names a folder and a unit.",
            next_step="choose a shorter, plainer name.",
        )
    return name


def recorded_targets(host: Host) -> dict[str, Target | None]:
    """Return the targets that have a folder on this host, by name; None for one whose record cannot be read."""
    found: dict[str, Target | None] = {}
    for name in host.names(TARGETS):
        try:
            found[name] = Target.from_json(json.loads(host.read(f"{TARGETS}/{name}/target.json"))["target"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            found[name] = None
    return found


def _require_one(knob: str, unit: str, command: tuple[str, ...], user: str) -> None:
    """Raise SettingError unless there is either a unit or container, or a whole command with an unprivileged user."""
    if bool(unit) == bool(command):
        raise SettingError(
            knob,
            "a unit, a container or a command",
            "a command beside it" if unit else "none of them",
            "One of them is what starts.",
            "give `unit: NAME.service`, `container: NAME`, or `command: [program, argument]` with `user`.",
        )
    if command and not (user and command[0].startswith("/")):
        raise SettingError(
            f"{knob}.command",
            "an absolute program, and the user it runs as",
            f"{command[0]!r} as {user or 'no user'}",
            "Nothing of a target's runs as root, and no PATH decides which program is meant.",
            "give the program's whole path, and `user`.",
        )


def _require_unit(knob: str, unit: str) -> None:
    if not _UNIT.fullmatch(unit):
        raise Option(f"{knob}.unit", unit).error(
            "the name of a service unit", why="Only services start.", next_step="write NAME.service."
        )


def _require_container(knob: str, container: str, runtime: str, has_unit: bool) -> None:
    """Raise SettingError for no name of a container, and for a runtime that is none or has nothing to run."""
    if container and not _CONTAINER.fullmatch(container):
        raise Option(f"{knob}.container", container).error(
            "a container's name (letters, digits, dot, underscore and hyphen, two at least)",
            repr(container)[:80],
            why="docker and podman take no other.",
            next_step="correct the name, as `docker ps` or `podman ps` has it.",
        )
    if runtime and (runtime not in RUNTIMES or not (container or has_unit)):
        raise Option(f"{knob}.runtime", runtime).error(
            f"{' or '.join(RUNTIMES)}, with `container` or `unit`",
            why="It runs containers.",
            next_step="correct it, or leave it out.",
        )


def _require_port(knob: str, at: str) -> None:
    if not is_number(at) or not 0 < int(at) <= _LAST_PORT:
        raise SettingError(knob, f"a port from 1 to {_LAST_PORT}", at, "No other can be asked.", "correct the number.")


def _require_url(knob: str, at: str) -> None:
    try:
        url = urllib.parse.urlsplit(at)
        is_one = url.scheme == "http" and bool(url.hostname) and (url.port is None or url.port > 0) and at.isprintable()
    except ValueError:
        is_one = False
    if not is_one or " " in at or not at.isascii():
        raise SettingError(
            knob,
            "http://HOST:PORT/PATH",
            repr(at)[:200],
            "It is asked without TLS, as on the host itself.",
            "give such an address, or {type: port, port: ...}, which a service with TLS opens as well.",
        )


def _parse_seconds(knob: str, value: object) -> float:
    """Return how long a start may take, in seconds; SettingError. NaN and infinity would wait for ever."""
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
