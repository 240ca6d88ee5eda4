"""One loader run as a fresh, unprivileged process, observed from outside through pipes and /proc.

The observer sleeps in poll(2) while the loader works, and reads /proc while the loader is held. How the process is
started is the loader's `launcher`: bare, as here, or in a container of an image (container.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

from ...host import libc
from ...host.accounts import Account, run_as
from ...host.errors import SettingError
from ...host.rmtree import remove_tree
from ...host.subprocesses import Completed, run_bounded
from ...host.subreaper import ProcessTree, subreaper
from .events import Events, ProtocolError

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 4096
_READ_BYTES = 1 << 16
_WATCH_MS = 1000
"""How often the observer polls without an event, to notice a dead loader whose child keeps the pipes open."""
_DYING_S = 2.0
"""How long a killed loader may take to free its memory: its /proc entry may be gone before wait4 reports its end."""
_ENDING_S = 60.0
"""How long a killed loader may take to end: one that is reading from a slow disk ends after the read."""
_DRAIN_BYTES, _DRAIN_S = 4 << 20, 5.0
"""Once every writer is gone, little is left in the pipes: an unprivileged user's holds 1 MiB at most (pipe(7))."""
_REMOVAL_S = 60.0
_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
_EXECUTED_BYTES = 4096


@dataclass(frozen=True)
class Usage:
    """Resource usage of the child from wait4(2): CPU seconds of its whole life."""

    cpu_user_s: float
    cpu_system_s: float


Ended = tuple[int, Usage]
"""How a loader ended: its wait status (wait(2)), and its usage."""


@dataclass(frozen=True)
class Channels:
    """The observer's ends: events and stderr come in, a byte on `hold_fd` resumes the loader.

    `executed_fd` becomes readable (inotify(7)) at the instant at which the kernel executes the loader's program; None
    where that is the instant of the start itself.
    """

    events_fd: int
    hold_fd: int
    error_fd: int
    executed_fd: int | None = None


class LoaderProcess(Protocol):
    """A loader that is started, bare or in a container: what the observer needs of it."""

    @property
    def pid(self) -> int:
        """Return our child, which ends when the loader does."""

    @property
    def channels(self) -> Channels:
        """Return the observer's ends."""

    def find_holder(self) -> int:
        """Return the process that holds the model, as the host numbers it; OSError or SettingError if it is gone."""

    def end(self) -> Ended | None:
        """Kill what is left of it and reap it; None where it still exists after the timeout."""


class Launcher(Protocol):
    """How programs of the loader's Python are started: bare, or each in a container of its own.

    `knob` is the variable that chooses the Python, `remedy` what to do about one that does not fit.
    """

    knob: str
    remedy: str

    def prepare(self, loader: Loader, stack: contextlib.ExitStack) -> Callable[[], LoaderProcess]:
        """Make what a run needs, removed with the stack, and return what starts the loader: the clock begins there."""

    def run(self, loader: Loader, words: Sequence[str], timeout_s: float, request: bytes = b"") -> Completed:
        """Run the loader's Python with other arguments, as its user; the same errors as `run_bounded`."""

    def record(self) -> dict[str, str] | None:
        """Return the image as documents have it: name, digest, runtime; None for the host itself."""


class BareLauncher:
    """Starts processes of the host."""

    knob = "slm_benchmark_python"
    remedy = "name another interpreter, or leave slm_benchmark_python empty for an environment of our own."

    def prepare(self, loader: Loader, stack: contextlib.ExitStack) -> Callable[[], LoaderProcess]:
        home = stack.enter_context(private_home(loader))
        pipes = Pipes.open(stack)

        def begin() -> LoaderProcess:
            events_fd, hold_fd, error_fd = pipes.given
            arguments = ("--events-fd", str(events_fd), "--hold-fd", str(hold_fd))
            process = start(loader, home, arguments, (events_fd, hold_fd), error_fd)
            pipes.close_given()
            return BareProcess(process.pid, pipes.kept, process)

        return begin

    def run(self, loader: Loader, words: Sequence[str], timeout_s: float, request: bytes = b"") -> Completed:
        clean = clean_environment(loader, "/nonexistent")
        return run_bounded([loader.python, *words], loader.account, clean, timeout_s, request)

    def record(self) -> dict[str, str] | None:
        return None


