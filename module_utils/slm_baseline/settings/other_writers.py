"""Who else writes the knobs we set: TuneD, sysctl.d, tmpfiles.d, sysfs.conf, units, rc.local, fstab, the command line.

Each finding carries the file and line it came from. Only one that wants another value than ours competes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ..host.files import Host
from .dropins import is_ours, tmpfiles_lines
from .registry import KINDS, boot_values, knob_of

_SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
_UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
_TUNED_FOLDERS = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
_SCRIPTS = ("/etc/rc.local", "/etc/rc.d/rc.local")
_THP_WORDS = re.compile(r"\b(always|madvise|never|defer\+madvise|defer)\b")
_MENTION = re.compile(r"/(?:sys|proc)/[\w/-]+", re.ASCII)
_NUMBER = re.compile(r"(?<![\w/.-])[0-9]+(?![\w/.-])", re.ASCII)
_SYSCTL = re.compile(r"\bsysctl\b.*?\b(vm[./][a-z_]+)\s*=\s*([0-9]+)", re.ASCII)
_INTO = re.compile(r"""(?:>\|?|\btee\b[^;|&<>]*)\s*["']?$""")
"""What stands before a path that is written: a redirection, or tee with its options and its other files."""


@dataclass(frozen=True)
class Competitor:
    """Another writer of a knob. `value` is None where it cannot be told, as in a script."""

    path: str
    line: int
    knob: str
    value: str | None
    kind: str

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "detail": str(self)}

    def __str__(self) -> str:
        value = "something" if self.value is None else self.value
        return f"{self.kind} sets {self.knob} to {value} at {self.path}:{self.line}"


def find_competitors(host: Host, wanted: Mapping[str, str], default_page_bytes: int) -> list[Competitor]:
    """Every other writer of a knob in `wanted` (flat name -> value) that wants another value, or an untold one."""
    found = [
        *_tmpfiles(host, default_page_bytes),
        *_sysctl(host, default_page_bytes),
        *_sysfs_conf(host, default_page_bytes),
    ]
    found += [*_tuned(host, default_page_bytes), *_boot(host, default_page_bytes), *_units(host, default_page_bytes)]
    found += [*_scripts(host, default_page_bytes), *_fstab(host)]
    return [writer for writer in found if any(_contradicts(writer, knob, value) for knob, value in wanted.items())]


def _contradicts(writer: Competitor, knob: str, value: str) -> bool:
    return _same_pages(writer.knob, knob) and writer.value != value


def _same_pages(writer: str, knob: str) -> bool:
    """A pool set as a whole moves the pages of its nodes, and the other way round."""
    if writer == knob:
        return True
    first, second = writer.split("."), knob.split(".")
    return first[0] == second[0] == "hugepages" and first[-1] == second[-1] and len(first) != len(second)


