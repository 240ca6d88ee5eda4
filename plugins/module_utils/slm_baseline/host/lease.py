"""One run at a time on a host: a lease between tasks, a lock while a task works.

Each task of a play is a process of its own, so a lock alone would leave gaps between tasks. The lease closes them: a
small file in /run that names the run, its controller and its ssh session. Every changing task renews it. The last task
releases it, and so does a task that fails, since its run does not come back to this host.

A run that ends in any other way releases nothing: another host's failure stops it, it is a role in a user's own play,
its container is killed. So a lease holds only while there is evidence that its run is alive: its task has the lock, the
same controller sees its process, or its ssh session is still open on this host. Without evidence either way, a new run
waits a moment, in which the next task of a living run would appear, and then takes the host over. The takeover is
recorded. If the old run is alive after all, for instance waiting for a slow host elsewhere, its next task finds the
record and stops with an error that names the new run: two runs never work on a host in turns without knowing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import SettingError, os_problem
from .files import Host
from .paths import LEASE, LOCK, TAKEN_OVER, VOLATILE

TASK_LEASE_S = 3900.0
"""How long an open session alone holds a host, and how long to wait for a task of the same run. The longest task builds
an environment, for which pip has an hour."""
LISTEN_S = 5.0
"""How long a new run waits for a task of one that may or may not be alive. The gap between two tasks on one host is
shorter, unless the run waits for another host."""
_POLL_S = 0.1
_REMEMBERED = 32
_SESSIONS = ("sshd", "sshd-session", "dropbear")
"""Names of the process of one ssh session (OpenSSH before and since 9.8, Dropbear)."""
_PARENT, _START = 4 - 3, 22 - 3
"""Indices in /proc/PID/stat, among the fields that follow the name (proc_pid_stat(5))."""


def boot_id(host: Host) -> str:
    """Return the kernel's boot id. It changes with every boot, so a lease never outlives one."""
    return (host.read_or_none("/proc/sys/kernel/random/boot_id") or "").strip()


def parse_stat(text: str) -> tuple[str, int, int]:
    """Return a process's name, parent and start in ticks since boot, from /proc/PID/stat; ValueError for other text.

    The name, in parentheses, may itself contain blanks and parentheses.
    """
    before, _, after = text.rpartition(")")
    fields = after.split()
    if len(fields) <= _START:
        raise ValueError(f"no process in {text!r}")
    return before.partition("(")[2], int(fields[_PARENT]), int(fields[_START])


def session(host: Host, pid: int | None = None) -> list[int] | None:
    """Return `[pid, started]` of this task's ssh session; None where no session is visible here.

    It is the nearest ancestor that is a process of the ssh server: the server itself, above it, outlives every session.
    """
    process = os.getpid() if pid is None else pid
    with contextlib.suppress(OSError, ValueError):
        # This chain ends: each process is younger than its parent.
        for _ in range(1000):
            name, parent, started = parse_stat(host.read(f"/proc/{process}/stat"))
            if name in _SESSIONS:
                return [process, started]
            if parent < 1:
                break
            process = parent
    return None


