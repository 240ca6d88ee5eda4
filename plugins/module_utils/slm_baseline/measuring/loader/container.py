"""The loader in a container of the user's image, started by docker or podman and observed from the host.

Every path inside is that of the host: a folder of ours and the model are mounted read-only where the host has them, so
what is told inside is comparable with what is seen outside. Nothing else differs from a bare run: the same program,
user, arguments and protocol. Events and hold are named pipes in a mounted folder, since docker passes no descriptors.

The container has no network, no capabilities, a read-only root, and a home in memory. Its loader ends by itself once
nobody reads its events; the container has a label by which the next measurement or a purge finds one that is left.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...containers.runtime import Runtime
from ...host import libc
from ...host.deadline import Deadline
from ...host.errors import SettingError
from ...host.rmtree import remove_tree
from ...host.subprocesses import Completed, run_bounded
from .process import Channels, Ended, Loader, LoaderProcess, clean_environment, end, open_pipe, plain_text, tie_to

LABEL = "slm-baseline.measurement"
"""Of each container of ours; its value is the container's name."""
HOME = "/slm-baseline"
"""In memory, and the container's own. runc gives such a mount the mode of the image's folder: no image has this one."""
_IN_MEMORY = "rw,exec,nosuid,nodev,mode=1777"
EVENTS, HOLD, PROGRAM = "events", "hold", "load"
"""Names in the mounted folder: the pipes, and the loader as a program of the image's Python."""
MOST_SHEBANG_BYTES = 127
"""What every kernel reads of the first line of a program (BINPRM_BUF_SIZE; 256 since Linux 5.1)."""
_IN_OPEN = 0x20
_REMOVAL_S = 30.0
_REFUSALS = ("docker:", "Error:", "Error response")
"""How docker's and podman's own errors begin, on the same stream as the program's."""
_LONGEST_REFUSAL, _LONGEST_LINE = 8192, 300


