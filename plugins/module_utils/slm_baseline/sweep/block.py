"""One block of a sweep on the live host: every cell in random order, and the host restored whatever happens."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..host.clock import now
from ..host.errors import SettingError
from ..host.files import Host
from ..host.paths import SWEEP_PRIOR
from ..measuring.sample import Trial
from ..settings.apply.transaction import apply_recorded
from ..settings.kinds.effective_values import changed_settings, effective_settings
from ..settings.kinds.pools import Pools
from ..settings.kinds.thp import Thp
from ..settings.rollback.restore import plan_rollback, undo_sweep
from ..settings.rollback.snapshot import Snapshot, load, save, take
from ..settings.state.ownership import NOTHING
from .block_runner import BlockRunner
from .design import WANTED, Arm, BlockDesign, changes_to


def run_block(host: Host, arms: Sequence[Arm], design: BlockDesign, bench: BlockRunner) -> None:
    """Measure the design's cells in order, cold then warm, under each arm's settings; the bench stores each sample.

    The prior state is durable before the first change and restored at the end, also after an error or a signal. An arm
    whose settings the kernel rejects yields failed samples, and the block goes on; a sample during which another
    program changed the settings is a failed one. Raises SettingError where the host could not be restored.
    """
    by_name = {arm.name: arm for arm in arms}
    with _restored(host, bench.run_id) as prior:
        began = time.monotonic()
        for position, cell in enumerate(design.cells):
            arm = by_name[cell.arm]
            aid = bench.starts.aid(arm)
            env = {**arm.env, **aid.env}
            refusal = _enter(host, prior, arm)
            in_force = effective_settings(host)
            trials = [
                Trial(bench.block, wanted, position, cell.dtype, arm.name, arm.settings(), env, aid.replay)
                for _ in range(design.pairs)
                for wanted in WANTED
            ]
            with contextlib.ExitStack() as stack:
                measure = None if refusal else stack.enter_context(bench.cell(trials[0]))
                for trial in trials:
                    sample = measure(trial) if measure else bench.refused(trial, refusal or "")
                    moved = changed_settings(in_force, effective_settings(host))
                    if moved and measure:
                        sample = replace(sample, kind="failed", reason=f"another writer changed {moved} meanwhile")
                    bench.keep(sample, cell.dtype, time.monotonic() - began)


def _enter(host: Host, prior: Snapshot, arm: Arm) -> str | None:
    """Change the host from the previous arm's settings to this one's; return the reason in words where that fails.

    What others set since the block began stays, and no arm can be compared with another from then on.
    """
    left = _restore(host)
    if left:
        return f"another writer changed {left} since the block began"
    try:
        pending = apply_recorded(host, prior, changes_to(host, arm), {Thp.key, Pools.key}, SWEEP_PRIOR)
    except SettingError as error:
        return str(error)
    if pending:
        raise pending
    return None


def _restore(host: Host) -> str:
    """Restore what the last arm set, unless others changed it since, and forget it; return their changes in words."""
    prior = load(host, SWEEP_PRIOR)
    if prior is None:
        return ""
    plan = plan_rollback(host, prior)
    incomplete = plan.carry_out(host).incomplete
    if incomplete:
        raise incomplete[0]
    # Not recorded for the next arm: if others set one of this arm's values from now on, it is theirs.
    save(host, replace(prior, ours=NOTHING), SWEEP_PRIOR)
    return ", ".join(f"{entry['knob']} from {entry['before']} to {entry['found']}" for entry in plan.left)


@contextlib.contextmanager
def _restored(host: Host, run_id: str) -> Iterator[Snapshot]:
    """Store the host's state durably and yield it; restore and forget it at the end, also on termination."""
    undo_sweep(host)
    prior = take(host, [], now(), run_id)
    save(host, prior, SWEEP_PRIOR)
    with _termination_as_exception():
        try:
            yield prior
        finally:
            _ignore_termination()
            _restore(host)
            host.remove_durably(SWEEP_PRIOR)


_TERMINATING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def _ignore_termination() -> None:
    """Ignore further signals, so that none interrupts the restore; `_termination_as_exception` resets the handlers."""
    for number in _TERMINATING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _termination_as_exception() -> Iterator[None]:
    """Make SIGTERM and SIGHUP (a lost connection) raise, as Ctrl-C does, so that the host is restored first."""

    def stop(number: int, _frame: object) -> None:
        _ignore_termination()
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in _TERMINATING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
