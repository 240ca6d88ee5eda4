"""The world of the attacks from inside a container: a docker daemon of the tests' own, and secrets of the host.

What root opens of the secrets is seen by fanotify(7), whoever does it and by whatever name.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.containers.daemon import Daemon
from tests.live.containers.image import PYTHON, make_root
from tests.live.hostile.wing_world import Broken, must
from tests.support.module_process import answer_in, begin_module, first_token_programs, read_output

ROOT = Path(__file__).resolve().parents[3]
STATE = Path("/var/lib/slm-baseline")
PLAN = STATE / "first-token/targets/attacked/plan"
NOTE = STATE / "first-token/stopped.json"
NAME = "slm-attacked"
IMAGE = "slm-attacked:1"
MALLORY = 4242
BOUND_S = 60.0
"""What any call may take, on a busy machine too: whoever waits for an attacker waits longer."""
MOST_MIB = 500
SECRET_SIZE = 70_000


@dataclass(frozen=True)
class Answer:
    """How a module ended, and the most memory that it had."""

    result: dict[str, Any]
    output: str
    memory_mib: float

    @property
    def failed(self) -> bool:
        return bool(self.result.get("failed"))

    @property
    def text(self) -> str:
        return str(self.result.get("msg", "")) + " ".join(self.result.get("notes", []))


class Secrets:
    """Files that nobody but root may read, and a watch on everything that is opened of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for each in (folder, folder / "dir"):
            each.mkdir(mode=0o700)
        for each in (folder / "file", folder / "dir/file"):
            each.write_bytes(b"s" * SECRET_SIZE)
            os.utime(each, (1, 1))
        self._before = self._state()
        libc = ctypes.CDLL(None, use_errno=True)
        nonblocking, events, mark = 0x2, 0x1 | 0x2 | 0x20 | 0x08000000 | 0x40000000, 0x1
        self._watch = libc.fanotify_init(nonblocking | 0x1, os.O_RDONLY)
        for each in (folder, folder / "dir"):
            if libc.fanotify_mark(self._watch, mark, ctypes.c_uint64(events), -100, os.fsencode(each)):
                raise OSError(ctypes.get_errno(), "fanotify_mark")

    def watch_too(self, file: Path) -> None:
        """Report openings of this file, too."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fanotify_mark(self._watch, 0x1, ctypes.c_uint64(0x20), -100, os.fsencode(file)):
            raise OSError(ctypes.get_errno(), "fanotify_mark")

    def _state(self) -> list[tuple[str, int, int, int, str]]:
        found = []
        for path in sorted(self.folder.rglob("*")):
            status = path.lstat()
            text = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found.append((str(path), status.st_mode, status.st_uid, status.st_nlink, text))
        return found

    def offences(self) -> list[str]:
        """What was opened or changed since the last call."""
        found = []
        while select.select([self._watch], [], [], 0)[0]:
            data = os.read(self._watch, 1 << 16)
            for at in range(0, len(data), 24):
                descriptor, pid = struct.unpack_from("=ii", data, at + 16)
                found.append(f"process {pid} opened {os.readlink(f'/proc/self/fd/{descriptor}')}")
                os.close(descriptor)
        if self._state() != self._before:
            found.append("a secret has changed")
        # This very look.
        while select.select([self._watch], [], [], 0)[0]:
            data = os.read(self._watch, 1 << 16)
            for at in range(0, len(data), 24):
                os.close(struct.unpack_from("=i", data, at + 16)[0])
        return found

    def close(self) -> None:
        os.close(self._watch)


@dataclass
class World:
    """A daemon with an image, a volume, secrets, and the module."""

    daemon: Daemon
    folder: Path
    secrets: Secrets
    port: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def volume(self) -> Path:
        return self.folder / "vol"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @classmethod
    def build(cls, daemon: Daemon, folder: Path) -> World:
        root = folder / "root"
        make_root(root, compiles=False)
        for name, count in (("signs", 100), ("other", 5)):
            (root / "usr/share" / name).mkdir(parents=True)
            for number in range(count):
                (root / "usr/share" / name / str(number)).write_bytes(b"x" * 8192)
        shutil.copy(Path(__file__).with_name("inside.py"), root / "inside.py")
        daemon.import_image(root, IMAGE)
        return cls(daemon, folder, Secrets(folder / "secrets"))

    def set_stage(self) -> None:
        """An empty `out`, and a volume with sixty files and a folder."""
        for path in (self.volume, self.out):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o755)
        for name in (*map(str, range(60)), *(f"dir/{number}" for number in range(20)), "dir/file", "keys/private"):
            path = self.volume / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x" * (SECRET_SIZE if name == "dir/file" else 8192))
            os.utime(path, (1, 1))
        (self.volume / "keys/private").chmod(0o600)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = int(listening.getsockname()[1])

    def make(self, attack: str, argument: object = "", *options: str, name: str = NAME) -> None:
        """Make the container, stopped."""
        self.daemon.docker(
            *("create", "--name", name, "--network", "host", "--volume", f"{self.volume}:/vol"),
            *("--volume", f"{self.out}:/out", *options),
            *(IMAGE, PYTHON, "-S", "-E", "/inside.py", attack, str(argument)),
        )

    @property
    def asked(self) -> dict[str, Any]:
        """How a container tells that it is ready whose program listens."""
        return {"type": "port", "port": self.port, "timeout_s": 8}

    def begin(self, which: str, address: str = "", **arguments: Any) -> subprocess.Popen[bytes]:
        if which == "first_token":
            arguments["programs"] = first_token_programs()
        daemon = {"DOCKER_HOST": address or self.daemon.address}
        return begin_module(which, arguments, daemon, stderr=subprocess.STDOUT)

    def end(self, process: subprocess.Popen[bytes]) -> Answer:
        """Wait for a module; Broken where it takes too long, or says anything but JSON."""
        try:
            text = read_output(process, time.monotonic() + BOUND_S)
        except TimeoutError as error:
            where = Path(f"/proc/{process.pid}/stack")
            stack = where.read_text() if where.exists() else ""
            process.kill()
            process.wait()
            raise Broken(f"the module did not end within {BOUND_S:g} s: {stack}") from error
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        try:
            result = answer_in(text)
        except ValueError as error:
            raise Broken(f"no JSON: {text[-1500:]}") from error
        answer = Answer(result, text, used.ru_maxrss / 1024)
        self.answers.append(answer)
        return answer

    def record(self, address: str = "", **more: Any) -> Answer:
        given = {"name": "attacked", "container": NAME, "ready": {"type": "exit", "timeout_s": 30}, **more}
        return self.end(self.begin("first_token", address, **given))

    def fine(self, **more: Any) -> Answer:
        answer = self.record(**more)
        must(not answer.failed, answer.result.get("msg"))
        must("/usr/share/signs/99\n" in self.plan(), "this attack attacks nothing: the container was not seen")
        return answer

    def refused(self, *words: str, **more: Any) -> Answer:
        answer = self.record(**more)
        must(answer.failed and "problem" in answer.result, answer.output)
        must(all(word in str(answer.result["msg"]) for word in words), f"{words} not in {answer.result['msg']}")
        return answer

    def audit(self) -> dict[str, str]:
        """The audit's rows of the target, by the last part of their names."""
        answer = self.end(self.begin("memory_info", first_token=True, facts=False))
        must(not answer.failed, answer.output)
        return {
            row["knob"].rpartition(".")[2]: row["runtime"] for row in answer.result["rows"] if "token" in row["knob"]
        }

    def replay(self) -> str:
        """What a replay of the plan says."""
        words = ["/usr/bin/python3", "-IS", str(ROOT / "files/slm_replay.py"), str(PLAN)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=BOUND_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"the replay did not end within {BOUND_S:g} s") from error
        must(not done.returncode, done.stderr)
        return done.stdout

    def plan(self) -> str:
        return PLAN.read_text(errors="surrogateescape")

    def state(self, name: str = NAME) -> str:
        return self.daemon.docker("inspect", "--format", "{{.State.Status}}", name, check=False)

    def wait_until(self, holds: Any, what: str) -> None:
        until = time.monotonic() + 30
        while not holds():
            if time.monotonic() > until:
                raise Broken(f"not within 30 s: {what}")
            time.sleep(0.02)

    def clear(self) -> list[str]:
        """Take everything away; return what a rollback of ours has left."""
        answer = self.end(self.begin("first_token", name="attacked", state="absent"))
        broken = [f"the rollback fails: {answer.output[-800:]}"] if answer.failed else []
        left = [str(path) for path in (STATE / "first-token").rglob("*")]
        left += [str(path) for path in Path("/etc/systemd/system").rglob("*attacked*")]
        if left:
            broken.append(f"left after a rollback: {left}")
        for container in self.daemon.docker("ps", "--all", "--quiet").split():
            self.daemon.docker("rm", "--force", "--volumes", container, check=False)
        return broken


@contextlib.contextmanager
def file_systems_alike(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Two small disks whose first file has the same inode number on both."""
    points = []
    try:
        for name in ("one", "two"):
            disk, point = folder / f"{name}.img", folder / name
            with open(disk, "wb") as file:
                file.truncate(4 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", disk], check=True)
            point.mkdir()
            subprocess.run(["mount", "-o", "loop", disk, point], check=True)
            points.append(point)
            (point / "file").write_bytes(b"x" * SECRET_SIZE)
            os.utime(point / "file", (1, 1))
        yield points[0], points[1]
    finally:
        for point in points:
            subprocess.run(["umount", "--lazy", point], check=False)
        for name in ("one", "two"):
            (folder / f"{name}.img").unlink(missing_ok=True)
            shutil.rmtree(folder / name, ignore_errors=True)
