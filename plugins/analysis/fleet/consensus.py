"""Settings over the fleet: the values of most hosts, and the hosts with other values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.fleet.run import Setting


@dataclass(frozen=True)
class Consensus:
    """One knob: its runtime values with their hosts, the most frequent first, hosts in the order given.

    `majority` is whether more than half of the hosts that have the knob agree.
    """

    knob: str
    values: tuple[tuple[str | None, tuple[str, ...]], ...]

    @property
    def hosts(self) -> int:
        return sum(len(names) for _, names in self.values)

    @property
    def majority(self) -> bool:
        return 2 * len(self.values[0][1]) > self.hosts


def consensus(settings: Mapping[str, Sequence[Setting]]) -> list[Consensus]:
    """Return every knob that is wanted on any host, in order of first occurrence."""
    knobs: dict[str, dict[str | None, dict[str, None]]] = {}
    for host, rows in settings.items():
        for row in rows:
            knobs.setdefault(row.knob, {}).setdefault(row.runtime, {})[host] = None
    return [
        Consensus(
            knob,
            tuple(
                (value, tuple(hosts))
                for value, hosts in sorted(values.items(), key=lambda item: (-len(item[1]), str(item[0])))
            ),
        )
        for knob, values in knobs.items()
    ]
