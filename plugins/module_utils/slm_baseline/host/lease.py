"""One run at a time on a host: a lease between tasks, a lock while a task works.

Each task of a play is a process of its own, so a lock alone would leave gaps between them. The lease fills these: a
small file in /run that names the run, its controller, and until when it holds. Every changing task renews it; the last
one releases it, and so does one that fails, since its run does not come back to this host. A run of the same
controller holds exactly as long as its process lives; of another's no more can be told than when its lease ends.
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
from .paths import LEASE, LOCK, VOLATILE

TASK_LEASE_S = 3900.0
"""How long a run may be silent on a host. The fastest host of a batch waits for the slowest between two tasks, and the
longest task builds an environment, for which pip has an hour."""
_NAMELESS_S = 1.0
"""How long a task may hold the lock before the lease names its run."""
_POLL_S = 0.1


def boot_id(host: Host) -> str:
    """Changes with every boot, so a lease never outlives one."""
    return (host.read_or_none("/proc/sys/kernel/random/boot_id") or "").strip()


@contextlib.contextmanager
def held(host: Host, run: Mapping[str, Any]) -> Iterator[None]:
    """Work under the run's lease; SettingError, naming the other run, where another one holds this host.

    `run` is `{id, controller: {name, id, pid, started}, alive: [[pid, started], ...]}`; `alive` lists the runs living
    on the new run's controller. Work that raises ends the run on this host; a killed task keeps the lease.
    """
    try:
        os.makedirs(host.path(VOLATILE), mode=0o755, exist_ok=True)
        lock = os.open(host.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_problem("run lock", LOCK, error) from error
    try:
        _lock_out_others(host, lock, run)
        _refuse_other(host, run)
        _write(host, run)
        try:
            yield
        except BaseException:
            # What the work failed of is the news, whatever becomes of the lease.
            with contextlib.suppress(OSError):
                release(host, run["id"])
            raise
        _write(host, run)
    finally:
        os.close(lock)


def release(host: Host, run_id: str) -> bool:
    """Release the host; True where this run held it."""
    lease = _read(host)
    if lease is None or lease.get("run_id") != run_id:
        return False
    with contextlib.suppress(FileNotFoundError):
        host.path(LEASE).unlink()
    return True


def _lock_out_others(host: Host, lock: int, run: Mapping[str, Any]) -> None:
    """Have the lock; SettingError where another run's task is at work.

    A task of the same run is waited for: one machine may have two names in an inventory.
    """
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lease = _read(host) or {}
            patience_s = TASK_LEASE_S if lease.get("run_id") == run["id"] else _NAMELESS_S
            if time.monotonic() - began > patience_s:
                raise _refused(run, lease, "it is working on this host at this moment") from error
            time.sleep(_POLL_S)
        else:
            return


def _refuse_other(host: Host, run: Mapping[str, Any]) -> None:
    """SettingError where the lease is another run's that is, as far as can be told, still alive."""
    lease = _read(host)
    if lease is None or lease["run_id"] == run["id"] or lease["boot_id"] != boot_id(host):
        return
    theirs, ours = lease["controller"], run.get("controller") or {}
    if theirs.get("id") and theirs["id"] == ours.get("id"):
        if [theirs.get("pid"), theirs.get("started")] in (run.get("alive") or []):
            raise _refused(run, lease, "it is still running")
        return
    left_s = lease["expires"] - time.clock_gettime(time.CLOCK_BOOTTIME)
    if left_s >= 0:
        raise _refused(run, lease, f"it holds this host for up to {left_s:.0f} s more")


def _read(host: Host) -> dict[str, Any] | None:
    """The lease, None where there is none or it is damaged: it protects nothing that lasts, so damage frees it."""
    try:
        lease = json.loads(host.read(LEASE))
        expires = float(lease["expires"])
        valid = isinstance(lease["controller"], dict) and isinstance(lease["run_id"], str) and math.isfinite(expires)
        return {**lease, "expires": expires, "boot_id": str(lease["boot_id"])} if valid else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _write(host: Host, run: Mapping[str, Any]) -> None:
    lease = {
        "run_id": run["id"],
        "controller": dict(run.get("controller") or {}),
        "boot_id": boot_id(host),
        "expires": time.clock_gettime(time.CLOCK_BOOTTIME) + TASK_LEASE_S,
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
