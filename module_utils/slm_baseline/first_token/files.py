"""The files of ours that give a target its plan and its bytecode: two units of systemd's, and how to start by hand."""

from __future__ import annotations

from .places import PROGRAMS, TARGETS
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


def replay_unit(target: Target) -> str:
    """Our unit: it reads, and may do nothing else."""
    return f"""{MARK}
[Unit]
Description=Read what {target.unit} reads at its start (slm-baseline first_token {target.name})
DefaultDependencies=no
After=local-fs.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
ExecStart={PYTHON} -IS {REPLAYER} {target.plan}
TimeoutStartSec=600
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


def drop_in(target: Target, has_bytecode: bool) -> str:
    """What the target's own unit gets: our unit beside it, and where its bytecode is."""
    lines = [MARK]
    if target.replay in ("together", "both"):
        lines += ["[Unit]", f"Wants=slm-first-token-{target.name}.service"]
    if has_bytecode:
        lines += ["[Service]", f"Environment=PYTHONPYCACHEPREFIX={target.pycache}"]
    return "\n".join([*lines, ""])


def wanted_files(target: Target, has_bytecode: bool) -> dict[str, str]:
    """Every file of ours for a unit, by path; nothing for a command, which `slm-start` starts."""
    if not target.unit:
        return {}
    files = {target.drop_in: drop_in(target, has_bytecode)}
    if target.replay != "none":
        files[target.replay_unit] = replay_unit(target)
    return files
