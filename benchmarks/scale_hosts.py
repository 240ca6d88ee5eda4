"""A fleet on one machine: one sshd in its own network namespace, where each address leads to another host.

A login enters its own mount and process namespaces, where the files of its address's host are bound over those of the
machine. Namespaces and files end with the process that made them, and the network has no way out: only
127.0.0.0/8 of itself.
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fakes import build_host, put

STAGE = Path("/run/slm-scale")
"""On a tmpfs over /run that only this mount namespace sees."""
BOUND = (
    "sys/kernel/mm",
    "sys/devices/system/node",
    "etc/tmpfiles.d",
    "etc/systemd/system",
    "var/lib/slm-baseline",
    "run/slm-baseline",
    "mnt",
)
"""The files that each host has of its own: all that the tuning reads and writes."""
MADE = ("var/lib/slm-baseline", "run/slm-baseline", "run/systemd/system", "run/sshd")
"""Folders that must exist as bind targets, to look like a host with systemd, or for sshd."""
_ENABLED = "sys/kernel/mm/transparent_hugepage/enabled"
_FIRST = int(ipaddress.IPv4Address("127.16.0.1"))

_ENTER = f"""\
#!/bin/sh
set -- $SSH_CONNECTION
exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private {STAGE}/inside "$3"
"""
_INSIDE = f"""\
#!/bin/sh
mount --all --fstab {STAGE}/hosts/"$1".fstab && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
_SSHD = f"""\
ListenAddress 0.0.0.0
HostKey {STAGE}/host_key
AuthorizedKeysFile {STAGE}/login_key.pub
ForceCommand {STAGE}/enter
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PidFile none
MaxStartups 1000
LogLevel ERROR
"""


def address(number: int) -> str:
    """Return the address of a host, numbered from 0."""
    return str(ipaddress.IPv4Address(_FIRST + number))


@dataclass(frozen=True)
class Host:
    """One host by its number, with files that no other host shares."""

    number: int

    @property
    def name(self) -> str:
        return f"host-{self.number:04}"

    @property
    def tree(self) -> Path:
        return STAGE / "hosts" / address(self.number)

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables with which Ansible reaches the host."""
        return {"ansible_host": address(self.number)}

    def build(self) -> None:
        """Make a host whose kernel already has the wanted values but which was never tuned: no drop-in, no unit."""
        build_host(self.tree)
        put(self.tree, "/sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise madvise [never]\n")
        for folder in ("sys/kernel/mm/hugepages", "sys/devices/system/node/node0/hugepages"):
            for name in ("nr_hugepages", "free_hugepages"):
                put(self.tree, f"/{folder}/hugepages-2048kB/{name}", "1024\n")
        for name in (*BOUND, "mnt/huge"):
            (self.tree / name).mkdir(parents=True, exist_ok=True)
        self._write_fstab()

    def become(self, other: Host) -> None:
        """Copy the files of another host, except its lease."""
        shutil.copytree(other.tree, self.tree, symlinks=True)
        self._write_fstab()

    def set_thp(self, value: str) -> None:
        """Set THP as another program would."""
        words = ("always", "madvise", "never")
        put(self.tree, f"/{_ENABLED}", " ".join(f"[{word}]" if word == value else word for word in words) + "\n")

    def _write_fstab(self) -> None:
        binds = [f"{self.tree}/{name} /{name} none bind 0 0\n" for name in BOUND]
        # A boot of this host would have mounted this.
        huge = "hugetlbfs /mnt/huge hugetlbfs pagesize=2M,mode=0770,nosuid,nodev 0 0\n"
        self.tree.with_name(f"{self.tree.name}.fstab").write_text("".join(binds) + huge)


def enter(command: list[str]) -> int:
    """Run a command in its own network, mount and process namespaces, which end with it; return its exit status."""
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    return subprocess.run(["unshare", *namespaces, *command], check=False).returncode


@contextmanager
def fleet(sshd: str) -> Iterator[int]:
    """Yield the process id of an sshd that answers at every address; only inside `enter`."""
    _run("ip", "link", "set", "lo", "up")
    # /var/lib too: the bind target of the hosts' folder may not exist on this machine.
    for folder in ("/run", "/var/lib", "/mnt"):
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", folder)
    for name in MADE:
        Path("/", name).mkdir(parents=True)
    (STAGE / "hosts").mkdir(parents=True, mode=0o700)
    for name, text in (("enter", _ENTER), ("inside", _INSIDE), ("sshd_config", _SSHD)):
        (STAGE / name).write_text(text)
        (STAGE / name).chmod(0o755)
    for key in ("host_key", "login_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(STAGE / key))
    _add_user("sshd")
    server = subprocess.Popen([sshd, "-D", "-f", str(STAGE / "sshd_config")])
    try:
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def _add_user(name: str) -> None:
    """Add the user for sshd's privilege separation if Debian's package has not made it."""
    passwd = Path("/etc/passwd").read_text()
    if f"\n{name}:" not in passwd:
        copy = STAGE / "passwd"
        copy.write_text(f"{passwd}{name}:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
        copy.chmod(0o644)
        _run("mount", "--bind", str(copy), "/etc/passwd")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
