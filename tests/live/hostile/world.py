"""The stage of the attacks: a machine with a hostile user, other people's files, and the project's own modules.

Throw-away /etc, /var/lib, /run, /mnt, /opt, /srv, /home and /tmp in namespaces of our own, over the real kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.faults.modules import IN_MEMORY, Modules, arguments_on_stage, become_module
from tests.live.hostile.watcher import ExecWatch

MALLORY, VICTIM, NOBODY = 4242, 4243, 65534
ROOT = Path(__file__).resolve().parents[3]
HOME = "/opt/slm-baseline"
PYTHON = "/srv/python/bin/python"
MODEL = "/srv/models/good"
MINE = "/home/mallory"
RAN = f"{MINE}/ran"
STAGE = ("/opt", "/srv", "/home", "/tmp")
KEPT = ("/etc", "/srv", "/home", "/opt", "/mnt", "/var/lib", "/run", "/tmp")
OURS = (
    *("/opt/slm-baseline", "/var/lib/slm-baseline", "/run/slm-baseline", "/mnt/huge"),
    *("/etc/tmpfiles.d/slm-baseline", "/etc/systemd/system/mnt-huge.mount", "/etc/systemd/system/mnt.mount"),
    *("/etc/systemd/system/local-fs.target.wants/mnt-huge.mount", "/srv/shared/slm"),
)
"""What carries our mark or our name; everything else is somebody's."""
BOUND_S = 120.0
PACKAGES = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "accelerate": "1.9.0",
    "psutil": "7.0.0",
    "safetensors": "0.6.2",
}


class Broken(AssertionError):
    """What must hold did not."""


@dataclass(frozen=True)
class Answer:
    """How a module or a play ended."""

    result: dict[str, Any]
    output: str
    seconds: float
    rc: int = 0

    @property
    def failed(self) -> bool:
        return bool(self.result.get("failed")) or self.rc != 0

    @property
    def knob(self) -> str:
        return str(self.result.get("problem", {}).get("knob", ""))


