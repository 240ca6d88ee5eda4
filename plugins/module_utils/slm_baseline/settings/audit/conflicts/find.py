"""Searching for other writers of the wanted settings: every rule over one host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ....host.files import Host
from . import declared
from .conflict import Conflict, Scanner
from .next_boot import next_boot
from .scripts import scripts
from .services import services
from .unit_files import UnitFiles

Rule = Callable[[Scanner], Iterator[Conflict]]
UnitRule = Callable[[Scanner, UnitFiles], Iterator[Conflict]]

_RULES: tuple[Rule, ...] = (
    declared.tmpfiles,
    declared.sysctl,
    declared.sysfs,
    declared.command_line,
    next_boot,
    declared.fstab,
)
_UNIT_RULES: tuple[UnitRule, ...] = (services, scripts, declared.mounts)


def find_conflicts(host: Host, wanted: Mapping[str, str], default_page_bytes: int) -> list[Conflict]:
    """Return other writers of the knobs in `wanted` (flat name -> value) that want another value; certain first."""
    if not wanted:
        return []
    scanner = Scanner(host, wanted, default_page_bytes)
    units = UnitFiles(scanner)
    found = [conflict for rule in _RULES for conflict in rule(scanner)]
    found += _tuned(scanner, units)
    found += [conflict for rule in _UNIT_RULES for conflict in rule(scanner, units)]
    against = [conflict for conflict in dict.fromkeys(found) if scanner.contradicts(conflict)]
    certain = [conflict for conflict in against if conflict.certain]
    if host.is_live and certain:
        from .ask import disproved

        wrong = disproved(host, certain)
        certain = [conflict for conflict in certain if conflict not in wrong]
    # What a boot sets anyway is told once, whoever sets it again.
    told = {(conflict.path, conflict.line, conflict.knob) for conflict in certain}
    return certain + [one for one in against if not one.certain and (one.path, one.line, one.knob) not in told]


def _tuned(scanner: Scanner, units: UnitFiles) -> Iterator[Conflict]:
    """Yield what TuneD sets, where it runs or is started at boot."""
    if not scanner.host.exists("/etc/tuned") or units.is_masked("tuned.service"):
        return
    if scanner.host.exists("/run/tuned/tuned.pid") or "tuned.service" in units.started():
        from .tuned import tuned

        yield from tuned(scanner)
