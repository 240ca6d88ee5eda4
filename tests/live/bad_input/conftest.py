"""Runs the real plays against this machine, and sees that nothing on it changes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.this_machine import fingerprint

ROOT = Path(__file__).parents[3]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
NOBODY = "65534"
_ERROR = re.compile(r"^\[ERROR\]: (?:Task failed: Module failed: )?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """A finished play: exit code, its error lines, and everything it printed."""

    rc: int
    errors: list[str]
    output: str


Play = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.exit("tests/live/bad_input runs the real plays against this machine: run it as root", returncode=2)


@pytest.fixture
def play() -> Play:
    """Run a play with extra variables.

    `prepare` is a shell line run first, in a private mount namespace; with `home`, a folder of its own, nobody runs it.
    """

    def run(
        variables: dict[str, Any], playbook: str = "baseline.yml", tags: str = "tune", prepare: str = "", home: str = ""
    ) -> Outcome:
        command = [str(PLAYBOOK), playbook, "-l", "gpu-hosts", "-e", json.dumps(variables)]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        if playbook == "baseline.yml":
            command += ["--tags", tags]
        if home:
            command = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", *command]
            environment |= dict.fromkeys(("HOME", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP"), home)
        if prepare:
            alone = ["unshare", "--mount", "--propagation", "private"]
            command = [*alone, "sh", "-ec", f'{prepare}; exec "$@"', "sh", *command]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        output = done.stdout + done.stderr
        return Outcome(done.returncode, _ERROR.findall(output), output)

    return run


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    """Every test leaves the machine as it was."""
    before = fingerprint()
    yield
    assert fingerprint() == before
