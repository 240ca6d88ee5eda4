"""A real systemd of a test's own: PID 1 of namespaces of its own, with nothing to start but what the test gives it.

It is the machine's own program, told to look for units in two throw-away folders alone, so that it sets no kernel
value, mounts nothing, and does not know the machine's services. Folders of ours are throw-away, too; what must lie on
a real disk, without which there is no page cache to record, lies in a folder of the test's. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SYSTEMD = next((path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if os.path.exists(path)), "")
UNITS = "/etc/systemd/system"
THROW_AWAY = (UNITS, "/var/lib", "/run", "/tmp", "/home", "/opt")
ON_DISK = {"/srv": ".", "/var/lib/slm-baseline": ".stage/lib", "/var/cache": ".stage/cache"}
USERS = {"mallory": 4242, "victim": 4243, "app": 4244}
_BOOT_S = 30.0
_TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "local-fs", "umount")
# The first stage makes the namespaces' mounts; systemd takes its place.
_INIT = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
disk=$1 stage=$2
for folder in {" ".join(THROW_AWAY)}; do mount -t tmpfs -o mode=0755 stage $folder; done
chmod 1777 /tmp
mkdir /var/lib/slm-baseline
{chr(10).join(f"mount --bind $disk/{place} {folder}" for folder, place in ON_DISK.items())}
for name in passwd group; do mount --bind $stage/$name /etc/$name; done
mkdir -p /run/systemd/system
for name in {" ".join(_TARGETS)}; do printf '[Unit]\\nDefaultDependencies=no\\n' > {UNITS}/$name.target; done
export container=test SYSTEMD_UNIT_PATH=/run/systemd/system:{UNITS}
exec {SYSTEMD} --system --unit=basic.target --log-target=null --show-status=no
"""


class PrivateSystemd:
    """A booted one. `pid` is that of its PID 1, as seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def command(self, words: Sequence[str]) -> list[str]:
        """A command that runs inside."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--", *words]

    def run(self, *words: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return subprocess.run(
            self.command(words), capture_output=True, text=True, errors="replace", check=check, timeout=timeout
        )


def why_not() -> str:
    """Why there can be none here; empty where there can."""
    if os.geteuid() != 0:
        return "namespaces and a systemd of its own: run it as root"
    missing = [name for name in ("nsenter", "unshare", "systemctl") if not shutil.which(name)]
    if not SYSTEMD or missing:
        return f"no systemd to boot, or no {', '.join(missing)}: install systemd and util-linux"
    return ""


@contextlib.contextmanager
def private_systemd(disk: Path) -> Iterator[PrivateSystemd]:
    """Boot one; `disk` is a folder of a real disk that it has as /srv. All of it ends with the block."""
    stage = disk / ".stage"
    for place in ON_DISK.values():
        (disk / place).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group"):
        text = Path("/etc", name).read_text()
        for user, uid in USERS.items():
            text += f"{user}:x:{uid}:{uid}::/home/{user}:/bin/sh\n" if name == "passwd" else f"{user}:x:{uid}:\n"
        (stage / name).write_text(text)
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--cgroup"]
    command = [*alone, "/bin/bash", "-c", _INIT, "init", str(disk), str(stage)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    pid = 0
    try:
        pid = _first_child(process)
        yield _booted(PrivateSystemd(pid), process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        shutil.rmtree(stage, ignore_errors=True)


def _first_child(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + _BOOT_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            return int(children.read_text().split()[0])
        time.sleep(0.02)
    raise RuntimeError(f"no namespaces: {process.stderr.read().decode() if process.stderr else ''}")


def _booted(systemd: PrivateSystemd, process: subprocess.Popen[bytes]) -> PrivateSystemd:
    until = time.monotonic() + _BOOT_S
    while time.monotonic() < until and process.poll() is None:
        said = systemd.run("systemctl", "is-system-running", check=False).stdout.strip()
        if said in ("running", "degraded"):
            return systemd
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"systemd did not boot: {process.stderr.read().decode() if process.stderr else ''}")


if __name__ == "__main__":
    with private_systemd(Path(sys.argv[1])) as booted:
        subprocess.run(booted.command(sys.argv[2:] or ["/bin/bash"]), check=False)
