"""docker and podman, by their own clients: what they tell of a container and an image, starting and stopping one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..host.deadline import Deadline
from ..host.errors import ParseError, SettingError
from ..host.files import Host
from ..host.trust import find_program, run_trusted, walk_path, weakness
from .command_line import RUNTIMES

ASK_S = 30.0
_LOOK_AGAIN_S = 0.05
LAYERED = ("overlay2", "overlay", "overlayfs")
"""Storage drivers whose layers are folders of the host, whose files all containers of an image share."""
_UNIX = "unix://"
_SOCKET = f"{_UNIX}/var/run/docker.sock"


@dataclass(frozen=True)
class Mounted:
    """A volume or a bind mount of a container, as the runtime tells it."""

    kind: str
    source: str
    destination: str
    name: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Return whether it is a volume that no other container gets: its name is a digest."""
        return self.kind == "volume" and len(self.name) == 64


@dataclass(frozen=True)
class Container:
    """One container. `image_id` is the image's digest, `image` the name under which it was asked for.

    `pid` is that of its first process as the host numbers it, 0 where it does not run.

    `health` is empty where no health check has run. `lower` are the layers that the runtime names, `folder` is
    where its own layer and its overlay are.
    """

    id: str
    name: str
    image: str
    image_id: str
    status: str = ""
    exit_code: int = 0
    pid: int = 0
    health: str = ""
    has_health_check: bool = False
    driver: str = ""
    is_removed_when_stopped: bool = False
    lower: tuple[str, ...] = ()
    folder: str = ""
    mounts: tuple[Mounted, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def runs(self) -> bool:
        return self.status in ("running", "restarting")


def parse_container(text: str) -> Container:
    """Parse the answer of `docker inspect` or `podman inspect` for one container; ParseError for any other text."""
    try:
        (document,) = json.loads(text)
        state, driver = document["State"], document.get("GraphDriver") or {}
        data = driver.get("Data") or {}
        return Container(
            id=str(document["Id"]),
            name=str(document["Name"]).lstrip("/"),
            # podman has the name there, and docker in the configuration.
            image=str(document.get("ImageName") or document["Config"]["Image"]),
            image_id=_digest(document["Image"]),
            status=str(state["Status"]),
            exit_code=int(state.get("ExitCode") or 0),
            pid=int(state.get("Pid") or 0),
            health=_health(state),
            has_health_check=_has_health_check(document["Config"]),
            driver=str(driver.get("Name") or document.get("Driver") or ""),
            is_removed_when_stopped=bool((document.get("HostConfig") or {}).get("AutoRemove")),
            lower=tuple(filter(None, str(data.get("LowerDir") or "").split(":"))),
            folder=str(data.get("UpperDir") or "").rpartition("/")[0],
            mounts=tuple(_mounted(mount) for mount in document.get("Mounts") or []),
            labels=tuple((str(key), str(value)) for key, value in (document["Config"].get("Labels") or {}).items()),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ParseError("container inspect", "a list of one container", text, "update the runtime.") from None


@dataclass(frozen=True)
class Image:
    """An image that a runtime has: its digest, its storage driver, and its layers' folders, the topmost first.

    `layers` is empty where the runtime does not tell them, as docker with containerd's image store.
    """

    digest: str
    driver: str = ""
    layers: tuple[str, ...] = ()

    @property
    def is_layered(self) -> bool:
        """Return whether its layers are folders of the host, whose pages all containers of it share."""
        return self.driver in LAYERED


def parse_image(text: str) -> Image:
    """Parse the answer of `image inspect`; ParseError for any other text."""
    try:
        (document,) = json.loads(text)
        driver = document.get("GraphDriver") or {}
        data = driver.get("Data") or {}
        folders = f"{data.get('UpperDir') or ''}:{data.get('LowerDir') or ''}".split(":")
        layers = tuple(folder for folder in folders if folder.startswith("/"))
        return Image(_digest(document["Id"]), str(driver.get("Name") or ""), layers)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ParseError("image inspect", "a list of one image", text, "update the runtime.") from None


def _digest(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError
    return value if ":" in value else f"sha256:{value}"


def _health(state: Mapping[str, Any]) -> str:
    """Return the state of the health check. podman calls it `Healthcheck` in some releases, and leaves it empty."""
    found = state.get("Health") or state.get("Healthcheck") or {}
    status = str(found.get("Status") or "")
    return "" if status == "none" else status


def _has_health_check(config: Mapping[str, Any]) -> bool:
    test = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    return bool(test[0] != "NONE")


def _mounted(document: Mapping[str, Any]) -> Mounted:
    kind, source = str(document.get("Type") or ""), str(document.get("Source") or "")
    return Mounted(kind, source, str(document.get("Destination") or ""), str(document.get("Name") or ""))


@dataclass(frozen=True)
class Runtime:
    """A runtime of this host: its client's path, and for docker the daemon's address (a socket)."""

    name: str
    program: str
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return the client's environment: no context or setting of a user leads it to another daemon."""
        told = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        return {**told, "DOCKER_HOST": self.address} if self.address else told

    def call(self, *words: str, timeout_s: float = ASK_S) -> subprocess.CompletedProcess[str]:
        """Run the client once; a timeout or a client that cannot run gives a status other than 0, with the reason."""
        late = f"{self.name} did not answer within {timeout_s:.0f} seconds"
        return run_trusted([self.program, *words], self.environment, timeout_s, late)

    @property
    def asks_version(self) -> list[str]:
        """Return the arguments with which the client asks whether the runtime answers."""
        return ["version", "--format", "{{.Server.Version}}" if self.name == "docker" else "{{.Version}}"]

    def answers(self) -> str:
        """Return why the runtime does not answer; empty where it does."""
        done = self.call(*self.asks_version)
        return said(done) if done.returncode else ""

    def is_rootless(self) -> bool:
        told = self._security()
        return "rootless" in told or told == "true"

    def renumbers_users(self) -> bool:
        """Return whether the daemon gives its containers other user ids than the host's (userns-remap)."""
        return "name=userns" in self._security()

    def _security(self) -> str:
        form = "{{.SecurityOptions}}" if self.name == "docker" else "{{.Host.Security.Rootless}}"
        return self.call("info", "--format", form).stdout.strip()

    def find_labelled(self, label: str) -> list[str] | None:
        """Return the ids of the containers that have a label (`KEY` or `KEY=VALUE`); None if it does not answer."""
        done = self.call("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}")
        return None if done.returncode else done.stdout.split()

    def remove_labelled(self, label: str, deadline: Deadline) -> bool:
        """Kill and remove the containers that have a label; return False where some may be left at the deadline."""
        while True:
            found = self.find_labelled(label)
            if found == []:
                return True
            if deadline.is_over:
                return False
            if found:
                # One that is being removed already is an error, and gone at the next look.
                self.call("rm", "--force", "--volumes", "--", *found)
            time.sleep(_LOOK_AGAIN_S)

    def container(self, name: str) -> Container | None:
        """Return the container of that name; None where there is none. ParseError for an answer of another form."""
        done = self.call("container", "inspect", "--", name)
        return parse_container(done.stdout) if not done.returncode else None

    def image(self, name: str) -> Image | None:
        """Return the image that has this name now; None where there is none."""
        done = self.call("image", "inspect", "--", name)
        return parse_image(done.stdout) if not done.returncode else None


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the first line of what a client said of its failure, bounded."""
    return next(iter(done.stderr.strip().splitlines()), "no word")[:300]


def find_runtime(host: Host, knob: str, name: str, address: str = "") -> Runtime:
    """Return a runtime of that name that answers; SettingError where it is missing, silent, or a user's own."""
    program = find_program(host, name)
    if program is None:
        raise _unavailable(knob, name, f"no {name} that only root can write")
    runtime = Runtime(name, program, daemon_address(host, f"{knob}.runtime", address) if name == "docker" else "")
    reason = runtime.answers()
    if reason:
        raise _unavailable(knob, name, reason)
    if runtime.is_rootless():
        raise SettingError(
            f"{knob}.runtime",
            f"{name} of root",
            "a rootless one",
            "Its layers lie in a home, and its overlay is mounted where only its user's processes see it.",
            "run the service by root's runtime, or leave this target out; nothing was stopped or changed.",
        )
    return runtime


def find_by_container(host: Host, knob: str, container: str, runtime: str = "") -> tuple[Runtime, Container]:
    """Return the runtime that has this container, and the container; SettingError where none has it, or both."""
    found: list[tuple[Runtime, Container]] = []
    silent: list[SettingError] = []
    for name in [runtime] if runtime else [each for each in RUNTIMES if find_program(host, each)]:
        try:
            known = find_runtime(host, knob, name)
        except SettingError as error:
            silent.append(error)
            continue
        one = known.container(container)
        if one:
            found.append((known, one))
    if len(found) == 1:
        return found[0]
    if not found and silent:
        raise silent[0]
    if not found:
        raise SettingError(
            f"{knob}.container",
            f"{container}, known to {runtime or ' or '.join(RUNTIMES)}",
            "no such container" if runtime or any(find_program(host, each) for each in RUNTIMES) else "no runtime",
            "A container is started by its name. Those of a user's rootless runtime are not supported.",
            "correct the name; where a unit makes the container at each start, give `unit` as well."
            " Nothing was stopped or changed.",
        )
    raise SettingError(
        f"{knob}.container",
        "one container of that name",
        f"{container} in docker and in podman",
        "Nobody can tell which of them is meant.",
        "give `runtime: docker` or `runtime: podman`; nothing was stopped or changed.",
    )


def require_layers(knob: str, container: Container) -> None:
    """Raise SettingError where the image's layers are no folders of the host that containers share."""
    if container.driver not in LAYERED:
        raise SettingError(
            f"{knob}.container",
            f"layers in folders ({', '.join(LAYERED)})",
            f"the storage driver {container.driver or 'of another kind'}",
            "Its containers have copies or snapshots of their own, so no file of a plan would serve the next one.",
            "set the runtime's storage driver to overlay; nothing was stopped or changed.",
        )


def daemon_address(host: Host, knob: str, address: str = "") -> str:
    """Return the daemon's socket: the recorded one, the environment's, or the usual one.

    SettingError for no socket, and for one that another user could have put there: a daemon of his tells what he likes.
    """
    address = address or os.environ.get("DOCKER_HOST") or _SOCKET
    if not is_address(address):
        raise SettingError(
            knob,
            "a docker daemon of this host (unix://...)",
            repr(address)[:200],
            "Only this host's files can be read ahead.",
            "run this on the daemon's host, or unset DOCKER_HOST; nothing was stopped or changed.",
        )
    weak = find_socket_weakness(host, address)
    if weak:
        raise SettingError(
            knob,
            "docker of root",
            f"a daemon of another user: {weak}",
            "Root asks no daemon of a user what to read: a rootless one's layers lie in his home.",
            "run the service by root's docker, or leave this target out; nothing was stopped or changed.",
        )
    return address


def find_socket_weakness(host: Host, address: str) -> str:
    """Return how another user could answer at this socket, in words; empty where only root can, or nobody does.

    Its group may write to it: whoever may ask root's docker is root in effect, and does not answer for it.
    """
    path = address[len(_UNIX) :]
    try:
        way = walk_path(host, path)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    steps = [replace(step, mode=step.mode & ~0o022) if stat.S_ISSOCK(step.mode) else step for step in way.steps]
    # A test's tree belongs to the user who runs the test.
    return weakness(replace(way, steps=tuple(steps)), (0,) if host.is_live else (0, os.geteuid())) or ""


def find_recorded_runtime(host: Host, name: str, address: str) -> Runtime | None:
    """Return the runtime that a record of ours names; None where it is not here, or another user could answer for it.

    What a record says was checked when it was written; who could put a socket there may have changed since.
    """
    program = find_program(host, name) if name in RUNTIMES else None
    if program is None or (address and (not is_address(address) or find_socket_weakness(host, address))):
        return None
    return Runtime(name, program, address)


def is_address(address: str) -> bool:
    """Return whether this is the address of a socket on this host."""
    return address.startswith(f"{_UNIX}/") and address.isprintable() and " " not in address


def _unavailable(knob: str, name: str, found: str) -> SettingError:
    return SettingError(
        f"{knob}.runtime",
        f"{name}, which answers",
        found,
        "It knows which layers a container has.",
        f"start {name}, or correct `runtime`; nothing was stopped or changed.",
    )


def require_startable(knob: str, container: Container, health: bool) -> None:
    """Raise SettingError where the container cannot be stopped and started by its name, or cannot tell its health."""
    problem: Sequence[str] = ()
    if container.is_removed_when_stopped:
        problem = (
            "a container that is there after it was stopped",
            "one that is removed then (--rm)",
            "A start is recorded from a stop on.",
            "give the unit that makes it as `unit`, with this container, or make it without --rm;",
        )
    elif container.status in ("paused", "dead", "removing", "restarting"):
        problem = (
            "a container that runs or is stopped",
            container.status,
            "It must be as before afterwards.",
            "unpause or repair it;",
        )
    elif health and not container.has_health_check:
        problem = (
            "a container with a health check",
            f"{container.name} without one",
            "Without it nobody can tell when the start is over.",
            "give ready: {type: port, port: ...}, {type: url, url: ...} or {type: exit};",
        )
    if problem:
        wanted, found, why, next_step = problem
        raise SettingError(f"{knob}.container", wanted, found, why, f"{next_step} nothing was stopped or changed.")
