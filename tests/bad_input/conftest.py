"""Runs the real plays against this machine, and knows what on it must not change."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
KERNEL_FILES = ("/sys/kernel/mm/transparent_hugepage", "/sys/kernel/mm/hugepages", "/proc/sys/vm/min_free_kbytes")
WATCHED = (
    "/etc/tmpfiles.d",
    "/etc/systemd/system",
    *(f"/var/lib/slm-baseline/{name}" for name in ("snapshot.json", "sweep-prior.json", "archive")),
)
NOBODY = "65534"
_SETTINGS = ("enabled", "defrag", "shmem_enabled", "scan_sleep_millisecs", "nr_hugepages", "min_free_kbytes")
_ERROR = re.compile(r"^\[ERROR\]: (?:Task failed: Module failed: )?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """A finished play: exit code, its error lines, and everything it printed."""

    rc: int
    errors: list[str]
    output: str


def fingerprint() -> dict[str, str]:
    """The settings of this machine, and every file where the tuning writes files."""
    state = {}
    for folder in KERNEL_FILES:
        for path in [Path(folder), *sorted(Path(folder).rglob("*"))]:
            if path.is_file() and path.name in _SETTINGS:
                state[str(path)] = path.read_text()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    state["mounts"] = "\n".join(line.split(" ", 3)[3] for line in mounts)
    for watched in WATCHED:
        for path in [Path(watched), *sorted(Path(watched).rglob("*"))]:
            if os.path.lexists(path):
                status = path.lstat()
                link = os.readlink(path) if path.is_symlink() else ""
                content = path.read_bytes() if stat.S_ISREG(status.st_mode) else link.encode()
                digest = hashlib.sha256(content).hexdigest()[:16]
                state[str(path)] = f"{status.st_mode:o} {status.st_uid} {status.st_gid} {digest}"
    state["/mnt"] = " ".join(sorted(os.listdir("/mnt")))
    return state


Play = Callable[..., Outcome]


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.exit("tests/bad_input runs the real plays against this machine: run it as root", returncode=2)


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