@dataclass(frozen=True)
class ContainerLauncher:
    """Starts each process in a container of its own, of the image with this digest; `image` is the user's name for it.

    `mounts` are folders and files of the host that the loader reads, `devices` the runtime's options that give it GPUs.
    `layers` are the image's folders, the topmost first; empty where the runtime does not tell them.
    """

    runtime: Runtime
    digest: str
    image: str
    mounts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    knob = "slm_benchmark_image"
    remedy = "choose an image that has them, or name the Python that has them in it (slm_benchmark_image_python)."

    def prepare(self, loader: Loader, stack: contextlib.ExitStack) -> Callable[[], LoaderProcess]:
        folder = stack.enter_context(_folder(loader))
        channels = _open_channels(folder, stack)
        told, given = open_pipe(stack)
        name = _new_name()
        words = ["--attach", "stderr", *self._options(loader, name, f"{folder}/{PROGRAM}", (folder,))]
        command = [self.runtime.program, "run", *words, self.digest, *loader.arguments, "--channel", folder]

        def begin() -> LoaderProcess:
            client = self._start(command, given.fileno())
            given.close()
            events_fd, hold_fd, executed_fd = channels
            return ContainerProcess(
                client, Channels(events_fd, hold_fd, told.fileno(), executed_fd), self.runtime, name
            )

        return begin

    def run(self, loader: Loader, words: Sequence[str], timeout_s: float, request: bytes = b"") -> Completed:
        name = _new_name()
        options = ["--interactive", *self._options(loader, name, loader.python, ())]
        command = [self.runtime.program, "run", *options, self.digest, *words]
        try:
            done = run_bounded(command, None, self.runtime.environment, timeout_s, request)
            problem = find_refusal(done.returncode, done.errors)
            if problem:
                raise NotStarted(problem)
            return done
        finally:
            self.runtime.remove_labelled(f"{LABEL}={name}", Deadline.after(_REMOVAL_S))

    def record(self) -> dict[str, str] | None:
        return {"name": self.image, "digest": self.digest, "runtime": self.runtime.name}

    def _start(self, command: Sequence[str], error_fd: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=error_fd,
                cwd="/",
                env=self.runtime.environment,
                start_new_session=True,
                preexec_fn=tie_to(os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SettingError(
                "slm_benchmark_runtime",
                "a client that runs",
                f"{self.runtime.program}: {error}",
                "It starts the container in which the loader runs.",
                f"check {self.runtime.program}.",
            ) from error

    def _options(self, loader: Loader, name: str, program: str, mounts: Sequence[str]) -> list[str]:
        """Return the options of `run` for both runtimes."""
        account = loader.account
        user = f"{account.uid}:{account.gid}" if account else f"{os.getuid()}:{os.getgid()}"
        environment = container_environment(loader)
        mounted = [
            *(_mount(path, is_writable=False) for path in dict.fromkeys((*self.mounts, *mounts))),
            *(_mount(path, is_writable=True) for path in loader.writable),
        ]
        return [
            *("--rm", "--name", name, "--label", f"{LABEL}={name}", "--pull", "never", "--log-driver", "none"),
            *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            # Our files keep their labels; without this SELinux would let no container read them.
            *("--security-opt", "label=disable"),
            *("--user", user, "--workdir", "/"),
            *(word for folder in (HOME, "/tmp") for word in ("--tmpfs", f"{folder}:{_IN_MEMORY}")),
            *("--oom-score-adj", "1000", "--no-healthcheck", "--entrypoint", program),
            *(word for key, value in environment.items() for word in ("--env", f"{key}={value}")),
            *(word for mount in mounted for word in ("--mount", mount)),
            *self.devices,
        ]


def container_environment(loader: Loader) -> Mapping[str, str]:
    """Return what is added to the image's environment; its search path stays."""
    clean = {name: value for name, value in clean_environment(loader, HOME).items() if name != "PATH"}
    # An image may have no entry for this user, and libraries ask for the name.
    name = loader.account.name if loader.account else "nobody"
    return {"USER": name, "LOGNAME": name, "TMPDIR": HOME, **clean}


@dataclass(frozen=True)
class ContainerProcess:
    """A loader in a container. Our child is the runtime's client, which ends with the container."""

    client: subprocess.Popen[bytes]
    channels: Channels
    runtime: Runtime
    name: str

    @property
    def pid(self) -> int:
        return self.client.pid

    def find_holder(self) -> int:
        container = self.runtime.container(self.name)
        if container is None or not container.pid:
            raise OSError(f"{self.runtime.name} knows no running container {self.name}")
        return container.pid

    def end(self) -> Ended | None:
        try:
            ended = end(self.pid)
        finally:
            self.client.returncode = 0
            is_gone = self.runtime.remove_labelled(f"{LABEL}={self.name}", Deadline.after(_REMOVAL_S))
        if ended is None or not is_gone:
            return None
        status, usage = ended
        return loaders_status(status), usage


class NotStarted(subprocess.SubprocessError):
    """The runtime has started no process in a container; the message says why, in its words."""


def find_refusal(code: int, errors: bytes) -> str:
    """Return why the runtime started nothing, in its words; empty where a process in the container ended so.

    125 is an error of the runtime, 126 and 127 a program that is missing or cannot be executed (docker-run(1)).
    """
    lines = [line.strip() for line in plain_text(errors[-_LONGEST_REFUSAL:]).splitlines()]
    told = [line for line in lines if line.startswith(_REFUSALS)]
    return told[0][:_LONGEST_LINE] if code in (125, 126, 127) and told else ""


def loaders_status(status: int) -> int:
    """Return the wait status of the loader from that of the client, which tells a signal as 128 and its number."""
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) - 128 in set(signal.Signals):
        return os.WEXITSTATUS(status) - 128
    return status


def _new_name() -> str:
    return f"slm-baseline-{secrets.token_hex(6)}"


def _mount(path: str, is_writable: bool) -> str:
    """Return the value of `--mount`: comma-separated fields, quoted as in CSV."""
    text = io.StringIO()
    fields = ["type=bind", f"source={path}", f"target={path}", *([] if is_writable else ["readonly"])]
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


@contextlib.contextmanager
def _folder(loader: Loader) -> Iterator[str]:
    """Make the folder that is mounted for one run: it is root's, so nobody else moves what is in it."""
    folder = tempfile.mkdtemp(prefix="container-", dir=loader.scratch or None)
    try:
        os.chmod(folder, 0o755)
        for name in (EVENTS, HOLD):
            os.mkfifo(f"{folder}/{name}", 0o600)
            if loader.account is not None:
                os.chown(f"{folder}/{name}", loader.account.uid, loader.account.gid)
        program = Path(folder, PROGRAM)
        program.write_text(f"#!{loader.python}\n{Path(loader.script).read_text('utf-8')}", encoding="utf-8")
        program.chmod(0o755)
        yield folder
    finally:
        with contextlib.suppress(OSError):
            remove_tree(Path(folder), _REMOVAL_S)


def _open_channels(folder: str, stack: contextlib.ExitStack) -> tuple[int, int, int]:
    """Open the pipes before the loader does, and watch for the execution of its program."""
    opened = []
    # For reading and writing, so that opening needs no reader. We are the only writer: our end is its end of file.
    for name, flags in ((EVENTS, os.O_RDONLY), (HOLD, os.O_RDWR)):
        opened.append(os.open(f"{folder}/{name}", flags | os.O_NONBLOCK | os.O_CLOEXEC))
        stack.callback(os.close, opened[-1])
    # The kernel opens a program when it executes it: before that the runtime has only looked at its mode.
    opened.append(libc.watch_file(f"{folder}/{PROGRAM}", _IN_OPEN))
    stack.callback(os.close, opened[-1])
    events_fd, hold_fd, executed_fd = opened
    return events_fd, hold_fd, executed_fd