@contextlib.contextmanager
def held(host: Host, run: Mapping[str, Any]) -> Iterator[None]:
    """Hold the run's lease within the block; SettingError, naming the other run, where another one holds this host.

    `run` is `{id, controller: {name, id, pid, started}, alive: [[pid, started], ...]}`; `alive` lists the runs that are
    alive on the new run's controller. A block that raises ends the run on this host; a killed task keeps the lease.
    """
    try:
        os.makedirs(host.path(VOLATILE), mode=0o755, exist_ok=True)
        lock = os.open(host.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_problem("run lock", LOCK, error) from error
    try:
        _lock_out_others(host, lock, run)
        _refuse_outrun(host, run)
        _refuse_other(host, lock, run)
        _write(host, run)
        try:
            yield
        except BaseException:
            # Report the block's own error, whatever happens to the lease.
            with contextlib.suppress(OSError):
                release(host, run["id"])
            raise
        _write(host, run)
    finally:
        os.close(lock)


def release(host: Host, run_id: str) -> bool:
    """Release the host; return True where this run held it."""
    lease = _read(host)
    if lease is None or lease.get("run_id") != run_id:
        return False
    with contextlib.suppress(FileNotFoundError):
        host.path(LEASE).unlink()
    return True


def _lock_out_others(host: Host, lock: int, run: Mapping[str, Any]) -> None:
    """Take the lock; SettingError where another run's task is working.

    Waits for a task of the same run, since one machine may have two names in an inventory. A task of a killed run ends
    within moments, once it notices.
    """
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lease = _read(host) or {}
            patience_s = TASK_LEASE_S if lease.get("run_id") == run["id"] else LISTEN_S
            if time.monotonic() - began > patience_s:
                raise _refused(run, lease, "it is working on this host at this moment") from error
            time.sleep(_POLL_S)
        else:
            return


def _refuse_outrun(host: Host, run: Mapping[str, Any]) -> None:
    """Raise SettingError where another run took this host over from this one."""
    winner = _outrun(host).get(run["id"])
    if winner is not None:
        raise SettingError(
            "run lock",
            f"run {run['id']} alone on this host",
            f"run {winner}, which took this host over",
            "Nothing showed that this run was still alive, and what it did here may have been changed since.",
            "run it again.",
        )


def _refuse_other(host: Host, lock: int, run: Mapping[str, Any]) -> None:
    """Raise SettingError where another run that is alive holds the lease.

    Without evidence that it is alive, wait for a moment, then take the host over.
    """
    lease = _read(host)
    if lease is None or lease["run_id"] == run["id"] or lease["boot_id"] != boot_id(host):
        return
    theirs, ours = lease["controller"], run.get("controller") or {}
    if theirs.get("id") and theirs["id"] == ours.get("id"):
        if [theirs.get("pid"), theirs.get("started")] in (run.get("alive") or []):
            raise _refused(run, lease, "it is still running")
        return
    is_due = lease["expires"] < time.clock_gettime(time.CLOCK_BOOTTIME)
    if not is_due and _is_open(host, lease["session"]):
        raise _refused(run, lease, "its connection to this host is open; that ends about a minute after the run")
    heard = _listen(host, lock, run)
    if heard is None:
        _note_taken_over(host, lease["run_id"], run)
    elif heard["run_id"] != run["id"]:
        raise _refused(run, heard, "it went on working on this host")


def _listen(host: Host, lock: int, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Release the lock for a moment; return None where no task came, else the lease as it is now.

    A host that was released meanwhile counts as this run's own.
    """
    silent = host.read_or_none(LEASE)
    fcntl.flock(lock, fcntl.LOCK_UN)
    began = time.monotonic()
    while time.monotonic() - began < LISTEN_S and host.read_or_none(LEASE) == silent:
        time.sleep(_POLL_S)
    _lock_out_others(host, lock, run)
    if host.read_or_none(LEASE) == silent:
        return None
    return _read(host) or {"run_id": run["id"]}


def _is_open(host: Host, found: object) -> bool:
    """Return whether the process of an ssh session still exists and its pid was not reused."""
    if not isinstance(found, list) or len(found) != 2 or not all(isinstance(number, int) for number in found):
        return False
    try:
        return parse_stat(host.read(f"/proc/{found[0]}/stat"))[2] == int(found[1])
    except (OSError, ValueError):
        return False


def _note_taken_over(host: Host, loser: str, run: Mapping[str, Any]) -> None:
    """Record from which run this one took the host over. If that run is alive, its next task must stop."""
    name = (run.get("controller") or {}).get("name", "an unknown controller")
    known = {**_outrun(host), loser: f"{run['id']}, started from {name}"}
    kept = dict(list(known.items())[-_REMEMBERED:])
    host.write_durably(TAKEN_OVER, json.dumps(kept).encode(), mode=0o600)


def _outrun(host: Host) -> dict[str, str]:
    try:
        found = json.loads(host.read(TAKEN_OVER))
        return {str(loser): str(winner) for loser, winner in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _read(host: Host) -> dict[str, Any] | None:
    """Return the lease, None where there is none or it is damaged: it protects nothing durable, so damage frees it."""
    try:
        lease = json.loads(host.read(LEASE))
        expires = float(lease["expires"])
        valid = isinstance(lease["controller"], dict) and isinstance(lease["run_id"], str) and math.isfinite(expires)
        found = {"expires": expires, "boot_id": str(lease["boot_id"]), "session": lease.get("session")}
        return {**lease, **found} if valid else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _write(host: Host, run: Mapping[str, Any]) -> None:
    lease = {
        "run_id": run["id"],
        "controller": dict(run.get("controller") or {}),
        "boot_id": boot_id(host),
        "expires": time.clock_gettime(time.CLOCK_BOOTTIME) + TASK_LEASE_S,
        "session": session(host),
    }
    host.write_durably(LEASE, json.dumps(lease).encode(), mode=0o600)


def _refused(run: Mapping[str, Any], other: Mapping[str, Any], why: str) -> SettingError:
    controller = other.get("controller") or {}
    name, pid = controller.get("name", "an unknown controller"), controller.get("pid", "unknown")
    return SettingError(
        "run lock",
        f"run {run['id']} alone on this host",
        f"run {other.get('run_id', 'of an unknown name')}, started from {name} (pid {pid})",
        f"Two runs at once would undo each other's work, and {why}.",
        f"wait for it or stop it; if you know that it is dead, remove {LEASE} on the host.",
    )
