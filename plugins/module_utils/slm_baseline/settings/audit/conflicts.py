"""Who else writes the knobs we set: TuneD, sysctl.d, tmpfiles.d, sysfs.conf, units, rc.local, fstab, the command line.

Each finding carries the file and line it came from. Only one that wants another value than ours competes.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ...host.errors import SettingError
from ...host.files import Host
from ..boot.mount_units import our_units, parse_unit
from ..boot.tmpfiles import is_ours, tmpfiles_lines
from ..kernel.hugetlbfs import MountSpec, parse_options
from ..kinds.registry import KINDS, boot_values, knob_of

_SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
_UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
_TUNED_FOLDERS = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
_SCRIPTS = ("/etc/rc.local", "/etc/rc.d/rc.local")
_CRONTABS = ("/etc/crontab", "/etc/anacrontab", "/var/spool/cron/crontabs/root", "/var/spool/cron/root")
_LONGEST_SCRIPT = 1 << 18
_PROGRAM = re.compile(r"(?<![\w./])/[\w./+@-]+", re.ASCII)
_THP_WORDS = re.compile(r"\b(always|madvise|never|defer\+madvise|defer)\b")
_MENTION = re.compile(r"/(?:sys|proc)/[\w/-]+", re.ASCII)
_NUMBER = re.compile(r"(?<![\w/.-])[0-9]+(?![\w/.-])", re.ASCII)
_SYSCTL = re.compile(r"\bsysctl\b.*?\b(vm[./][a-z_]+)\s*=\s*([0-9]+)", re.ASCII)
_INTO = re.compile(r"""(?:>\|?|\btee\b[^;|&<>]*)\s*["']?$""")
"""What stands before a path that is written: a redirection, or tee with its options and its other files."""


@dataclass(frozen=True)
class Conflict:
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


def find_conflicts(host: Host, wanted: Mapping[str, str], default_page_bytes: int) -> list[Conflict]:
    """Every other writer of a knob in `wanted` (flat name -> value) that wants another value, or an untold one."""
    found = [
        *_tmpfiles(host, default_page_bytes),
        *_sysctl(host, default_page_bytes),
        *_sysfs_conf(host, default_page_bytes),
    ]
    units = _Units(host)
    found += [*_tuned(host, default_page_bytes), *_boot(host, default_page_bytes)]
    found += [*_services(host, units, default_page_bytes), *_scripts(host, default_page_bytes)]
    found += _mounts(host, units, default_page_bytes)
    return [writer for writer in found if any(_contradicts(writer, knob, value) for knob, value in wanted.items())]


def _contradicts(writer: Conflict, knob: str, value: str) -> bool:
    return _same_pages(writer.knob, knob) and writer.value != value


def _same_pages(writer: str, knob: str) -> bool:
    """A pool set as a whole moves the pages of its nodes, and the other way round."""
    if writer == knob:
        return True
    first, second = writer.split("."), knob.split(".")
    return first[0] == second[0] == "hugepages" and first[-1] == second[-1] and len(first) != len(second)


def _lines(host: Host, path: str) -> Iterator[tuple[int, str]]:
    """Numbered lines, continued ones joined, without blanks and comments; none of a file that cannot be read."""
    first, joined = 0, ""
    for number, line in enumerate((host.read_or_none(path) or "").splitlines(), 1):
        text = line.strip()
        # A comment between continued lines does not end them (systemd.syntax(7)).
        if not text or text[0] in "#;":
            continue
        first = first if joined else number
        if text.endswith("\\"):
            joined += f"{text[:-1]} "
            continue
        yield first, joined + text
        joined = ""
    if joined:
        yield first, joined


def _tmpfiles(host: Host, default: int) -> Iterator[Conflict]:
    ours = [path for kind in KINDS for path in kind().places(())[0]]
    for line in tmpfiles_lines(host):
        knob = knob_of(line.target, default)
        if knob and line.path not in ours:
            yield Conflict(line.path, line.number, knob, line.value, "tmpfiles.d")


def _sysctl(host: Host, default: int) -> Iterator[Conflict]:
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
                yield Conflict(path, number, knob, value.strip(), "sysctl")


