"""A conflict, and what every rule needs to find one: the host, the wanted values, and the names of their files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from ....host.files import Host, open_plain
from ....host.sizes import is_number, parse_size
from ...kernel.hugetlb import parse_pool_name, pool_folder
from ...kinds.registry import knob_of
from ...kinds.thp import knob_path

_MOST_LINKS = 8
_LONGEST = 1 << 20
"""Bytes of the longest file that is read: no configuration is longer."""
_HEAD = 4096
"""Bytes at the beginning of a file in which a binary program is recognized."""

_THP_WORDS = frozenset(
    (
        "always",
        "madvise",
        "never",
        "defer",
        "defer+madvise",
        "inherit",
        "within_size",
        "advise",
        "deny",
        "force",
    )
)
"""The words of all THP files; one that a certain file does not take is refused there too, which is not looked at."""
_COUNT = re.compile(r"0[xX]([0-9a-fA-F]{1,18})|(0[0-7]{0,19})|([1-9][0-9]{0,19})", re.ASCII)
_PROGRAM = re.compile(r"(?<![\w.=])/[\w./+@-]+", re.ASCII)
_WORDS = (
    "huge",
    "HUGE",
    "/sys/kernel/mm",
    *(f"sysctl {option}" for option in ("-p", "-q", "-e", "-f", "-w", "--system", "--load")),
    "rpk",
    "saptune",
    "sapconf",
    "tuned-adm",
    "dpdk",
    "spdk",
    "virsh",
    "perftune",
    "scylla",
)
"""At least one of these is in every script that can write a setting: parts of names of kernel files and programs."""


@dataclass(frozen=True)
class Conflict:
    """Another writer of a knob. `value` is None where it is unknown.

    A `certain` conflict refuses a tuning; any other is a note.
    """

    path: str
    line: int
    knob: str
    value: str | None
    kind: str
    certain: bool = True

    def as_dict(self) -> dict[str, object]:
        fields = {name: value for name, value in asdict(self).items() if name != "certain"}
        return {**fields, "detail": str(self)}

    def __str__(self) -> str:
        if self.certain:
            return f"{self.kind} sets {self.knob} to {self.value} at {self.path}:{self.line}"
        does = f"may change {self.knob}" if self.value is None else f"may set {self.knob} to {self.value}"
        return f"{self.kind} {does} at {self.path}:{self.line}"


def last_words(found: Iterable[Conflict]) -> list[Conflict]:
    """Return what is left of writes that one text makes one after the other: of a knob's values, the last one stays.

    A later write that may happen, with another value, makes an earlier one a possible writer: a script often sets a
    value for a while, and puts back what it found.
    """
    writes = list(found)
    left = []
    for index, write in enumerate(writes):
        later = [each for each in writes[index + 1 :] if (each.path, each.knob) == (write.path, write.knob)]
        if not any(each.certain for each in later):
            overruled = any(each.value != write.value for each in later)
            left.append(replace(write, certain=False) if overruled else write)
    return left


class Scanner:
    """A host as the rules read it: each file read once, and kernel files by the names of the wanted knobs."""

    def __init__(self, host: Host, wanted: Mapping[str, str], default_page_bytes: int) -> None:
        self.host = host
        self.wanted = wanted
        self.default_page_bytes = default_page_bytes
        self._texts: dict[str, str] = {}
        self._words = (*_WORDS, *(knob.partition(".")[2] for knob in wanted if knob.startswith("hugetlbfs.")))

    def resolve(self, path: str) -> str:
        """Return where a file's own symbolic links lead; an absolute link stays below the host's root."""
        for _ in range(_MOST_LINKS):
            try:
                target = os.readlink(self.host.name(path))
            except OSError:
                break
            path = os.path.normpath(os.path.join(os.path.dirname(path), target))
        return path

    def is_masked(self, path: str) -> bool:
        return self.resolve(path) == "/dev/null"

    def is_executable(self, path: str) -> bool:
        """Return whether its mode lets root run it."""
        try:
            return bool(os.stat(self.host.name(self.resolve(path))).st_mode & 0o111)
        except OSError:
            return False

    def text(self, path: str) -> str:
        """Return a file's text; "" where it cannot be a configuration or a script: too long, or not text."""
        if path not in self._texts:
            try:
                self._texts[path] = _read_text(self.host.name(self.resolve(path)))
            except OSError:
                self._texts[path] = ""
        return self._texts[path]

    def is_of_interest(self, text: str) -> bool:
        """Return whether a script can write a setting at all: most scripts of a host name none.

        A plain search for words: an audit checks every script this way, and parses few of them.
        """
        return any(word in text for word in self._words)

    def leads_to_interest(self, text: str) -> bool:
        """Return the same, also for a script that the text calls by its path."""
        return self.is_of_interest(text) or any(
            self.is_of_interest(self.text(path))
            for path in _PROGRAM.findall(text)
            if not path.startswith(("/sys/", "/proc/", "/dev/"))
        )

    def lines(self, path: str, joined: bool = True) -> Iterator[tuple[int, str]]:
        """Yield numbered lines without blank ones and comments; `joined` joins those continued by a backslash."""
        first, before = 0, ""
        for number, line in enumerate(self.text(path).splitlines(), 1):
            text = line.strip()
            # A comment between continued lines does not end them (systemd.syntax(7)).
            if not text or text[0] in "#;":
                continue
            first = first if before else number
            if joined and text.endswith("\\"):
                before += f"{text[:-1]} "
                continue
            yield first, before + text
            before = ""
        if before:
            yield first, before

    def knob(self, target: str) -> str | None:
        """Return the knob of a kernel file."""
        return knob_of(target, self.default_page_bytes)

    def sysctl_knob(self, key: str) -> str | None:
        return self.knob(sysctl_path(key))

    def matching(self, pattern: str) -> list[str]:
        """Return the wanted knobs whose files a path may mean; `*` stands for an unknown part, slashes included.

        Returns none for a pattern that could mean anything.
        """
        if "*" not in pattern and "?" not in pattern and "[" not in pattern:
            knob = self.knob(pattern)
            return [knob] if knob else []
        if "huge" not in pattern and not pattern.startswith("/sys/kernel/mm/"):
            return []
        expression = pattern_expression(pattern)
        return [knob for knob in self.wanted if any(expression.fullmatch(path) for path in kernel_files(self, knob))]

    def contradicts(self, found: Conflict) -> bool:
        """Return whether a writer wants another value than ours for a wanted knob, or an unknown one."""
        value = found.value if found.value is None else taken_value(found.knob, found.value)
        if value is None and found.value is not None:
            return False
        return any(affects(found.knob, knob) and value != self._value_for(found.knob, knob) for knob in self.wanted)

    def _value_for(self, writer: str, knob: str) -> str:
        """Return the value by which this writer would leave `knob` as wanted: a whole pool is the sum of its nodes."""
        if writer == knob:
            return self.wanted[knob]
        if "node" in writer:
            return "" if len(self._nodes(knob)) != 1 else self.wanted[knob]
        same = [int(value) for name, value in self.wanted.items() if affects(writer, name) and is_number(value)]
        return str(sum(same))

    def _nodes(self, knob: str) -> list[str]:
        return [name for name in self.host.names("/sys/devices/system/node") if re.fullmatch(r"node[0-9]+", name)]


