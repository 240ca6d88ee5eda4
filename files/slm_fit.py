#!/usr/bin/python3 -IS
"""Check of a target's caches, bytecode and compiled kernels: only if they still fit may a start use them.

    slm_fit.py FIT              for a command: print the variables that lead to the caches that fit, one a line
    slm_fit.py FIT ENVIRONMENT  for a unit: write them to the file that the next start reads

FIT is text (see `slm_baseline/first_token/fit.py`, which writes it). It names the folders and sources that the
bytecode was made from; an upgrade changes one of them. With a cache that does not fit, a start would compile modules
for which the upgrade brought bytecode. Compiled kernels do not depend on sources: what keeps them looks for itself.
Every command line of a unit must run as the caches' owner: otherwise root would run what that user wrote.

Exit status: 0 where all caches fit, else 1 with the reasons. Nothing waits for it longer than its unit says.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys

FIRST_LINE = "slm-baseline first-token fit 1"
EXEC = ("Condition", "StartPre", "Start", "StartPost", "Reload", "Stop", "StopPost")
ABOVE = ("privileged", "no-setuid", "ambient")
"""Prefixes of a command line that runs with another user or other rights than its unit (systemd.service(5): + ! !!)."""

SANDBOX = ("ProtectSystem", "ReadOnlyPaths", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "RootImage")
"""Properties that can take the right to write to a folder from a unit. A cache that cannot be written may be fatal."""


class Misfit(Exception):
    """The cache does not fit; the text says why."""


MISFITS = (Misfit, KeyError, ValueError, TypeError, OSError)
"""Whatever a damaged description or a changed folder leads to."""


def unescaped(text: str) -> str:
    """Decode a path in which tab, line end and `%` are written as `%09`, `%0A`, `%25`."""
    if "%" in text:
        text = text.replace("%09", "\t").replace("%0A", "\n").replace("%25", "%")
    return text


def read(path: str) -> list[list[str]]:
    """Read the fields of each line; Misfit where a user other than root could have written it, or it is truncated."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                raise Misfit("others than root may write its description")
            lines = file.read().split("\n")
    except OSError as error:
        raise Misfit(str(error)) from None
    if lines[0] != FIRST_LINE or lines[-2:] != ["end", ""]:
        raise Misfit("its description is cut short, or of another version")
    return [line.split("\t") for line in lines[1:-2]]


def check_cache(folder: str, inode: str, uid: str) -> None:
    """Raise Misfit unless the folder is the recorded one and only its owner's. A dynamic user has no lasting id."""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_ino != int(inode):
        raise Misfit(f"{folder} is not the folder that was filled")
    if found.st_mode & 0o022 or (uid != "dynamic" and found.st_uid != int(uid)):
        raise Misfit(f"others may write {folder}")


def check_sources(fields: list[list[str]]) -> None:
    """Raise Misfit where a source changed: its folder did, and it is no longer the recorded one."""
    is_same = True
    for kind, *rest in fields:
        if kind == "F":
            inode, mtime_ns, path = rest
            found = os.lstat(unescaped(path))
            is_same = (found.st_ino, found.st_mtime_ns) == (int(inode), int(mtime_ns))
        elif kind == "S" and not is_same:
            inode, size, mtime_ns, path = rest
            found = os.lstat(unescaped(path))
            if (found.st_ino, found.st_size, found.st_mtime_ns) != (int(inode), int(size), int(mtime_ns)):
                raise Misfit(f"{unescaped(path)} changed since")


def check_unit(name: str, user: str) -> dict[str, str]:
    """Raise Misfit unless systemd says that every command line of the unit runs as that user. Return what it says."""
    rights = [f"Exec{each}Ex" for each in EXEC] + ["User", "PermissionsStartOnly", "AmbientCapabilities"]
    answer = subprocess.run(
        ["/usr/bin/systemctl", "--no-ask-password", "show", f"--property={','.join([*rights, *SANDBOX])}", "--", name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=4,
    )
    reason = unit_above(answer.stdout, user)
    if reason:
        raise Misfit(f"{name}: {reason}")
    return {name: value for name, _, value in (line.partition("=") for line in answer.stdout.splitlines())}


def unit_above(shown: str, user: str) -> str:
    """Return why a unit must not get that user's cache, from systemd's description of it; empty if it may."""
    facts = [line.partition("=")[::2] for line in shown.splitlines()]
    lines = [value for key, value in facts if key.startswith("Exec")]
    values = dict(facts)
    if not values.get("ExecStartEx"):
        return "systemd does not tell with which rights its command lines run"
    if values.get("User") != user:
        return f"it runs as {values.get('User') or 'root'}"
    if values.get("PermissionsStartOnly") == "yes" or any(
        flag in part.partition(";")[0].split() for line in lines for part in line.split("flags=")[1:] for flag in ABOVE
    ):
        return "not all of its command lines run as its user"
    if "cap_setuid" in values.get("AmbientCapabilities", ""):
        return "it may become another user"
    return ""


def bytecode_of(fields: list[list[str]], uid: str) -> dict[str, str]:
    """Return the variable that leads to the bytecode; Misfit where it does not fit."""
    words = {kind: rest for kind, *rest in fields if kind in ("prefix", "cache")}
    if not words:
        return {}
    (prefix,), (folder, inode) = words["prefix"], words["cache"]
    check_cache(unescaped(folder), inode, uid)
    check_sources([each for each in fields if each[0] in "FS"])
    return {"PYTHONPYCACHEPREFIX": unescaped(prefix)}


def kernels_of(fields: list[list[str]], uid: str, facts: dict[str, str]) -> dict[str, str]:
    """Return the variables that lead to the caches of kernels; Misfit where the unit may no longer write there."""
    given = {}
    for kind, *rest in fields:
        if kind == "kernels":
            folder, inode = rest
            check_cache(unescaped(folder), inode, uid)
        elif kind == "sandbox":
            name, value = rest
            if facts.get(name, "") != unescaped(value):
                raise Misfit(f"the unit has another {name}= than when it was recorded")
        elif kind == "K":
            name, value = rest
            given[name] = unescaped(value)
    return given


def check(path: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables for the caches that fit, and why others do not."""
    given: dict[str, str] = {}
    reasons = []
    try:
        fields = read(path)
        ((_, uid),) = [each for each in fields if each[0] == "uid"]
        facts: dict[str, str] = {}
        for unit in [each for each in fields if each[0] == "unit"]:
            facts = check_unit(*unit[1:])
        if not facts and int(uid) != os.geteuid():
            raise Misfit("it belongs to another user")
    except (*MISFITS, subprocess.SubprocessError) as error:
        return {}, [str(error)]
    try:
        given.update(bytecode_of(fields, uid))
    except MISFITS as error:
        reasons.append(f"bytecode: {error}")
    try:
        given.update(kernels_of(fields, uid, facts))
    except MISFITS as error:
        reasons.append(f"kernels: {error}")
    return given, reasons


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: slm_fit.py FIT [ENVIRONMENT]\n")
        return 2
    environment = arguments[1] if len(arguments) == 2 else None
    if environment:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(environment)
    given, reasons = check(arguments[0])
    # A command that is started with such a variable keeps it.
    lines = [f"{name}={value}\n" for name, value in given.items() if environment or name not in os.environ]
    if environment and lines:
        descriptor = os.open(environment, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.writelines(lines)
    elif not environment:
        sys.stdout.writelines(lines)
    if reasons:
        sys.stderr.write(f"slm_fit: the next start is as without a cache: {'; '.join(reasons)}\n")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