def _sysctl_knob(key: str, default: int) -> str | None:
    return knob_of(f"/proc/sys/{key.replace('.', '/')}", default)


def _sysfs_conf(host: Host, default: int) -> Iterator[Conflict]:
    for path in ("/etc/sysfs.conf", *(f"/etc/sysfs.d/{name}" for name in host.names("/etc/sysfs.d"))):
        for number, text in _lines(host, path):
            key, _, value = text.partition("=")
            knob = knob_of(f"/sys/{key.strip()}", default)
            if knob:
                yield Conflict(path, number, knob, value.strip(), "sysfsutils")


def _tuned(host: Host, default: int) -> Iterator[Conflict]:
    """The active TuneD profile and those it includes, where TuneD is running or enabled at boot."""
    wants = "/etc/systemd/system/multi-user.target.wants/tuned.service"
    if not (host.path(wants).is_symlink() or host.exists("/run/tuned/tuned.pid")):
        return
    in_force: dict[str, Conflict] = {}
    for name in (host.read_or_none("/etc/tuned/active_profile") or "").split():
        in_force |= _tuned_profile(host, name, default, ())
    yield from in_force.values()


def _tuned_profile(host: Host, name: str, default: int, including: tuple[str, ...]) -> dict[str, Conflict]:
    """What one profile sets, by knob: its own lines win over those of the profiles it includes."""
    files = [f"{folder}/{name}/tuned.conf" for folder in _TUNED_FOLDERS]
    path = next((file for file in files if host.exists(file)), None)
    if path is None or name in including or "/" in name:
        return {}
    included: dict[str, Conflict] = {}
    own: dict[str, Conflict] = {}
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
            own[knob] = Conflict(path, number, knob, value, f"TuneD profile {name}")
    return included | own


def _tuned_knob(section: str, key: str, default: int) -> str | None:
    if key in ("transparent_hugepages", "transparent_hugepage"):
        return "thp.enabled"
    if key == "transparent_hugepage.defrag":
        return "thp.defrag"
    if section == "sysfs" or key.startswith("/sys/"):
        return knob_of(key, default)
    return _sysctl_knob(key, default)


def _boot(host: Host, default: int) -> Iterator[Conflict]:
    for knob, value in boot_values(host.read_or_none("/proc/cmdline") or "", default).items():
        yield Conflict("/proc/cmdline", 1, knob, value, "the kernel command line")


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


