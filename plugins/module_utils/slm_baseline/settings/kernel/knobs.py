"""Kernel files as named knobs: selectors (`always [madvise] never`) and whole numbers.

Sources: Documentation/admin-guide/mm/transhuge.rst and hugetlbpage.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, replace

from ...host.errors import ParseError, SettingError, os_problem
from ...host.files import Host
from ...host.sizes import is_number
from ..state.losses import NO_LIMITS, Limits
from ..state.ownership import Ours

_SELECTOR = re.compile(r"\S+")


@dataclass(frozen=True)
class Selector:
    """A parsed selector file: the current choice and every valid value, in the kernel's order."""

    value: str
    choices: tuple[str, ...]


def parse_selector(text: str, path: str = "selector") -> Selector:
    """Parse `always [madvise] never`; ParseError, which names the path, unless exactly one word is in brackets."""
    words = _SELECTOR.findall(text)
    chosen = [word[1:-1] for word in words if len(word) > 2 and word[0] == "[" and word[-1] == "]"]
    if len(chosen) != 1:
        raise ParseError(path, "words with exactly one of them in brackets", text)
    return Selector(chosen[0], tuple(word.strip("[]") for word in words))


@dataclass(frozen=True)
class Knob:
    """One kernel file with a flat name. `choices` is empty for a whole number."""

    name: str
    path: str
    value: str
    choices: tuple[str, ...] = ()

    def check(self, wanted: str, variable: str) -> None:
        """Raise SettingError, naming the user's variable, where the kernel would not accept this value."""
        if self.choices:
            if wanted not in self.choices:
                raise SettingError(
                    self.name,
                    wanted,
                    f"a kernel that offers {', '.join(self.choices)}",
                    f"{self.path} takes nothing else.",
                    f"set {variable} to one of them.",
                )
        elif not (is_number(wanted) and int(wanted) < 2**63):
            raise SettingError(
                self.name,
                wanted,
                f"a whole number ({self.value})",
                f"{self.path} takes whole numbers from 0.",
                f"give {variable} such a number.",
            )


def check_writable(host: Host, folder: str) -> None:
    """Raise SettingError where /sys is mounted read-only, as in most containers: being root does not help there."""
    if host.exists(folder) and os.statvfs(host.path(folder)).f_flag & os.ST_RDONLY:
        raise os_problem("/sys", "a writable /sys", OSError(errno.EROFS, os.strerror(errno.EROFS), folder))


def read_knob(host: Host, name: str, path: str) -> Knob:
    """Read one knob; SettingError where the kernel has no such file or its text has an unknown form."""
    try:
        text = host.read(path)
    except OSError as error:
        raise SettingError(
            name, "a kernel file", f"no {path} ({error.strerror})", "This kernel lacks the knob.", "leave it out."
        ) from error
    if "[" in text:
        selector = parse_selector(text, path)
        return Knob(name, path, selector.value, selector.choices)
    value = text.strip()
    if not is_number(value):
        raise ParseError(path, "a selector or a whole number", text)
    return Knob(name, path, value)


@dataclass(frozen=True)
class WriteKnob:
    """A change that sets a selector or number and reads it back."""

    name: str
    path: str
    before: str
    after: str

    def apply(self, host: Host) -> None:
        if self._found(host) == self.after:
            return
        host.write_kernel(self.path, self.after)
        found = self._found(host)
        if found != self.after:
            raise SettingError(
                self.name,
                self.after,
                found,
                f"The write to {self.path} succeeded, but the kernel reads back something else.",
                "look for another writer of this file.",
            )

    def reverse(self) -> WriteKnob:
        return WriteKnob(self.name, self.path, self.after, self.before)

    def _found(self, host: Host) -> str:
        return read_knob(host, self.name, self.path).value


@dataclass(frozen=True)
class KnobState:
    """A knob's prior value; `kind` is the key of its kind.

    Where the kernel no longer has such a knob, there is nothing to restore.
    """

    name: str
    path: str
    value: str
    kind: str

    def values(self) -> dict[str, str]:
        return {self.name: self.value}

    def to_json(self) -> str:
        return self.value

    def now(self, host: Host) -> KnobState | None:
        if not host.exists(self.path):
            return None
        return replace(self, value=read_knob(host, self.name, self.path).value)

    def rollback_target(self, found: KnobState, ours: Ours) -> KnobState:
        return self if ours.has(self.kind, self.name, found.value) else found

    def change(self, host: Host, limits: Limits = NO_LIMITS) -> WriteKnob | None:
        if not host.exists(self.path):
            return None
        found = read_knob(host, self.name, self.path).value
        return None if found == self.value else WriteKnob(self.name, self.path, found, self.value)
