#!/usr/bin/python3 -IS
"""Check of a bytecode cache: only if it still fits the modules that it was made from may a start use it.

    slm_fit.py FIT              for a command: print the cache's folder, if it fits and belongs to the caller
    slm_fit.py FIT ENVIRONMENT  for a unit: write the file that gives the next start the cache, if it fits

FIT is text (see `slm_baseline/first_token/bytecode.py`, which writes it). It names the folders and sources that the
bytecode was made from; an upgrade changes one of them. With a cache that does not fit, a start would compile modules
for which the upgrade brought bytecode. Every command line of a unit must run as the cache's owner: otherwise root
would run what that user wrote.

Exit status: 0 where the cache fits, else 1 with the reason. Nothing waits for it longer than its unit says.
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


class Misfit(Exception):
    """The cache does not fit; the text says why."""


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


def check_unit(name: str, user: str) -> None:
    """Raise Misfit unless systemd says that every command line of the unit runs as that user."""
    properties = ",".join([f"Exec{each}Ex" for each in EXEC] + ["User", "PermissionsStartOnly", "AmbientCapabilities"])
    answer = subprocess.run(
        ["/usr/bin/systemctl", "--no-ask-password", "show", f"--property={properties}", "--", name],
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


def check(path: str) -> str:
    """Return the folder of a cache that fits, for the interpreter; Misfit otherwise."""
    fields = read(path)
    words = {kind: rest for kind, *rest in fields if kind not in "FS"}
    try:
        (prefix,), (folder, inode), (uid,) = words["prefix"], words["cache"], words["uid"]
        check_cache(unescaped(folder), inode, uid)
        if "unit" in words:
            check_unit(*words["unit"])
        elif int(uid) != os.geteuid():
            raise Misfit("it belongs to another user")
        check_sources([each for each in fields if each[0] in "FS"])
    except (KeyError, ValueError, TypeError, OSError, subprocess.SubprocessError) as error:
        raise Misfit(str(error)) from None
    return unescaped(prefix)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        sys.stderr.write("usage: slm_fit.py FIT [ENVIRONMENT]\n")
        return 2
    environment = arguments[1] if len(arguments) == 2 else None
    if environment:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(environment)
    try:
        prefix = check(arguments[0])
    except Misfit as error:
        sys.stderr.write(f"slm_fit: the next start is as without a cache: {error}\n")
        return 1
    if environment:
        descriptor = os.open(environment, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"PYTHONPYCACHEPREFIX={prefix}\n")
    else:
        sys.stdout.write(f"{prefix}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
