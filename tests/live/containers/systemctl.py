"""Stands in for systemctl where no systemd runs: one unit, whose command makes a container anew at each start.

    systemctl [OPTIONS] VERB ... -- NAME...

SLM_UNIT_COMMAND has the command of the unit SLM_UNIT, SLM_UNIT_CONTAINER its container's name.
"""

from __future__ import annotations

import os
import subprocess
import sys


def main(words: list[str]) -> int:
    verb, *rest = [word for word in words if not word.startswith("--no-")]
    names = rest[rest.index("--") + 1 :] if "--" in rest else []
    unit, container = os.environ["SLM_UNIT"], os.environ["SLM_UNIT_CONTAINER"]
    command = os.environ["SLM_UNIT_COMMAND"].split(" ")
    if verb == "show":
        sys.stdout.write("\n\n".join(shown(name, unit, container, command) for name in names) + "\n")
    elif unit in names and verb == "start":
        return subprocess.run([command[0], "run", "--detach", *command[2:]], stdout=subprocess.DEVNULL).returncode
    elif unit in names and verb == "stop":
        # A unit that does not run is stopped already.
        subprocess.run([command[0], "stop", container], capture_output=True)
    return 0


def shown(name: str, unit: str, container: str, command: list[str]) -> str:
    if name != unit:
        return f"Id={name}\nActiveState=inactive"
    asked = subprocess.run([command[0], "inspect", container], capture_output=True)
    return (
        f"Id={unit}\nLoadState=loaded\nType=simple\nActiveState={'inactive' if asked.returncode else 'active'}\n"
        f"ControlGroup=/system.slice/{unit}\nSlice=system.slice\nDynamicUser=no\n"
        f"ExecStartEx={{ path={command[0]} ; argv[]={' '.join(command)} ; flags= ; start_time=[n/a] }}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
