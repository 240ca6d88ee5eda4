"""Overcommit: how many pages of a size the kernel may add to its pool for as long as a program uses them (surplus).

Source: nr_overcommit_hugepages in Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...host.errors import SettingError
from ...host.files import Host
from ...host.sizes import format_size, is_number, parse_size, size_or
from ...host.validate import Option
from ..boot.tmpfiles import TMPFILES, Line, plan_file, set_at_boot, set_by, tmpfiles_text
from ..kernel.hugetlb import HUGEPAGES, default_page_bytes, pool_folder, pool_sizes
from ..kernel.knobs import Knob, KnobState, WriteKnob, check_writable, read_knob
from ..state.json_fields import knob_value
from ..state.ownership import NOTHING, Ours
from .kind import PriorState, Reading

if TYPE_CHECKING:  # An audit compiles no code of changes for a name of a type.
    from ..state.changes import Change

OVERCOMMIT_DROPIN = f"{TMPFILES}/slm-baseline-hugepages-overcommit.conf"

_SYSCTL = "/proc/sys/vm/nr_overcommit_hugepages"
_FILE = re.compile(rf"{HUGEPAGES}/hugepages-([0-9]+)kB/nr_overcommit_hugepages", re.ASCII)
_PREFIX = "hugepages_overcommit."
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class SetOvercommit(WriteKnob):
    """A change of one size's limit. Most kernels refuse one for gigantic pages, which only a write shows."""

    def apply(self, host: Host) -> None:
        try:
            super().apply(host)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise SettingError(
                self.name,
                f"{self.after} pages",
                f"a kernel that refuses it ({error.strerror})",
                "Most kernels add no surplus pages of a gigantic size, such as 1G on x86-64 (mm/hugetlb.c).",
                "leave this size out of hugepages_overcommit, or reserve its pages with hugepages_pools.",
            ) from error

    def reverse(self) -> SetOvercommit:
        return SetOvercommit(self.name, self.path, self.after, self.before)


@dataclass(frozen=True)
class Overcommit:
    """The wanted limits in pages, by page size in bytes."""

    wanted: Mapping[int, int] = field(default_factory=dict)
    key: ClassVar[str] = "overcommit"

    @classmethod
    def parse(cls, host: Host, given: object) -> Overcommit:
        return cls(parse_overcommit(given))

    @classmethod
    def recorded(cls, key: str, value: Any) -> KnobState:
        if not key.startswith(_PREFIX):
            raise ValueError(f"{key!r} is no knob of this kind")
        return KnobState(key, _path(parse_size(key[len(_PREFIX) :])), knob_value(value), cls.key)

    @classmethod
    def knob_of(cls, target: str, default_page_bytes: int) -> str | None:
        if target == _SYSCTL:
            return _name(default_page_bytes)
        match = _FILE.fullmatch(target)
        return _name(int(match[1]) * 1024) if match else None

    @classmethod
    def boot_values(cls, words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
        """Return what `sysctl.vm.nr_overcommit_hugepages=` sets, for pages of the default size."""
        default = next((size_or(value, 0) for key, value in words if key == "default_hugepagesz"), 0)
        return {
            _name(default or default_page_bytes): value
            for key, value in words
            if key.replace("/", ".") == "sysctl.vm.nr_overcommit_hugepages" and is_number(value)
        }

    @classmethod
    def persisted(cls, host: Host, lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
        default = default_page_bytes(host)
        return set_at_boot(lines, lambda target: cls.knob_of(target, default))

    @classmethod
    def facts(cls, host: Host) -> dict[str, Any]:
        """Return no facts: the pools' facts include the limits."""
        return {}

    def values(self) -> dict[str, str]:
        return {_name(size): str(count) for size, count in self.wanted.items()}

    def check(self, host: Host, prior: Mapping[str, KnobState], ours: Ours = NOTHING) -> None:
        if self.wanted:
            check_writable(host, HUGEPAGES)
        sizes = pool_sizes(host)
        for size, count in self.wanted.items():
            if size not in sizes:
                raise SettingError(
                    _name(size),
                    f"{count} pages",
                    f"a kernel with {', '.join(map(format_size, sizes)) or 'no hugetlb at all'}",
                    "The processor or kernel has no pages of that size.",
                    "choose one of these sizes, or leave hugepages_overcommit unset.",
                )

    def plan(self, host: Host, prior: Mapping[str, KnobState], ours: Ours = NOTHING) -> list[Change]:
        """Return the changes of the limits, then that of the drop-in that makes them persistent."""
        self.check(host, prior)
        found = {knob.name: knob.value for knob in _knobs(host)}
        dropped = {
            name: prior[name].value
            for name in set_by(host, OVERCOMMIT_DROPIN, lambda target: self.knob_of(target, 0))
            if name in prior and name in found and ours.has(self.key, name, found[name])
        }
        values = {**dropped, **self.values()}
        changes = [
            SetOvercommit(knob.name, knob.path, knob.value, values[knob.name])
            for knob in _knobs(host)
            if values.get(knob.name, knob.value) != knob.value
        ]
        text = tmpfiles_text({_path(size): str(count) for size, count in self.wanted.items()})
        return [*changes, *plan_file(host, OVERCOMMIT_DROPIN, text)]

    def read(self, host: Host) -> dict[str, Reading]:
        return {knob.name: knob.value for knob in _knobs(host)}

    def capture(self, host: Host, known: Container[str] = ()) -> dict[str, PriorState]:
        knobs = [knob for knob in _knobs(host) if knob.name not in known]
        return {knob.name: KnobState(knob.name, knob.path, knob.value, self.key) for knob in knobs}

    def places(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        return [OVERCOMMIT_DROPIN], []


def parse_overcommit(settings: object) -> dict[int, int]:
    """Parse the user's `{size: pages}` into pages by page size in bytes; SettingError for anything invalid in it."""
    wanted: dict[int, int] = {}
    for size, count in Option("hugepages_overcommit", settings).named().items():
        given_size = Option("hugepages_overcommit", size)
        size_bytes = given_size.size()
        if size_bytes in wanted:
            why = "Two spellings name one size."
            raise given_size.error("each size once", f"{size} twice", why=why, next_step="remove one.")
        wanted[size_bytes] = Option(_name(size_bytes), count).integer(_MAX_COUNT)
    return wanted


def _name(size_bytes: int) -> str:
    return f"{_PREFIX}{format_size(size_bytes)}"


def _path(size_bytes: int) -> str:
    return f"{pool_folder(size_bytes)}/nr_overcommit_hugepages"


def _knobs(host: Host) -> list[Knob]:
    return [read_knob(host, _name(size), _path(size)) for size in pool_sizes(host)]
