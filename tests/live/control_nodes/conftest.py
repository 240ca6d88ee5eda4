"""Control nodes with each supported ansible-core, in environments of their own below .cache/control-nodes.

An environment is made once: from the Pythons of this machine, with the locked packages of the project and one
ansible-core. Where no Python is there that a version supports, its tests are skipped and say so.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CACHE = REPOSITORY / ".cache/control-nodes"
LOCK = REPOSITORY / "packaging/requirements/control.in"
CORES = {
    "2.16": ("2.16.19", ("3.11", "3.12")),
    "2.17": ("2.17.14", ("3.11", "3.12")),
    "2.18": ("2.18.19", ("3.11", "3.12", "3.13")),
    "2.19": ("2.19.14", ("3.11", "3.12", "3.13")),
    "2.20": ("2.20.10", ("3.12", "3.13", "3.14")),
    "2.21": ("2.21.5", ("3.12", "3.13", "3.14")),
}
"""The release of each ansible-core, and the Pythons that it supports and the project runs on."""
TOO_OLD = ("2.15.13", ("3.11",))


@dataclass(frozen=True)
class ControlNode:
    """An environment with one ansible-core."""

    core: str
    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"


@cache
def python_of(version: str) -> str | None:
    """A Python of this version: on the PATH, or one that pyenv or uv has installed."""
    homes = [Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python"]
    installed = [path for home in homes for path in sorted(home.glob(f"*{version}.*/bin/python{version}"))]
    for python in filter(None, [shutil.which(f"python{version}"), *map(str, reversed(installed))]):
        # What is on the PATH may be pyenv's own script, which runs the versions alone that are switched on.
        if subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0:
            return python
    return None


def control_node(core: str, pythons: tuple[str, ...]) -> ControlNode:
    """The environment, made where it is not there yet; skips where no Python for it is."""
    python = next(filter(None, map(python_of, pythons)), None)
    if python is None:
        pytest.skip(f"ansible-core {core} needs Python {' or '.join(pythons)}, and this machine has none of them")
    packages = [re.sub(r"^ansible-core==.*", f"ansible-core=={core}", line) for line in LOCK.read_text().splitlines()]
    folder = CACHE / core
    folder.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{core}.lock").open("w") as lock:
        # Tests may run side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "packages.txt"
        wanted = "\n".join([python, *packages])
        if not made.exists() or made.read_text() != wanted:
            subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
            listed = [line for line in packages if line and not line.startswith("#")]
            subprocess.run([folder / "bin/pip", "install", "--quiet", *listed], check=True)
            made.write_text(wanted)
    return ControlNode(core, folder)


@pytest.fixture(scope="session", params=CORES)
def node(request: pytest.FixtureRequest) -> ControlNode:
    """Each supported control node in turn."""
    return control_node(*CORES[request.param])


@pytest.fixture(scope="session")
def old_node() -> ControlNode:
    """The last ansible-core that is too old."""
    return control_node(*TOO_OLD)
