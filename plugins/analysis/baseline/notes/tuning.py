"""Rules for notes about the host's settings."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.baseline.result import Result
from analysis.render import units
from analysis.render.markdown import code, md


def not_as_asked(result: Result) -> str | None:
    """Note any row whose verdict is drift."""
    drifted = [row for row in result.tuning.rows if row.verdict == "drift"]
    if not drifted:
        return None
    details = "; ".join(md(row.detail or row.knob) for row in drifted)
    return f"Not as asked for: {details}. The figures on this page are of the host as it stands."


def waits_for_systemd(result: Result) -> str | None:
    """Note that settings are persistent but the host's PID 1 is not systemd."""
    if result.host.systemd is not False or not result.tuning.persisted:
        return None
    return (
        "systemd does not run here: the files that keep the settings over a reboot wait for it. Until then, tune again "
        "after every boot."
    )


def host_notes(result: Result) -> str | None:
    """Note whatever the host itself reported while it was tuned."""
    notes = result.tuning.notes
    return f"The host reported: {'; '.join(md(note) for note in notes)}." if notes else None


def side_effects(result: Result) -> str | None:
    """Note that a knob that was not requested differs from the snapshot."""
    tuning = result.tuning
    moved = [
        f"{code(knob)} went from {md(before)} to {md(tuning.runtime[knob])}"
        for knob, before in tuning.before.items()
        if knob not in tuning.desired
        and not _follows_asked_pool(knob, tuning.desired)
        and tuning.runtime.get(knob, before) != before
    ]
    if not moved:
        return None
    return f"Changed without being asked for: {'; '.join(moved)}. Rollback restores this too."


def _follows_asked_pool(knob: str, desired: Mapping[str, str]) -> bool:
    """Return whether pages of this size are requested by another knob: a node's pages are part of the total."""
    if not knob.startswith("hugepages."):
        return False
    size = knob.rpartition(".")[2]
    return any(name.startswith("hugepages.") and name.rpartition(".")[2] == size for name in desired)


def idle_pool(result: Result) -> str | None:
    """Note that a pool holds free pages that no mapping has reserved."""
    idle = [(pool, (pool.free - (pool.reserved or 0)) * pool.size_bytes) for pool in result.whole_pools]
    parts = [f"{units.size(size)} in {md(pool.size)} pages" for pool, size in idle if size > 0]
    if not parts:
        return None
    share = sum(size for _, size in idle) / result.host.memory_bytes
    return (
        f"Idle in the pool: {' and '.join(parts)}, {units.percent(share)} of the host's memory, which nothing else can "
        "have."
    )
