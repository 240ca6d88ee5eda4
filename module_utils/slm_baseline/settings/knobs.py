"""Kernel files as named knobs: selectors (`always [madvise] never`) and whole numbers.

Sources: Documentation/admin-guide/mm/transhuge.rst and hugetlbpage.rst of the kernel.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from ..host.errors import ParseError, SettingError
from ..host.files import Host

THP = "/sys/kernel/mm/transparent_hugepage"
MIN_FREE = "/proc/sys/vm/min_free_kbytes"

_SELECTOR = re.compile(r"\S+")
_SIZE_FOLDER = re.compile(r"hugepages-([0-9]+)kB")


@dataclass(frozen=True)
class Selector:
    """A selector file's text: the choice in force and every legal value, in the kernel's order."""

    value: str
    choices: tuple[str, ...]


def parse_selector(text: str) -> Selector:
    """Parse `always [madvise] never`; exactly one word stands in brackets, else ParseError."""
    words = _SELECTOR.findall(text)
    chosen = [word[1:-1] for word in words if len(word) > 2 and word[0] == "[" and word[-1] == "]"]
    if len(chosen) != 1:
        raise ParseError("selector", "words with exactly one of them in brackets", text)
    return Selector(chosen[0], tuple(word.strip("[]") for word in words))


@dataclass(frozen=True)
class Knob:
    """One kernel file with a flat name. `choices` is empty for a whole number."""

    name: str
    path: str
    value: str
    choices: tuple[str, ...] = ()

    def reread(self, host: Host) -> Knob:
        """The same knob as the kernel has it now."""
        return read_knob(host, self.name, self.path)

    def check(self, wanted: str, variable: str) -> None:
        """Raise SettingError, naming the user's variable, where the kernel could not take this value."""
        if self.choices:
            if wanted not in self.choices:
                raise SettingError(
                    self.name,
                    wanted,
                    f"a kernel that offers {', '.join(self.choices)}",
                    f"{self.path} takes nothing else.",
                    f"set {variable} to one of them.",
                )
        elif not (wanted.isascii() and wanted.isdigit() and len(wanted) < 20 and int(wanted) < 2**63):
            raise SettingError(
                self.name,
                wanted,
                f"a whole number ({self.value})",
                f"{self.path} takes whole numbers from 0.",
                f"give {variable} such a number.",
            )


def read_knob(host: Host, name: str, path: str) -> Knob:
    """Read one knob; SettingError where the kernel has no such file or its text has no known form."""
    try:
        text = host.read(path)
    except OSError as error:
        raise SettingError(
            name, "a kernel file", f"no {path} ({error.strerror})", "This kernel lacks the knob.", "leave it out."
        ) from error
    if "[" in text:
        selector = parse_selector(text)
        return Knob(name, path, selector.value, selector.choices)
    value = text.strip()
    if not (value.isascii() and value.isdigit()):
        raise ParseError(path, "a selector or a whole number", text)
    return Knob(name, path, value)


def thp_knobs(host: Host) -> dict[str, Knob]:
    """Every writable THP knob this kernel has, by flat name, in the order in which a restore must write them.

    `enabled` comes first: switching THP on makes khugepaged raise vm.min_free_kbytes (mm/khugepaged.c), so whatever
    else is set comes after it. Read-only counters (khugepaged/pages_collapsed) are not knobs.
    """
    names = host.names(THP)
    paths = {f"thp.{name}": f"{THP}/{name}" for name in ("enabled", "defrag", "shmem_enabled") if name in names}
    paths |= {
        f"thp.{name}": f"{THP}/{name}"
        for name in names
        if f"thp.{name}" not in paths and not host.path(f"{THP}/{name}").is_dir()
    }
    paths |= {f"thp.khugepaged.{name}": f"{THP}/khugepaged/{name}" for name in host.names(f"{THP}/khugepaged")}
    sizes = sorted((int(match[1]), match[0]) for match in map(_SIZE_FOLDER.fullmatch, names) if match)
    for size_kb, folder in sizes:
        for name in host.names(f"{THP}/{folder}"):
            if name in ("enabled", "shmem_enabled"):
                paths[f"thp.sizes.{size_kb}kB.{name}"] = f"{THP}/{folder}/{name}"
    return {name: read_knob(host, name, path) for name, path in paths.items() if _is_writable(host, path)}


def _is_writable(host: Host, path: str) -> bool:
    """Whether the kernel gave the file a write bit at all; a permission bit, not this user's right."""
    try:
        return bool(stat.S_IMODE(os.stat(host.path(path)).st_mode) & stat.S_IWUSR)
    except OSError:
        return False


def pmd_size_bytes(host: Host) -> int | None:
    """Size of a PMD-mapped THP in bytes (2 MiB on x86-64, not everywhere), or None without THP."""
    text = host.read_or_none(f"{THP}/hpage_pmd_size")
    return int(text) if text and text.isascii() and text.strip().isdigit() else None


def effective_size_policy(enabled: str, size_enabled: str) -> str:
    """What a per-size mTHP selector amounts to: `inherit` takes the top-level `enabled`."""
    return enabled if size_enabled == "inherit" else size_enabled


@dataclass(frozen=True)
class WriteKnob:
    """Set a selector or number and read it back."""

    knob: Knob
    after: str

    @property
    def name(self) -> str:
        return self.knob.name

    @property
    def before(self) -> str:
        return self.knob.value

    def apply(self, host: Host) -> None:
        self._write(host, self.after)

    def undo(self, host: Host) -> None:
        if self.knob.reread(host).value != self.before:
            self._write(host, self.before)

    def _write(self, host: Host, value: str) -> None:
        host.write_kernel(self.knob.path, value)
        found = self.knob.reread(host).value
        if found != value:
            raise SettingError(
                self.name,
                value,
                found,
                f"The write to {self.knob.path} succeeded, but the kernel reads back something else.",
                "look for another writer of this file.",
            )
