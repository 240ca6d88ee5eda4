"""How a sweep measures: one attempt at a block, its samples stored on the host's disk one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..host.clock import now
from ..host.files import Host
from ..measuring.loader.events import LoaderReport
from ..measuring.loader.template import Template, TemplateFailed, template
from ..measuring.probes.canary import CanaryReading, best_canary
from ..measuring.probes.disk_bandwidth import Ceiling
from ..measuring.protocol import Subject, ceiling_passes, ceiling_record, measure_sample
from ..measuring.sample import Sample, Shared, Trial, failed_sample
from ..measuring.store import close_block
from .sample import Position, SweepSample, append_sweep_sample
from .start_assist import Starts


@dataclass
class BlockRunner:
    """Measures and stores the samples of one block, beside that block's own disk ceiling.

    `best` is the canary's best of the sweep so far, `starts` the recorded starts of first-token arms.
    """

    host: Host
    subject: Subject
    run_id: str
    block: int
    attempt: int = 1
    passes: list[Ceiling] = field(default_factory=list)
    report: LoaderReport | None = None
    best: CanaryReading | None = None
    starts: Starts = field(default_factory=Starts)
    measurement: str = "full"

    @contextlib.contextmanager
    def cell(self, trial: Trial) -> Iterator[Callable[[Trial], Sample]]:
        """Yield a function that runs the loader once for a trial of this cell: a fresh process, or a template's child.

        The template begins under the arm's settings, which must be in force already, and ends with the cell. If it
        fails to start, each sample has failed and says why.
        """
        with contextlib.ExitStack() as stack:
            running: Template | None = None
            if self.measurement == "weights":
                try:
                    running = stack.enter_context(template(self.subject.loader_of(trial)))
                except TemplateFailed as error:
                    reason = str(error)
                    yield lambda trial: self.refused(trial, reason)
                    return
            yield lambda trial: self.measure(trial, running)

    def measure(self, trial: Trial, running: Template | None = None) -> Sample:
        """Run the loader once."""
        if not self.passes:
            # A second pass, only in the first block, shows whether a layer below this host caches.
            self.passes = ceiling_passes(self.subject, 2 if self.block == 1 else 1)
        sample, report = measure_sample(self.host, self.subject, trial, self.passes[0], self.best, running)
        self.best = best_canary([sample.canary], self.best)
        self.report = report or self.report
        return sample

    def refused(self, trial: Trial, reason: str) -> Sample:
        """Build the failed sample of an arm that this host rejects."""
        return failed_sample(trial, reason, now())

    def keep(self, sample: Sample, dtype_asked: str, elapsed_s: float) -> None:
        """Store a sample durably."""
        position = Position(dtype_asked, self.attempt, round(elapsed_s, 3), self.measurement)
        append_sweep_sample(self.host, self.run_id, SweepSample(sample, position))

    def close(self) -> None:
        """Store what the block's samples share, once it is complete."""
        if self.passes:
            report = self.report
            shared = Shared(
                ceiling_record(self.passes),
                report.software if report else None,
                loaded=report.loaded if report else None,
            )
            close_block(self.host, self.run_id, self.block, shared)
