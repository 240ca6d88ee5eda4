"""A stage for faults: throw-away /etc, /var/lib, /run and /mnt in a private mount namespace, over the real kernel."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.slm_baseline.host import lease
from ansible.module_utils.slm_baseline.host.files import Host

from lookup.slm_run import describe

THP = Path("/sys/kernel/mm/transparent_hugepage")
POOLS = (Path("/sys/kernel/mm/hugepages"), Path("/sys/devices/system/node"))
MIN_FREE = Path("/proc/sys/vm/min_free_kbytes")
FOLDERS = ("/etc", "/var/lib", "/run", "/mnt")
_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime")
_CLONE_NEWNS = 0x00020000

State = dict[str, str]


def enter_private_namespace() -> None:
    """Leave the machine's mount namespace: nothing mounted from here on is seen outside this process."""
    _call("unshare", _CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{function}: this needs root")


def set_up_folders() -> None:
    """Pristine folders: the few files of /etc that C libraries read, and an empty rest.

    /etc/tmpfiles.d is missing, as it may be, so that making and removing it is part of the test.
    """
    kept = {name: Path("/etc", name).read_bytes() for name in _ETC if Path("/etc", name).exists()}
    for folder in FOLDERS:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "stage", folder], check=True)
    for name, content in kept.items():
        Path("/etc", name).write_bytes(content)
    Path("/etc/systemd/system").mkdir(parents=True)
    Path("/etc/systemd/system/theirs.mount").write_text("[Mount]\nWhat=tmpfs\nWhere=/mnt/theirs\nType=tmpfs\n")


def clear_folders() -> None:
    """Unmount whatever a failed trial left, then empty and refill the folders."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        path, is_hugetlbfs = line.split(" ")[4], line.partition(" - ")[2].startswith("hugetlbfs ")
        if path.startswith("/mnt/") and is_hugetlbfs:
            subprocess.run(["umount", path], check=True)
    for folder in FOLDERS:
        subprocess.run(["umount", folder], check=True)
    set_up_folders()


def forget_runs() -> None:
    """Remove what a complete rollback keeps: its archive, and the lock in /run."""
    for folder in ("/var/lib/slm-baseline", "/run/slm-baseline"):
        shutil.rmtree(folder, ignore_errors=True)


def _kernel_files() -> Iterator[Path]:
    """Every kernel file that the tuning could move, in the order in which they can be restored."""
    yield THP / "enabled"
    yield from sorted(
        path
        for path in THP.rglob("*")
        if path.is_file()
        and path != THP / "enabled"
        and path.stat().st_mode & stat.S_IWUSR
        and "stats" not in path.parts
    )
    for folder in POOLS:
        yield from sorted(folder.rglob("nr_hugepages"))
        yield from sorted(folder.rglob("nr_overcommit_hugepages"))
    yield MIN_FREE


def _selected(text: str) -> str:
    chosen = [word.strip("[]") for word in text.split() if word.startswith("[")]
    return chosen[0] if chosen else text.strip()


def kernel_state() -> State:
    """Value by file. Read in its own way: it shares no code with what it checks."""
    return {str(path): _selected(path.read_text()) for path in _kernel_files()}


def put_kernel_back(state: State) -> None:
    """Write what differs."""
    for path, value in state.items():
        if _selected(Path(path).read_text()) != value:
            Path(path).write_text(value)


def state() -> State:
    """Everything that must be as before: kernel files, mounts under /mnt, and all files of the stage's folders.

    Left out is what a rollback keeps on purpose: the archive, and the lock in /run, which no reboot survives.
    """
    found = kernel_state()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4].startswith("/mnt/"):
            found[f"mount {fields[4]}"] = " ".join([fields[5], *fields[-3:]])
    for folder in FOLDERS:
        for parent, folders, names in os.walk(folder):
            for name in folders + names:
                path = f"{parent}/{name}"
                found[path] = _file(path)
    for kept in ("/run/slm-baseline", "/run/slm-baseline/lock"):
        found.pop(kept, None)
    archive = "/var/lib/slm-baseline/archive"
    archived = [path for path in found if path == archive or path.startswith(f"{archive}/snapshot-")]
    for path in archived:
        del found[path]
    if archived:
        found.pop("/var/lib/slm-baseline", None)
    return found


def _file(path: str) -> str:
    status = os.lstat(path)
    owner = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{owner} -> {os.readlink(path)}"
    return f"{owner} {Path(path).read_bytes()!r}" if stat.S_ISREG(status.st_mode) else owner


@contextmanager
def staged() -> Iterator[State]:
    """The pristine state, in a namespace of our own; the kernel's values are restored whatever happens.

    The kernel is everybody's, so the machine's run lock is held all the while: SettingError where another works.
    """
    outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    run_id = f"faults-{os.getpid()}"
    run = {**describe(), "id": run_id}
    try:
        with lease.held(Host(), run), _private_stage(outside) as pristine:
            yield pristine
    finally:
        lease.release(Host(), run_id)
        os.close(outside)


@contextmanager
def _private_stage(outside: int) -> Iterator[State]:
    kernel = kernel_state()
    for end in (signal.SIGINT, signal.SIGTERM):
        # Started in the background, a process ignores the one; the other would end it with the kernel half set.
        signal.signal(end, signal.default_int_handler)
    enter_private_namespace()
    set_up_folders()
    try:
        yield state()
    finally:
        put_kernel_back(kernel)
        _call("setns", outside, _CLONE_NEWNS)
