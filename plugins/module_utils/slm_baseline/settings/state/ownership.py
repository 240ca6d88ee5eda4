"""What this project set on a host, so that a rollback restores that and nothing else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...host.sizes import format_size
from .files import FileState
from .json_fields import text

_SIZE = re.compile(r",size=([0-9]{1,19})$", re.ASCII)

FILES = "files"
"""A key besides those of the kinds, for the files that the tuning writes."""


@dataclass(frozen=True)
class Ours:
    """Values that our changes moved, as read back after them, by flat knob name or file path (then a digest).

    `pending` names what a change is in progress on: kinds by key, `FILES`, single knobs and files. If it is
    interrupted, whatever is found there counts as ours until a reboot: no kernel value survives that, so a value found
    afterwards was set again by somebody. `boots` has the boot in which a kind was last changed, `boot_id` is the
    current one.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    boots: Mapping[str, str] = field(default_factory=dict)
    boot_id: str = field(default="", compare=False)

    def has(self, kind: str, name: str, found: str) -> bool:
        """Return whether the found value is what we set."""
        return self.is_unsettled(kind, name) or self.values.get(name) == found

    def is_unsettled(self, kind: str, name: str) -> bool:
        is_open = kind in self.pending or name in self.pending
        return is_open and (kind == FILES or not self.rebooted(kind))

    def rebooted(self, kind: str) -> bool:
        """Return whether the host has rebooted since the kind was last changed."""
        return bool(self.boot_id) and self.boots.get(kind, self.boot_id) != self.boot_id

    def opened(self, names: frozenset[str], kinds: Iterable[str]) -> Ours:
        """Return this with a change of these in progress in this boot."""
        boots = {**self.boots, **dict.fromkeys(kinds, self.boot_id)}
        return replace(self, pending=self.pending | names, boots=boots)

    def to_json(self) -> dict[str, Any]:
        return {"values": dict(self.values), "unsettled": sorted(self.pending), "boots": dict(self.boots)}

    @staticmethod
    def from_json(value: Any) -> Ours:
        """Parse a stored value; TypeError, ValueError, KeyError or AttributeError where it is damaged."""
        # Written as `unsettled` since the first release; for a day, development versions wrote `pending`.
        pending = value["unsettled"] if "unsettled" in value else value["pending"]
        return Ours(_respelled(_texts(value["values"])), frozenset(map(text, pending)), _texts(value["boots"]))


NOTHING = Ours()
"""The state on a host that we never changed."""


def _texts(value: Any) -> dict[str, str]:
    return {text(name): text(found) for name, found in value.items()}


def _respelled(values: Mapping[str, str]) -> dict[str, str]:
    """Return values with sizes of mounts as they are spelled now: earlier releases wrote bytes."""
    return {
        name: _SIZE.sub(lambda match: f",size={format_size(int(match[1]))}", found)
        if name.startswith("hugetlbfs.")
        else found
        for name, found in values.items()
    }


def digest(state: FileState | None) -> str:
    """Return a digest of a file's content or a link's target; its mode and owner do not affect ownership."""
    if state is None:
        return "absent"
    content = state.content if state.link is None else b"-> " + state.link.encode("utf-8", "surrogateescape")
    return hashlib.sha256(content).hexdigest()
