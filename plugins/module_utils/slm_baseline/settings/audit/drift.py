"""Rows that compare the wanted value with the runtime value, the persistent one, and the boot's command line."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import SWEEP_PRIOR
from ...host.systemd import UNITS
from ..boot.tmpfiles import parse_tmpfiles
from ..kernel.hugetlb import default_page_bytes
from ..kinds.registry import KINDS, Wanted, boot_values, persisted_values, read_values, values_of
from ..state.persistence import accepting, find_temporary
from .conflicts.conflict import Conflict, affects

NOTHING_LEFT: Mapping[str, str] = {}


@dataclass(frozen=True)
class Row:
    """One compared knob. Values are text or None; `verdict` is `clean` or `drift`, `detail` a plain sentence or ""."""

    knob: str
    desired: str | None
    runtime: str | None
    persisted: str | None
    boot: str | None
    source: str | None
    verdict: str
    detail: str


def drift_rows(
    host: Host,
    wanted: Wanted,
    conflicts: Sequence[Conflict],
    left: Mapping[str, str] = NOTHING_LEFT,
    accept: Container[str] = (),
) -> list[Row]:
    """Return a row for every wanted knob, and one for each that a drop-in of ours sets though it is no longer wanted.

    A knob that one of the `conflicts` writes has drifted: its value may change at any time. A writer of a whole pool
    moves the pages of its nodes too. A knob that is `left` to others is clean, and its row says why. An interrupted
    sweep has a row of its own, and so has a folder that does not survive a reboot.
    """
    persisted = persisted_values(host)
    boot = boot_values(host.read_or_none("/proc/cmdline") or "", default_page_bytes(host))
    readings = read_values(host, wanted)
    runtime = {knob: value.found if isinstance(value, SettingError) else value for knob, value in readings.items()}
    rows = []
    any_time = _written_any_time(host)
    for knob, value in values_of(wanted).items():
        kept, source = persisted.get(knob, (None, None))
        if knob in left:
            rows.append(Row(knob, value, runtime.get(knob), kept, boot.get(knob), source, "clean", left[knob]))
            continue
        reading = readings.get(knob)
        details = [str(reading)] if isinstance(reading, SettingError) else []
        if runtime.get(knob) != value:
            details.append(f"{knob} is {runtime.get(knob) or 'absent'}, should be {value}")
        if kept != value:
            details.append(_persistence_detail(knob, kept, value, source))
        elif source in any_time:
            details.append(f"{source} sets {knob} at each run of systemd-tmpfiles, such as an upgrade of a package")
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
    known = {**values_of(wanted), **left}
    return [
        *rows,
        *_left_over(known, runtime, persisted, boot),
        *_unfinished_sweep(host),
        *_temporary(host, accept),
    ]


def _written_any_time(host: Host) -> set[str]:
    """Return the sources of our lines, in the form of earlier versions, that run not only at boot."""
    ours = [path for kind in KINDS for path in kind().places(())[0]]
    return {
        line.source for path in ours for line in parse_tmpfiles(path, host.read_or_none(path) or "") if not line.at_boot
    }


def _unfinished_sweep(host: Host) -> list[Row]:
    if not host.exists(SWEEP_PRIOR):
        return []
    detail = f"a sweep is under way or was cut short ({SWEEP_PRIOR}): what is in force may be an arm's"
    return [Row("sweep", None, "unfinished", None, None, None, "drift", detail)]


def _temporary(host: Host, accept: Container[str]) -> list[Row]:
    """Return rows for folders of ours that do not outlive a reboot: what is stored there is not persistent."""
    return [
        Row(
            found.name,
            "lasts",
            found.why,
            None,
            None,
            None,
            "clean" if found.name in accept else "drift",
            f"{found} ({accepting([found.name])} accepts that)",
        )
        for found in find_temporary(host)
    ]


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
