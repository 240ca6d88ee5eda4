"""Stands in for docker where a container is to be no more than a process: paths inside are those outside anyway.

    run OPTIONS IMAGE WORDS     execute the entry point, with the environment given and the search path added
    container inspect -- NAME   its process
    ps, rm                      what has run and was not removed

A folder beside it, `state`, has a file for each container. Tests put files there that change what it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(__file__).with_name("state")
SLOW_S = 0.3
FLAGS = ("--rm", "--interactive", "--read-only", "--no-healthcheck")


def run(words: list[str]) -> int:
    options: dict[str, list[str]] = {}
    while words[0].startswith("--"):
        option = words.pop(0)
        options.setdefault(option, []).append("" if option in FLAGS else words.pop(0))
    environment = {"PATH": os.environ["PATH"], **dict(pair.split("=", 1) for pair in options["--env"])}
    (STATE / "words").write_text(json.dumps([*sys.argv[1:]]))
    if (STATE / "refuses").exists():
        sys.stderr.write(
            "docker: Error response from daemon: no room.\n\nRun 'docker run --help' for more information\n"
        )
        return 125
    time.sleep(SLOW_S if (STATE / "slow").exists() else 0)
    process = subprocess.Popen([options["--entrypoint"][0], *words[1:]], env=environment)
    entry = STATE / options["--name"][0]
    entry.write_text(str(process.pid))
    status = process.wait()
    if not (STATE / "keeps").exists():
        entry.unlink()
    return 128 - status if status < 0 else status


def main(words: list[str]) -> int:
    STATE.mkdir(exist_ok=True)
    if words[0] == "run":
        return run(words[1:])
    if words[0] == "container":
        state = {"Status": "running", "Pid": int((STATE / words[-1]).read_text())}
        print(
            json.dumps([{"Id": "1", "Name": words[-1], "Config": {"Image": "i"}, "Image": "sha256:1", "State": state}])
        )
    if words[0] == "ps":
        wanted = words[-1].rpartition("=")[2]
        print(*[path.name for path in STATE.iterdir() if path.name == wanted], sep="\n")
    if words[0] == "rm":
        for name in words[words.index("--") + 1 :]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((STATE / name).read_text()), 9)
            (STATE / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
