"""What a change would cost others: refused, unless the user accepts that loss by its name.

A name is the knob of the refusal: `hugetlbfs./mnt/huge`, `hugepages.2M`, or the path of a file of ours.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...host.errors import SettingError
from ...host.files import Host


class LossError(SettingError):
    """A loss that a change would cause to others: files, pages, a mount, a line in a file."""


class MemoryGuard(Protocol):
    """The interface of `kinds.memory_guard.Guard`, which keeps memory for the host and which no audit needs."""

    def check(self, host: Host, wanted: Sequence[Any], dropped: Sequence[Any] = ..., /) -> None:
        """Raise SettingError for pools that take too much."""


@dataclass(frozen=True)
class Limits:
    """How far a change may go: losses of others that the user accepts by name, and memory that pools must leave."""

    accept: frozenset[str] = frozenset()
    guard: MemoryGuard | None = None


NO_LIMITS = Limits()
"""No loss is accepted."""
OPTION = "slm_accept_loss"
_NAME = re.compile(r"(hugetlbfs\./|persistence\./|hugepages\.(node[0-9]+\.)?[0-9]|/).*", re.ASCII)
_MOST = 5


def parse_accept_loss(value: object) -> frozenset[str]:
    """Parse the user's `slm_accept_loss`: names of pools, mounts and files as in refusals; SettingError for others."""
    names = [] if value is None or value == "" else value
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise _no_name(value)
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _no_name(name)
    return frozenset(names)


def _no_name(value: object) -> SettingError:
    return SettingError(
        OPTION,
        "a list of names such as hugepages.2M, hugetlbfs./mnt/huge or a file's path",
        repr(value)[:80],
        "Each entry accepts one loss that an earlier run refused, by the name that the refusal begins with.",
        "copy that name into the list.",
    )


def refuse_loss(name: str, wanted: str, found: str, why: str, next_step: str, accept: Container[str] = ()) -> None:
    """Raise LossError for a loss that the user has not accepted by name."""
    if name not in accept:
        raise LossError(name, wanted, found, why, f"{next_step}, or accept the loss: {OPTION}: [{name}].")


def tell_some(names: Sequence[str], what: str = "") -> str:
    """Return the first few names, and how many more there are."""
    told = ", ".join(names[:_MOST])
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{what}{told}{more}"
