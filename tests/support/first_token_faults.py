"""At every changing system call of installing and removing: killed there, failed there once, failed from there on.

Afterwards a service that was stopped is named in the note by which it is started again, a rollback leaves nothing of
ours, and the next recording succeeds. Each trial is a forked process on a real file system. Python's audit hooks stop
a call before it is made (PEP 578); they are not told of writes and syncs, which are counted by wrappers. Starts and
systemd are stand-ins: tests/live/hostile/test_wing.py has the real ones.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token import install
from ansible.module_utils.slm_baseline.first_token.audit import is_set_up
from ansible.module_utils.slm_baseline.first_token.install import set_up
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, parse_plan
from ansible.module_utils.slm_baseline.first_token.recorder import interruption
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Opened, Seen
from ansible.module_utils.slm_baseline.first_token.recorder.interruption import make_good
from ansible.module_utils.slm_baseline.first_token.recorder.record import Recording
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.remove import remove_all
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.first_token.unit_files import GIVEN_PROGRAMS
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import STOPPED_NOTE

from tests.support.bytecode import command_lines
from tests.support.ourselves import Ourselves

TARGET = Target("app", unit="app.service", ready=Ready("port", "1"))
UNIT = Unit(
    *("app.service", "simple", "app", "", False, "active", "/system.slice/app.service", ()),
    facts=(("ExecStartEx", command_lines("")), ("ProtectHome", "yes")),
)
PROGRAMS = dict.fromkeys(GIVEN_PROGRAMS, b"program")
RUNS = "/srv/app-runs"
"""There while the stand-in of the service runs."""
SOURCES = ("/srv/a.py", "/srv/b.py", "/srv/libcuda.so.1")
CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.chown", "os.link"})
KILLED, FINE, REFUSED, BROKEN = 9, 0, 1, 2
State = dict[str, str]


class Fault:
    """Counts changing calls, and kills or fails the one with this number."""

    def __init__(self, root: Path, at: int = 0, kind: str = "") -> None:
        self.root, self.at, self.kind = str(root), at, kind
        self.count = 0

    def install(self) -> None:
        """In force until the process ends."""
        for name in ("write", "fsync"):
            setattr(os, name, self._counted(name, getattr(os, name)))
        sys.addaudithook(self._hear)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int, *more: Any) -> Any:
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(self.root):
                self.strike(name)
            return real(descriptor, *more)

        return call

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(self.root)
        else:
            # A name without its folder is relative to a descriptor, and only trees of ours are walked so.
            last = str(arguments[1] if event in ("os.rename", "os.symlink") else arguments[0]) if arguments else ""
            changes = event in CHANGES and (last.startswith(self.root) or not last.startswith("/"))
        if changes:
            self.strike(event)

    def strike(self, name: str) -> None:
        self.count += 1
        if self.kind == "kill" and self.count == self.at:
            os._exit(KILLED)
        if (self.kind == "once" and self.count == self.at) or (
            self.kind == "from then on" and self.count >= self.at > 0
        ):
            raise OSError(errno.EIO, "Input/output error", name)


def recording(host: Host, number: int) -> Recording:
    seen = Seen({path: Opened(path, False) for path in SOURCES})
    files = []
    for path in SOURCES:
        found = os.lstat(host.path(path))
        files.append(PlanFile(path, False, found.st_ino, found.st_size, found.st_mtime_ns))
    return Recording(Plan({"page_bytes": "4096", "spinning": "0"}, [f"/start{number}"], files), seen, 0)


def stand_in(host: Host, patch: pytest.MonkeyPatch) -> None:
    """What starts and stops the service, and what its start leaves in its caches."""

    def record(subject: install.Subject, environment: dict[str, str] | None = None) -> Recording:
        host.path(RUNS).unlink(missing_ok=True)
        host.path(RUNS).touch()
        if environment:
            for name in ("a", "b"):
                host.path(f"{TARGET.pycache}/{name}.pyc").write_bytes(b"x")
            host.path(f"{TARGET.kernel_folder}/cuda/index").write_bytes(b"x")
        return recording(host, 2 if environment else 1)

    def back(target: Target, unit: Unit) -> list[str]:
        host.path(RUNS).touch()
        return []

    def plan_file(path: str, deadline: object) -> PlanFile:
        found = os.lstat(host.path(path))
        return PlanFile(path, False, found.st_ino, found.st_size, found.st_mtime_ns)

    cached = {f"/srv/{name}.py": f"{TARGET.pycache}/{name}.pyc" for name in "ab"}
    for name, replacement in {
        "require_trusted": lambda *_: None,
        "find_unit": lambda target: UNIT,
        "identity_of": lambda *_: Ourselves(),
        "LEAST_MODULES": 2,
        "find_cached": lambda *_: cached,
        "plan_file": plan_file,
        "_record": record,
    }.items():
        patch.setattr(install, name, replacement)

    class Done:
        returncode = 0

    patch.setattr(interruption, "systemctl", lambda *_: Done())
    patch.setattr(interruption, "put_back", back)


def begin(root: Path) -> Host:
    """A host with a service, and nothing of ours."""
    host = Host(root)
    for folder in ("/proc/self", "/srv", "/etc/systemd/system", "/run/systemd/system", "/var/lib", "/var/cache"):
        os.makedirs(host.path(folder))
    host.path("/proc/self/mountinfo").write_text("")
    for path in SOURCES:
        host.path(path).write_bytes(b"x = 1\n")
    host.path(RUNS).touch()
    return host


def state_of(root: Path) -> State:
    """Every file, link and folder; what is in /run goes with the next boot."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = Path(folder, name)
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else ""
            shown = os.readlink(path) if path.is_symlink() else content
            found[str(path.relative_to(root))] = f"{stat.filemode(status.st_mode)} {shown!r}"
    return {path: text for path, text in found.items() if not path.startswith("run/slm-baseline")}


