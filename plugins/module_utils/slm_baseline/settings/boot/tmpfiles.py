"""Making kernel files persistent: drop-ins of our own for tmpfiles.d(5), whose `w` lines write them.

They are plain files, written the same way with and without systemd; without it they have no effect yet.
"""

from __future__ import annotations

import base64
import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...host.files import Host
from ..state.files import ChangeFile, file_state, our_file

TMPFILES = "/etc/tmpfiles.d"
DROPIN_MARK = "# Written by slm-baseline; its rollback removes this file."

_TMPFILES_FOLDERS = (TMPFILES, "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
"""In order of precedence: a name found earlier masks the same name later (tmpfiles.d(5))."""
_KERNEL_FILES = ("/sys/", "/proc/sys/")
_SIGNS = {**dict(zip("abfnrtvs", "\a\b\f\n\r\t\v ")), **{sign: sign for sign in "\\\"'"}}
_ESCAPE = re.compile(r"\\([abfnrtvs\\\"']|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[0-3][0-7]{2})")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_CHOICES = 16


@dataclass(frozen=True)
class Line:
    """One persistent setting: the kernel file that it writes, the value, where the line is, and the glob it came from.

    `at_boot` means that it is written only at boot; others at each `systemd-tmpfiles --create`.
    """

    target: str
    value: str
    path: str
    number: int
    spelled: str = ""
    at_boot: bool = False

    @property
    def source(self) -> str:
        return f"{self.path}:{self.number}"


def tmpfiles_text(values: Mapping[str, str]) -> str:
    """Return a drop-in that writes each value to its kernel file at boot, or "" for no values.

    Lines without `!` must be safe at any time (tmpfiles.d(5)): a package's upgrade runs them, and would shrink a pool
    that somebody has grown since back to our value.
    """
    lines = [f"w! {path} - - - - {value}" for path, value in values.items()]
    return "\n".join([DROPIN_MARK, *lines, ""]) if lines else ""


def parse_tmpfiles(path: str, text: str) -> list[Line]:
    """Return the `w` lines that write a kernel file; all other lines of tmpfiles.d(5) are skipped."""
    lines = []
    for number, text_line in enumerate(text.splitlines(), 1):
        fields = text_line.split(None, 6)
        target = _simplified(fields[1].strip("\"'")) if len(fields) == 7 else ""
        if target.startswith(_KERNEL_FILES) and fields[0].rstrip("+!-=~^$") == "w":
            value = _written(fields[6], is_base64="~" in fields[0])
            if value is not None:
                lines.append(Line(target, value, path, number, at_boot="!" in fields[0]))
    return lines


def _simplified(path: str) -> str:
    """Return a path without double slashes and single dots; one with two dots stays, and is rejected."""
    return path if "/../" in f"{path}/" else os.path.normpath(path)


def _written(argument: str, is_base64: bool) -> str | None:
    """Return what a `w` line writes, stripped as kernel files do; None for base64 that systemd-tmpfiles rejects."""
    if is_base64:
        try:
            return base64.b64decode(argument.strip(), validate=True).decode(errors="replace").strip()
        except ValueError:
            return None
    return _ESCAPE.sub(lambda match: _unescape(match[1]), argument).strip()


def _unescape(text: str) -> str:
    """Return what stands for the text after a backslash in C, as systemd's cunescape() reads it."""
    if text in _SIGNS:
        return _SIGNS[text]
    return chr(int(text[1:], 16) if text[0] in "xuU" else int(text, 8))


def tmpfiles_lines(host: Host) -> list[Line]:
    """Return every line that writes a kernel file at boot, in the order in which systemd-tmpfiles runs them."""
    chosen: dict[str, str] = {}
    for folder in _TMPFILES_FOLDERS:
        for name in host.names(folder):
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{folder}/{name}")
    return [
        one
        for name in sorted(chosen)
        for line in parse_tmpfiles(chosen[name], host.read_or_none(chosen[name]) or "")
        for one in _expanded(host, line)
    ]


def expand_braces(text: str) -> list[str]:
    """Return the texts that `a{b,c}` stands for, in their order, a few dozen at most."""
    match = _BRACES.search(text)
    if not match:
        return [text]
    return [
        one
        for choice in match[1].split(",")[:_MOST_CHOICES]
        for one in expand_braces(f"{text[: match.start()]}{choice}{text[match.end() :]}")
    ][:_MOST_CHOICES]


def _expanded(host: Host, line: Line) -> list[Line]:
    """Return a line for each kernel file that its glob matches; tmpfiles.d(5) accepts globs in `w` lines."""
    patterns = expand_braces(line.target)
    if patterns == [line.target] and not glob.has_magic(line.target):
        return [line]
    try:
        files = [file for pattern in patterns for file in sorted(glob.glob(str(host.path(pattern))))]
    except ValueError:
        return []
    return [replace(line, target=f"/{os.path.relpath(file, host.root)}", spelled=line.target) for file in files]


def is_ours(host: Host, path: str) -> bool:
    """Return whether a file carries our mark."""
    return (host.read_or_none(path) or "").startswith(DROPIN_MARK)


def plan_file(host: Host, path: str, wanted: str) -> list[ChangeFile]:
    """Return the change that gives a file of ours the wanted text; "" removes it."""
    old = file_state(host, path)
    if (old.content if old else b"") == wanted.encode() and (old is None or old.link is None):
        return []
    return [ChangeFile(path, old, our_file(wanted.encode()) if wanted else None)]


KnobOf = Callable[[str], "str | None"]
"""Returns a kernel file's knob, None where no kind has it."""


def set_by(host: Host, path: str, knob_of: KnobOf) -> dict[str, str]:
    """Return what a drop-in sets: flat knob name -> value."""
    lines = parse_tmpfiles(path, host.read_or_none(path) or "")
    return {name: line.value for line in lines for name in [knob_of(line.target)] if name}


def set_at_boot(lines: Sequence[Line], knob_of: KnobOf) -> dict[str, tuple[str, str]]:
    """Return what the lines set at boot: knob -> (value, `path:line`).

    Of lines with the same spelling of the file the first wins: systemd-tmpfiles ignores a later one as a duplicate
    (tmpfiles.d(5)). Of other spellings, such as a glob, the last wins, since each of them is written.
    """
    values: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    for line in lines:
        knob, spelled = knob_of(line.target), line.spelled or line.target
        if knob and (knob, spelled) not in seen:
            seen.add((knob, spelled))
            values[knob] = (line.value, line.source)
    return values
