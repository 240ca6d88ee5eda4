"""Every attack on the first-token wing, under a real systemd of its own. Root; drops the page cache again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.live.hostile.table import wing_page
from tests.live.hostile.wing_attacks import ATTACKS
from tests.support.private_systemd import private_systemd, why_not

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/attacks-first-token.md"
BOUND_S = 3600


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """How each attack ended, by its name."""
    if reason := why_not():
        pytest.fail(reason)
    parameters = [getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items]
    chosen = [given["wing"] for given in parameters if "wing" in given]
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="slm-baseline-wing-") as name:
        Path(name).chmod(0o755)
        with private_systemd(Path(name)) as systemd:
            command = systemd.command(["env", "-C", str(ROOT), sys.executable, "-m", "tests.live.hostile.wing_siege"])
            with subprocess.Popen([*command, str(write), *chosen], pass_fds=[write], stderr=subprocess.PIPE) as process:
                os.close(write)
                with os.fdopen(read, encoding="utf-8") as pipe:
                    found = {result["name"]: result for result in map(json.loads, pipe)}
                assert process.stderr
                errors = process.stderr.read().decode("utf-8", "replace")
                assert process.wait(BOUND_S) == 0, errors
    return found


def test_the_list_has_enough_attacks_and_each_a_name() -> None:
    assert len({each.name for each in ATTACKS}) == len(ATTACKS) >= 30


@pytest.mark.parametrize("wing", [each.name for each in ATTACKS])
def test_attack_on_the_wing(results: dict[str, dict[str, Any]], wing: str) -> None:
    assert wing in results, "the siege ended before this attack"
    broken = results[wing]["broken"]
    assert not broken, "\n".join(broken)


def test_the_wings_page_is_what_was_seen(results: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    if len(results) < len(ATTACKS):
        pytest.skip("only some of the attacks were chosen")
    text = wing_page(list(results.values()))
    if request.config.getoption("--write-attacks"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, "renew it: make test-hostile ARGS=--write-attacks"