@dataclass
class World:
    """The stage, and what the attacks do on it."""

    modules: Modules
    watch: ExecWatch
    answers: list[Answer] = field(default_factory=list)
    enemies: list[int] = field(default_factory=list)

    # --- what we run

    def module(
        self, name: str, bound_s: float = BOUND_S, env: dict[str, str] | None = None, **arguments: Any
    ) -> Answer:
        """A module of the library, as root; Broken where it takes longer than its bound or says nothing."""
        began = time.monotonic()
        given = {**arguments_on_stage(name, arguments), "run": self.modules.identity()}
        out_read, out_write = os.pipe()
        gate_read, gate_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(gate_write)
            os.environ.update(env or {})
            become_module(self.modules.code[name], given, out_write, gate_read)
        for descriptor in (out_write, gate_read, gate_write):
            os.close(descriptor)
        output = b""
        with os.fdopen(out_read, "rb", buffering=0) as pipe:
            while True:
                left = began + bound_s - time.monotonic()
                if left <= 0 or not select.select([pipe], [], [], left)[0]:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    raise Broken(f"{name} did not end within {bound_s:g} s")
                chunk = pipe.read(1 << 16)
                if not chunk:
                    break
                output += chunk
        os.waitpid(pid, 0)
        answer = Answer(self._document(name, output), output.decode("utf-8", "replace"), time.monotonic() - began)
        self.answers.append(answer)
        return answer

    @staticmethod
    def _document(name: str, output: bytes) -> dict[str, Any]:
        """The answer as Ansible takes it: from the first brace on, since warnings may stand before it."""
        try:
            document: dict[str, Any] = json.loads(output[output.find(b"{") :].decode("utf-8"))
        except ValueError as error:
            raise Broken(f"{name} gave no JSON ({error}): {output[:300]!r} ... {output[-600:]!r}") from error
        return document

    def play(self, playbook: str, bound_s: float, **variables: Any) -> Answer:
        """A whole play through ansible-playbook."""
        began = time.monotonic()
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        given = json.dumps({"slm_accept_loss": IN_MEMORY["accept_loss"], **variables})
        command = [program, playbook, "-l", "gpu-hosts", "-e", given]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", timeout=bound_s
            )
        except subprocess.TimeoutExpired as error:
            raise Broken(f"{playbook} did not end within {bound_s:g} s: {error.stdout!r}"[-2000:]) from error
        return Answer({}, done.stdout + done.stderr, time.monotonic() - began, done.returncode)

    def tune(self, **thp: Any) -> Answer:
        return self.module("thp", **(thp or {"enabled": "never"}))

    def install(self, loader: str = "obey", home: str = HOME, python: str = PYTHON, **more: Any) -> Answer:
        """The scripts in the home, the loader among them that behaves as named."""
        text = (Path(__file__).with_name("loader.py")).read_text().replace('MODE = "obey"', f"MODE = {loader!r}")
        scripts = {"slm_load.py": text, **more.pop("scripts", {})}
        return self.module("slm_environment", home=home, python=python, scripts=scripts, **more)

    def measure(self, model: str = MODEL, home: str = HOME, python: str = PYTHON, **more: Any) -> Answer:
        given = {"model": model, "home": home, "python": python, "scope": "weights", "timeout_s": 10, **more}
        return self.module("slm_benchmark", **given)

    def check(self, **more: Any) -> Answer:
        return self.measure(state="checked", **more)

    def purge(self, home: str = HOME) -> Answer:
        return self.module("slm_environment", state="absent", home=home)

    def restore(self) -> Answer:
        return self.module("memory_snapshot", state="restored")

    # --- what the hostile user does

    def become(self, uid: int) -> None:
        """In a child: be that user, alone, and gone with the stage."""
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.environ["HOME"] = MINE

    def once(self, work: Callable[[], object], uid: int = MALLORY) -> None:
        """The user does one thing, and it has happened."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.become(uid)
                work()
                status = 0
            except BaseException as error:
                os.write(2, f"hostile user: {error!r}\n".encode())
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise Broken("the hostile user could not even do this")

    @contextlib.contextmanager
    def meanwhile(self, work: Callable[[], object], uid: int = MALLORY, pause_s: float = 0.0) -> Iterator[int]:
        """The user does it again and again meanwhile; the first time before anything else happens."""
        ready_read, ready_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self.become(uid)
                while True:
                    with contextlib.suppress(OSError):
                        work()
                    if ready_write >= 0:
                        os.close(ready_write)
                        ready_write = -1
                    time.sleep(pause_s)
            finally:
                os._exit(1)
        os.close(ready_write)
        os.read(ready_read, 1)
        os.close(ready_read)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    @contextlib.contextmanager
    def holding(self, work: Callable[[], object], uid: int = MALLORY) -> Iterator[int]:
        """The user holds something meanwhile: it is done once, and kept."""

        def hold() -> None:
            kept = work()
            os.write(ready[1], b"y")
            signal.pause()
            del kept

        ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self.become(uid)
                hold()
            except BaseException as error:
                os.write(ready[1], f"n{error!r}".encode())
            finally:
                os._exit(1)
        os.close(ready[1])
        said = os.read(ready[0], 1000)
        os.close(ready[0])
        if said != b"y":
            raise Broken(f"the hostile user could not even hold this: {said!r}")
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# --- the stage


def build_stage(disk: Path) -> None:
    """Mount and fill the stage. `disk` is a folder of a real disk, for the model: a page cache needs one."""
    for folder in STAGE:
        mode = "1777" if folder == "/tmp" else "0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={mode}", "stage", folder], check=True)
    fill_etc()
    for name, uid in (("mallory", MALLORY), ("victim", VICTIM)):
        home = Path("/home", name)
        home.mkdir()
        home.chmod(0o755)
        os.chown(home, uid, uid)
    for name, bits in (("shared", 0o1777), ("open", 0o777), ("team", 0o755), ("models", 0o755)):
        Path("/srv", name).mkdir()
        Path("/srv", name).chmod(bits)
    for name in ("models/tiny", "venv/bin", "scratch/home-x", "huggingface"):
        Path("/srv/team", name).mkdir(parents=True)
    for number, name in enumerate(("requirements.txt", "slm_load.py", "models/tiny/config.json", "venv/bin/python")):
        Path("/srv/team", name).write_text("precious")
        os.chown(f"/srv/team/{name}", *((0, 0) if number % 2 else (VICTIM, VICTIM)))
    Path("/home/victim/secret").write_text("precious")
    Path("/home/victim/secret").chmod(0o600)
    os.chown("/home/victim/secret", VICTIM, VICTIM)
    write_python(Path("/srv/python"))
    subprocess.run(["mount", "--bind", str(disk), "/srv/models"], check=True)
    write_model(Path(MODEL))
    os.sync()


def fill_etc() -> None:
    """Users, a secret, and the settings of a second administrator."""
    with open("/etc/passwd", "a", encoding="utf-8") as passwd:
        passwd.write(
            f"mallory:x:{MALLORY}:{MALLORY}::{MINE}:/bin/sh\nvictim:x:{VICTIM}:{VICTIM}::/home/victim:/bin/sh\n"
        )
    Path("/etc/shadow").write_text("root:precious:1::::::\n")
    Path("/etc/shadow").chmod(0o600)
    Path("/etc/sysctl.d").mkdir(exist_ok=True)
    Path("/etc/sysctl.d/50-theirs.conf").write_text("vm.swappiness = 10\n")


def write_python(folder: Path) -> None:
    """A virtual environment by hand that says it has every package of the loader; it is root's."""
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(f'python{sys.version_info[0]}.{sys.version_info[1]}')"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to("/usr/bin/python3")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for name, number in PACKAGES.items():
        info = packages / f"{name}-{number}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


def shard(elements: int = 1 << 19) -> bytes:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [elements], "data_offsets": [0, 2 * elements]}}).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(2 * elements)


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(shard())


def inventory() -> dict[str, str]:
    """Every file of the stage that is neither the hostile user's own nor ours: owner, mode, content or target."""
    found = {}
    for top in KEPT:
        for parent, folders, names in os.walk(os.fsencode(top)):
            here = os.fsdecode(parent)
            folders[:] = [name for name in folders if not f"{here}/{os.fsdecode(name)}".startswith(OURS)]
            for name in (*folders, *names):
                path = f"{here}/{os.fsdecode(name)}"
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(path)
                    if status.st_uid != MALLORY and not path.startswith((*OURS, f"{MINE}/")):
                        found[path] = _entry(path, status)
    return found


def _entry(path: str, status: os.stat_result) -> str:
    entry = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{entry} -> {os.readlink(path)}"
    if stat.S_ISREG(status.st_mode):
        return f"{entry} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    return entry


def mounts() -> list[str]:
    """What is mounted where, by kind and place."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [f"{line.split(' ')[4]} {line.partition(' - ')[2].split(' ')[0]}" for line in lines]


def strays(uid: int = NOBODY) -> list[str]:
    """Processes of the loader's user that are left."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text(errors="replace")
            if f"Uid:\t{uid}\t" in status and "State:\tZ" not in status:
                found.append(f"{status.splitlines()[0]} (pid {pid})")
    return found
