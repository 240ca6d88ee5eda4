"""What makes kernel files survive a reboot: drop-ins of our own for tmpfiles.d(5), whose `w` lines write them.

They are plain files, written the same way whether systemd runs or not; where it does not, they wait for it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...host.files import Host
from ..state.files import ChangeFile, file_state, our_file

TMPFILES = "/etc/tmpfiles.d"
DROPIN_MARK = "# Written by slm-baseline; its rollback removes this file."

_TMPFILES_FOLDERS = (TMPFILES, "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
"""In order of precedence: a name found earlier masks the same name later (tmpfiles.d(5))."""
_KERNEL_FILES = ("/sys/", "/proc/sys/")


@dataclass(frozen=True)
class Line:
    """One persisted setting: the kernel file it writes, the value, where it stands, and the glob it came from.

    `at_boot` is whether it is written at boot alone; others are at each `systemd-tmpfiles --create`.
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
    """A drop-in that writes each value to its kernel file at boot, or "" for no values.

    Lines without `!` must be safe at any time (tmpfiles.d(5)): the upgrade of a package runs them, and would take a
    pool that somebody has let grow since back to ours.
    """
    lines = [f"w! {path} - - - - {value}" for path, value in values.items()]
    return "\n".join([DROPIN_MARK, *lines, ""]) if lines else ""


def parse_tmpfiles(path: str, text: str) -> list[Line]:
    """The `w` lines that write a kernel file; every other line of tmpfiles.d(5) is somebody else's business."""
    lines = []
    for number, text_line in enumerate(text.splitlines(), 1):
        fields = text_line.split(None, 6)
        target = fields[1].strip("\"'") if len(fields) == 7 else ""
        if target.startswith(_KERNEL_FILES) and fields[0].rstrip("+!-=~^$") == "w":
            lines.append(Line(target, fields[6].strip(), path, number, at_boot="!" in fields[0]))
    return lines


def tmpfiles_lines(host: Host) -> list[Line]:
    """Every line that writes a kernel file at boot, in the order in which systemd-tmpfiles runs them."""
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


def _expanded(host: Host, line: Line) -> list[Line]:
    """A line for each kernel file that its glob means; tmpfiles.d(5) takes one in every `w` line."""
    if not glob.has_magic(line.target):
        return [line]
    try:
        files = sorted(glob.glob(str(host.path(line.target))))
    except ValueError:
        return []
    return [replace(line, target=f"/{os.path.relpath(file, host.root)}", spelled=line.target) for file in files]


def is_ours(host: Host, path: str) -> bool:
    """Whether a file carries our mark."""
    return (host.read_or_none(path) or "").startswith(DROPIN_MARK)


def plan_file(host: Host, path: str, wanted: str) -> list[ChangeFile]:
    """What makes a file of ours hold the wanted text; "" wants it gone."""
    old = file_state(host, path)
    if (old.content if old else b"") == wanted.encode() and (old is None or old.link is None):
        return []
    return [ChangeFile(path, old, our_file(wanted.encode()) if wanted else None)]


KnobOf = Callable[[str], "str | None"]
"""A kernel file's knob, None where it is none of a kind's."""


def set_by(host: Host, path: str, knob_of: KnobOf) -> dict[str, str]:
    """What a drop-in sets: flat knob name -> value."""
    lines = parse_tmpfiles(path, host.read_or_none(path) or "")
    return {name: line.value for line in lines for name in [knob_of(line.target)] if name}


def set_at_boot(lines: Sequence[Line], knob_of: KnobOf) -> dict[str, tuple[str, str]]:
    """What the lines set at boot: knob -> (value, `path:line`).

    Of lines that spell the file alike the first wins: systemd-tmpfiles ignores a later one as a duplicate
    (tmpfiles.d(5)). Of other spellings, such as a glob, the last does, since each of them is written.
    """
    values: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    for line in lines:
        knob, spelled = knob_of(line.target), line.spelled or line.target
        if knob and (knob, spelled) not in seen:
            seen.add((knob, spelled))
            values[knob] = (line.value, line.source)
    return values
