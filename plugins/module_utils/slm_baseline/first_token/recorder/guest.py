"""The container in which a target runs: started by its name, or made anew by a unit at each start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...containers.command_line import RUNTIMES, ContainerCommand, find_command
from ...containers.image import image_facts
from ...containers.remade import remade_notes, seconds_notes
from ...containers.runtime import (
    Container,
    Runtime,
    find_by_container,
    find_runtime,
    require_layers,
    require_startable,
)
from ...host.errors import SettingError
from ...host.files import Host
from ...host.trust import find_program
from ..target import Target
from .container import Started
from .members import Belongs, ContainerMembers, may_listen_for, running_containers, users_of_container
from .owner import Owner, find_owner
from .record import Recording
from .unit import Unit


@dataclass(frozen=True)
class Guest:
    """A container by its name. `started` is set where the target starts it itself; otherwise a unit makes it."""

    knob: str
    runtime: Runtime
    name: str
    started: Started | None = None
    owners: list[Owner] = field(default_factory=list, compare=False, repr=False)
    """The user as whom each recorded start ran, the latest last."""

    def look(self) -> Container | None:
        """Find the container while its start is recorded, and see whose it is."""
        found = self.find()
        if found and found.runs:
            self.owners.append(find_owner(found.id))
        return found

    def find(self) -> Container | None:
        """Ask the runtime for the container as it is now; None where there is none at the moment."""
        return self.runtime.container(self.name)

    def members(self, unit: Belongs | None = None) -> ContainerMembers:
        """Return the test for the target's processes: those of new containers, and of the unit."""
        own = self.find()
        return ContainerMembers(running_containers() - {own.id if own else ""}, unit)

    def users(self) -> list[int]:
        """Return the users of the processes in the container."""
        found = self.find()
        return users_of_container(found.id) if found and found.runs else []

    def may_listen(self, pid: int) -> bool:
        """Return whether a process may listen in the container's place: one of another container may not."""
        found = self.find()
        return may_listen_for(found.id if found else "")(pid)

    def require_stopped(self) -> None:
        """Raise SettingError where the container still runs although its unit was stopped."""
        found = self.find()
        if found and found.runs:
            raise SettingError(
                f"{self.knob}.container",
                f"{self.name}, stopped with its unit",
                "it still runs",
                "A start can be recorded from the beginning only.",
                f"have the unit stop it (ExecStop={self.runtime.program} stop {self.name}).",
            )

    def complete(self, recording: Recording) -> Recording:
        """Return the recording with the image in its plan; SettingError where its files are out of reach."""
        container = recording.container
        if container is None:
            raise SettingError(
                f"{self.knob}.container",
                f"{self.name}, made by the unit's start",
                "no such container when it was ready",
                "What lies in its image is found by its layers.",
                "correct `container`, or give the unit's command a --name.",
            )
        require_layers(self.knob, container)
        if recording.placed.drivers:
            raise SettingError(
                f"{self.knob}.container",
                "layers in folders (overlay)",
                f"an image on {', '.join(recording.placed.drivers)}",
                "Its files are served by a program, so nobody can tell which files of the host they are.",
                "let the kernel mount the overlay (storage.conf without mount_program).",
            )
        facts = {**recording.plan.facts, **image_facts(self.runtime, container, is_remade=self.started is None)}
        return replace(recording, plan=replace(recording.plan, facts=facts))

    def notes(self, target: Target, recording: Recording, compiled: int, given: Sequence[str] = ()) -> list[str]:
        """Return what a user should know of the container's start, `compiled` modules without bytecode among it.

        `given` says it of caches that it is given; `recording` is that of a start without them.
        """
        placed, container = recording.placed, recording.container
        image = container.image if container else "its image"
        return [
            f"container: {placed.in_layers} of {placed.from_image} files that were opened from {image} were found in"
            " its layers.",
            *(
                [*given, *seconds_notes(placed.written)]
                if given
                else remade_notes(target.name, placed.written, compiled)
            ),
        ]


def find_guest(host: Host, target: Target, unit: Unit | None) -> Guest | None:
    """Return the container in which a target runs; None for a target of the host itself. SettingError. Changes nothing.

    A unit that runs docker or podman is recognised by its command, or named with its container.
    """
    knob = f"first_token.{target.name}"
    if unit is None:
        if not target.container:
            return None
        runtime, found = find_by_container(host, knob, target.container, target.runtime)
        require_layers(knob, found)
        require_startable(knob, found, target.ready.how == "health")
        return Guest(knob, runtime, found.name, Started(runtime, found))
    command = find_command(unit.fact("ExecStartEx"))
    if command is None and not target.container:
        return None
    name = target.container or (command.name if command else "")
    _require_name(knob, unit, name)
    runtime = find_runtime(host, knob, target.runtime or _runtime_of(host, knob, command))
    _require_root(knob, runtime, unit)
    guest = Guest(knob, runtime, name)
    now = guest.find()
    if now:
        require_layers(knob, now)
    return guest


def _runtime_of(host: Host, knob: str, command: ContainerCommand | None) -> str:
    if command:
        return command.runtime
    found = [name for name in RUNTIMES if find_program(host, name)]
    if len(found) == 1:
        return found[0]
    raise SettingError(
        f"{knob}.runtime",
        "docker or podman",
        "both on this host" if found else "neither on this host",
        "The unit's command does not tell which one it uses.",
        "give `runtime: docker` or `runtime: podman`; nothing was stopped or changed.",
    )


def _require_name(knob: str, unit: Unit, name: str) -> None:
    if not name:
        raise SettingError(
            f"{knob}.container",
            "the name of the container",
            f"{unit.name}, whose command names none",
            "Its image and its processes are found by it.",
            "give `container: NAME` (compose names it PROJECT-SERVICE-1), or --name in the unit's command;"
            " nothing was stopped or changed.",
        )


def _require_root(knob: str, runtime: Runtime, unit: Unit) -> None:
    """Raise SettingError for podman in a unit of another user: its storage and its overlay are that user's own."""
    if runtime.name == "podman" and unit.user not in ("", "root", "0"):
        raise SettingError(
            f"{knob}.unit",
            "podman of root",
            f"{unit.name}, which runs it as {unit.user}",
            "A rootless container's layers lie in a home, and its overlay is mounted where only its processes see it.",
            "run the service by root's podman, or leave this target out; nothing was stopped or changed.",
        )
