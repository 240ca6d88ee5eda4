"""systemd as PID 1: whether it runs, and how it reads its units again."""

from __future__ import annotations

import subprocess

from .files import Host

UNITS = "/etc/systemd/system"
"""Where an administrator's units are, and ours."""


def mount_unit(path: str) -> str:
    """The mount unit's name for a path, as systemd-escape --path spells it: /mnt/a-b -> `mnt-a\\x2db.mount`."""
    text = path.strip("/")
    escaped = "".join(
        "-"
        if char == "/"
        else char
        if (char.isascii() and (char.isalnum() or char in ":_.")) and not (char == "." and index == 0)
        else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for index, char in enumerate(text)
    )
    return f"{escaped}.mount"


def systemd_runs(host: Host) -> bool:
    """Whether systemd is PID 1 here: sd_booted(3) looks for this folder."""
    return host.path("/run/systemd/system").is_dir()


def reload_units(host: Host) -> str | None:
    """Let a running systemd read the units again; a mount that stands already is then tracked under its unit.

    A warning where that failed: all is applied by then, and the next boot reads the units anyway.
    """
    if not (host.is_live and systemd_runs(host)):
        return None
    from .trust import find_program

    systemctl = find_program(host, "systemctl")
    if systemctl is None:
        return "systemd did not read the mount units again (no systemctl). Next: run systemctl daemon-reload by hand."
    try:
        done = subprocess.run(
            [systemctl, "daemon-reload"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
        )
        failure = done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        failure = str(error)
    if not failure:
        return None
    return f"systemd did not read the mount units again ({failure}). Next: run systemctl daemon-reload by hand."
