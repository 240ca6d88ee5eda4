"""The world of the attacks on the first-token wing: inside a private systemd, with a service worth recording.

/srv/lib has modules without bytecode, /srv/serve.py imports them, reads weights, and answers at a port. `app` is the
service's user, `mallory` another one. Everything is root's to write, as a package's files are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.module_process import answer_in, begin_module, first_token_programs, read_output

UNITS = Path("/etc/systemd/system")
HOME = Path("/var/lib/slm-baseline/first-token")
NOTE = HOME / "stopped.json"
MALLORY, APP = 4242, 4244
PORT = 8001
MODULES = 60
BOUND_S = 180.0
SERVE = f"""
import os, socket, sys, time
{chr(10).join(f"import slm_module_{number}" for number in range(MODULES))}
if os.path.exists("/run/dies"): sys.exit(3)
with open("/srv/weights", "rb") as file: file.read()
if "--once" in sys.argv: sys.exit(0)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    with connection:
        try:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        except OSError: pass
"""


class Broken(AssertionError):
    """What must hold did not."""


def must(holds: object, why: object) -> None:
    if not holds:
        raise Broken(str(why)[-1500:])


@dataclass(frozen=True)
class Answer:
    """How a module ended."""

    result: Mapping[str, Any]
    output: str
    seconds: float

    @property
    def failed(self) -> bool:
        return bool(self.result.get("failed"))

    @property
    def notes(self) -> str:
        return " ".join(self.result.get("notes", []))


def sh(command: str, check: bool = True) -> str:
    """A command of the administrator's."""
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, errors="replace", timeout=120)
    if check and done.returncode:
        raise Broken(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def active(unit: str) -> str:
    return sh(f"systemctl is-active {unit}", check=False)


def wait_until(holds: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise Broken(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def environment_of(unit: str) -> str:
    """The environment that a unit's process was started with."""
    pid = sh(f"systemctl show -P MainPID {unit}")
    return Path(f"/proc/{pid}/environ").read_text(errors="replace").replace("\0", "\n")


@dataclass
class World:
    """What we run, and what others do meanwhile."""

    answers: list[Answer] = field(default_factory=list)

    def begin(self, which: str, **arguments: Any) -> subprocess.Popen[bytes]:
        """Start a module; what it says is read by `end`."""
        if which == "first_token" and arguments.get("state") != "absent":
            arguments.setdefault("programs", first_token_programs())
        return begin_module(which, arguments, stderr=subprocess.STDOUT, start_new_session=True)

    def end(self, process: subprocess.Popen[bytes], began: float, bound_s: float = BOUND_S) -> Answer:
        try:
            output = read_output(process, began + bound_s)
        except TimeoutError as error:
            process.kill()
            process.wait()
            raise Broken(f"the module did not end within {bound_s:g} s") from error
        process.wait()
        try:
            result = answer_in(output)
        except ValueError as error:
            raise Broken(f"no JSON: {output[-1500:]}") from error
        answer = Answer(result, output, time.monotonic() - began)
        self.answers.append(answer)
        return answer

    def module(self, which: str, bound_s: float = BOUND_S, **arguments: Any) -> Answer:
        began = time.monotonic()
        return self.end(self.begin(which, **arguments), began, bound_s)

    def record(self, bound_s: float = BOUND_S, **more: Any) -> Answer:
        return self.module("first_token", bound_s, **{**TARGET, **more})

    def fine(self, **more: Any) -> Answer:
        answer = self.record(**more)
        must(not answer.failed, answer.result.get("msg"))
        return answer

    def refused(self, *words: str, **more: Any) -> Answer:
        answer = self.record(**more)
        must(answer.failed and "problem" in answer.result, answer.output)
        must(all(word in str(answer.result["msg"]) for word in words), f"{words} not in {answer.result['msg']}")
        return answer

    def rollback(self) -> Answer:
        return self.module("memory_snapshot", state="restored", first_token=True)

    @contextlib.contextmanager
    def meanwhile(self, work: Callable[[], object], uid: int = MALLORY, once: bool = False) -> Iterator[int]:
        """A user does it again and again, or once and then waits."""
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                while True:
                    with contextlib.suppress(OSError):
                        work()
                    if once:
                        signal.pause()
            finally:
                os._exit(1)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


TARGET: dict[str, Any] = {
    "name": "app",
    "unit": "app.service",
    "ready": {"type": "url", "url": f"http://127.0.0.1:{PORT}/", "timeout_s": 30},
}
COMMAND: dict[str, Any] = {
    **{"name": "cmd", "unit": None, "user": "app", "ready": None, "environment": {"PYTHONPATH": "/srv/lib"}},
    "command": ["/usr/bin/python3", "/srv/serve.py", "0", "--once"],
}


def write_unit(name: str, *service: str, unit: tuple[str, ...] = ()) -> None:
    lines = ["[Unit]", *unit, "[Service]", *service, ""]
    (UNITS / f"{name}.service").write_text("\n".join(lines))


def serving(*lines: str, user: str = "User=app", port: int = PORT, unit: tuple[str, ...] = ()) -> None:
    """app.service with these lines more."""
    start = f"ExecStart=/usr/bin/python3 /srv/serve.py {port}"
    write_unit("app", user, "Environment=PYTHONPATH=/srv/lib", "TimeoutStopSec=5", start, *lines, unit=unit)
    sh("systemctl daemon-reload")


def set_stage() -> None:
    """The service, running, and nothing of ours."""
    shutil.rmtree("/srv/lib", ignore_errors=True)
    Path("/srv/lib").mkdir()
    for number in range(MODULES):
        Path(f"/srv/lib/slm_module_{number}.py").write_text(f"VALUE = {number}\n")
    Path("/srv/serve.py").write_text(SERVE)
    if not Path("/srv/weights").exists():
        Path("/srv/weights").write_bytes(os.urandom(33 << 20))
    serving()
    sh("systemctl start app")
    wait_until(lambda: sh("ss -Hltn sport = :8001"), "app listens")


def clear_stage() -> None:
    """By hand: nothing that is tested is trusted for it."""
    Path("/run/dies").unlink(missing_ok=True)
    names = [path.name for path in UNITS.glob("*.service")]
    if names:
        sh(f"systemctl stop {' '.join(names)}; systemctl reset-failed", check=False)
    for path in [*UNITS.iterdir(), *Path("/run/systemd/system").glob("*")]:
        if path.suffix != ".target":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for folder in ("/var/lib/slm-baseline", "/var/cache", "/run/slm-baseline", "/home", "/tmp"):
        sh(f"rm -rf {folder}/* {folder}/.[!.]*", check=False)
    sh("systemctl daemon-reload")