def _read_text(name: str) -> str:
    with open(open_plain(name), "rb") as stream:
        content = stream.read(_HEAD)
        if b"\0" in content:
            return ""
        # Most files end here; memory for the longest one would be taken for each of them.
        content += stream.read(_LONGEST) if len(content) == _HEAD else b""
        return "" if b"\0" in content or len(content) > _LONGEST else content.decode("utf-8", errors="surrogateescape")


def affects(writer: str, knob: str) -> bool:
    """Return whether writing one knob moves the other: a whole pool and its nodes share the same pages."""
    if writer == knob:
        return True
    first, second = writer.split("."), knob.split(".")
    return first[0] == second[0] == "hugepages" and first[-1] == second[-1] and len(first) != len(second)


def taken_value(knob: str, value: str) -> str | None:
    """Return a written value as the kernel takes it; None for one that it refuses, so that nothing changes.

    Files of pools and khugepaged take decimal numbers (kstrtoul), those of THP their own words.
    """
    if knob.startswith("hugetlbfs."):
        return value
    if is_number(value):
        return str(int(value))
    return value if knob.startswith("thp.") and value in _THP_WORDS else None


def sysctl_path(key: str) -> str:
    """Return the file of a sysctl key; where a slash comes first, dots are part of a name (sysctl.d(5)).

    A slash in front and double ones do not count: sysctl_normalize of systemd.
    """
    first = re.search(r"[./]", key)
    if first and first[0] == ".":
        key = key.translate(str.maketrans("./", "/."))
    return "/proc/sys/" + "/".join(filter(None, key.split("/")))


def sysctl_value(text: str) -> str | None:
    """Return a count as the kernel parses it from a sysctl file: up to a blank, in a base of C; None if refused.

    Source: proc_get_long in kernel/sysctl.c. It takes no sign, at most 20 characters and 64 bits.
    """
    match = _COUNT.fullmatch((text.split() or [""])[0])
    if not match:
        return None
    digits = match[1] or match[2] or match[3]
    count = int(digits, 16 if match[1] else 8 if match[2] else 10)
    return str(count) if count < 1 << 64 else None


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression. An invalid glob part, such as an open bracket, is literal text."""
    parts = re.split(r"(\*|\?|\[[^]/]+\])", pattern)
    text = "".join(
        ".*"
        if part == "*"
        else "[^/]"
        if part == "?"
        else _bracket(part)
        if part[:1] == "[" and len(part) > 2
        else re.escape(part)
        for part in parts
    )
    return re.compile(text, re.DOTALL)


def _bracket(part: str) -> str:
    inner = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    expression = f"[^{inner[1:]}]" if inner[0] in "!^" and len(inner) > 1 else f"[{inner}]"
    try:
        re.compile(expression)
    except re.error:
        return re.escape(part)
    return expression


def kernel_files(scanner: Scanner, knob: str) -> list[str]:
    """Return the files by which a wanted knob can be written."""
    if knob.startswith("thp."):
        return [knob_path(knob)]
    if knob.startswith("hugepages."):
        pool = parse_pool_name(knob, 0)
        nodes = [pool.node] if pool.node is not None else [0, 1]
        files = [f"{pool_folder(pool.size_bytes, node)}/nr_hugepages" for node in (None, *nodes)]
        is_default = pool.size_bytes == scanner.default_page_bytes
        return [*files, *(["/proc/sys/vm/nr_hugepages", "/proc/sys/vm/nr_hugepages_mempolicy"] if is_default else [])]
    if knob.startswith("hugepages_overcommit."):
        size = parse_size(knob.rpartition(".")[2])
        files = [f"{pool_folder(size)}/nr_overcommit_hugepages"]
        return [*files, *(["/proc/sys/vm/nr_overcommit_hugepages"] if size == scanner.default_page_bytes else [])]
    return []
