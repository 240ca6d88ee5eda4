"""Scripts that a boot, a timer or an event runs: rc.local, SysV, cron, cloud-init, udev, and hooks of others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

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
_INTERFACES = "/etc/network/interfaces"
_CLOUD = ("/etc/cloud/cloud.cfg", "/var/lib/cloud/instance/user-data.txt", "/var/lib/cloud/instance/cloud-config.txt")
_CLOUD_SCRIPTS = ("/var/lib/cloud/scripts/per-boot", "/var/lib/cloud/scripts/per-instance")
_MODPROBE = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d")
_UDEV_OWN = re.compile(r'RUN(?:\{\w+\})?\s*\+?:?=\s*"([\w.-]+)')
_UDEV = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d")


def scripts(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Yield what each kind of script writes, in the places where its program looks."""
    for rule in (_rc_local, _sysv):
        yield from rule(scanner, units)
    for place in (_cron, _cloud_init, _udev, _modprobe, _hooks):
        yield from place(scanner)


def _rc_local(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Yield what rc.local writes, if executable (systemd-rc-local-generator(8)); SUSE's and OpenRC's likewise."""
    paths = list(dict.fromkeys(scanner.resolve(path) for path in _RC_LOCAL))
    if not any(units.is_masked(name) for name in ("rc-local.service", "rc.local.service")):
        for path in paths:
            if scanner.is_executable(path):
                yield from _script(scanner, path, _AT_BOOT)
    for path in dict.fromkeys(scanner.resolve(path) for path in _LOCAL):
        yield from _script(scanner, path, _AT_BOOT)


def _sysv(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Yield what SysV scripts write that a link starts and no unit replaces (systemd-sysv-generator(8))."""
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
    """Yield what crontabs write, and scripts that run-parts(8) runs: executable, and no dot in the name."""
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
    if scanner.leads_to_interest(scanner.text(path)):
        from .texts import read_crontab

        yield from read_crontab(scanner, path, kind, has_user)


def _cloud_init(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what cloud-init's commands write, those of each boot and of the first one, unless it is disabled."""
    if scanner.host.exists("/etc/cloud/cloud-init.disabled"):
        return
    folder = "/etc/cloud/cloud.cfg.d"
    more = [f"{folder}/{name}" for name in scanner.host.names(folder) if name.endswith(".cfg")]
    for path in (*_CLOUD, *more):
        text = scanner.text(path)
        if scanner.is_of_interest(text):
            if text.startswith("#!"):
                yield from _script(scanner, path, "cloud-init", certain=False)
            else:
                from .texts import read_cloud_config

                yield from read_cloud_config(scanner, path)
    for folder in _CLOUD_SCRIPTS:
        for name in scanner.host.names(folder):
            yield from _script(scanner, f"{folder}/{name}", "cloud-init", certain=False)


def _udev(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what a udev rule runs or sets when a device appears: udev(7)."""
    chosen: dict[str, str] = {}
    for folder in _UDEV:
        for name in scanner.host.names(folder):
            if name.endswith(".rules"):
                chosen.setdefault(name, f"{folder}/{name}")
    for name in sorted(chosen):
        path = chosen[name]
        text = scanner.text(path)
        own = (f"/usr/lib/udev/{program}" for program in _UDEV_OWN.findall(text))
        if scanner.leads_to_interest(text) or any(scanner.is_of_interest(scanner.text(program)) for program in own):
            from .texts import read_udev_rules

            yield from read_udev_rules(scanner, path)


def _modprobe(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what commands of modprobe.d write when a module is loaded: modprobe.d(5)."""
    for folder in _MODPROBE:
        for name in scanner.host.names(folder):
            path = f"{folder}/{name}"
            if name.endswith(".conf") and scanner.leads_to_interest(scanner.text(path)):
                from .texts import read_modprobe

                yield from read_modprobe(scanner, path)


def _hooks(scanner: Scanner) -> Iterator[Conflict]:
    for folder in _EVENTS:
        for name in scanner.host.names(folder):
            path = f"{folder}/{name}"
            is_run = folder != "/etc/local.d" or name.endswith(".start")
            if is_run and scanner.is_executable(path):
                yield from _script(scanner, path, "a script run at an event", certain=False)
    more = [f"{_INTERFACES}.d/{name}" for name in scanner.host.names(f"{_INTERFACES}.d")]
    for path in (_INTERFACES, *more):
        if scanner.leads_to_interest(scanner.text(path)):
            from .texts import read_interfaces

            yield from read_interfaces(scanner, path)


def _script(scanner: Scanner, path: str, kind: str, certain: bool = True) -> Iterator[Conflict]:
    if scanner.leads_to_interest(scanner.text(path)):
        from .commands import read_script

        yield from read_script(scanner, path, kind, certain)