def _lines(host: Host, path: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are neither blank nor a comment; none where the file cannot be read."""
    for number, line in enumerate((host.read_or_none(path) or "").splitlines(), 1):
        text = line.strip()
        if text and text[0] not in "#;":
            yield number, text


def _tmpfiles(host: Host, default: int) -> Iterator[Competitor]:
    ours = [path for kind in KINDS for path in kind().places(())[0]]
    for line in tmpfiles_lines(host):
        knob = knob_of(line.target, default)
        if knob and line.path not in ours:
            yield Competitor(line.path, line.number, knob, line.value, "tmpfiles.d")


def _sysctl(host: Host, default: int) -> Iterator[Competitor]:
    paths = {"/etc/sysctl.conf": "/etc/sysctl.conf"}
    for folder in _SYSCTL_FOLDERS:
        for name in host.names(folder):
            if name.endswith(".conf"):
                paths.setdefault(name, f"{folder}/{name}")
    for path in paths.values():
        for number, text in _lines(host, path):
            key, _, value = text.lstrip("-").partition("=")
            knob = _sysctl_knob(key.strip(), default)
            if knob:
                yield Competitor(path, number, knob, value.strip(), "sysctl")


def _sysctl_knob(key: str, default: int) -> str | None:
    return knob_of(f"/proc/sys/{key.replace('.', '/')}", default)


def _sysfs_conf(host: Host, default: int) -> Iterator[Competitor]:
    for path in ("/etc/sysfs.conf", *(f"/etc/sysfs.d/{name}" for name in host.names("/etc/sysfs.d"))):
        for number, text in _lines(host, path):
            key, _, value = text.partition("=")
            knob = knob_of(f"/sys/{key.strip()}", default)
            if knob:
                yield Competitor(path, number, knob, value.strip(), "sysfsutils")


def _tuned(host: Host, default: int) -> Iterator[Competitor]:
    """The active TuneD profile and those it includes, where TuneD is running or enabled at boot."""
    wants = "/etc/systemd/system/multi-user.target.wants/tuned.service"
    if not (host.path(wants).is_symlink() or host.exists("/run/tuned/tuned.pid")):
        return
    in_force: dict[str, Competitor] = {}
    for name in (host.read_or_none("/etc/tuned/active_profile") or "").split():
        in_force |= _tuned_profile(host, name, default, ())
    yield from in_force.values()


def _tuned_profile(host: Host, name: str, default: int, including: tuple[str, ...]) -> dict[str, Competitor]:
    """What one profile sets, by knob: its own lines win over those of the profiles it includes."""
    files = [f"{folder}/{name}/tuned.conf" for folder in _TUNED_FOLDERS]
    path = next((file for file in files if host.exists(file)), None)
    if path is None or name in including or "/" in name:
        return {}
    included: dict[str, Competitor] = {}
    own: dict[str, Competitor] = {}
    section = ""
    for number, text in _lines(host, path):
        if text.startswith("["):
            section = text.strip("[]")
            continue
        key, _, value = (part.strip() for part in text.partition("="))
        if section == "main" and key == "include":
            for parent in re.split(r"[\s,]+", value):
                included |= _tuned_profile(host, parent, default, (*including, name))
        knob = _tuned_knob(section, key, default)
        if knob:
            own[knob] = Competitor(path, number, knob, value, f"TuneD profile {name}")
    return included | own


def _tuned_knob(section: str, key: str, default: int) -> str | None:
    if key in ("transparent_hugepages", "transparent_hugepage"):
        return "thp.enabled"
    if key == "transparent_hugepage.defrag":
        return "thp.defrag"
    if section == "sysfs" or key.startswith("/sys/"):
        return knob_of(key, default)
    return _sysctl_knob(key, default)


def _boot(host: Host, default: int) -> Iterator[Competitor]:
    for knob, value in boot_values(host.read_or_none("/proc/cmdline") or "", default).items():
        yield Competitor("/proc/cmdline", 1, knob, value, "the kernel command line")


def _written(text: str, default: int) -> Iterator[tuple[str, str | None]]:
    """Knobs that a shell-like line writes, with the value where one stands plainly before the path.

    A path that is only read does not count: metrics exporters and checks read them all the time.
    """
    for match in _MENTION.finditer(text):
        before = text[: match.start()]
        knob = knob_of(match[0], default)
        if knob and _INTO.search(before):
            selects = knob.startswith("thp.") and not knob.startswith("thp.khugepaged.")
            words = (_THP_WORDS if selects else _NUMBER).findall(before)
            yield knob, words[-1] if words else None
    for match in _SYSCTL.finditer(text):
        knob = _sysctl_knob(match[1], default)
        if knob:
            yield knob, match[2]


def _units(host: Host, default: int) -> Iterator[Competitor]:
    """Units enabled at boot whose Exec lines write a knob, the usual disable-thp.service among them."""
    enabled = {
        name
        for folder in host.names("/etc/systemd/system")
        if folder.endswith((".wants", ".requires"))
        for name in host.names(f"/etc/systemd/system/{folder}")
    }
    for folder in _UNIT_FOLDERS:
        for name in host.names(folder):
            path = f"{folder}/{name}"
            if name.endswith(".service") and name in enabled:
                enabled.discard(name)
                yield from _script(host, path, default, f"unit {name}", "Exec")


def _scripts(host: Host, default: int) -> Iterator[Competitor]:
    crons = [f"/etc/cron.d/{name}" for name in host.names("/etc/cron.d")]
    for path in (*_SCRIPTS, "/etc/crontab", *crons):
        yield from _script(host, path, default, "a script run at boot")


def _script(host: Host, path: str, default: int, kind: str, key: str = "") -> Iterator[Competitor]:
    """What the lines of a script, or those of a unit that begin with `key`, write."""
    for number, text in _lines(host, path):
        if text.startswith(key):
            for knob, value in _written(text, default):
                yield Competitor(path, number, knob, value, kind)


def _fstab(host: Host) -> Iterator[Competitor]:
    """hugetlbfs lines of fstab and foreign mount units; at a path of ours they would mount a second time."""
    for number, text in _lines(host, "/etc/fstab"):
        fields = text.split()
        if len(fields) >= 4 and fields[2] == "hugetlbfs":
            yield Competitor("/etc/fstab", number, f"hugetlbfs.{fields[1]}", fields[3], "fstab")
    for folder in _UNIT_FOLDERS:
        for name in host.names(folder):
            path = f"{folder}/{name}"
            if name.endswith(".mount") and not is_ours(host, path):
                for number, text in _lines(host, path):
                    if text.startswith("Where="):
                        yield Competitor(path, number, f"hugetlbfs.{text[6:].strip()}", None, f"unit {name}")
