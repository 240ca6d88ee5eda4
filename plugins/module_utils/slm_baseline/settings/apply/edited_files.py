"""Files of ours to which somebody else added lines, which a rewrite would drop."""

from __future__ import annotations

from collections.abc import Container, Sequence

from ...host.files import Host
from ..boot.tmpfiles import parse_tmpfiles
from ..kernel.hugetlb import default_page_bytes
from ..kinds.registry import knob_of
from ..state.changes import Change
from ..state.files import ChangeFile
from ..state.losses import refuse_loss, tell_some
from ..state.ownership import FILES, Ours, digest

_UNIT_KEYS = frozenset(("Description", "ConditionPathExists", "What", "Where", "Type", "Options", "WantedBy"))
"""The keys of every unit that we write."""


def refuse_edited(host: Host, changes: Sequence[Change], ours: Ours, accept: Container[str] = ()) -> None:
    """Raise LossError where a change would drop lines that somebody added to a file of ours.

    A different value in a line of ours is drift; a file that is as we wrote it holds nothing of others.
    """
    for change in changes:
        added = _added_lines(host, change, ours) if isinstance(change, ChangeFile) else []
        if added:
            refuse_loss(
                change.name,
                "a file with lines of ours alone",
                tell_some([f"`{line}` in {change.name}:{number}" for number, line in added]),
                "Somebody added that to a file of ours: it would be dropped, and what it sets would be reset.",
                "move it to a file of your own",
                accept,
            )


def _added_lines(host: Host, change: ChangeFile, ours: Ours) -> list[tuple[int, str]]:
    old = change.old
    if old is None or old.link is not None or ours.has(FILES, change.path, digest(old)):
        return []
    known = {_subject(line) for line in _lines(change.new.content if change.new else b"")} | _UNIT_KEYS
    default = default_page_bytes(host)
    for line in parse_tmpfiles(change.path, old.content.decode(errors="replace")):
        knob = knob_of(line.target, default)
        if knob and ours.values.get(knob) == line.value:
            known.add(line.target)
    return [
        (number, line)
        for number, line in enumerate(_lines(old.content), 1)
        if line and line[0] not in "#;[" and _subject(line) not in known
    ]


def _lines(content: bytes) -> list[str]:
    return [line.strip() for line in content.decode(errors="replace").split("\n")]


def _subject(line: str) -> str:
    """Return what a line sets: in tmpfiles.d the kernel file, in a unit the key."""
    fields = line.split(None, 2)
    return fields[1] if len(fields) > 1 and fields[1].startswith("/") else line.partition("=")[0].strip()
