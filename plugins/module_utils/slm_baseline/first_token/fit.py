"""What a bytecode cache was made for, and whether it still fits: only then does a start get it.

The text of a fit description, which files/slm_fit.py reads before each start:

    slm-baseline first-token fit 1
    prefix	what the interpreter is told
    cache	folder	inode
    uid	owner of the folder, or `dynamic`
    unit	name	user                      of a unit
    F	inode	mtime_ns	folder of sources
    S	inode	size	mtime_ns	source in it
    end
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from ..host.errors import ParseError
from ..host.files import Host
from ..host.systemd import show
from .plan import escape, unescape

FIRST_LINE = "slm-baseline first-token fit 1"
LAST_LINE = "end"
EXEC = tuple(f"Exec{each}Ex" for each in ("Condition", "StartPre", "Start", "StartPost", "Reload", "Stop", "StopPost"))
RIGHTS = (*EXEC, "User", "PermissionsStartOnly", "AmbientCapabilities")
"""Properties of a unit that show as which user its command lines run."""
_ABOVE = ("privileged", "no-setuid", "ambient")
"""Flags of a command line that runs with more than the unit's own user and rights (systemd.service(5): + ! !!)."""


@dataclass(frozen=True)
class Fit:
    """What a cache was made for; the module docstring has the format. `sources` by folder, both as from stat(2)."""

    prefix: str
    folder: str
    inode: int
    uid: str
    unit: tuple[str, ...]
    folders: tuple[tuple[int, int, str], ...]
    sources: tuple[tuple[int, int, int, str], ...]


def fit_text(fit: Fit) -> str:
    """Return the description as text; the sources of a folder follow it."""
    lines = [
        FIRST_LINE,
        f"prefix\t{escape(fit.prefix)}",
        f"cache\t{escape(fit.folder)}\t{fit.inode}",
        f"uid\t{fit.uid}",
    ]
    if fit.unit:
        lines.append("\t".join(["unit", *fit.unit]))
    by_folder: dict[str, list[tuple[int, int, int, str]]] = {}
    for entry in fit.sources:
        by_folder.setdefault(os.path.dirname(entry[3]), []).append(entry)
    for inode, mtime_ns, folder in fit.folders:
        lines.append(f"F\t{inode}\t{mtime_ns}\t{escape(folder)}")
        for number, size, time_ns, source in by_folder.get(folder, []):
            lines.append(f"S\t{number}\t{size}\t{time_ns}\t{escape(source)}")
    return "\n".join([*lines, LAST_LINE, ""])


def parse_fit(text: str) -> Fit:
    """Parse a description; ParseError for any other text."""
    lines = [line.split("\t") for line in text.split("\n")]
    if text.split("\n", 1)[0] != FIRST_LINE or lines[-2:] != [[LAST_LINE], [""]]:
        raise _damaged(text)
    words = {kind: rest for kind, *rest in lines[1:-2] if kind not in ("F", "S")}
    try:
        (prefix,), (folder, inode), (uid,) = words["prefix"], words["cache"], words["uid"]
        return Fit(
            unescape(prefix),
            unescape(folder),
            int(inode),
            uid,
            tuple(words.get("unit", ())),
            tuple((int(rest[0]), int(rest[1]), unescape(rest[2])) for kind, *rest in lines if kind == "F"),
            tuple(
                (int(rest[0]), int(rest[1]), int(rest[2]), unescape(rest[3])) for kind, *rest in lines if kind == "S"
            ),
        )
    except (KeyError, ValueError, IndexError):
        raise _damaged(text) from None


def _damaged(text: str) -> ParseError:
    return ParseError(
        "first_token.bytecode", "a description of this version", text, "record it again with first_token.yml."
    )


def find_misfit(host: Host, fit: Fit) -> str | None:
    """Return why the next start does not get the cache; None where it fits."""
    try:
        found = os.lstat(host.path(fit.folder))
        if not stat.S_ISDIR(found.st_mode) or found.st_ino != fit.inode:
            return f"{fit.folder} is not the folder that was filled"
        if found.st_mode & 0o022 or (fit.uid != "dynamic" and found.st_uid != int(fit.uid)):
            return f"others may write {fit.folder}"
        changed = set()
        for inode, mtime_ns, folder in fit.folders:
            found = os.lstat(host.path(folder))
            if (found.st_ino, found.st_mtime_ns) != (inode, mtime_ns):
                changed.add(folder)
        for inode, size, mtime_ns, source in fit.sources:
            if os.path.dirname(source) in changed:
                found = os.lstat(host.path(source))
                if (found.st_ino, found.st_size, found.st_mtime_ns) != (inode, size, mtime_ns):
                    return f"{source} changed since it was compiled"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def find_rights_above(facts: Mapping[str, str]) -> str:
    """Return why a unit with these RIGHTS must not have a cache, as a sentence; empty where it may."""
    flags = [part.partition(";")[0].split() for name in EXEC for part in facts.get(name, "").split("flags=")[1:]]
    if not facts.get("ExecStartEx"):
        return "this systemd does not tell with which rights the unit's command lines run."
    if facts.get("PermissionsStartOnly") == "yes" or any(flag in words for words in flags for flag in _ABOVE):
        return "the unit has command lines with more rights than its user's, which would run what that user wrote."
    if "cap_setuid" in facts.get("AmbientCapabilities", ""):
        return "the unit may become other users, who cannot read it."
    return ""


def find_unit_misfit(unit: tuple[str, ...]) -> str:
    """Return why a unit (name, user), as systemd knows it now, does not get the cache; empty where it does."""
    name, user = unit[0], unit[1] if len(unit) > 1 else ""
    facts = show([name], RIGHTS).get(name, {})
    if facts.get("User", "") != user:
        return f"{name} runs as {facts.get('User') or 'root'} now"
    return find_rights_above(facts)
