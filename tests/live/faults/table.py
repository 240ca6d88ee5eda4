"""The fault matrix as the page a person reads."""

from __future__ import annotations

from collections.abc import Sequence

from tests.live.faults.matrix import Tally

ERRNOS = ("EIO", "EROFS", "ENOSPC", "EBUSY")
_HEADER = ("sequence", "module", "points", "kills", *ERRNOS, "whole", "converged", "exact restores")

_INTRODUCTION = """\
# The fault matrix

Written by `tests/live/faults` itself (`make test-faults ARGS=--write-doc`); not to be edited.

A *point* is one system call by which a module changes something: a file or folder made, written, synced, renamed,
removed or given another mode, a kernel file written, a mount made or taken away. strace finds the points in one clean
run on a real kernel, in a private mount namespace with throw-away `/etc`, `/var/lib`, `/run` and `/mnt`. Then, at each
point in turn, the module is killed before the call, and in other runs the call fails: with every error that makes sense
for it, once; and with EIO from then on to the end of the module, so that undoing fails too.

- **whole**: after a call that failed once, all settings of the module took or none did.
- **converged**: after a kill, a first error and a lasting one, the next run succeeds, though the one before it died
  holding the host's lease; and the run after it changes nothing.
- **exact restores**: after a rollback every knob, pool, mount, file, link and folder is as before the first run (value,
  bytes, mode and owner), nothing temporary is left, and a second rollback finds nothing to do. Tried at once after
  every fault, and again after every run that converged.
- Whatever fails says so in one typed error, never in a traceback.

The sequences: a *snapshot* alone, and a *longer snapshot* of a tuned host; a *first tuning* of a pristine host; a
*changed tuning* of a tuned one (a knob given up, another added, a smaller pool, other mount options, one more mount);
*mounts given up*; and the *rollback* itself.
"""


def _row(tally: Tally) -> tuple[str, ...]:
    return (
        tally.sequence,
        tally.step,
        str(tally.points),
        str(tally.kills),
        *(str(tally.errors[name]) for name in ERRNOS),
        f"{tally.whole} of {tally.tried_whole}" if tally.tried_whole else "",
        f"{tally.converged} of {tally.tried_converge}",
        f"{tally.exact} of {tally.tried_restore}",
    )


def total(tallies: Sequence[Tally]) -> Tally:
    """All of them added up."""
    whole = Tally("all", "")
    for tally in tallies:
        whole.points += tally.points
        whole.kills += tally.kills
        whole.errors += tally.errors
        whole.whole += tally.whole
        whole.tried_whole += tally.tried_whole
        whole.converged += tally.converged
        whole.tried_converge += tally.tried_converge
        whole.exact += tally.exact
        whole.tried_restore += tally.tried_restore
    return whole


def summary(tallies: Sequence[Tally]) -> str:
    """One line."""
    whole = total(tallies)
    return (
        f"{whole.points} points: {whole.kills} kills, {whole.errors.total()} failed calls; "
        f"{whole.converged} of {whole.tried_converge} converged, "
        f"{whole.exact} of {whole.tried_restore} restores exact"
    )


def page(tallies: Sequence[Tally]) -> str:
    """docs/faults.md."""
    rows = [_HEADER, *map(_row, [*tallies, total(tallies)])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([_INTRODUCTION, *lines, "", f"In one line: {summary(tallies)}.", ""])
