"""Commands in texts other than scripts: crontabs, cloud-init's YAML, udev rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from .commands import Place, Reader, read_called
from .conflict import Conflict, Scanner

_SCHEDULE = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+", re.ASCII)
_UP = re.compile(r"^(?:pre-up|up|post-up)\s+(.*)")
_INSTALL = re.compile(r"^install\s+\S+\s+(.*)")
_PERIOD = re.compile(r"\s*(?:\S+\s+){3}", re.ASCII)
_RUN = re.compile(r'(?:RUN|PROGRAM|IMPORT)(?:\{\w+\})?\s*\+?:?=+\s*e?"((?:[^"\\]|\\.)*)"')
_UDEV_SYSCTL = re.compile(r'SYSCTL\{([^}]+)\}\s*=\s*"([^"]*)"')
_UDEV_FILE = re.compile(r'ATTR\{\[?(/sys/[^}\]]+)\]?\}\s*=\s*"([^"]*)"')
_LIST_ITEM = re.compile(r"^\s*(?:-\s+|\w+:\s+)*")


def read_crontab(scanner: Scanner, path: str, kind: str, has_user: bool) -> Iterator[Conflict]:
    """Yield what a crontab's commands write; anacron's lines begin with a period, a delay and a name."""
    place = Place(path, kind)
    for number, line in scanner.lines(path, joined=False):
        schedule = (_PERIOD if path.endswith("anacrontab") else _SCHEDULE).match(line)
        if schedule:
            user, command = "root", line[schedule.end() :]
            if has_user:
                user, command = (*command.split(None, 1), "", "")[:2]
            # An unescaped percent sign ends the command: the rest is its input (crontab(5)).
            command = re.split(r"(?<!\\)%", command)[0].replace("\\%", "%")
            if user == "root":
                yield from Reader(scanner, place).shell(command, number)
            elif "sudo" in command:
                # Another user cannot write the settings, but may be allowed to become root.
                for conflict in Reader(scanner, place).shell(command, number):
                    yield replace(conflict, certain=False)
    yield from read_called(scanner, place)


def read_cloud_config(scanner: Scanner, path: str) -> Iterator[Conflict]:
    """Yield what a cloud-config's commands may write, one a line."""
    yield from _loose(scanner, path, "cloud-init", _yaml_command)


def _yaml_command(line: str) -> str:
    """Return the command in a line of YAML: `- echo 1 > x`, `- [sh, -c, "echo 1 > x"]`."""
    text = _LIST_ITEM.sub("", line, count=1).strip()
    if text.startswith("[") and text.endswith("]"):
        inner = re.sub(r"\]\s*,\s*\[", "\n", text[1:-1].strip())
        return re.sub(r"\s*,\s*(?=[\"'\w/-])", " ", re.sub(r"^\[|\]$", "", inner))
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace("\\" + text[0], text[0])
    return text


def read_udev_rules(scanner: Scanner, path: str) -> Iterator[Conflict]:
    """Yield what rules run, and what they set themselves, when a device appears: udev(7)."""
    yield from _loose(scanner, path, "a udev rule", _udev_commands)
    for number, line in scanner.lines(path):
        assigned = [(scanner.sysctl_knob(key), value) for key, value in _UDEV_SYSCTL.findall(line)]
        assigned += [(scanner.knob(target), value) for target, value in _UDEV_FILE.findall(line)]
        for knob, value in assigned:
            if knob:
                yield Conflict(path, number, knob, value, "a udev rule", False)


def _udev_commands(line: str) -> str:
    """Return the commands of a rule, one a line; udev looks for a bare name in its own folder."""
    commands = _RUN.findall(line)
    return "\n".join(one if one.startswith("/") else f"/usr/lib/udev/{one}" for one in commands)


def read_modprobe(scanner: Scanner, path: str) -> Iterator[Conflict]:
    """Yield what `install MODULE COMMAND` runs in place of loading a module: modprobe.d(5)."""
    yield from _loose(scanner, path, "modprobe", lambda line: "".join(_INSTALL.findall(line)))


def read_interfaces(scanner: Scanner, path: str) -> Iterator[Conflict]:
    """Yield what `post-up COMMAND` and the like run with an interface: interfaces(5)."""
    yield from _loose(scanner, path, "ifupdown", lambda line: "".join(_UP.findall(line)))


def _loose(scanner: Scanner, path: str, kind: str, command_of: Callable[[str], str]) -> Iterator[Conflict]:
    """Yield what commands in a text of another kind may write."""
    place = Place(path, kind, certain=False)
    for number, line in scanner.lines(path):
        for conflict in Reader(scanner, place).shell(command_of(line).replace('\\"', '"'), number):
            yield replace(conflict, certain=False)
    yield from read_called(scanner, place)
