"""Rows that compare what is wanted with what the kernel has now, what is persisted, and what the boot asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...host.errors import SettingError
from ...host.files import Host
from ...host.systemd import UNITS
from ..kernel.hugetlb import default_page_bytes
from ..kinds.registry import KINDS, Wanted, boot_values, persisted_values, read_values, values_of
from .conflicts.conflict import Conflict, affects


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


def drift_rows(host: Host, wanted: Wanted, conflicts: Sequence[Conflict]) -> list[Row]:
    """A row for every wanted knob, and one for each that a drop-in of ours still sets though nobody wants it.

    A knob that one of the `conflicts` writes has drifted: what holds now need not hold tomorrow. Who writes a pool as a
    whole moves the pages of its nodes too.
    """
    persisted = persisted_values(host)
    boot = boot_values(host.read_or_none("/proc/cmdline") or "", default_page_bytes(host))
    readings = read_values(host, wanted)
    runtime = {knob: value.found if isinstance(value, SettingError) else value for knob, value in readings.items()}
    rows = []
    for knob, value in values_of(wanted).items():
        kept, source = persisted.get(knob, (None, None))
        reading = readings.get(knob)
        details = [str(reading)] if isinstance(reading, SettingError) else []
        if runtime.get(knob) != value:
            details.append(f"{knob} is {runtime.get(knob) or 'absent'}, should be {value}")
        if kept != value:
            details.append(_persistence_detail(knob, kept, value, source))
        details += [str(writer) for writer in conflicts if writer.certain and affects(writer.knob, knob)]
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
    return rows + _left_over(values_of(wanted), runtime, persisted, boot)


def _persistence_detail(knob: str, kept: str | None, value: str, source: str | None) -> str:
    if kept is None:
        return f"{knob} is not persisted: the next boot will not set it"
    return f"{knob} is persisted as {kept} in {source}, should be {value}"


def _left_over(
    wanted: Mapping[str, str],
    runtime: Mapping[str, str],
    persisted: Mapping[str, tuple[str, str]],
    boot: Mapping[str, str],
) -> list[Row]:
    dropins = [path for kind in KINDS for path in kind().places(())[0]]
    ours = (*(f"{path}:" for path in dropins), f"{UNITS}/")
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
