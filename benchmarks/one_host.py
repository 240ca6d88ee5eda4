"""What plays cost on one host over ssh: a first tuning, one that changes nothing, audit and rollback, beside a ping.

The host is a virtual machine of the tests (tests/live/vm), of one processor, so that a task is dear and easily seen.
Pings with `become` stand around the plays; the ratios are to their median. Prints seconds and ratios with their goals,
and ends with 1 where a goal is missed. `--out` takes a document with every run (plugins/schemas/evidence.schema.json).
Needs what `make test-vm` needs, and nothing else running.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evidence import Document, told_of_host
from tests.live.vm.fleet import SMALL_TUNING, Fleet
from tests.live.vm.image import BOOKWORM, base_image
from tests.live.vm.machine import Machine, Shape
from tests.live.vm.tools import VmTestError

PING = """\
- hosts: gpu-hosts
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.ping:
"""
MACHINE = "an emulated virtual machine of one processor, Debian bookworm, over ssh and sudo"
GOALS = {"first tuning": 6.0, "tuning that changes nothing": 2.5, "audit": 1.3, "rollback": 2.0}
"""The most a play may cost, in pings."""


@dataclass(frozen=True)
class Row:
    """One play: the seconds of its runs, and their ratio to a ping's median."""

    name: str
    seconds: Sequence[float]
    pings: float

    @property
    def is_missed(self) -> bool:
        return self.pings > GOALS.get(self.name, float("inf"))

    def __str__(self) -> str:
        goal = f"goal {GOALS[self.name]:g}x {'MISSED' if self.is_missed else 'ok'}" if self.name in GOALS else ""
        low, high = min(self.seconds), max(self.seconds)
        middle = statistics.median(self.seconds)
        return f"{self.name:<30} {middle:6.1f} s  {low:6.1f} to {high:6.1f}  {self.pings:5.2f}x ping  {goal}".rstrip()


def rows(document: Document) -> list[Row]:
    """Return a row a play, with the median of `ping`."""
    seconds: dict[str, list[float]] = {}
    for start in document.starts:
        seconds.setdefault(start["arm"], []).append(start["seconds"])
    ping = statistics.median(seconds["ping"])
    return [Row(name, runs, statistics.median(runs) / ping) for name, runs in seconds.items()]


def measure_round(run: Callable[..., float], ping: str, audits: str) -> list[tuple[str, dict[str, float]]]:
    """Return the seconds of a round: it tunes, audits and rolls back, with a ping before each play."""
    tune = ("baseline.yml", "--tags", "tune")
    plays: list[tuple[str, tuple[str, ...], dict[str, object]]] = [
        ("first tuning", tune, {}),
        ("tuning that changes nothing", tune, {}),
        ("audit", ("audit.yml",), {"audit_reports_dir": audits}),
        ("rollback", ("rollback.yml",), {}),
    ]
    starts = []
    for name, arguments, variables in plays:
        starts.append(("ping", {"seconds": run(ping)}))
        starts.append((name, {"seconds": run(*arguments, **variables)}))
    return starts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the document goes")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: wanted a whole number from 1")
    with tempfile.TemporaryDirectory(prefix="slm-one-host-") as scratch:
        folder = Path(scratch)
        try:
            machine = Machine("one", base_image(BOOKWORM), folder / "one", Shape(cpus=1))
        except VmTestError as error:
            sys.exit(f"one_host: {error}")
        fleet = Fleet([machine], folder / "plays", SMALL_TUNING)
        ping = str(folder / "ping.yml")
        Path(ping).write_text(PING, encoding="utf-8")
        document = Document("one-host", told_of_host(sys.executable, ["ansible-core"]), {"machine": MACHINE})

        def run(*arguments: str, **variables: Any) -> float:
            return fleet.playbook(*arguments, **variables).expect(0).seconds

        try:
            machine.start()
            machine.wait_until_up()
            run(ping)  # The first connection is no ping like the others.
            for _ in range(options.rounds):
                document.add_block(measure_round(run, ping, str(folder / "audit")))
                if options.out:
                    document.write(options.out)
        except (VmTestError, AssertionError) as error:
            sys.exit(f"one_host: {error}")
        finally:
            machine.close()
    found = rows(document)
    print(*found, sep="\n")
    return any(row.is_missed for row in found)


if __name__ == "__main__":
    sys.exit(main())
