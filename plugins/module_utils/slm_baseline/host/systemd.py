"""systemd as PID 1: whether it runs, what it answers, and reloading its units."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .files import Host

UNITS = "/etc/systemd/system"
"""The folder of an administrator's units, and of ours."""


def mount_unit(path: str) -> str:
    """Return the mount unit's name for a path, as systemd-escape --path spells it: /mnt/a-b -> `mnt-a\\x2db.mount`."""
    text = path.strip("/")
    escaped = "".join(
        "-"
        if char == "/"
        else char
        if (char.isascii() and (char.isalnum() or char in ":_.")) and not (char == "." and index == 0)
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for index, char in enumerate(text)
    )
    return f"{escaped}.mount"


def systemd_runs(host: Host) -> bool:
    """Return whether systemd is PID 1 here: sd_booted(3) looks for this folder."""
    return host.path("/run/systemd/system").is_dir()


def systemctl(timeout_s: float, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl once and return its result.

    A timeout or a missing systemctl gives a status other than 0, with the reason on stderr.
    """
    from .trust import find_program, run_trusted

    program = find_program(Host(), "systemctl")
    if program is None:
        return subprocess.CompletedProcess([verb, *words], 1, "", "no systemctl that only root can write")
    command = [program, "--no-ask-password", "--no-pager", verb, *words]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    return run_trusted(command, environment, timeout_s, f"systemctl {verb} timed out after {timeout_s:.0f} seconds")


def show(names: Sequence[str], properties: Sequence[str], timeout_s: float = 60) -> dict[str, dict[str, str]]:
    """Return properties of units, by the names asked for; empty where systemd does not answer for each of them.

    A property with several values (`ExecStartEx`) has them in one text, one a line.
    """
    if not names:
        return {}
    answer = systemctl(timeout_s, "show", f"--property={','.join(properties)}", "--", *names)
    found: list[dict[str, str]] = []
    for block in answer.stdout.split("\n\n"):
        facts: dict[str, str] = {}
        for line in block.splitlines():
            name, equals, value = line.partition("=")
            if equals:
                facts[name] = f"{facts[name]}\n{value}" if name in facts else value
        found.append(facts)
    return dict(zip(names, found)) if len(found) == len(names) else {}


def reload_units(host: Host) -> str | None:
    """Make a running systemd reload the units; an existing mount is then tracked under its unit.

    Returns a warning where that failed: everything is applied by then, and the next boot reads the units anyway.
    """
    if not (host.is_live and systemd_runs(host)):
        return None
    answer = systemctl(60, "daemon-reload")
    if not answer.returncode:
        return None
    failure = answer.stderr.strip() or f"exit code {answer.returncode}"
    return f"systemd did not read the mount units again ({failure}). Next: run systemctl daemon-reload by hand."
