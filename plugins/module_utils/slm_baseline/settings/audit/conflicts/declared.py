"""Declarative places: tmpfiles.d, sysctl.d, sysfs.conf, the kernel's command line, fstab, and mount units.

Each is read the way its own program reads it at boot.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from ....host.errors import SettingError
from ....host.sizes import is_number
from ...boot.mount_units import our_units, parse_unit
from ...boot.tmpfiles import Line, is_ours, tmpfiles_lines
from ...kernel.hugetlb import parse_pool_name, pool_name
from ...kernel.hugetlbfs import MountSpec, parse_options
from ...kinds.mounts import id_of
from ...kinds.registry import KINDS, boot_values
from .conflict import Conflict, Scanner, sysctl_path, sysctl_value
from .unit_files import UnitFiles, conditions_hold

SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
_GLOB = re.compile(r"[*?\[]")
_NO_MOUNTS = frozenset(("swap", "ignore"))
"""Types of lines that mount nothing: fstab(5)."""
_OWNER = re.compile(r"\b(uid|gid)=([^,\d][^,]*)")
_ESCAPED = re.compile(r"\\([0-7]{3})", re.ASCII)


_SYSFSUTILS = (
    "/etc/init.d/sysfsutils",
    *(f"{folder}/systemd/system/sysfsutils.service" for folder in ("/etc", "/usr/lib", "/lib")),
)
"""What reads /etc/sysfs.conf at boot: Debian's package sysfsutils, as an init script or a unit."""


def tmpfiles(scanner: Scanner) -> Iterator[Conflict]:
    """Yield the `w` lines of others: tmpfiles.d(5)."""
    ours = [path for kind in KINDS for path in kind().places(())[0]]
    for line in tmpfiles_lines(scanner.host):
        knob = scanner.knob(line.target)
        if knob and line.path not in ours and not _is_duplicate(scanner, line):
            yield Conflict(line.path, line.number, knob, line.value, "tmpfiles.d")


def _is_duplicate(scanner: Scanner, line: Line) -> bool:
    """Return whether a line is ignored: it runs only at boot (`w!`), and ours for the same path comes first.

    Any other line of theirs takes effect whenever a package runs systemd-tmpfiles.
    """
    (written,) = scanner.text(line.path).splitlines()[line.number - 1 : line.number] or [""]
    ours = [kind().places(())[0] for kind in KINDS if kind.knob_of(line.target, scanner.default_page_bytes)]
    names = [os.path.basename(path) for paths in ours for path in paths]
    is_for_boot_alone = "!" in written.split(None, 1)[0] and "+" not in written.split(None, 1)[0]
    return is_for_boot_alone and not line.spelled and any(name < os.path.basename(line.path) for name in names)


def sysctl_files(scanner: Scanner, folders: tuple[str, ...] = SYSCTL_FOLDERS) -> list[str]:
    """Return the files of sysctl.d in order of effect: by name; of equal names the one in the first folder."""
    chosen: dict[str, str] = {}
    for folder in folders:
        for name in scanner.host.names(folder):
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{folder}/{name}")
    return [scanner.resolve(chosen[name]) for name in sorted(chosen)]


