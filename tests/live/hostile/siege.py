"""Runs every attack on a stage of its own namespaces, and writes how each ended as JSON lines to a descriptor.

unshare --mount --pid --fork --mount-proc --propagation private python -m tests.live.hostile.siege FD [NAME...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests import conftest  # noqa: F401 - makes the target side importable
from tests.live.faults.modules import Modules
from tests.live.faults.stage import kernel_state, put_kernel_back, staged
from tests.live.hostile.attack import Attack
from tests.live.hostile.attacks import ATTACKS
from tests.live.hostile.watcher import ExecWatch
from tests.live.hostile.world import (
    MALLORY,
    MINE,
    OURS,
    RAN,
    Answer,
    Broken,
    World,
    build_stage,
    inventory,
    mounts,
    strays,
)


def main(descriptor: int, wanted: list[str]) -> None:
    """Each attack in turn; one line as soon as it is over."""
    out = os.fdopen(descriptor, "w", encoding="utf-8")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="slm-baseline-hostile-") as name:
        disk = Path(name)
        disk.chmod(0o755)
        with staged():
            build_stage(disk)
            modules = Modules(disk)
            watch = ExecWatch(MALLORY, sorted({line.split(" ")[0] for line in mounts() if _can_be_watched(line)}))
            for each in ATTACKS:
                if not wanted or each.name in wanted:
                    out.write(json.dumps(fight(World(modules, watch), each)) + "\n")
                    out.flush()


def _can_be_watched(line: str) -> bool:
    path, _, kind = line.rpartition(" ")
    is_disk = kind in ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay")
    # Others are covered by the stage's own mounts.
    return is_disk and os.path.ismount(path)


def fight(world: World, each: Attack[World]) -> dict[str, object]:
    """One attack, and what must always hold after it."""
    world.modules.new_run()
    before, kernel, mounted = inventory(), kernel_state(), mounts()
    world.watch.offences()
    seen, began = world.watch.seen, time.monotonic()
    broken: list[str] = []
    try:
        each.run(world)
    except Broken as error:
        broken.append(str(error))
    except Exception:
        broken.append(traceback.format_exc())
    seconds = time.monotonic() - began
    broken += [f"more than one error: {answer.output[-600:]}" for answer in world.answers if not is_one_error(answer)]
    broken += [f"left running: {stray}" for stray in strays()]
    broken += world.watch.offences()
    broken += ["executed as root: " + RAN for line in _lines(RAN) if line == "0"]
    tidy(world, kernel, mounted)
    after = inventory()
    broken += [
        f"changed: {path}: {before.get(path)} -> {after.get(path)}"
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    ][:5]
    return {
        **{"name": each.name, "who": each.who, "does": each.does, "holds": each.holds},
        "broken": broken,
        "seconds": round(seconds, 1),
        "calls": len(world.answers),
        "executed": world.watch.seen - seen,
    }


def is_one_error(answer: Answer) -> bool:
    """A success, or one error in five parts without a traceback.

    What a loader that died wrote to its errors is kept in its failed sample, word for word: that is no error of ours.
    """
    output = answer.output
    for sample in answer.result.get("samples", []):
        output = output.replace(json.dumps(sample["stderr_tail"]), "null")
    if "Traceback (most recent call last)" in output:
        return False
    if not answer.result.get("failed"):
        return True
    parts = answer.result.get("problem") or {}
    is_listed = bool(answer.result.get("problems"))
    return is_listed or all(parts.get(part) for part in ("knob", "wanted", "found", "why", "next_step"))


def tidy(world: World, kernel: dict[str, str], mounted: list[str]) -> None:
    """Put the stage back for the next attack, by hand: nothing that is tested is trusted for it."""
    for line in reversed(mounts()):
        if line not in mounted:
            subprocess.run(["umount", line.split(" ")[0]], stderr=subprocess.DEVNULL, check=False)
    put_kernel_back(kernel)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid in (MALLORY, 65534):
                os.kill(int(pid), 9)
        except OSError:
            pass
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    for path in OURS:
        _remove(path)
    for folder in ("/etc/tmpfiles.d", "/etc/systemd/system"):
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if "slm-baseline" in name:
                _remove(f"{folder}/{name}")
    for folder in (MINE, "/srv/shared", "/srv/open", "/tmp"):
        for name in os.listdir(folder):
            _remove(f"{folder}/{name}")


def _remove(path: str) -> None:
    """Removed by rm: it shares no code with what is tested."""
    if os.path.lexists(path):
        if os.path.isdir(path) and not os.path.islink(path):
            os.spawnlp(os.P_WAIT, "rm", "rm", "-rf", "--one-file-system", path)
        else:
            os.unlink(path)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().split() if os.path.exists(path) else []


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
