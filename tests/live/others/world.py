"""Neighbours on the stage of the fault matrix: real kernel, throw-away /etc, /var/lib, /run and /mnt, real modules."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import SNAPSHOT
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN

from tests.live.faults import stage
from tests.live.faults.modules import Ended, Modules, Step

MIB2 = 2 << 20
MOUNT = "/mnt/huge"
UNIT = unit_path(MOUNT)
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
BOOT = "/proc/sys/kernel/random/boot_id"

_PAGES = """
import mmap, sys
count, touches = int(sys.argv[1]), sys.argv[2] == "touched"
pages = mmap.mmap(-1, count << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
for page in range(count if touches else 0):
    pages[page << 21] = 1
print("ready", flush=True)
sys.stdin.read()
"""
_FILE = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(file, 2 << 20)
page = mmap.mmap(file, 2 << 20)
page[0] = 1
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class World:
    """One host with its neighbours. What a case does, and afterwards looks at, goes through here."""

    modules: Modules
    pristine: stage.State
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    rebooted: bool = False

    # --- Our side ----------------------------------------------------------------------------------------------------

    def run(self, module: str, **arguments: Any) -> Ended:
        """One module of ours, as a run of its own."""
        self.modules.new_run()
        return self.modules.run(Step(module, arguments))

    def pool(self, count: int | None, **more: Any) -> Ended:
        """Tune the pool of 2 MiB pages, or (None) give it up."""
        return self.run("hugepages", pools=[] if count is None else [{"size": "2M", "count": count}], **more)

    def mount(self, mode: str | None = "0770", **more: Any) -> Ended:
        """Tune the mount, or (None) give it up."""
        mounts = [{"path": MOUNT, "page_size": "2M", "mode": mode}] if mode else []
        return self.run("hugetlbfs", mounts=mounts, **more)

    def rollback(self, **more: Any) -> Ended:
        return self.run("memory_snapshot", state="restored", **more)

    def audit(self, **wanted: Any) -> dict[str, tuple[str, str]]:
        """Verdict and detail by knob."""
        rows = fine(self.run("memory_info", facts=False, **wanted))["rows"]
        return {row["knob"]: (row["verdict"], row["detail"]) for row in rows}

    # --- What is there -----------------------------------------------------------------------------------------------

    def pages(self, name: str = "nr") -> int:
        return int((POOL / f"{name}_hugepages").read_text())

    def options(self, path: str = MOUNT) -> list[str]:
        """The super options of each mount on a path."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.rpartition(" ")[2] for line in lines if line.split(" ")[4] == path]

    def has_snapshot(self) -> bool:
        return os.path.exists(SNAPSHOT)

    def dropin(self) -> str:
        return Path(POOLS_DROPIN).read_text() if os.path.exists(POOLS_DROPIN) else ""

    # --- Neighbours --------------------------------------------------------------------------------------------------

    def write(self, path: str, text: str) -> None:
        """An administrator's file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)

    def sets_pool(self, count: int) -> None:
        """sysctl -w vm.nr_hugepages."""
        (POOL / "nr_hugepages").write_text(str(count))

    def container(self, propagation: str = "private", setup: str = "true") -> int:
        """A process in a mount namespace of its own; its pid."""
        script = f"{setup} && echo ready && exec sleep 600"
        return self._start(["unshare", "--mount", "--propagation", propagation, "sh", "-ec", script])

    def takes_pages(self, count: int, touched: bool = True) -> int:
        """A program with pages of the pool, in use or only reserved; its pid."""
        return self._start([sys.executable, "-c", _PAGES, str(count), "touched" if touched else "reserved"])

    def maps_file(self, path: str) -> int:
        """A program with a mapped file on a hugetlbfs mount; its pid."""
        return self._start([sys.executable, "-c", _FILE, path])

    def named(self, name: str) -> int:
        """A running program of this name; its pid."""
        shutil.copy("/bin/sleep", f"/run/{name}")
        process = subprocess.Popen([f"/run/{name}", "600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        return process.pid

    def _start(self, command: list[str]) -> int:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", command
        return process.pid

    def leaves(self) -> None:
        """Every program of the neighbours ends."""
        for process in self.running:
            process.send_signal(signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()
        self.running.clear()

    def reboots(self) -> None:
        """Another boot id, as after a reboot; the kernel's values stay until somebody sets them."""
        self.write("/run/boot_id", "11111111-2222-4333-8444-555555555555\n")
        subprocess.run(["mount", "--bind", "/run/boot_id", BOOT], check=True)
        self.rebooted = True

    def is_cloned(self) -> None:
        self.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")

    def reset(self) -> None:
        """Back to the pristine stage, whatever the case has left."""
        self.leaves()
        if self.rebooted:
            subprocess.run(["umount", BOOT], check=True)
            self.rebooted = False
        subprocess.run(["umount", "-l", "/mnt/db"], check=False, stderr=subprocess.DEVNULL)
        stage.clear_folders()
        stage.put_kernel_back(self.pristine_kernel())
        Path("/etc/machine-id").write_text("fedcba9876543210fedcba9876543210\n")

    def pristine_kernel(self) -> stage.State:
        now = stage.kernel_state()
        return {path: value for path, value in self.pristine.items() if path in now}

    @property
    def host(self) -> Host:
        return Host()


def run(*command: str) -> None:
    """A command of an administrator."""
    subprocess.run(command, check=True)


def fine(ended: Ended) -> dict[str, Any]:
    """The result of a call that did what was asked."""
    assert ended.is_fine, ended.output[-2000:]
    return ended.result


def refused(ended: Ended, knob: str, *told: object) -> str:
    """The one error of a call that was refused: it names the setting, all that is `told`, and the way on."""
    assert ended.result.get("failed"), ended.output[-2000:]
    problems = ended.result.get("problems") or [ended.result["problem"]]
    (problem,) = [problem for problem in problems if problem["knob"] == knob]
    text = " ".join(problem.values())
    missing = [str(part) for part in told if str(part) not in text]
    assert not missing, (missing, text)
    assert f"slm_accept_loss: [{knob}]" in problem["next_step"], problem
    return text


def left(result: Mapping[str, Any], *knobs: str) -> dict[str, str]:
    """Why each of these is left by a rollback, by knob; all of them are."""
    why = {entry["knob"]: f"{entry['found']}: {entry['why']}" for entry in result["left"]}
    missing: Iterable[str] = set(knobs) - set(why)
    assert not missing, (missing, why)
    return why
