"""The files of ours that give a target its plan and its bytecode: two units of systemd's, and how to start by hand."""

from __future__ import annotations

from collections.abc import Sequence

from ..host.mountinfo import MountEntry
from ..host.paths import PROGRAMS, TARGETS
from ..host.systemd import mount_unit
from .plan import Plan
from .target import Target

MARK = "# Made by slm-baseline (first_token.yml); rollback.yml removes it."
REPLAYER = f"{PROGRAMS}/slm_replay.py"
COMPILER = f"{PROGRAMS}/slm_compile.py"
STARTER = f"{PROGRAMS}/slm-start"
PYTHON = "/usr/bin/python3"

STARTER_TEXT = f"""#!/bin/sh
# slm-start NAME -- COMMAND...: start a command with the plan and the bytecode recorded under that name.
{MARK}
name=$1
case $name in ''|.*|*[!A-Za-z0-9._-]*) echo "slm-start: wanted NAME -- COMMAND..." >&2; exit 2 ;; esac
[ "$2" = -- ] && [ $# -gt 2 ] || {{ echo "slm-start: wanted NAME -- COMMAND..." >&2; exit 2; }}
shift 2
home={TARGETS}/$name
if [ -f "$home/plan" ]; then {PYTHON} -IS {REPLAYER} "$home/plan" > /dev/null 2>&1 & fi
if [ -f "$home/bytecode" ]; then export PYTHONPYCACHEPREFIX="$home/pycache"; fi
exec "$@"
"""


def replay_unit(target: Target, mounts: Sequence[str] = ()) -> str:
    """Our unit: it reads, and may do nothing else. Nobody waits for it: no start, and no boot.

    At boot it comes after the mounts that hold what it reads, where these are mounted at all: local-fs.target does not
    wait for one with `nofail`, nor for a network's.
    """
    return f"""{MARK}
[Unit]
Description=Read what {target.unit} reads at its start (slm-baseline first_token {target.name})
DefaultDependencies=no
After={" ".join(["local-fs.target", *mounts])}
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=simple
ExecStart={PYTHON} -IS {REPLAYER} {target.plan}
RuntimeMaxSec=600
Nice=5
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
PrivateNetwork=yes
ProtectSystem=strict
RestrictAddressFamilies=none
MemoryDenyWriteExecute=yes

[Install]
WantedBy=basic.target
"""


def mount_units(plan: Plan, mounts: Sequence[MountEntry]) -> list[str]:
    """The units of the mounts, other than `/`, that hold a file of the plan."""
    points = sorted({mount.path for mount in mounts} - {"/"}, key=len, reverse=True)
    found = (next((point for point in points if file.path.startswith(f"{point}/")), None) for file in plan.files)
    return [mount_unit(point) for point in sorted({point for point in found if point})]


def drop_in(target: Target, has_bytecode: bool) -> str:
    """What the target's own unit gets: our unit beside it, and where its bytecode is."""
    lines = [MARK]
    if target.replay in ("together", "both"):
        lines += ["[Unit]", f"Wants=slm-first-token-{target.name}.service"]
    if has_bytecode:
        lines += ["[Service]", f"Environment=PYTHONPYCACHEPREFIX={target.pycache}"]
    return "\n".join([*lines, ""])


def wanted_files(target: Target, has_bytecode: bool, mounts: Sequence[str] = ()) -> dict[str, str]:
    """Every file of ours for a unit, by path; nothing for a command, which `slm-start` starts."""
    if not target.unit:
        return {}
    files = {target.drop_in: drop_in(target, has_bytecode)}
    if target.replay != "none":
        files[target.replay_unit] = replay_unit(target, mounts)
    return files
