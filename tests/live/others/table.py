"""docs/neighbours.md, from the cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.live.others.cases import Case

_INTRODUCTION = """\
# Neighbours

Written by `tests/live/others` (`make test-others ARGS=--write-neighbours`); not to be edited.

Hosts have other owners: databases, containers, libvirt, kubelet, administrators with files and mounts of their own.
This page says what becomes of what they have while a host is tuned, swept, audited and rolled back. Each line is a case
of the suite: it sets the neighbour up on a real kernel, does what stands beside it, and looks whether the neighbour has
what it had.

- **Left**: it stays, and the result of the module says so (`left`, a warning, or the row of the audit).
- **Refused**: nothing is changed. The error names the setting, the neighbour (process, unit, or file with line), what
  would be lost, and the option that goes on.
- **Accepted**: the user has named the loss. `slm_accept_loss` is a list of the names that refusals begin with, such as
  `[hugepages.2M, hugetlbfs./mnt/huge]`; each entry accepts that loss and no other. `rollback_force` puts the snapshot's
  values over what others set since, but takes no files, mounts, or pages in use from anybody.

Whose word counts: what we set and nobody changed since is ours to take back. What was there before us, what others
changed since, and what a file of theirs sets by now is theirs. A reboot makes nothing ours: afterwards a value is ours
where it is the one that we set, or that a file of ours says.
"""
_HEADER = ("who has what", "beside what", "what becomes of it", "who decides")


def page(cases: Sequence[Case]) -> str:
    """The page as Markdown."""
    rows = [_HEADER, *((case.neighbour, case.beside, case.becomes, case.decides) for case in cases)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    count = Counter(case.becomes for case in cases)
    summary = f"{len(cases)} cases: {count['refused']} refused, {count['left as it is']} left as they are."
    return "\n".join([_INTRODUCTION, *lines, "", summary, ""])
