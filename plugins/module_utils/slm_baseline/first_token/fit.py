"""What a target's caches were made for, and whether they still fit: only then does a start get them.

The text of a fit description, which files/slm_fit.py reads before each start:

    slm-baseline first-token fit 1
    prefix	what the interpreter is told       where there is bytecode
    cache	folder	inode
    uid	owner of the folders, or `dynamic`
    unit	name	user                      of a unit
    kernels	folder	inode                     where kernels are kept
    K	variable	its value                    for each cache of kernels
    sandbox	property	its value                of a unit that keeps kernels
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
SANDBOX = ("ProtectSystem", "ReadOnlyPaths", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "RootImage")
"""Properties that can take the right to write to a folder from a unit. A cache that cannot be written may be fatal:
Triton's is."""
_ABOVE = ("privileged", "no-setuid", "ambient")
"""Flags of a command line that runs with more than the unit's own user and rights (systemd.service(5): + ! !!)."""


@dataclass(frozen=True)
class Fit:
    """What caches were made for; the module docstring has the format. `sources` by folder, both as from stat(2).

    `prefix` is empty where there is no bytecode. `kernels` is the folder of compiled kernels with its inode, and
    `variables` are what leads the target to them.
    """

    prefix: str
    folder: str
    inode: int
    uid: str
    unit: tuple[str, ...]
    folders: tuple[tuple[int, int, str], ...]
    sources: tuple[tuple[int, int, int, str], ...]
    kernels: tuple[str, int] | None = None
    variables: tuple[tuple[str, str], ...] = ()
    sandbox: tuple[tuple[str, str], ...] = ()


def fit_text(fit: Fit) -> str:
    """Return the description as text; the sources of a folder follow it."""
    lines = [FIRST_LINE]
    if fit.prefix:
        lines += [f"prefix\t{escape(fit.prefix)}", f"cache\t{escape(fit.folder)}\t{fit.inode}"]
    lines.append(f"uid\t{fit.uid}")
    if fit.unit:
        lines.append("\t".join(["unit", *fit.unit]))
    if fit.kernels:
        lines.append(f"kernels\t{escape(fit.kernels[0])}\t{fit.kernels[1]}")
    lines += [f"K\t{name}\t{escape(value)}" for name, value in fit.variables]
    lines += [f"sandbox\t{name}\t{escape(value)}" for name, value in fit.sandbox]
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
    by_kind: dict[str, list[list[str]]] = {}
    for kind, *rest in lines[1:-2]:
        by_kind.setdefault(kind, []).append(rest)
    try:
        ((uid,),) = by_kind["uid"]
        ((prefix,),) = by_kind.get("prefix", [[""]])
        ((folder, inode),) = by_kind["cache"] if prefix else [["", "0"]]
        ((*unit,),) = by_kind.get("unit", [[]])
        kernels = None
        if "kernels" in by_kind:
            ((kept, number),) = by_kind["kernels"]
            kernels = (unescape(kept), int(number))
        return Fit(
            unescape(prefix),
            unescape(folder),
            int(inode),
            uid,
            tuple(unit),
            tuple((int(inode), int(mtime_ns), unescape(path)) for inode, mtime_ns, path in by_kind.get("F", [])),
            tuple(
                (int(inode), int(size), int(mtime_ns), unescape(path))
                for inode, size, mtime_ns, path in by_kind.get("S", [])
            ),
            kernels,
            *(tuple((name, unescape(value)) for name, value in by_kind.get(kind, [])) for kind in ("K", "sandbox")),
        )
    except (KeyError, ValueError):
        raise _damaged(text) from None


def _damaged(text: str) -> ParseError:
    return ParseError(
        "first_token.bytecode", "a description of this version", text, "record it again with first_token.yml."
    )


def find_misfit(host: Host, fit: Fit) -> str | None:
    """Return why the next start does not get the bytecode; None where it fits."""
    try:
        reason = _folder_misfit(host, fit.folder, fit.inode, fit.uid)
        if reason:
            return reason
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


def find_kernels_misfit(host: Host, fit: Fit, facts: Mapping[str, str] | None) -> str | None:
    """Return why the next start does not get the folder of kernels; None where it does.

    `facts` are what systemd says of the unit (`show_unit`); None where nobody is asked.
    """
    assert fit.kernels
    try:
        reason = _folder_misfit(host, *fit.kernels, fit.uid)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    if reason or facts is None:
        return reason
    changed = [name for name, value in fit.sandbox if facts.get(name, "") != value]
    return f"{fit.unit[0]} has another {changed[0]}= than when it was recorded" if changed else None


def _folder_misfit(host: Host, folder: str, inode: int, uid: str) -> str | None:
    """Return why a folder is not the one that was made, or not its owner's alone. OSError."""
    found = os.lstat(host.path(folder))
    if not stat.S_ISDIR(found.st_mode) or found.st_ino != inode:
        return f"{folder} is not the folder that was filled"
    if found.st_mode & 0o022 or (uid != "dynamic" and found.st_uid != int(uid)):
        return f"others may write {folder}"
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


def show_unit(name: str) -> dict[str, str]:
    """Return what systemd says now of the rights and the sandbox of a unit; empty where it does not answer."""
    return show([name], (*RIGHTS, *SANDBOX)).get(name, {})


def find_unit_misfit(unit: tuple[str, ...], facts: Mapping[str, str]) -> str:
    """Return why a unit (name, user) with these facts does not get its caches; empty where it does."""
    name, user = unit[0], unit[1] if len(unit) > 1 else ""
    if facts.get("User", "") != user:
        return f"{name} runs as {facts.get('User') or 'root'} now"
    return find_rights_above(facts)