def in_child(root: Path, work: Callable[[Host], None], fault: Fault) -> tuple[int, str, int]:
    """Run this in a process of its own: how it ended, what it said, and how many changing calls it made."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status, said = FINE, ""
        try:
            fault.install()
            work(Host(root))
        except SettingError as error:
            status, said = REFUSED, str(error)
        except BaseException:
            status, said = BROKEN, traceback.format_exc()
        fault.kind = ""
        with os.fdopen(write, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps([said, fault.count]))
        os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said, count = json.loads(text) if text else ("", 0)
    return status, said, count


def record_it(host: Host) -> None:
    set_up(host, TARGET, PROGRAMS)


def record_it_otherwise(host: Host) -> None:
    set_up(host, replace(TARGET, replay="together"), PROGRAMS)


def take_it_away(host: Host) -> None:
    done = remove_all(host, ["app"])
    if done.problems:
        raise SettingError("first_token", "all gone", "; ".join(done.problems), "why", "next")


KINDS = ("kill", "once", "from then on")
LEAST_POINTS = {"a first recording": 100, "a recording with other options": 100, "a removal": 40}
WORKS: dict[str, tuple[list[Callable[[Host], None]], Callable[[Host], None]]] = {
    "a first recording": ([], record_it),
    "a recording with other options": ([record_it], record_it_otherwise),
    "a removal": ([record_it], take_it_away),
}


def try_faults(stage: Path, patch: pytest.MonkeyPatch, name: str, kind: str, first: int = 1, every: int = 1) -> int:
    """Try one kind of fault at every so many changing calls of a work; AssertionError with all that does not hold.

    Returns how many were tried.
    """
    before, work = WORKS[name]
    # The disk itself is not under test, so nothing waits for it.
    patch.setattr(os, "fsync", lambda descriptor: None)
    problems: list[str] = []

    def fresh(where: str) -> tuple[Path, Host, State]:
        root = stage / where
        host = begin(root)
        stand_in(host, patch)
        pristine = state_of(root)
        for step in before:
            step(host)
        return root, host, pristine

    root, _, _ = fresh("clean")
    status, said, points = in_child(root, work, Fault(root))
    assert status == FINE, said
    # With fewer, one of them is not seen any more.
    assert points >= LEAST_POINTS[name]
    tried = range(first, points + 1, every)
    for at in tried:
        root, host, pristine = fresh(str(at))
        status, said, _ = in_child(root, work, Fault(root, at, kind))
        where = f"{name}, {kind} at {at} of {points}"
        if status == BROKEN or (kind == "kill" and status != KILLED):
            problems.append(f"{where}: ended with {status}: {said}")
        problems += [f"{where}: {each}" for each in after_fault(host, pristine, work)]
        shutil.rmtree(root)
    assert not problems, "\n".join(problems[:20]) + f"\n{len(problems)} in all"
    return len(tried)


def after_fault(host: Host, pristine: State, work: Callable[[Host], None]) -> Iterator[str]:
    """What must hold after any fault, as sentences of what does not."""
    note = {}
    if not host.exists(RUNS):
        try:
            note = json.loads(host.read(STOPPED_NOTE))
        except OSError:
            yield "the service is down, and no note names it"
        if note and note["start"] != ["app.service"]:
            yield f"the note names {note['start']}"
    # The next boot, or the unit that waits for our end.
    host.path(RUNS).touch()
    if host.exists(TARGET.plan):
        parse_plan(host.read(TARGET.plan))
    try:
        make_good(host)
        if work is not take_it_away:
            work(host)
            wanted = TARGET if work is record_it else replace(TARGET, replay="together")
            if not is_set_up(host, wanted):
                yield "the next recording is not clean"
        take_it_away(host)
    except (SettingError, OSError) as error:
        yield f"the next task fails: {error}"
    left = state_of(host.root)
    if left != pristine:
        differ = sorted(path for path in {*left, *pristine} if left.get(path) != pristine.get(path))
        yield f"not as before: {differ}"
