"""Services that a boot or a timer starts, and what they write: systemd.service(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .conflict import Conflict, Scanner, last_words
from .unit_files import UnitFiles, conditions_hold

_EXECUTED = ("ExecStartPre", "ExecStart", "ExecStartPost")
_PULLS = frozenset(("Wants", "Requires", "BindsTo", "Upholds", "OnSuccess"))
_RIGHTS = ("User", "DynamicUser", "ProtectKernelTunables")
_PREFIXES = "@-:+!|"
_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
"""Where systemd looks for a program without a path: systemd.exec(5)."""
_QUOTED = re.compile(r"""\s+|(?:[^\s'"\\]|\\.|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|['"\\])+""")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


@dataclass
class _Service:
    """The relevant parts of a unit once its drop-ins are merged."""

    commands: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)
    conditions: list[tuple[str, str]] = field(default_factory=list)
    rights: dict[str, str] = field(default_factory=dict)
    """What decides whether its commands may write kernel files: the last value of each key of _RIGHTS."""

    @property
    def may_write(self) -> bool:
        """Return whether commands without full rights run as root, with writable kernel files: systemd.exec(5)."""
        is_root = self.rights.get("User", "") in ("", "root", "0") and not self._is_on("DynamicUser")
        return is_root and not self._is_on("ProtectKernelTunables")

    def _is_on(self, key: str) -> bool:
        return self.rights.get(key, "").lower() in ("1", "yes", "true", "on")


def services(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Yield what enabled services write, and those that they pull in, with their drop-ins and called scripts."""
    waiting = list(units.started().items())
    seen: dict[str, bool] = {}
    while waiting:
        name, at_boot = waiting.pop()
        if seen.get(name, False) or (name in seen and not at_boot):
            continue
        seen[name] = at_boot
        service = _merged(scanner, units, name)
        if service is None:
            continue
        holds = conditions_hold(scanner, service.conditions)
        if holds is False:
            continue
        waiting += [(pulled, at_boot) for pulled in service.pulls if not units.is_masked(pulled)]
        found = last_words(_executed(scanner, name, service))
        sure = at_boot and holds is True
        yield from (conflict if sure else replace(conflict, certain=False) for conflict in found)


def _merged(scanner: Scanner, units: UnitFiles, name: str) -> _Service | None:
    """Return a unit merged with its drop-ins, in order; an empty assignment resets what came before."""
    template = f"{name.partition('@')[0]}@.service"
    main = units.path(name) or (units.path(template) if "@" in name else None)
    if main is None:
        return None
    service = _Service()
    owners = [template, name] if "@" in name else [name]
    for path in [main, *(drop_in for owner in owners for drop_in in units.drop_ins(owner))]:
        for number, text in scanner.lines(path):
            key, equals, value = (part.strip() for part in text.partition("="))
            if not equals:
                continue
            if key in _EXECUTED:
                commands = service.commands.setdefault(key, [])
                commands.append((path, number, value)) if value else commands.clear()
            elif key in _RIGHTS:
                service.rights[key] = value
            elif key in _PULLS:
                service.pulls += [unit for unit in value.split() if unit.endswith(".service")]
            elif key.startswith(("Condition", "Assert", "ExecCondition")):
                service.conditions.append((key, value))
    return service


def _executed(scanner: Scanner, name: str, service: _Service) -> Iterator[Conflict]:
    for path, number, line in (command for key in _EXECUTED for command in service.commands.get(key, ())):
        for text in _separated(line):
            command = text.lstrip(_PREFIXES)
            prefixes = text[: len(text) - len(command)]
            if not service.may_write and "+" not in prefixes:
                continue
            command = _with_path(scanner, command)
            if scanner.leads_to_interest(command):
                yield from _command(scanner, path, number, command, f"unit {name}", "@" in prefixes)


def _separated(line: str) -> list[str]:
    """Return a line's commands: a semicolon that stands alone, in no quotes, separates them (systemd.service(5))."""
    words = _QUOTED.findall(line) if " ;" in line else [line]
    commands = [""]
    for word in words:
        if word == ";":
            commands.append("")
        else:
            commands[-1] += word
    return [command.strip() for command in commands]


def _with_path(scanner: Scanner, text: str) -> str:
    """Return a command with the path of its program, where systemd finds one."""
    program = text.partition(" ")[0]
    if not program or "/" in program:
        return text
    folder = next((folder for folder in _FOLDERS if scanner.host.exists(f"{folder}/{program}")), "")
    return f"{folder}/{text}" if folder else text


def _command(
    scanner: Scanner, path: str, number: int, text: str, kind: str, is_renamed: bool = False
) -> Iterator[Conflict]:
    """Yield what one command of a unit writes: a program with its words, no shell.

    The second word of a renamed one is the name that it is given.
    """
    from .commands import Place, Reader, read_called
    from .shell import MARK, Command, Word, parse_shell

    place = Place(path, kind)
    reader = Reader(scanner, place)
    # systemd expands variables, and `$$` is a dollar; specifiers such as %i stand for unknown values.
    text = re.sub(r"%%", "%", re.sub(r"%[a-zA-Z]", "${?}", text))
    plain = _quoted_operators(text)
    for command in parse_shell(plain, number)[:1]:
        words = tuple(Word(_restored(word.text), word.literal) for word in command.words)
        words = tuple(
            Word(_VARIABLE.sub(lambda match: f"{MARK}{match[1] or match[2]}{MARK}", word.text), word.literal)
            for word in words
        )
        yield from reader.command(Command(number, words[:1] + words[2:] if is_renamed else words))
    yield from read_called(scanner, place)


_OPERATORS = dict(zip("|&;<>()*?[{~#\n", map(chr, range(0xE100, 0xE10E))))
_BACK = {ord(mark): char for char, mark in _OPERATORS.items()}


def _quoted_operators(text: str) -> str:
    """Return the text with the shell's operators replaced: systemd knows none of them, only quotes."""
    return text.translate({ord(char): mark for char, mark in _OPERATORS.items()}).replace("$$", chr(0xE1F0))


def _restored(text: str) -> str:
    return text.translate(_BACK).replace(chr(0xE1F0), "$")
