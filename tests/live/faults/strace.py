"""System calls by which a module changes something: found in one traced run, hit in the next ones."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

CHANGING = (
    "openat",
    "write",
    "fsync",
    "rename",
    "fchmod",
    "fchown",
    "mkdir",
    "symlink",
    "unlink",
    "rmdir",
    "mount",
    "umount2",
)
OURS = ("/etc/", "/var/lib", "/run/slm-baseline", "/mnt/", "/sys/", "/proc/sys/vm/", "/proc/self/fd/")
_LINE = re.compile(r"(?P<name>[a-z0-9_]+)\((?P<arguments>.*)\)\s+= (?P<result>-?[0-9]+|\?)(?P<rest>.*)")
_DESCRIPTOR = re.compile(r"[0-9]+<(?P<path>[^>]*)>")
_QUOTED = re.compile(r'"(?P<path>/[^"]*)"')


@dataclass(frozen=True)
class Call:
    """The `number`-th system call of this name in a run (from 1), as strace counts them."""

    name: str
    number: int
    path: str
    arguments: str
    result: int | None
    injected: bool = False

    @property
    def changes(self) -> bool:
        """Whether it changed something of ours: a path of ours, opened for writing if it was opened, and no failure."""
        if self.result is None or self.result < 0 or not self.path.startswith(OURS):
            return False
        return self.name != "openat" or "O_WRONLY" in self.arguments or "O_RDWR" in self.arguments

    @property
    def on_kernel(self) -> bool:
        return self.path.startswith(("/sys/", "/proc/sys/"))


def parse_log(text: str) -> list[Call]:
    """The calls of an strace log, in order; notes on signals and exits are left out."""
    calls = []
    seen: Counter[str] = Counter()
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        seen[match["name"]] += 1
        result = None if match["result"] == "?" else int(match["result"])
        calls.append(
            Call(
                match["name"],
                seen[match["name"]],
                _path(match["arguments"]),
                match["arguments"],
                result,
                "INJECTED" in match["rest"],
            )
        )
    return calls


def _path(arguments: str) -> str:
    """What a call works on: its descriptor's path, else its last path, which is where a rename or symlink puts it."""
    if descriptor := _DESCRIPTOR.match(arguments):
        return str(descriptor["path"])
    quoted: list[str] = _QUOTED.findall(arguments)
    ours = [path for path in quoted if path.startswith(OURS)]
    return (ours or quoted or [""])[-1]


def attach(pid: int, log: Path, inject: str | None) -> subprocess.Popen[str]:
    """strace on a process that waits to be let go; returns once it is attached."""
    command = ["strace", "-y", "-s", "64", "-o", str(log), "-e", f"trace={','.join(CHANGING)},exit_group"]
    command += ["-e", f"inject={inject}"] if inject else []
    process = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.readline()
    if "attached" not in said:
        raise RuntimeError(f"strace: {said}{process.stderr.read()}")
    return process
