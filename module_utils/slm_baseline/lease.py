"""One run at a time on a host: a lease between tasks, a lock while a task works.

Each task of a play is a process of its own, so a lock alone would leave gaps between them. The lease fills these: a
small file in /run that names the run, its controller, and until when it holds. Every changing task renews it, the last
one gives it back. A run that died is recognised at once when it was started from the same controller, by its process;
else when the lease ends.
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

from .changes import os_problem
from .errors import SettingError
from .hostfs import Host

FOLDER = "/run/slm-baseline"
LEASE = f"{FOLDER}/lease.json"
LOCK = f"{FOLDER}/lock"
TASK_LEASE_S = 600.0
"""How long a run may be silent between two tasks: the slowest host of a batch holds the others up."""


def boot_id(host: Host) -> str:
    """Changes with every boot, so a lease never outlives one."""
    return (host.read_or_none("/proc/sys/kernel/random/boot_id") or "").strip()


@contextlib.contextmanager
def held(host: Host, run: Mapping[str, Any], lease_s: float = TASK_LEASE_S) -> Iterator[None]:
    """Work under the run's lease; SettingError, naming the other run, where another one holds this host.

    `run` is `{id, controller: {name, boot_id, pid, started}, alive: [[pid, started], ...]}`; `alive` lists the runs
    living on the new run's controller.
    """
    try:
        os.makedirs(host.path(FOLDER), mode=0o755, exist_ok=True)
        lock = os.open(host.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_problem("run lock", LOCK, error) from error
    try:
        other = _other(host, run)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refused(run, other or _read(host) or {}, "it is working on this host at this moment") from error
        if other is not None:
            wait_s = other["expires"] - time.clock_gettime(time.CLOCK_BOOTTIME)
            raise _refused(run, other, f"it holds this host for up to {wait_s:.0f} s more")
        _write(host, run, lease_s)
        yield
        _write(host, run, TASK_LEASE_S)
    finally:
        os.close(lock)


def release(host: Host, run_id: str) -> bool:
    """Give the host back; True where this run held it."""
    lease = _read(host)
    if lease is None or lease.get("run_id") != run_id:
        return False
    with contextlib.suppress(FileNotFoundError):
        host.path(LEASE).unlink()
    return True


def _other(host: Host, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The lease of another run that is, as far as can be told, still alive."""
    lease = _read(host)
    if lease is None or lease["run_id"] == run["id"] or lease["boot_id"] != boot_id(host):
        return None
    if lease["expires"] < time.clock_gettime(time.CLOCK_BOOTTIME):
        return None
    theirs, ours = lease["controller"], run.get("controller") or {}
    same_controller = bool(theirs.get("boot_id")) and theirs.get("boot_id") == ours.get("boot_id")
    if same_controller and [theirs.get("pid"), theirs.get("started")] not in (run.get("alive") or []):
        return None
    return lease


def _read(host: Host) -> dict[str, Any] | None:
    """The lease, None where there is none or it is damaged: it protects nothing that lasts, so damage frees it."""
    try:
        lease = json.loads(host.read(LEASE))
        expires = float(lease["expires"])
        valid = isinstance(lease["controller"], dict) and isinstance(lease["run_id"], str) and math.isfinite(expires)
        return {**lease, "expires": expires, "boot_id": str(lease["boot_id"])} if valid else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _write(host: Host, run: Mapping[str, Any], lease_s: float) -> None:
    lease = {
        "run_id": run["id"],
        "controller": dict(run.get("controller") or {}),
        "boot_id": boot_id(host),
        "expires": time.clock_gettime(time.CLOCK_BOOTTIME) + lease_s,
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