BARE = BareLauncher()


@dataclass(frozen=True)
class Loader:
    """How to run the loader. `account` None keeps the current user, as in tests; `env` extends the clean environment.

    `scratch` is the folder in which each run gets its own home; the system's temporary folder where it is empty.
    `stderr_bytes` is how much of the end of its stderr is kept. `writable` are folders of the host that belong to the
    loader's user and that it is to write.
    """

    python: str
    script: str
    arguments: tuple[str, ...]
    account: Account | None
    timeout_s: float
    env: tuple[tuple[str, str], ...] = ()
    scratch: str = ""
    stderr_bytes: int = _TAIL_BYTES
    writable: tuple[str, ...] = ()
    launcher: Launcher = BARE

    def run(self, words: Sequence[str], timeout_s: float, request: bytes = b"") -> Completed:
        """Run its Python with other arguments where the loader runs, as its user; the errors of `run_bounded`."""
        return self.launcher.run(self, words, timeout_s, request)


@dataclass(frozen=True)
class BareProcess:
    """A process of the host that is our child, by `spawned` or by adoption."""

    pid: int
    channels: Channels
    spawned: subprocess.Popen[bytes] | None = None

    def find_holder(self) -> int:
        return self.pid

    def end(self) -> Ended | None:
        try:
            return end(self.pid)
        finally:
            if self.spawned:
                # Already reaped, which Popen cannot know.
                self.spawned.returncode = 0


@dataclass(frozen=True)
class Observation:
    """What one loader run did. `problem` is None for a run that kept the protocol and exited successfully."""

    events: Events
    problem: str | None
    exit_code: int | None
    signal: str | None
    stderr_tail: str
    usage: Usage


class Unreadable(Exception):
    """The loader runs, and what it holds cannot be read; the message says why."""


class ControllerGone(Exception):
    """Nobody reads our output any more: the run was interrupted, so measuring stops."""


def observe(loader: Loader, on_held: Callable[[int], None], beside: Callable[[], int] | None = None) -> Observation:
    """Run the loader once. `on_held(pid)` is called while it holds the model after its first token.

    `beside` starts another process at the same instant, within the loader's time, and returns its pid; the caller ends
    it.

    A loader that crashes, hangs, is killed or writes invalid events gives an Observation with a `problem`; so does an
    `on_held` that cannot read what it wants (OSError, SettingError). Raises SettingError where the loader cannot be
    started at all, and ControllerGone when nobody waits for the answer. No process is left behind.
    """
    with contextlib.ExitStack() as stack:
        begin = loader.launcher.prepare(loader, stack)
        family = stack.enter_context(subreaper())
        events = Events(time.monotonic_ns())
        if beside:
            family.exclude(beside())
        return watch_one(loader, begin(), events, on_held, family)


@dataclass(frozen=True)
class Pipes:
    """The pipes between observer and loader: events and stderr come in; a byte on `hold` resumes the loader."""

    events: tuple[FileIO, FileIO]
    hold: tuple[FileIO, FileIO]
    error: tuple[FileIO, FileIO]

    @staticmethod
    def open(stack: contextlib.ExitStack) -> Pipes:
        """Open new pipes, closed with the stack."""
        return Pipes(open_pipe(stack), open_pipe(stack), open_pipe(stack))

    @property
    def given(self) -> tuple[int, int, int]:
        """Return the loader's ends: events, hold, stderr."""
        return self.events[1].fileno(), self.hold[0].fileno(), self.error[1].fileno()

    @property
    def kept(self) -> Channels:
        """Return the observer's ends."""
        return Channels(self.events[0].fileno(), self.hold[1].fileno(), self.error[0].fileno())

    def close_given(self) -> None:
        """Close our copies of the loader's ends once it has them: they would hide that it closes its own."""
        for end in (self.events[1], self.hold[0], self.error[1]):
            end.close()


