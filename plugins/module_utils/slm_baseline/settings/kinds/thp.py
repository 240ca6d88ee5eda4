"""Transparent huge pages: the kernel's selectors, khugepaged's numbers, and per-size settings (mTHP).

Source: Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...host.errors import SettingError
from ...host.files import Host
from ...host.sizes import is_number, size_or
from ...host.validate import Option
from ..boot.tmpfiles import TMPFILES, Line, plan_file, set_at_boot, set_by, tmpfiles_text
from ..kernel.knobs import Knob, KnobState, WriteKnob, check_writable, read_knob
from ..state.json_fields import knob_value
from ..state.ownership import NOTHING, Ours
from .kind import PriorState, Reading

if TYPE_CHECKING:  # An audit compiles no code of changes for a name of a type.
    from ..state.changes import Change

THP = "/sys/kernel/mm/transparent_hugepage"
MIN_FREE = "/proc/sys/vm/min_free_kbytes"
THP_DROPIN = f"{TMPFILES}/slm-baseline-thp.conf"

_MIN_FREE_KNOB = "vm.min_free_kbytes"
_SELECTORS = ("enabled", "defrag", "shmem_enabled")
_KEYS = (*_SELECTORS, "khugepaged", "sizes")
_MOST = 2**63 - 1
_SIZE_FOLDER = re.compile(r"hugepages-([0-9]+)kB")
_FILE = re.compile(rf"{THP}/(?:(?P<daemon>khugepaged)/|hugepages-(?P<size>[0-9]+kB)/)?(?P<name>[a-z_]+)", re.ASCII)
_KNOB = re.compile(r"thp\.(?:(?P<daemon>khugepaged)\.|sizes\.(?P<size>[0-9]+kB)\.)?(?P<name>[a-z0-9_]+)", re.ASCII)


@dataclass(frozen=True)
class Thp:
    """The wanted values by knob name."""

    wanted: Mapping[str, str] = field(default_factory=dict)
    key: ClassVar[str] = "thp"

    @classmethod
    def parse(cls, host: Host, given: object) -> Thp:
        return cls(parse_thp(given))

    @classmethod
    def recorded(cls, key: str, value: Any) -> KnobState:
        return _state(key, knob_path(key), knob_value(value))

    @classmethod
    def knob_of(cls, target: str, default_page_bytes: int) -> str | None:
        match = _FILE.fullmatch(target)
        if not match:
            return None
        size = f"sizes.{match['size']}." if match["size"] else "khugepaged." if match["daemon"] else ""
        return f"thp.{size}{match['name']}"

    @classmethod
    def boot_values(cls, words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
        values = {}
        for key, value in words:
            # The kernel ignores any other word (setup_transparent_hugepage in mm/huge_memory.c).
            if key == "transparent_hugepage" and value in ("always", "madvise", "never"):
                values["thp.enabled"] = value
            elif key == "transparent_hugepage_shmem":
                values["thp.shmem_enabled"] = value
            elif key == "thp_anon":
                for item in value.split(";"):
                    sizes, _, policy = item.partition(":")
                    for size_bytes in _boot_sizes(sizes):
                        values[f"thp.sizes.{size_bytes // 1024}kB.enabled"] = policy
        return values

    @classmethod
    def persisted(cls, host: Host, lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
        return set_at_boot(lines, lambda target: cls.knob_of(target, 0))

    @classmethod
    def facts(cls, host: Host) -> dict[str, Any]:
        knobs = thp_knobs(host)
        enabled = knobs.get("thp.enabled")
        sizes = {
            name.split(".")[2]: {
                "enabled": knob.value,
                "effective": effective_size_policy(enabled.value if enabled else "never", knob.value),
            }
            for name, knob in knobs.items()
            if name.startswith("thp.sizes.") and name.endswith(".enabled")
        }
        return {
            "thp": {
                "supported": enabled is not None,
                "pmd_size_bytes": pmd_size_bytes(host),
                "knobs": {name: {"value": knob.value, "choices": list(knob.choices)} for name, knob in knobs.items()},
                "sizes": sizes,
                "lacking": _lacking(knobs),
                "unreadable": list(map(str, unreadable_knobs(host).values())),
            }
        }

    def values(self) -> dict[str, str]:
        return dict(self.wanted)

    def check(self, host: Host, prior: Mapping[str, KnobState], ours: Ours = NOTHING) -> None:
        check_thp(host, self.wanted)

    def plan(self, host: Host, prior: Mapping[str, KnobState], ours: Ours = NOTHING) -> list[Change]:
        """Return the changes of runtime values, in the kernel's order, then that of the drop-in."""
        offered = thp_knobs(host)
        dropped = {
            name: prior[name].value
            for name in set_by(host, THP_DROPIN, lambda target: self.knob_of(target, 0))
            if name not in self.wanted
            and name in prior
            and name in offered
            and ours.has(self.key, name, offered[name].value)
        }
        kept = {knob.path: self.wanted[name] for name, knob in offered.items() if name in self.wanted}
        return [*plan_knobs(host, {**dropped, **self.wanted}), *plan_file(host, THP_DROPIN, tmpfiles_text(kept))]

    def read(self, host: Host) -> dict[str, Reading]:
        return {**unreadable_knobs(host), **{name: knob.value for name, knob in thp_knobs(host).items()}}

    def capture(self, host: Host, known: Container[str] = ()) -> dict[str, PriorState]:
        """Read every knob that the tuning could move, and min_free_kbytes, which khugepaged moves for it.

        In the order in which a restore must write them: min_free_kbytes comes last.
        """
        knobs = [*thp_knobs(host).values()]
        if host.exists(MIN_FREE):
            knobs.append(read_knob(host, _MIN_FREE_KNOB, MIN_FREE))
        return {knob.name: _state(knob.name, knob.path, knob.value) for knob in knobs if knob.name not in known}

    def places(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        return [THP_DROPIN], []


def _lacking(knobs: Iterable[str]) -> list[str]:
    """Return the settings for which this kernel has no file, such as thp_sizes (mTHP) before Linux 6.8."""
    there = {name.split(".")[1] for name in knobs}
    return [f"thp_{key}" for key in _KEYS if key not in there]


def _state(name: str, path: str, value: str) -> KnobState:
    return KnobState(name, path, value, Thp.key)


def knob_path(name: str) -> str:
    """Return the kernel file of a recorded knob; ValueError for a name that is not of this kind."""
    if name == _MIN_FREE_KNOB:
        return MIN_FREE
    match = _KNOB.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is no knob of ours")
    folder = f"hugepages-{match['size']}/" if match["size"] else "khugepaged/" if match["daemon"] else ""
    return f"{THP}/{folder}{match['name']}"


def _boot_sizes(text: str) -> Iterator[int]:
    """Yield the bytes of each size in `16K-64K,2M`; a range holds every power of two in it."""
    for item in text.split(","):
        first, dash, last = item.partition("-")
        size, end = size_or(first, 0), size_or(last if dash else first, 0)
        while 0 < size <= end:
            yield size
            size *= 2


def thp_knobs(host: Host) -> dict[str, Knob]:
    """Read every writable THP knob of this kernel, by flat name, in the order in which a restore must write them.

    `enabled` comes first: switching THP on makes khugepaged raise vm.min_free_kbytes (mm/khugepaged.c), so everything
    else is set after it. Read-only counters (khugepaged/pages_collapsed) are not knobs, and neither are a vendor
    kernel's files with a text of another form: `unreadable_knobs` has these.
    """
    return {name: knob for name, knob in _each_knob(host) if isinstance(knob, Knob)}


def unreadable_knobs(host: Host) -> dict[str, SettingError]:
    """Return writable THP files with unknown content, by name, as errors: no reason to stop unless one is wanted."""
    return {name: knob for name, knob in _each_knob(host) if isinstance(knob, SettingError)}


def _each_knob(host: Host) -> Iterator[tuple[str, Knob | SettingError]]:
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
    for name, path in paths.items():
        if _is_writable(host, path):
            try:
                yield name, read_knob(host, name, path)
            except SettingError as error:
                yield name, error


def _is_writable(host: Host, path: str) -> bool:
    """Return whether the file has a write bit at all: a permission bit of the kernel, not this user's right."""
    try:
        return bool(stat.S_IMODE(os.stat(host.path(path)).st_mode) & stat.S_IWUSR)
    except OSError:
        return False


def pmd_size_bytes(host: Host) -> int | None:
    """Return the size of a PMD-mapped THP in bytes (2 MiB on x86-64, not everywhere), or None without THP."""
    text = (host.read_or_none(f"{THP}/hpage_pmd_size") or "").strip()
    return int(text) if is_number(text) else None


def effective_size_policy(enabled: str, size_enabled: str) -> str:
    """Return the effect of a per-size mTHP selector: `inherit` uses the top-level `enabled`."""
    return enabled if size_enabled == "inherit" else size_enabled


def parse_thp(settings: object) -> dict[str, str]:
    """Parse the user's THP settings into values by knob name; None and absent keys mean "leave untouched".

    Form: `{enabled, defrag, shmem_enabled: selector; khugepaged: {file: number}; sizes: {64K: selector}}`.
    Raises SettingError for unknown keys and for what YAML made of an unquoted word.
    """
    given = Option("thp", settings).named(_KEYS)
    wanted = {f"thp.{key}": Option(f"thp_{key}", given[key]).text() for key in _SELECTORS if given.get(key) is not None}
    for name, value in Option("thp_khugepaged", given.get("khugepaged")).named().items():
        number = Option(f"thp_khugepaged.{name}", value).integer(_MOST, why="khugepaged's knobs are whole numbers.")
        wanted[f"thp.khugepaged.{name}"] = str(number)
    for size, value in Option("thp_sizes", given.get("sizes")).named().items():
        given_size = Option("thp_sizes", size)
        size_bytes = given_size.size()
        knob = f"thp.sizes.{size_bytes // 1024}kB.enabled"
        if size_bytes % 1024:
            raise given_size.error("whole kB", why="The kernel names its sizes in kB.", next_step="correct the size.")
        if knob in wanted:
            why = "Two spellings name one size."
            raise given_size.error("each size once", f"{size} twice", why=why, next_step="remove one.")
        wanted[knob] = Option(f"thp_sizes.{size}", value).text()
    return wanted


def check_thp(host: Host, wanted: Mapping[str, str]) -> dict[str, Knob]:
    """Return the host's THP knobs; SettingError where a wanted value is not valid on this kernel."""
    if not wanted:
        return {}
    check_writable(host, THP)
    if not host.exists(f"{THP}/enabled"):
        raise SettingError(
            "thp.enabled",
            wanted.get("thp.enabled", "a THP setting"),
            f"no {THP}/enabled",
            "This kernel was built without transparent huge pages, or /sys is not mounted.",
            "leave thp_enabled and its siblings unset on this host.",
        )
    knobs = thp_knobs(host)
    for name, value in wanted.items():
        unreadable = None if name in knobs else unreadable_knobs(host).get(name)
        if unreadable:
            raise unreadable
        if name not in knobs:
            family = name.rsplit(".", 2)[0] + "." if name.startswith("thp.sizes.") else name.rsplit(".", 1)[0] + "."
            known = [knob for knob in knobs if knob.startswith(family)] or list(knobs)
            raise SettingError(
                name,
                value,
                "no such knob",
                f"This kernel offers {', '.join(known)}.",
                "choose one of these, or leave it out.",
            )
        knobs[name].check(value, name.replace("thp.", "thp_", 1))
    return knobs


def plan_knobs(host: Host, wanted: Mapping[str, str]) -> list[WriteKnob]:
    """Return changes for the THP knobs that differ, in the kernel's order; SettingError as check_thp."""
    return [
        WriteKnob(name, knob.path, knob.value, wanted[name])
        for name, knob in check_thp(host, wanted).items()
        if wanted.get(name, knob.value) != knob.value
    ]
