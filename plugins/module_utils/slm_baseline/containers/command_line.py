"""Whether a unit's command runs a container, and which: `docker run --name NAME`, `podman start NAME`, a Quadlet's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RUNTIMES = ("docker", "podman")
_ARGUMENTS = re.compile(r"argv\[\]=(.*?) ; ")
_MAKES = ("run", "create")
_STARTS = ("start", "restart")
_TAKES_A_VALUE = (
    "--host",
    "-H",
    "--context",
    "-c",
    "--config",
    "--log-level",
    "-l",
    "--detach-keys",
    "--root",
    "--runroot",
)
"""Options before a subcommand, or of `start`, that have their value in the next word."""


@dataclass(frozen=True)
class ContainerCommand:
    """A command of docker or podman in a unit; `name` is empty where it names no container."""

    runtime: str
    name: str = ""


def find_command(exec_start: str) -> ContainerCommand | None:
    """Return what the unit runs, from systemd's `ExecStart` property (one command a line); None for no container."""
    found = [command for words in _commands(exec_start) for command in [parse_command(words)] if command]
    return next((command for command in found if command.name), found[0] if found else None)


def parse_command(words: Sequence[str]) -> ContainerCommand | None:
    """Return the container that a command line runs or starts; None for any other program."""
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    if program in ("docker-compose", "podman-compose"):
        return ContainerCommand(program.partition("-")[0])
    if program not in RUNTIMES:
        return None
    plain = _without_options(words[1:])
    verb, *rest = plain or [""]
    if verb == "container" and rest:
        verb, *rest = _without_options(rest)
    if verb in _MAKES:
        return ContainerCommand(program, _named(rest))
    if verb in _STARTS:
        return ContainerCommand(program, next(iter(_without_options(rest)), ""))
    return ContainerCommand(program) if verb == "compose" else None


def _commands(text: str) -> Iterator[list[str]]:
    for found in _ARGUMENTS.finditer(text):
        yield found[1].split()


def _without_options(words: Sequence[str]) -> list[str]:
    """Return the words from the first one on that is no option, nor the value of one."""
    left = list(words)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        if word in _TAKES_A_VALUE and left:
            left.pop(0)
    return left


def _named(words: Sequence[str]) -> str:
    for word, following in zip(words, [*words[1:], ""]):
        if word == "--name":
            return following
        if word.startswith("--name="):
            return word.partition("=")[2]
    return ""
