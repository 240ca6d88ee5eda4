"""A Docker daemon of the tests' own: nothing of it is left afterwards, and it touches no network."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CGROUP_PARENT = "slm-baseline-tests"
_READY_S = 60.0
_STOP_S = 60.0
_STEP_S = 0.1


@dataclass(frozen=True)
class Daemon:
    """A running daemon: the folder that has all of it, and the client's address."""

    folder: Path

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def docker(self, *words: str, check: bool = True, given: bytes | None = None) -> str:
        """Run the client and return its output."""
        done = subprocess.run(
            ["docker", "--host", self.address, *words], capture_output=True, input=given, timeout=120, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(words)}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode(errors="replace").strip()

    def import_image(self, root: Path, name: str, changes: Sequence[str] = ()) -> str:
        """Import a folder as an image of one layer; return its id."""
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".")
        words = [word for change in changes for word in ("--change", change)]
        try:
            return self.docker("import", *words, str(archive), name)
        finally:
            archive.unlink()


@contextlib.contextmanager
def running_daemon() -> Iterator[Daemon]:
    """Run a daemon in folders of its own, without bridge and firewall rules, and leave nothing of it."""
    # Not in /tmp: its data must lie on a disk, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="slm-docker-", dir="/var/lib"))
    words = [
        *("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2"),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/docker.pid"),
        *("--host", f"unix://{folder}/docker.sock", "--cgroup-parent", f"/{CGROUP_PARENT}"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs"),
    ]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    daemon = Daemon(folder)
    try:
        until = time.monotonic() + _READY_S
        while not daemon.docker("version", "--format", "{{.Server.Version}}", check=False):
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError((folder / "log").read_text()[-2000:])
            time.sleep(_STEP_S)
        yield daemon
        for container in daemon.docker("ps", "--all", "--quiet").split():
            daemon.docker("rm", "--force", "--volumes", container)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _unmount_below(folder)
        shutil.rmtree(folder)
        _remove_control_groups()


def _unmount_below(folder: Path) -> None:
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--", point], check=False)


def _remove_control_groups() -> None:
    for top in Path("/sys/fs/cgroup").glob(f"*/{CGROUP_PARENT}"):
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)
