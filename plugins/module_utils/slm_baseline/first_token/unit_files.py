"""The files that give a target its plan and its bytecode: our systemd units, and how to start by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..host.mountinfo import MountEntry
from ..host.paths import PROGRAMS, RECORDING, TARGETS
from ..host.systemd import mount_unit
from .cache import Cache
from .places import FIT_UNITS, MARK, REPLAY_UNITS
from .plan import Plan
from .recorder.interruption import PYTHON, RESTARTER
from .target import Target

REPLAYER = f"{PROGRAMS}/slm_replay.py"
FITTER = f"{PROGRAMS}/slm_fit.py"
STARTER = f"{PROGRAMS}/slm-start"
GIVEN_PROGRAMS = (REPLAYER, FITTER, RESTARTER)
"""The programs that come with the module."""

STARTER_TEXT = f"""#!/bin/sh
# slm-start NAME -- COMMAND...: start a command with the plan and the caches recorded under that name.
{MARK}
usage() {{ echo "slm-start: wanted NAME -- COMMAND..." >&2; exit 2; }}
name=$1
case $name in ''|.*|*[!A-Za-z0-9._-]*) usage ;; esac
[ "$2" = -- ] && [ $# -gt 2 ] || usage
shift 2
home={TARGETS}/$name
if [ ! -d "$home" ]; then echo "slm-start: nothing is recorded as $name; see $(dirname "$home")" >&2; exit 2; fi
if [ -r "$home/plan" ]; then {PYTHON} -IS {REPLAYER} "$home/plan" > /dev/null 2>&1 & fi
# The caches are their owner's alone, and only while they fit. Paths of ours have no blanks.
if [ -r "$home/bytecode" ]; then
  for variable in $({PYTHON} -IS {FITTER} "$home/bytecode" 2> /dev/null); do export "$variable"; done
fi
exec "$@"
"""


def replay_unit(target: Target, mounts: Sequence[str] = ()) -> str:
    """Return our unit that replays the plan, and may do nothing else. No start and no boot waits for it.

    At boot it comes after the mounts that hold what it reads, where these are mounted at all: local-fs.target does not
    wait for one with `nofail`, nor for a network's.
    """
    return f"""{MARK}
[Unit]
Description=Read what {target.starts} reads at its start (slm-baseline first_token {target.name})
DefaultDependencies=no
After={" ".join(["local-fs.target", *mounts])}
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists=!{RECORDING}

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


def fit_unit(target: Target, mounts: Sequence[str] = ()) -> str:
    """Return our unit that checks the caches before the target starts. The start waits at most five seconds for it."""
    return f"""{MARK}
[Unit]
Description=Whether the caches kept for {target.unit} still fit (slm-baseline first_token {target.name})
DefaultDependencies=no
After={" ".join(["local-fs.target", *mounts])}
Conflicts=shutdown.target
Before=shutdown.target
ConditionPathExists=!{RECORDING}

[Service]
Type=oneshot
ExecStart=-{PYTHON} -IS {FITTER} {target.fit} {target.fit_environment}
TimeoutStartSec=5
RuntimeDirectory=slm-baseline/first-token
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
PrivateNetwork=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX
MemoryDenyWriteExecute=yes
"""


def mount_units(plan: Plan, mounts: Sequence[MountEntry]) -> list[str]:
    """Return the units of the mounts, other than `/`, that hold a file of the plan."""
    points = sorted({mount.path for mount in mounts} - {"/"}, key=len, reverse=True)
    found = (next((point for point in points if file.path.startswith(f"{point}/")), None) for file in plan.files)
    return [mount_unit(point) for point in sorted({point for point in found if point})]


def drop_in(target: Target, caches: Sequence[Cache]) -> str:
    """Return the drop-in for the target's own unit: our units beside and before it, and what its caches need."""
    lines = [MARK, f"# Target: {target.name}"]
    if target.replay in ("together", "both") or caches:
        lines.append("[Unit]")
    if target.replay in ("together", "both"):
        lines.append(f"Wants={REPLAY_UNITS}{target.name}.service")
    if caches:
        fit = f"{FIT_UNITS}{target.name}.service"
        lines += [f"Wants={fit}", f"After={fit}", "[Service]", f"EnvironmentFile=-{target.fit_environment}"]
        lines += dict.fromkeys(line for cache in caches for line in cache.lines)
    return "\n".join([*lines, ""])


def recording_drop_in(environment: Mapping[str, str], caches: Sequence[Cache]) -> str:
    """Return the drop-in for the start that fills the unit's caches."""
    told = " ".join(f"{name}={value}" for name, value in environment.items())
    lines = dict.fromkeys(line for cache in caches for line in cache.lines)
    return "\n".join([MARK, "[Service]", f"Environment={told}", *lines, ""])


def wanted_files(target: Target, caches: Sequence[Cache], mounts: Sequence[str] = ()) -> dict[str, str]:
    """Return every file of ours for a unit or container, by path; nothing for a command, which `slm-start` starts."""
    if target.container and not target.unit:
        return {target.replay_unit: replay_unit(target, mounts)} if target.has_boot_link else {}
    if not target.unit:
        return {}
    files = {target.drop_in: drop_in(target, caches)}
    if target.replay != "none":
        files[target.replay_unit] = replay_unit(target, mounts)
    if caches:
        files[target.fit_unit] = fit_unit(target, mounts)
    return files
