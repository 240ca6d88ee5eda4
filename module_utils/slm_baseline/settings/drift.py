"""Rows that compare what is wanted with what the kernel has now, what is persisted, and what the boot asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..host.errors import SettingError
from ..host.files import Host
from .knobs import thp_knobs
from .mounts import found_mount
from .other_writers import Competitor, boot_values, knob_of
from .persistence import POOLS_DROPIN, THP_DROPIN, UNITS, is_enabled, our_units, parse_unit, tmpfiles_lines
from .plan import Wanted
from .pools import default_page_bytes, read_pools


@dataclass(frozen=True)
class Row:
    """One knob compared. Values are text or None; `verdict` is `clean` or `drift`, `detail` a plain sentence or ""."""

    knob: str
    desired: str | None
    runtime: str | None
    persisted: str | None
    boot: str | None
    source: str | None
    verdict: str
    detail: str


def runtime_values(host: Host) -> dict[str, str]:
    """Every knob's value now: THP, pools as a whole and by node."""
    values = {name: knob.value for name, knob in thp_knobs(host).items()}
    return values | {pool.name: str(pool.persistent) for pool in read_pools(host)}


def persisted_values(host: Host) -> dict[str, tuple[str, str]]:
    """What the next boot will set: knob -> (value, `path:line`).

    The first line for a file wins: systemd-tmpfiles ignores a later one as a duplicate (tmpfiles.d(5)).
    """
    default = default_page_bytes(host)
    values: dict[str, tuple[str, str]] = {}
    for line in tmpfiles_lines(host):
        knob = knob_of(line.target, default)
        if knob:
            values.setdefault(knob, (line.value, line.source))
    for unit in our_units(host):
        text = host.read_or_none(unit) or ""
        mount = parse_unit(text, default)
        if mount and is_enabled(host, mount.path):
            lines = enumerate(text.splitlines(), 1)
            number = next((number for number, line in lines if line.startswith("Options=")), 1)
            values[mount.name] = (mount.options, f"{unit}:{number}")
    return values


def compare(host: Host, wanted: Wanted, competitors: Sequence[Competitor]) -> list[Row]:
    """A row for every wanted knob, and one for each that a drop-in of ours still sets though nobody wants it.

    A knob with one of the `competitors` has drifted: what holds now need not hold tomorrow.
    """
    persisted = persisted_values(host)
    boot = boot_values(host.read_or_none("/proc/cmdline") or "", default_page_bytes(host))
    runtime: dict[str, str | None] = {**runtime_values(host)}
    broken = {}
    for mount in wanted.mounts:
        try:
            found = found_mount(host, mount.path)
            runtime[mount.name] = found.options if found else None
        except SettingError as error:
            runtime[mount.name] = error.found
            broken[mount.name] = str(error)
    rows = []
    for knob, value in wanted.values().items():
        kept, source = persisted.get(knob, (None, None))
        details = [broken[knob]] if knob in broken else []
        if runtime.get(knob) != value:
            details.append(f"{knob} is {runtime.get(knob) or 'absent'}, should be {value}")
        if kept != value:
            details.append(_persistence_detail(knob, kept, value, source))
        details += [str(writer) for writer in competitors if writer.knob == knob]
        rows.append(
            Row(
                knob,
                value,
                runtime.get(knob),
                kept,
                boot.get(knob),
                source,
                "drift" if details else "clean",
                "; ".join(details),
            )
        )
    return rows + _left_over(wanted.values(), runtime, persisted, boot)


def _persistence_detail(knob: str, kept: str | None, value: str, source: str | None) -> str:
    if kept is None:
        return f"{knob} is not persisted: the next boot will not set it"
    return f"{knob} is persisted as {kept} in {source}, should be {value}"


def _left_over(
    wanted: Mapping[str, str],
    runtime: Mapping[str, str | None],
    persisted: Mapping[str, tuple[str, str]],
    boot: Mapping[str, str],
) -> list[Row]:
    ours = (f"{THP_DROPIN}:", f"{POOLS_DROPIN}:", f"{UNITS}/")
    return [
        Row(
            knob,
            None,
            runtime.get(knob),
            value,
            boot.get(knob),
            source,
            "drift",
            f"{source} still sets {knob} to {value}",
        )
        for knob, (value, source) in persisted.items()
        if knob not in wanted and source.startswith(ours)
    ]
