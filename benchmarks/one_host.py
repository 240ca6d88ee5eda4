"""What plays cost on one host over ssh: a first tuning, one that changes nothing, audit and rollback, beside a ping.

The host is a virtual machine of the tests (tests/live/vm), of one processor, so that a task is dear and easily seen.
Pings with `become` stand around the plays; the ratios are to their median. Prints seconds and ratios with their goals,
and ends with 1 where a goal is missed. Needs what `make test-vm` needs, and nothing else running.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def rows(seconds: dict[str, list[float]]) -> list[Row]:
    """Return a row a play, with the median of `ping`."""
    ping = statistics.median(seconds["ping"])
    return [Row(name, runs, statistics.median(runs) / ping) for name, runs in seconds.items()]


def measure(run: Callable[..., float], ping: str, audits: str, rounds: int) -> dict[str, list[float]]:
    """Measure the seconds of every play; each round tunes, audits and rolls back, with a ping before each kind."""
    seconds: dict[str, list[float]] = {}

    def note(name: str, *arguments: str, **variables: object) -> None:
        seconds.setdefault(name, []).append(run(*arguments, **variables))

    tune = ("baseline.yml", "--tags", "tune")
    run(ping)  # The first connection is no ping like the others.
    for _ in range(rounds):
        for name, arguments in (("first tuning", tune), ("tuning that changes nothing", tune)):
            note("ping", ping)
            note(name, *arguments)
        note("ping", ping)
        note("audit", "audit.yml", audit_reports_dir=audits)
        note("ping", ping)
        note("rollback", "rollback.yml")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds: wanted a whole number from 1")
    with tempfile.TemporaryDirectory(prefix="slm-one-host-") as scratch:
        folder = Path(scratch)
        try:
            machine = Machine("one", base_image(BOOKWORM), folder / "one", Shape(cpus=1))
        except VmTestError as error:
            sys.exit(f"one_host: {error}")
        fleet = Fleet([machine], folder / "plays", SMALL_TUNING)
        (folder / "ping.yml").write_text(PING, encoding="utf-8")
        try:
            machine.start()
            machine.wait_until_up()
            seconds = measure(
                lambda *arguments, **variables: fleet.playbook(*arguments, **variables).expect(0).seconds,
                str(folder / "ping.yml"),
                str(folder / "audit"),
                rounds,
            )
        except (VmTestError, AssertionError) as error:
            sys.exit(f"one_host: {error}")
        finally:
            machine.close()
    found = rows(seconds)
    print(*found, sep="\n")
    return any(row.is_missed for row in found)


if __name__ == "__main__":
    sys.exit(main())
