"""Scripts that a boot, a clock or an event runs: rc.local, SysV, cron, cloud-init, udev, and hooks of others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from .conflict import Conflict, Scanner
from .unit_files import UnitFiles

_AT_BOOT = "a script run at boot"
_RC_LOCAL = ("/etc/rc.local", "/etc/rc.d/rc.local")
_LOCAL = ("/etc/init.d/boot.local", "/etc/init.d/after.local", "/etc/rc.d/boot.local", "/etc/rc.d/after.local")
_LEVELS = ("S", "2", "3", "4", "5")
_CRONTABS = ("/etc/crontab", "/etc/anacrontab")
_ROOTS = ("/var/spool/cron/crontabs/root", "/var/spool/cron/root", "/var/spool/cron/tabs/root")
_RUN_PARTS = tuple(f"/etc/cron.{when}" for when in ("hourly", "daily", "weekly", "monthly"))
_RUN_PARTS_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SCHEDULE = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+", re.ASCII)
_EVENTS = (
    "/etc/NetworkManager/dispatcher.d",
    "/etc/networkd-dispatcher/routable.d",
    "/etc/network/if-up.d",
    "/etc/libvirt/hooks",
    "/etc/libvirt/hooks/qemu.d",
    "/etc/local.d",
    "/etc/systemd/system-sleep",
    "/usr/lib/systemd/system-sleep",
    "/lib/systemd/system-sleep",
)
_CLOUD = ("/etc/cloud/cloud.cfg", "/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/cloud-config.txt")
_CLOUD_SCRIPTS = ("/var/lib/cloud/scripts/per-boot", "/var/lib/cloud/scripts/per-instance")
_UDEV = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d")
_RUN = re.compile(r'(?:RUN|PROGRAM|IMPORT)(?:\{\w+\})?\s*\+?:?=+\s*e?"((?:[^"\\]|\\.)*)"')
_UDEV_SYSCTL = re.compile(r'SYSCTL\{([^}]+)\}\s*=\s*"([^"]*)"')
_UDEV_FILE = re.compile(r'ATTR\{\[?(/sys/[^}\]]+)\]?\}\s*=\s*"([^"]*)"')
_LIST_ITEM = re.compile(r"^\s*(?:-\s+|\w+:\s+)*")


def scripts(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Each kind of script, in the places in which its program looks."""
    for rule in (_rc_local, _sysv):
        yield from rule(scanner, units)
    for place in (_cron, _cloud_init, _udev, _hooks):
        yield from place(scanner)


