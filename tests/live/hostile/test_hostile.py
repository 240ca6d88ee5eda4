"""Every attack of the list against the real modules and plays: what must hold, holds.

Root; works on the real kernel in private mount and process namespaces, and puts the kernel's settings back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.hostile.attacks import ATTACKS
from tests.live.hostile.table import page

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/attacks.md"
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
BOUND_S = 3600


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """How each attack ended, by its name."""
    if os.geteuid() != 0:
        pytest.exit("tests/live/hostile makes namespaces and changes kernel settings for a while: run it as root", 2)
    parameters = [getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items]
    chosen = [given["name"] for given in parameters if "name" in given]
    read, write = os.pipe()
    command = [*ALONE, sys.executable, "-m", "tests.live.hostile.siege", str(write), *chosen]
    with subprocess.Popen(command, cwd=ROOT, pass_fds=[write], stderr=subprocess.PIPE, text=True) as process:
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as pipe:
            found = {result["name"]: result for result in map(json.loads, pipe)}
        assert process.stderr
        errors = process.stderr.read()
        assert process.wait(BOUND_S) == 0, errors
    return found


def test_the_list_has_enough_attacks_and_each_a_name() -> None:
    assert len({each.name for each in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize("name", [each.name for each in ATTACKS])
def test_attack(results: dict[str, dict[str, Any]], name: str) -> None:
    assert name in results, "the siege ended before this attack"
    broken = results[name]["broken"]
    assert not broken, "\n".join(broken)


def test_the_page_is_what_was_seen(results: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    if len(results) < len(ATTACKS):
        pytest.skip("only some of the attacks were chosen")
    text = page(list(results.values()))
    if request.config.getoption("--write-attacks"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "renew it: make test-hostile ARGS=--write-attacks"
