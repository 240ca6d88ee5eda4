"""A real sweep on this machine, killed in the middle of a block: what it set is undone, and what it measured counts.

Root; the tiny model; needs the measurement's environment, which the play makes where it is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.this_machine import fingerprint

ROOT = Path(__file__).parents[3]
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
RUNS = Path("/var/lib/slm-baseline/runs")
TARGETS = Path("/var/lib/slm-baseline/first-token/targets")
RECORDED = TARGETS / "slm_sweep"
BLOCKS = 2
ARM = "always"
ARMS: list[dict[str, Any]] = [
    {"name": "stock"},
    {"name": "stock-again"},
    {"name": ARM, "thp": {"enabled": "always"}},
    {"name": "replay", "first_token": {"replay": "together"}},
    {"name": "pool", "pool": {"size": "2M", "count": 1100}, "env": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"}},
]
PATIENCE_S = 600


class Sweep:
    """The command that a person would type again after the interruption."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        variables = {
            "slm_benchmark_model": "tiny",
            "sweep_arms": ARMS,
            "sweep_dtypes": ["auto"],
            "sweep_blocks": BLOCKS,
            "sweep_results_dir": str(folder / "results"),
            "sweep_reports_dir": str(folder / "reports"),
        }
        playbook = str(Path(sys.executable).with_name("ansible-playbook"))
        self.command = [playbook, "sweep.yml", "-l", "localhost", "-e", json.dumps(variables)]
        self.environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}

    def kill_in_block(self, number: int) -> None:
        """Start it, and once `ARM` is in force in this block, end it and all its processes as a power cut would."""
        with (self.folder / "killed.log").open("w") as log:
            play = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
            deadline = time.monotonic() + PATIENCE_S
            while not self._is_in(number):
                assert play.poll() is None, (self.folder / "killed.log").read_text()
                assert time.monotonic() < deadline, "the block never came"
                time.sleep(0.05)
            # Stopped first, so that none of them sees another one die and cleans up.
            family = [psutil.Process(play.pid), *psutil.Process(play.pid).children(recursive=True)]
            for process in family:
                process.suspend()
            for process in family:
                process.kill()
            play.wait()

    def _is_in(self, number: int) -> bool:
        blocks = [sample["block"] for sample in self.samples()]
        return blocks.count(number) >= 1 and f"[{ARM}]" in ENABLED.read_text()

    def samples(self) -> list[dict[str, Any]]:
        """What the host has kept so far; the last line may still be on its way."""
        found = sorted(RUNS.glob("*/samples.jsonl"), key=lambda path: path.stat().st_mtime)
        lines = found[-1].read_text().splitlines() if found else []
        return [sample for line in lines if line.endswith("}") for sample in [json.loads(line)] if "attempt" in sample]

    def run(self) -> str:
        done = subprocess.run(
            self.command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.exit("tests/live/sweep changes this machine's settings for a while: run it as root", returncode=2)


def test_a_sweep_killed_in_the_middle_of_a_block(tmp_path: Path) -> None:
    before, targets = fingerprint(), sorted(TARGETS.glob("*"))
    sweep = Sweep(tmp_path)
    sweep.kill_in_block(BLOCKS)
    kept = sweep.samples()
    assert f"[{ARM}]" in ENABLED.read_text(), "nothing was left behind, so nothing would be shown"
    plan = (RECORDED / "plan").stat()

    told = sweep.run()
    assert "An earlier sweep was cut short; the settings it had left behind are restored." in told
    assert f"{BLOCKS - 1} of whose blocks are measured" in told
    assert fingerprint() == before
    # What the user had recorded stays, and what the sweep recorded for itself is gone.
    assert sorted(TARGETS.glob("*")) == targets

    (document,) = (tmp_path / "results/localhost").glob("sweep-*.json")
    measured = json.loads(document.read_text())["measurements"]
    assert [each["sample"]["started_at"] for each in measured[: len(kept)]] == [each["started_at"] for each in kept]
    whole = [
        (each["sample"]["block"], each["arm"], each["sample"]["wanted"]) for each in measured if not each["abandoned"]
    ]
    wanted = {(block, arm["name"], kind) for block in range(1, BLOCKS + 1) for arm in ARMS for kind in ("cold", "warm")}
    assert (len(whole), set(whole)) == (len(wanted), wanted)
    hit = [each for each in measured if each["abandoned"]]
    assert {each["sample"]["block"] for each in hit} == {BLOCKS}
    again = [each for each in measured if each["sample"]["block"] == BLOCKS and not each["abandoned"]]
    assert [each["arm"] for each in hit] == [each["arm"] for each in again[: len(hit)]], "another order than before"
    assert {each["sample"]["kind"] for each in again} <= {"cold", "warm", "lukewarm"}
    replays = [each["sample"]["replay"] for each in measured if each["arm"] == "replay"]
    assert {replay["when"] for replay in replays} == {"together"}
    # Recorded before the first block, and used by all of them.
    first = datetime.fromisoformat(measured[0]["sample"]["started_at"]).timestamp()
    assert plan.st_mtime < first
    assert (tmp_path / "reports/localhost/sweep.md").read_text().startswith("# What huge pages, bytecode and")