def _rc_local(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """rc.local counts with its x bit (systemd-rc-local-generator(8)); SUSE's and OpenRC's scripts likewise."""
    paths = list(dict.fromkeys(scanner.resolve(path) for path in _RC_LOCAL))
    if not any(units.is_masked(name) for name in ("rc-local.service", "rc.local.service")):
        for path in paths:
            if scanner.is_executable(path):
                yield from _script(scanner, path, _AT_BOOT)
    for path in dict.fromkeys(scanner.resolve(path) for path in _LOCAL):
        yield from _script(scanner, path, _AT_BOOT)


def _sysv(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """SysV scripts with a link that starts them, and no unit of the same name (systemd-sysv-generator(8))."""
    seen = set()
    for folder in (f"{base}/rc{level}.d" for base in ("/etc", "/etc/rc.d", "/etc/init.d") for level in _LEVELS):
        for link in scanner.host.names(folder):
            path = scanner.resolve(f"{folder}/{link}")
            name = f"{os.path.basename(path).removesuffix('.sh')}.service"
            is_run = re.match(r"S[0-9]", link) and path not in seen and scanner.is_executable(path)
            if is_run and units.path(name) is None and not units.is_masked(name):
                seen.add(path)
                yield from _script(scanner, path, _AT_BOOT)


def _cron(scanner: Scanner) -> Iterator[Conflict]:
    """Lines of crontabs, and the scripts that run-parts(8) takes: with their x bit, and no dot in the name."""
    kind = "a script run at boot or by cron"
    system = [f"/etc/cron.d/{name}" for name in scanner.host.names("/etc/cron.d") if _RUN_PARTS_NAME.fullmatch(name)]
    for path in (*_CRONTABS, *system):
        yield from _crontab(scanner, path, kind, has_user="anacrontab" not in path)
    for path in _ROOTS:
        yield from _crontab(scanner, path, kind, has_user=False)
    for folder in _RUN_PARTS:
        for name in scanner.host.names(folder):
            path = f"{folder}/{name}"
            if _RUN_PARTS_NAME.fullmatch(name) and scanner.is_executable(path):
                yield from _script(scanner, path, kind)


def _crontab(scanner: Scanner, path: str, kind: str, has_user: bool) -> Iterator[Conflict]:
    text = scanner.text(path)
    if not text:
        return
    from .commands import Place, Reader, read_called

    place = Place(path, kind)
    for number, line in scanner.lines(path, joined=False):
        schedule = (
            _SCHEDULE.match(line) or re.match(r"\S+\s+\S+\s+\S+\s+", line)
            if "anacrontab" in path
            else _SCHEDULE.match(line)
        )
        if schedule:
            command = line[schedule.end() :]
            command = command.partition(" ")[2] if has_user else command
            # An unescaped percent sign ends the command: the rest is its input (crontab(5)).
            command = re.split(r"(?<!\\)%", command)[0].replace("\\%", "%")
            yield from Reader(scanner, place).shell(command, number)
    yield from read_called(scanner, place)


def _cloud_init(scanner: Scanner) -> Iterator[Conflict]:
    """Commands of cloud-init's configuration, each boot's or the first one's, unless it is switched off."""
    if scanner.host.exists("/etc/cloud/cloud-init.disabled"):
        return
    more = [f"/etc/cloud/cloud.cfg.d/{name}" for name in scanner.host.names("/etc/cloud/cloud.cfg.d")]
    for path in (*_CLOUD, *more):
        text = scanner.text(path)
        if text and _mentions_setting(text):
            if text.startswith("#!"):
                yield from _script(scanner, path, "cloud-init", certain=False)
            else:
                yield from _loose(scanner, path, "cloud-init", _yaml_command)
    for folder in _CLOUD_SCRIPTS:
        for name in scanner.host.names(folder):
            yield from _script(scanner, f"{folder}/{name}", "cloud-init", certain=False)


def _yaml_command(line: str) -> str:
    """The command in a line of YAML: `- echo 1 > x`, `- [sh, -c, "echo 1 > x"]`."""
    text = _LIST_ITEM.sub("", line, count=1).strip()
    if text.startswith("[") and text.endswith("]"):
        return re.sub(r"\s*,\s*(?=[\"'\w/-])", " ", text[1:-1])
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace("\\" + text[0], text[0])
    return text


def _udev(scanner: Scanner) -> Iterator[Conflict]:
    """What a rule runs or sets when a device comes: udev(7)."""
    chosen: dict[str, str] = {}
    for folder in _UDEV:
        for name in scanner.host.names(folder):
            if name.endswith(".rules"):
                chosen.setdefault(name, f"{folder}/{name}")
    for name in sorted(chosen):
        path = chosen[name]
        if _mentions_setting(scanner.text(path)):
            yield from _loose(scanner, path, "a udev rule", lambda line: "\n".join(_RUN.findall(line)))
            for number, line in scanner.lines(path):
                assigned = [(scanner.sysctl_knob(key), value) for key, value in _UDEV_SYSCTL.findall(line)]
                assigned += [(scanner.knob(target), value) for target, value in _UDEV_FILE.findall(line)]
                for knob, value in assigned:
                    if knob:
                        yield Conflict(path, number, knob, value, "a udev rule", False)


def _hooks(scanner: Scanner) -> Iterator[Conflict]:
    for folder in _EVENTS:
        for name in scanner.host.names(folder):
            path = f"{folder}/{name}"
            if scanner.is_executable(path):
                yield from _script(scanner, path, "a script run at an event", certain=False)


def _loose(scanner: Scanner, path: str, kind: str, command_of: Callable[[str], str]) -> Iterator[Conflict]:
    """What commands may write that stand in a text of another kind."""
    from .commands import Place, Reader, read_called

    place = Place(path, kind, certain=False)
    for number, line in scanner.lines(path):
        for conflict in Reader(scanner, place).shell(command_of(line).replace('\\"', '"'), number):
            yield replace(conflict, certain=False)
    yield from read_called(scanner, place)


def _mentions_setting(text: str) -> bool:
    return "huge" in text or "/sys/kernel/mm" in text or "sysctl" in text


def _script(scanner: Scanner, path: str, kind: str, certain: bool = True) -> Iterator[Conflict]:
    if scanner.text(path):
        from .commands import read_script

        yield from read_script(scanner, path, kind, certain)
