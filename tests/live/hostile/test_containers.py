"""Every attack from inside a container, against a real docker daemon. Root; drops the page cache again and again."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.containers.daemon import running_daemon
from tests.live.hostile.attack import Attack
from tests.live.hostile.container_attacks import ATTACKS
from tests.live.hostile.container_world import MOST_MIB, NAME, NOTE, World
from tests.live.hostile.table import containers_page
from tests.live.hostile.wing_world import Broken

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may watch a file system"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs Debian's docker.io"),
]
PAGE = Path(__file__).parents[3] / "docs/attacks-containers.md"
SEEN: dict[str, dict[str, Any]] = {}
"""How each attack of this session ended."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # Not in /tmp: what lies in memory is not recorded.
    with running_daemon() as daemon, tempfile.TemporaryDirectory(prefix="slm-attacked-", dir="/var/tmp") as folder:
        world = World.build(daemon, Path(folder))
        try:
            yield world
        finally:
            world.secrets.close()


def fight(world: World, each: Attack[World]) -> list[str]:
    """Run one attack; return what did not hold, of its own and of what always must."""
    broken: list[str] = []
    began = time.monotonic()
    world.answers.clear()
    try:
        world.set_stage()
        each.run(world)
    except Broken as error:
        broken += [str(error), world.daemon.docker("logs", NAME, check=False)[-1500:]]
    except Exception:
        broken.append(traceback.format_exc())
    try:
        broken += world.clear()
    except Broken as error:
        broken.append(str(error))
    broken += world.secrets.offences()
    broken += ["the note is left"] if NOTE.exists() else []
    for answer in world.answers:
        if "Traceback" in answer.output:
            broken.append(f"no one error: {answer.output[-900:]}")
        if answer.memory_mib > MOST_MIB:
            broken.append(f"{answer.memory_mib:.0f} MiB of memory")
    print(f"{each.name}: {time.monotonic() - began:.1f} s, {max([a.memory_mib for a in world.answers] or [0]):.0f} MiB")
    return broken


def test_the_list_has_enough_attacks_and_each_a_name() -> None:
    assert len({each.name for each in ATTACKS}) == len(ATTACKS) >= 10


@pytest.mark.parametrize("each", ATTACKS, ids=lambda each: each.name)
def test_attack_from_inside_a_container(world: World, each: Attack[World]) -> None:
    broken = fight(world, each)
    SEEN[each.name] = {"name": each.name, "who": each.who, "does": each.does, "holds": each.holds, "broken": broken}
    assert not broken, "\n".join(broken)


def test_the_page_of_the_containers_is_what_was_seen(request: pytest.FixtureRequest) -> None:
    if len(SEEN) < len(ATTACKS):
        pytest.skip("only some of the attacks were chosen")
    text = containers_page(list(SEEN.values()))
    if request.config.getoption("--write-attacks"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "renew it: make test-hostile ARGS=--write-attacks"