class _Units:
    """The unit folders in the order in which systemd takes from them; each is listed once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.names = {folder: host.names(folder) for folder in _UNIT_FOLDERS}
        self._known = {folder: frozenset(names) for folder, names in self.names.items()}

    def file(self, name: str) -> str | None:
        """The file of a unit that systemd takes: that of the first folder that has one."""
        paths = [f"{folder}/{name}" for folder, known in self._known.items() if name in known]
        return next((path for path in paths if self._host.exists(path)), None)

    def drop_ins(self, unit: str) -> list[str]:
        """A unit's drop-ins: its own, those of its name's beginnings up to a dash, and those of its type."""
        stem, _, kind = unit.rpartition(".")
        parts = stem.split("-")
        owners = [unit, *(f"{'-'.join(parts[:count])}-.{kind}" for count in range(1, len(parts))), kind]
        known = self._known.items()
        folders = [f"{folder}/{owner}.d" for owner in owners for folder, names in known if f"{owner}.d" in names]
        return [f"{folder}/{name}" for folder in folders for name in self._host.names(folder) if name.endswith(".conf")]


def _services(host: Host, units: _Units, default: int) -> Iterator[Conflict]:
    """Units started at boot or by a timer whose Exec lines write a knob, the usual disable-thp.service among them.

    With their drop-ins, and the scripts that they call.
    """
    for name in sorted(_started(host, units)):
        template = f"{name.partition('@')[0]}@.service"
        files = [units.file(name) or ("@" in name and units.file(template)) or None]
        for unit in {name, template} if "@" in name else {name}:
            files += units.drop_ins(unit)
        for path in filter(None, files):
            yield from _script(host, path, default, f"unit {name}", "Exec")


def _started(host: Host, units: _Units) -> set[str]:
    """Services that are enabled, by whatever name, and those that enabled timers, paths and sockets start."""
    links = {
        f"{folder}/{wants}/{name}"
        for folder, names in units.names.items()
        for wants in names
        if wants.endswith((".wants", ".requires"))
        for name in host.names(f"{folder}/{wants}")
    }
    # A link that enables an alias leads to the unit that it stands for.
    enabled = {os.path.basename(link) for link in links} | {_link_name(host, link) for link in links}
    enabled |= {_link_name(host, path) for path in (units.file(name) for name in enabled) if path}
    for name in [name for name in enabled if name.endswith((".timer", ".path", ".socket"))]:
        path = units.file(name)
        lines = [text for _, text in _lines(host, path)] if path else []
        started = [text.partition("=")[2].strip() for text in lines if text.startswith(("Unit=", "Service="))]
        enabled |= set(started or [f"{name.rpartition('.')[0]}.service"])
    return {name for name in enabled if name.endswith(".service") and "@." not in name}


def _link_name(host: Host, path: str) -> str:
    try:
        return os.path.basename(os.readlink(host.name(path)))
    except OSError:
        return ""


def _scripts(host: Host, default: int) -> Iterator[Conflict]:
    folders = ["/etc/cron.d", *(f"/etc/cron.{when}" for when in ("hourly", "daily", "weekly", "monthly"))]
    crons = [f"{folder}/{name}" for folder in folders for name in host.names(folder)]
    for path in (*_SCRIPTS, *_CRONTABS, *crons):
        yield from _script(host, path, default, "a script run at boot or by cron")


def _script(host: Host, path: str, default: int, kind: str, key: str = "") -> Iterator[Conflict]:
    """What the lines of a script, or those of a unit that begin with `key`, write, and the scripts that these call."""
    called = set()
    for number, text in _lines(host, path):
        if text.startswith(key):
            for knob, value in _written(text, default):
                yield Conflict(path, number, knob, value, kind)
            called |= {one for one in _PROGRAM.findall(text) if one != path and _is_script(host, one)}
    for script in sorted(called):
        for number, text in _lines(host, script):
            for knob, value in _written(text, default):
                yield Conflict(script, number, knob, value, kind)


def _is_script(host: Host, path: str) -> bool:
    """Whether a path on a command line is a text file of a script's size: no kernel file, no machine code."""
    if path.startswith(("/sys/", "/proc/", "/dev/")):
        return False
    try:
        status = os.stat(host.name(path))
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST_SCRIPT:
            return False
        return b"\0" not in host.path(path).read_bytes()
    except OSError:
        return False


def _mounts(host: Host, units: _Units, default: int) -> Iterator[Conflict]:
    """hugetlbfs lines of fstab and foreign mount units; at a path of ours they would mount a second time."""
    for number, text in _lines(host, "/etc/fstab"):
        fields = text.split()
        if len(fields) >= 4 and fields[2] == "hugetlbfs":
            yield Conflict("/etc/fstab", number, f"hugetlbfs.{fields[1]}", fields[3], "fstab")
    for folder, names in units.names.items():
        for name in names:
            path = f"{folder}/{name}"
            if name.endswith(".mount") and not is_ours(host, path):
                for number, text in _lines(host, path):
                    if text.startswith("Where="):
                        yield Conflict(path, number, f"hugetlbfs.{text[6:].strip()}", None, f"unit {name}")
    for unit in our_units(host):
        mount = parse_unit(host.read_or_none(unit) or "", default)
        if mount:
            for path in units.drop_ins(os.path.basename(unit)):
                yield from _overridden(host, path, mount, default)


def _overridden(host: Host, path: str, mount: MountSpec, default: int) -> Iterator[Conflict]:
    """What a drop-in makes of a mount unit of ours."""
    for number, text in _lines(host, path):
        key, _, value = (part.strip() for part in text.partition("="))
        if key in ("What", "Where", "Type", "Options"):
            options = None
            if key == "Options":
                with contextlib.suppress(SettingError):
                    options = parse_options(mount.path, value, default).options
            yield Conflict(path, number, mount.name, options, "a drop-in of our unit")
