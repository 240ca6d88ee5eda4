"""The programs of the machine that the VM tests run: looked up once, missing ones named with how to install them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Program -> the Debian package that brings it.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "debootstrap": "debootstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "setpriv": "util-linux",
}
PROGRAMS_OF_FOREIGN = {
    "qemu-system-aarch64": "qemu-system-arm",
    "dpkg-deb": "dpkg",
    "depmod": "kmod",
    "modprobe": "kmod",
    "cpio": "cpio",
}
"""What a machine of another architecture needs besides."""

Command = Sequence[str | Path]


class VmTestError(Exception):
    """The harness cannot go on; the text says what is missing or broken and what to do."""


def search_path() -> str:
    """PATH with the folders of system programs, which an unprivileged user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing_programs(wanted: Mapping[str, str] = PROGRAMS) -> list[str]:
    """Names of the needed programs that are not installed, in the order in which they are wanted."""
    return [name for name in wanted if shutil.which(name, path=search_path()) is None]


def require_programs(wanted: Mapping[str, str] = PROGRAMS) -> None:
    """Raise VmTestError naming every missing program and the one line that installs them all."""
    missing = missing_programs(wanted)
    if missing:
        packages = " ".join(sorted({wanted[name] for name in missing}))
        raise VmTestError(
            f"missing: {', '.join(missing)}. Next: apt-get install --no-install-recommends {packages}",
        )


def as_root() -> list[str]:
    """What to put before a command that needs root; VmTestError where root cannot be had without a question."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n"]
    raise VmTestError(
        "building the disk image needs root once (debootstrap). Next: run as root, or allow sudo without a password.",
    )


def run(command: Command, log: Path, **environment: str) -> None:
    """Run one command to its end with its output appended to `log`; VmTestError naming the log where it fails."""
    words = [str(word) for word in command]
    with log.open("ab") as output:
        output.write(f"+ {' '.join(words)}\n".encode())
        output.flush()
        status = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": search_path(), **environment},
        ).returncode
    if status:
        tail = log.read_text(errors="replace").splitlines()[-5:]
        raise VmTestError("\n".join([f"{words[0]} failed with status {status}; its log is {log} and ends:", *tail]))
