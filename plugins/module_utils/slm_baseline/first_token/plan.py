"""The plan of a start: what it reads, in order, in the format that `files/slm_replay.py` reads.

Text, one entry a line, fields separated by tabs. The first line names the format and its version: in version 1 ranges
are what was in memory, since version 2 those of libraries are what was touched, and the fact `resident_bytes` is how
much of the imports was in memory. Then facts (`name`, value), `D path`
for a folder to list with the inode of every entry, and `I` (imports and everything small) or `W` (weights) with inode,
size in bytes, mtime in ns, ranges in pages (`first+count,...`, `*` for the whole file) and path. In paths, tab, line
end and `%` are `%09`, `%0A`, `%25`; other bytes stand for themselves. The last line is `end`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..host.errors import ParseError
from ..host.files import Host
from ..host.link_free import LinkFree

FIRST_LINE = "slm-baseline first-token plan 2"
FIRST_LINES = ("slm-baseline first-token plan 1", FIRST_LINE)
LAST_LINE = "end"
"""Without it a plan truncated between two lines would look complete."""
MAX_BYTES = 64 << 20
"""The longest plan: a replay does not shorten a start that opens more than some 400,000 files."""


@dataclass(frozen=True)
class PlanFile:
    """One recorded file; `ranges` are (first page, pages), None for the whole file.

    `device` is stat(2)'s, known only while recording; a plan does not store it, since a reboot may number devices anew.
    """

    path: str
    is_weights: bool
    inode: int
    size_bytes: int
    mtime_ns: int
    ranges: tuple[tuple[int, int], ...] | None = None
    device: int = field(default=0, compare=False)

    def read_bytes(self, page_bytes: int) -> int:
        """Return the bytes that a replay reads of it."""
        if self.ranges is None:
            return self.size_bytes
        return min(self.size_bytes, sum(count for _, count in self.ranges) * page_bytes)


@dataclass(frozen=True)
class Plan:
    """What a start reads: folders and files in the order of their first opening; `facts` are short values by name."""

    facts: Mapping[str, str]
    folders: Sequence[str] = ()
    files: Sequence[PlanFile] = field(default_factory=tuple)

    @property
    def page_bytes(self) -> int:
        return int(self.facts["page_bytes"])

    def bytes_of(self, weights: bool) -> int:
        """Return the bytes that a replay reads, of the weights or of everything else."""
        return sum(file.read_bytes(self.page_bytes) for file in self.files if file.is_weights is weights)

    @property
    def resident_bytes(self) -> int:
        """Return the bytes of the imports that were in memory, including the kernel's read-around."""
        return int(self.facts.get("resident_bytes") or self.bytes_of(weights=False))


def to_text(plan: Plan) -> str:
    """Return the plan as text; imports come before weights, whichever was opened first."""
    lines = [FIRST_LINE]
    lines += [f"{name}\t{value}" for name, value in plan.facts.items()]
    lines += [f"D\t{escape(path)}" for path in plan.folders]
    for file in sorted(plan.files, key=lambda file: file.is_weights):
        ranges = "*" if file.ranges is None else ",".join(f"{first}+{count}" for first, count in file.ranges)
        numbers = (file.inode, file.size_bytes, file.mtime_ns)
        lines.append("\t".join(["IW"[file.is_weights], *map(str, numbers), ranges, escape(file.path)]))
    return "\n".join([*lines, LAST_LINE, ""])


def parse_plan(text: str) -> Plan:
    """Parse a plan; ParseError for any other text."""
    lines = text.split("\n")
    if lines[0] not in FIRST_LINES or lines[-2:] != [LAST_LINE, ""]:
        raise _damaged(text)
    facts: dict[str, str] = {}
    folders: list[str] = []
    files: list[PlanFile] = []
    try:
        for line in lines[1:-2]:
            first, *rest = line.split("\t")
            if first == "D":
                (path,) = rest
                folders.append(unescape(path))
            elif first in ("I", "W"):
                inode, size, mtime_ns, ranges, path = rest
                files.append(
                    PlanFile(unescape(path), first == "W", int(inode), int(size), int(mtime_ns), _ranges(ranges))
                )
            else:
                (facts[first],) = rest
        int(facts["page_bytes"])
        int(facts.get("resident_bytes", "0"))
    except (ValueError, KeyError):
        raise _damaged(text) from None
    return Plan(facts, folders, files)


def _ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    if text == "*":
        return None
    pairs = (pair.split("+") for pair in text.split(",") if pair)
    return tuple((int(first), int(count)) for first, count in pairs)


def _damaged(text: str) -> ParseError:
    return ParseError("first_token.plan", "a plan of this version", text, "record it again with first_token.yml.")


def escape(path: str) -> str:
    return path.replace("%", "%25").replace("\t", "%09").replace("\n", "%0A")


def unescape(path: str) -> str:
    return path.replace("%09", "\t").replace("%0A", "\n").replace("%25", "%")


def changed_files(host: Host, files: Iterable[PlanFile]) -> list[str]:
    """Return the paths that are no longer the recorded file: missing, replaced, changed, or not a regular file."""
    paths = LinkFree(host)
    return [file.path for file in files if not _is_recorded(paths, file)]


def _is_recorded(paths: LinkFree, file: PlanFile) -> bool:
    try:
        found = paths.lstat(file.path)
    except OSError:
        return False
    recorded = (file.inode, file.size_bytes, file.mtime_ns)
    return stat.S_ISREG(found.st_mode) and (found.st_ino, found.st_size, found.st_mtime_ns) == recorded