def start(
    loader: Loader, home: str, arguments: tuple[str, ...], descriptors: tuple[int, ...], error_fd: int
) -> subprocess.Popen[bytes]:
    """Start the loader as its user, killed when we end and chosen first by the OOM killer.

    SettingError where it cannot be started.
    """
    try:
        process = subprocess.Popen(
            [loader.python, loader.script, *loader.arguments, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=error_fd,
            cwd="/",
            env=clean_environment(loader, home),
            pass_fds=descriptors,
            start_new_session=True,
            preexec_fn=tie_to(os.getpid()),
            **run_as(loader.account),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingError(
            "slm_benchmark_python",
            "an interpreter that the loader's user can run",
            loader.python,
            f"Starting it failed: {error}.",
            "check the path and its permissions for the user slm_benchmark_user.",
        ) from error
    offer_to_oom_killer(process.pid)
    return process


def offer_to_oom_killer(pid: int) -> None:
    """Make this process and its children the OOM killer's first choice (proc(5)).

    Done from outside: after a change of user a process may not open its own file. It may not lower what root has set.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def watch_one(
    loader: Loader, process: LoaderProcess, events: Events, on_held: Callable[[int], None], family: ProcessTree
) -> Observation:
    """Observe a running loader until it ends, and end what is left of it and of its `family`."""
    watch = _Watch(process, events, process.channels, on_held, loader)
    try:
        problem = watch.run(events.spawn_ns + int(loader.timeout_s * 1e9), loader.timeout_s)
    finally:
        ended = process.end()
        # Before the pipes are drained: processes that are left could fill them for ever.
        is_alone = family.end()
    problem = problem or watch.drain()
    if ended is None or not is_alone:
        return _observation(watch, f"processes of it are left {_ENDING_S:g} s after SIGKILL", ended)
    return _observation(watch, problem, ended)


def clean_environment(loader: Loader, home: str) -> dict[str, str]:
    """Return the loader's whole environment, without any of our variables, which could affect a measurement."""
    environment = {
        "PATH": _SEARCH_PATH,
        "HOME": home,
        "LANG": "C.UTF-8",
        "TOKENIZERS_PARALLELISM": "false",
        # Number devices as the driver and nvidia-smi do; CUDA's default puts the fastest device first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # A model is loaded from its files; nothing may wait for a network.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    return {**environment, **dict(loader.env)}


@dataclass
class _Watch:
    """The poll loop over a loader's pipes."""

    process: LoaderProcess
    events: Events
    channels: Channels
    on_held: Callable[[int], None]
    loader: Loader
    tail: bytes = b""

    def run(self, deadline_ns: int, timeout_s: float) -> str | None:
        """Poll until the loader ends, breaks the protocol (the returned text says how) or the deadline passes."""
        poll = select.poll()
        own = self.channels
        os.set_blocking(own.hold_fd, False)
        open_pipes = {own.events_fd, own.error_fd}
        if own.executed_fd is not None:
            poll.register(own.executed_fd, select.POLLIN)
        for descriptor in (own.events_fd, own.error_fd):
            os.set_blocking(descriptor, False)
            poll.register(descriptor, select.POLLIN)
        # No events requested: poll still reports a hang-up of our own output's reader.
        poll.register(1, 0)
        while True:
            left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
            if left_ms <= 0:
                return f"still running after {timeout_s:g} s; last event: {self._last_event()}"
            # With both pipes closed the process is about to end, so the wait is short.
            for descriptor, flags in poll.poll(min(left_ms, _WATCH_MS if open_pipes else 10)):
                if descriptor == 1 and flags & (select.POLLERR | select.POLLHUP):
                    raise ControllerGone
                if descriptor == own.executed_fd:
                    self._note_execution()
                    poll.unregister(descriptor)
                if descriptor in open_pipes:
                    try:
                        still_open = self._read(descriptor)
                    except (ProtocolError, Unreadable) as error:
                        return str(error)
                    if not still_open:
                        poll.unregister(descriptor)
                        open_pipes.discard(descriptor)
            if _has_ended(self.process.pid):
                return None

    def drain(self) -> str | None:
        """Read what is left in the pipes of a loader that has ended; return what is wrong with it, if anything."""
        problem = None
        deadline, left = time.monotonic() + _DRAIN_S, _DRAIN_BYTES
        for descriptor in (self.channels.events_fd, self.channels.error_fd):
            try:
                while self._read(descriptor):
                    left -= _READ_BYTES
                    if left < 0 or time.monotonic() > deadline:
                        problem = problem or "its pipes are still being filled after its end"
                        break
            except (ProtocolError, Unreadable) as error:
                problem = str(error)
        return problem

    def _note_execution(self) -> None:
        """Begin the loader's clock: what was before is the start of its container."""
        if self.channels.executed_fd is not None and not self.events.is_executed:
            with contextlib.suppress(BlockingIOError):
                os.read(self.channels.executed_fd, _EXECUTED_BYTES)
                self.events.begin(time.monotonic_ns())

    def _read(self, descriptor: int) -> bool:
        """Read what a pipe has; return False at its end, or when it is empty but kept open by a stray child."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if descriptor == self.channels.error_fd:
            self.tail = (self.tail + data)[-self.loader.stderr_bytes :]
            return bool(data)
        # Executed before it could write anything, and both may have come at once.
        self._note_execution()
        if data and self.channels.executed_fd is not None and not self.events.is_executed:
            raise ProtocolError("events came before its program was seen to be executed")
        if "held" in self.events.feed(data):
            self._look()
            # Full only if the loader filled it itself, through /proc/self/fd.
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                os.write(self.channels.hold_fd, b"g")
        return bool(data)

    def _look(self) -> None:
        """Read what the loader holds. One that was killed meanwhile has nothing left; its exit status says so."""
        try:
            self.on_held(self.process.find_holder())
        except (OSError, SettingError) as error:
            deadline = time.monotonic() + _DYING_S
            while not _has_ended(self.process.pid):
                if time.monotonic() > deadline:
                    raise Unreadable(f"what holds the model cannot be read: {error}") from error
                time.sleep(0.01)

    def _last_event(self) -> str:
        return next(reversed(self.events.marks), "none")


def _observation(watch: _Watch, problem: str | None, ended: Ended | None) -> Observation:
    """Build the observation; `ended` is None for a loader that could not be ended."""
    status, waited = ended or (int(signal.SIGKILL), Usage(0.0, 0.0))
    # A container's process is no child of ours: of it only the loader itself can tell.
    told = watch.events.last
    usage = Usage(max(waited.cpu_user_s, told.cpu_user_s), max(waited.cpu_system_s, told.cpu_system_s))
    name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    if problem is None:
        if name:
            problem = f"killed by {name}"
        elif exit_code:
            problem = f"ended with exit code {exit_code}"
        elif missing := watch.events.missing():
            problem = f"ended well but never reported {', '.join(missing)}"
    return Observation(watch.events, problem, exit_code, name, plain_text(watch.tail), usage)


def plain_text(tail: bytes) -> str:
    """Decode the end of a process's stderr as plain text, without control characters but line ends and tabs."""
    text = tail.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in text if char in "\n\t" or char.isprintable()).strip()


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(pid: int) -> Ended | None:
    """Kill what is left of a loader's process group and reap the loader; return its wait status and own usage.

    None where it still exists after the timeout, as in an uninterruptible read of a dead network disk. It is reaped
    last: until then its group id cannot be reused. RUSAGE_CHILDREN would be a maximum over all children so far
    (getrusage(2)), so this one child is waited for.
    """
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _ENDING_S
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, Usage(usage.ru_utime, usage.ru_stime)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def tie_to(parent: int) -> Callable[[], None]:
    """Return a function for the child, called after its change of user: die with us (prctl(2), PR_SET_PDEATHSIG).

    A change of user clears that request.
    """

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return tie


def open_pipe(stack: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """Open a pipe's reading and writing end; both are closed with the stack, if not before."""
    read, write = os.pipe()
    return stack.enter_context(FileIO(read, "rb")), stack.enter_context(FileIO(write, "wb"))


@contextlib.contextmanager
def private_home(loader: Loader) -> Iterator[str]:
    """Make an empty home for one run, and remove it afterwards."""
    home = tempfile.mkdtemp(prefix="home-", dir=loader.scratch or None)
    try:
        if loader.account is not None:
            os.chown(home, loader.account.uid, loader.account.gid)
        yield home
    finally:
        # What cannot be removed is removed with the scratch of the next run, or reported there.
        with contextlib.suppress(OSError):
            remove_tree(Path(home), _REMOVAL_S)
