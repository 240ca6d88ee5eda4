"""Runs the attacks on the first-token wing inside a private systemd, and writes how each ended as JSON lines.

python -m tests.support.private_systemd DISK python -m tests.live.hostile.wing_siege FD [NAME...]
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

from tests.live.hostile.attack import Attack
from tests.live.hostile.wing_attacks import ATTACKS
from tests.live.hostile.wing_world import NOTE, UNITS, World, active, clear_stage, set_stage, wait_until


def main(descriptor: int, wanted: list[str]) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        for each in ATTACKS:
            if not wanted or each.name in wanted:
                out.write(json.dumps(fight(each)) + "\n")
                out.flush()


def fight(each: Attack[World]) -> dict[str, object]:
    """One attack, and what must hold after each."""
    broken: list[str] = []
    began = time.monotonic()
    world = World()
    try:
        clear_stage()
        set_stage()
        each.run(world)
        broken += after(each, world)
    except AssertionError as error:
        broken.append(str(error))
    except Exception:
        broken.append(traceback.format_exc())
    seconds = time.monotonic() - began
    broken += [f"no one error: {answer.output[-600:]}" for answer in world.answers if "Traceback" in answer.output]
    return {
        **{"name": each.name, "who": each.who, "does": each.does, "holds": each.holds},
        "broken": broken,
        "seconds": round(seconds, 1),
    }


def after(each: Attack[World], world: World) -> list[str]:
    """The service runs, and a rollback leaves nothing of ours."""
    broken = []
    with contextlib.suppress(AssertionError):
        wait_until(lambda: active("app") == "active", "app runs", 15)
    if active("app") != "active" and not each.spares:
        broken.append("the service is down")
    if NOTE.exists() and not each.spares:
        broken.append("the note is left")
    answer = world.rollback()
    if answer.failed and not each.spares:
        broken.append(f"the rollback fails: {answer.output[-800:]}")
    left = [str(path) for path in UNITS.rglob("*") if "slm-" in path.name and "theirs" not in str(path)]
    left += [str(path) for path in Path("/var/lib/slm-baseline").glob("first-token*")]
    left += [str(path) for path in Path("/var/cache").glob("**/slm-*")]
    ours = each.name == "somebody's drop-in in our place"
    if left and not each.spares and not ours:
        broken.append(f"left after a rollback: {left}")
    return broken


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