def sysctl(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what systemd-sysctl(8) sets: sysctl.d(5).

    It reads /etc/sysctl.conf only where a link in sysctl.d leads to it, and on SUSE a file of the running kernel first.
    """
    release = (scanner.host.read_or_none("/proc/sys/kernel/osrelease") or "").strip()
    of_kernel = [f"/boot/{name}" for name in scanner.host.names("/boot") if name.startswith("sysctl.conf-")]
    first = [
        path for path in of_kernel if path == f"/boot/sysctl.conf-{release}" or (not release and len(of_kernel) == 1)
    ]
    yield from read_sysctl(scanner, [*first, *sysctl_files(scanner)])


def read_sysctl(scanner: Scanner, paths: list[str], certain: bool = True) -> Iterator[Conflict]:
    """Yield what these files set, read in order: the last one that names a key wins, and a name overrides a glob."""
    named: dict[str, Conflict] = {}
    globs: list[tuple[str, str, int, str]] = []
    left_out: list[str] = []
    for path in paths:
        for number, text in scanner.lines(path, joined=False):
            key, equals, value = text.partition("=")
            target = sysctl_path(key.strip().lstrip("-").strip())
            if not equals and key.startswith("-"):
                left_out.append(target)
            elif equals and _GLOB.search(target):
                globs.append((target, path, number, value))
            elif equals:
                knob, count = scanner.knob(target), sysctl_value(value)
                named.pop(target, None)
                if knob and count is not None:
                    named[target] = Conflict(path, number, knob, count, "sysctl", certain)
    last = {conflict.knob: conflict for conflict in named.values()}
    for pattern, path, number, value in globs:
        count = sysctl_value(value)
        for target in _sysctl_targets(scanner, pattern):
            knob = scanner.knob(target)
            excluded = any(_glob_matches(target, other) for other in left_out)
            if knob and count is not None and target not in named and not excluded:
                last[knob] = Conflict(path, number, knob, count, "sysctl", certain)
    yield from last.values()


_SYSCTLS = ("nr_hugepages", "nr_hugepages_mempolicy", "nr_overcommit_hugepages")


def _sysctl_targets(scanner: Scanner, pattern: str) -> list[str]:
    return [path for path in (f"/proc/sys/vm/{name}" for name in _SYSCTLS) if _glob_matches(path, pattern)]


def _glob_matches(path: str, pattern: str) -> bool:
    """Return whether a path matches a glob as in glob(7): a star stops at a slash."""
    import fnmatch

    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def sysfs(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what sysfsutils sets: `path = value` below /sys, in /etc/sysfs.conf and /etc/sysfs.d/*.conf.

    Without the package, nothing reads these files.
    """
    if not any(scanner.host.exists(path) for path in _SYSFSUTILS):
        return
    more = [f"/etc/sysfs.d/{name}" for name in scanner.host.names("/etc/sysfs.d") if name.endswith(".conf")]
    for path in ("/etc/sysfs.conf", *more):
        for number, text in scanner.lines(path):
            key, _, value = text.partition("#")[0].partition("=")
            knob = scanner.knob(os.path.normpath(f"/sys/{key.strip()}"))
            if knob:
                yield Conflict(path, number, knob, value.strip(), "sysfsutils")


def command_line(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what the command line of the running kernel sets."""
    text = scanner.host.read_or_none("/proc/cmdline") or ""
    for knob, value in cmdline_values(scanner, text).items():
        yield Conflict("/proc/cmdline", 1, knob, value, "the kernel command line")


def cmdline_values(scanner: Scanner, text: str) -> dict[str, str]:
    """Return what a command line sets; a pool set by node counts as a whole too, where a whole pool is wanted."""
    values = boot_values(text, scanner.default_page_bytes)
    by_node = {knob: value for knob, value in values.items() if knob.startswith("hugepages.node") and is_number(value)}
    totals: dict[str, int] = {}
    for knob, value in by_node.items():
        whole = pool_name(parse_pool_name(knob, 0).size_bytes)
        totals[whole] = totals.get(whole, 0) + int(value)
    for whole, total in totals.items():
        if whole in scanner.wanted:
            values = {knob: value for knob, value in values.items() if not _is_node_of(knob, whole)}
            values[whole] = str(total)
    return values


def _is_node_of(knob: str, whole: str) -> bool:
    return knob.startswith("hugepages.node") and knob.rpartition(".")[2] == whole.rpartition(".")[2]


def mount_path(text: str) -> str:
    """Return a path as fstab(5) and mount units mean it: octal escapes decoded, no double or trailing slash."""
    path = _unescaped(text.strip().strip('"'))
    return f"/{os.path.normpath(path).lstrip('/')}" if path.startswith("/") else path


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def mount_value(scanner: Scanner, path: str, fstype: str, options: str) -> str:
    """Return what somebody else's mount is; a hugetlbfs in the words of a wanted mount.

    mount(8) translates names of users and groups.
    """
    if fstype != "hugetlbfs":
        return f"a mount of {fstype}" if fstype else "a mount"
    with contextlib.suppress(SettingError):
        numbered = _OWNER.sub(lambda match: f"{match[1]}={_number_of(scanner, match[1], match[2])}", options)
        return parse_options(path, numbered, scanner.default_page_bytes).options
    return options


def _number_of(scanner: Scanner, kind: str, name: str) -> str:
    number = id_of(scanner.host, "owner" if kind == "uid" else "group", name)
    return name if number is None else str(number)


def fstab(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what fstab(5) mounts at boot on a path of ours."""
    for number, text in scanner.lines("/etc/fstab", joined=False):
        fields = text.split()
        options = _unescaped(fields[3]) if len(fields) > 3 else "defaults"
        given = options.split(",")
        # What is mounted at the first access counts as well.
        is_mounted = "noauto" not in given or "x-systemd.automount" in given
        if len(fields) >= 3 and fields[2] not in _NO_MOUNTS and is_mounted:
            path = mount_path(fields[1])
            if f"hugetlbfs.{path}" in scanner.wanted:
                yield Conflict(
                    "/etc/fstab", number, f"hugetlbfs.{path}", mount_value(scanner, path, fields[2], options), "fstab"
                )


def mounts(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Yield mount units of others for a path of ours, and drop-ins of our own units."""
    for name, path in units.files(".mount"):
        # One that another folder's file hides is not used, nor one that is masked.
        if is_ours(scanner.host, path) or units.path(name) != path:
            continue
        read = [(number, key, value) for number, key, value in _assignments(scanner, path)]
        number, where = next(((number, value) for number, key, value in read if key == "Where"), (1, ""))
        target = mount_path(where)
        if f"hugetlbfs.{target}" in scanner.wanted:
            read += [one for drop_in in units.drop_ins(name) for one in _assignments(scanner, drop_in)]
            fields = {key: value for _, key, value in read}
            conditions = [(key, value) for _, key, value in read if key.startswith(("Condition", "Assert"))]
            holds = conditions_hold(scanner, conditions)
            # fstab's own line says it already.
            if fields.get("SourcePath") == "/etc/fstab" or holds is False:
                continue
            fstype, options = fields.get("Type", ""), fields.get("Options", "")
            value = mount_value(scanner, target, fstype, options)
            yield Conflict(path, number, f"hugetlbfs.{target}", value, f"unit {name}", holds is True)
    for unit in our_units(scanner.host):
        mount = parse_unit(scanner.text(unit), scanner.default_page_bytes)
        if mount:
            for path in units.drop_ins(os.path.basename(unit)):
                yield from _overridden(scanner, path, mount)


def _overridden(scanner: Scanner, path: str, mount: MountSpec) -> Iterator[Conflict]:
    """Yield what a drop-in changes in a mount unit of ours."""
    for number, key, value in _assignments(scanner, path):
        if key == "Options":
            options = mount_value(scanner, mount.path, "hugetlbfs", value)
            yield Conflict(path, number, mount.name, options, "a drop-in of our unit")
        elif key in ("What", "Where", "Type") and value not in ("hugetlbfs", mount.path):
            yield Conflict(path, number, mount.name, f"{key} {value}", "a drop-in of our unit")


def _assignments(scanner: Scanner, path: str) -> Iterator[tuple[int, str, str]]:
    for number, text in scanner.lines(path):
        key, equals, value = (part.strip() for part in text.partition("="))
        if equals:
            yield number, key, value
