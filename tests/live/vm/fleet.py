"""Several machines under one inventory, and the project's playbooks run against them as a user runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.vm.image import OPERATOR, REPOSITORY
from tests.live.vm.machine import Machine
from tests.live.vm.tools import Command, VmTestError

GROUP = "gpu-hosts"
HOST_STATE = Path(__file__).with_name("host_state.py")
PLAY_TIMEOUT_S = 1200
SMALL_TUNING: dict[str, object] = {
    "thp_enabled": "madvise",
    "thp_defrag": "never",
    # Small enough for these machines, large enough to tell apart from none.
    "hugepages_pools": [{"size": "2M", "count": 32}],
    "hugepages_margin": "100M",
    "hugetlbfs_mounts": [{"path": "/mnt/huge", "page_size": "2M", "mode": "0770"}],
    "slm_benchmark_model": "tiny",
}
_RECAP = re.compile(r"^(?P<host>[\w.-]+)\s*:\s*(?P<counts>ok=\d+.*)$", re.MULTILINE)


@dataclass(frozen=True)
class PlayResult:
    """What ansible-playbook said and how it ended."""

    returncode: int
    output: str
    seconds: float

    def count(self, host: str, what: str) -> int:
        """A figure of the recap: `ok`, `changed`, `unreachable`, `failed`, `skipped` of one host."""
        for match in _RECAP.finditer(self.output):
            if match["host"] == host:
                return int(dict(pair.split("=") for pair in match["counts"].split())[what])
        raise AssertionError(f"the recap does not name {host}:\n{self.output}")

    @property
    def text(self) -> str:
        """The output on one line: Ansible folds long messages wherever a space stands."""
        return " ".join(self.output.split())

    def diffs(self) -> list[str]:
        """The lines that `--diff` shows as removed or added."""
        return [line for line in self.output.splitlines() if line.startswith(("-", "+"))]

    def expect(self, returncode: int) -> PlayResult:
        """Itself, where the exit status is the one expected; AssertionError with the whole output where not."""
        assert self.returncode == returncode, f"exit status {self.returncode}, not {returncode}:\n{self.output}"
        return self


@dataclass
class RunningPlay:
    """An ansible-playbook that works in the background."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def let_work(self, seconds: float) -> None:
        """Return after this long, or at once when it ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def pause(self) -> None:
        """Freeze it and its workers; what they started on a host goes on there."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def finish(self, timeout_s: float = PLAY_TIMEOUT_S) -> PlayResult:
        """Wait for the end of it; VmTestError, and no process left, where it does not come."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.stop()
            raise VmTestError(f"ansible-playbook did not end in {timeout_s:.0f} s:\n{self.output}") from error
        return PlayResult(self.process.returncode, self.output, time.monotonic() - self.started)

    def stop(self) -> None:
        """End it and its workers at once, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Fleet:
    """Machines in the group `gpu-hosts`. Variables given here are the group's, as a user's group_vars are."""

    def __init__(self, machines: Sequence[Machine], folder: Path, variables: Mapping[str, object]) -> None:
        self.machines = {machine.name: machine for machine in machines}
        self.folder = folder
        self.variables = dict(variables)
        folder.mkdir(parents=True, exist_ok=True)
        self._plays = 0

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.machines.values())

    def restore(self) -> None:
        """Every machine as it was when it was saved, running and connected."""
        for machine in self:
            machine.restore()

    def reboot(self) -> None:
        """Restart every machine in order, side by side."""
        ended = {name: machine.begin_reboot() for name, machine in self.machines.items()}
        for name, machine in self.machines.items():
            machine.wait_until_up_again(ended[name])

    def playbook(self, name: str, *arguments: str, **variables: object) -> PlayResult:
        """Run a playbook of the repository to its end; `variables` are group variables of this run alone."""
        with self.begin(name, *arguments, **variables) as play:
            return play.finish()

    @contextmanager
    def begin(self, name: str, *arguments: str, **variables: object) -> Iterator[RunningPlay]:
        """A playbook working in the background, ended with the context if it has not ended by itself."""
        self._plays += 1
        log = self.folder / f"{self._plays:02}-{Path(name).stem}.log"
        inventory = self.folder / f"{self._plays:02}-hosts.json"
        inventory.write_text(json.dumps(self._inventory(variables), indent=1))
        command: Command = [Path(sys.prefix) / "bin/ansible-playbook", "-i", inventory, name, "-l", GROUP, *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
        play = RunningPlay(process, log)
        try:
            yield play
        finally:
            play.stop()

    def state(self, name: str) -> dict[str, str]:
        """The fingerprint of one host, see host_state.py."""
        state: dict[str, str] = json.loads(self[name].check("python3 -", stdin=HOST_STATE.read_text()))
        return state

    def _inventory(self, variables: Mapping[str, object]) -> dict[str, object]:
        return {
            "all": {
                "children": {
                    GROUP: {
                        "hosts": {machine.name: _connection(machine) for machine in self},
                        "vars": {**self.variables, **variables},
                    }
                }
            }
        }


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Keys whose value is not the same in both fingerprints, with the two values."""
    keys = sorted(before.keys() | after.keys())
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _connection(machine: Machine) -> dict[str, object]:
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": machine.port,
        "ansible_user": OPERATOR,
        "ansible_python_interpreter": "/usr/bin/python3",
        # Under emulation on a busy machine sudo alone may take longer than Ansible's ten seconds.
        "ansible_timeout": 60,
        "ansible_ssh_common_args": shlex.join(machine.ssh_options()),
    }


def _environment() -> dict[str, str]:
    """The user's environment with the repository's configuration and no colour."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return {**kept, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}
