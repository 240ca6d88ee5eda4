"""The result of one baseline run for notes and report; plugins/schemas/result.schema.json describes the fields."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.baseline.document import check_result
from analysis.baseline.floor import FirstToken, explain, quiet_blocks
from analysis.baseline.imports import Imports
from analysis.baseline.kernels import Kernels
from analysis.documents.decode import typed
from analysis.documents.samples import Sample
from analysis.documents.subject import Ceiling, CopyRate, Image, MeasuredHost, Model, Software
from analysis.statistics import FEWEST_FOR_INTERVAL, MEASURED_KINDS, Summary, figure


@dataclass(frozen=True)
class Protocol:
    """How the run was measured."""

    blocks: int
    cold_scope: str
    user: str | None
    dtype: str | None
    loader_sha256: str | None


@dataclass(frozen=True)
class SettingRow:
    """One knob: wanted, runtime and persisted value. Values are the kernel's text."""

    knob: str
    desired: str | None
    runtime: str | None
    persisted: str | None
    source: str | None
    verdict: str
    detail: str | None

    @property
    def drifted(self) -> bool:
        return self.verdict == "drift"


@dataclass(frozen=True)
class Pool:
    """One huge page pool, in pages; `node` and `reserved` as the kernel reports them."""

    knob: str
    size: str
    size_bytes: int
    node: int | None
    total: int
    free: int
    surplus: int
    reserved: int | None

    @property
    def idle_bytes(self) -> int:
        """Return the memory of free pages that no mapping has reserved."""
        return (self.free - (self.reserved or 0)) * self.size_bytes


@dataclass(frozen=True)
class PoolUser:
    """A process that maps pages of a pool."""

    pid: int
    name: str
    bytes: int


@dataclass(frozen=True)
class Mount:
    """One hugetlbfs mount."""

    path: str
    options: str
    stacked: int


@dataclass(frozen=True)
class Tuning:
    """The host's settings by knob: before the first change, wanted, runtime, persisted."""

    before: Mapping[str, str]
    desired: Mapping[str, str]
    runtime: Mapping[str, str]
    persisted: Mapping[str, str]
    rows: tuple[SettingRow, ...]
    pools: tuple[Pool, ...]
    pool_users: tuple[PoolUser, ...]
    mounts: tuple[Mount, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """One run on one host."""

    run_id: str
    finished_at: str
    host: MeasuredHost
    model: Model
    software: Software
    protocol: Protocol
    tuning: Tuning
    ceiling: Ceiling | None
    samples: tuple[Sample, ...]
    summary: Summary
    imports: Imports | None = None
    kernels: Kernels | None = None
    image: Image | None = None

    @property
    def valid(self) -> tuple[Sample, ...]:
        """Return the valid samples: all statistics use these alone."""
        return tuple(sample for sample in self.samples if sample.kind in MEASURED_KINDS)

    @functools.cached_property
    def first_token(self) -> FirstToken:
        """Return the gap between this host and its lower bound, computed from the samples, not from stored values."""
        return explain(self.samples, self.imports, self.kernels)

    @functools.cached_property
    def quiet_blocks(self) -> int:
        """Return how many blocks have a valid cold and a valid warm sample, undisturbed by other work."""
        return quiet_blocks(self.samples)

    @property
    def is_estimate(self) -> bool:
        """Return whether too few blocks were quiet for anything to be called sure."""
        return self.quiet_blocks < FEWEST_FOR_INTERVAL

    @property
    def same_load(self) -> bool:
        """Return whether a cold load may take as long as a warm one: the interval of their ratio contains 1.

        False without an interval. The ratio is paired within blocks. The separate intervals of the two loads also
        contain the drift from block to block, which both share, and may overlap although cold was slower in every
        block.
        """
        low, high = self.summary.ratio.ci_low, self.summary.ratio.ci_high
        return low is not None and high is not None and low <= 1 <= high

    @property
    def whole_pools(self) -> tuple[Pool, ...]:
        """Return the pools that hold pages, each size once."""
        return tuple(pool for pool in self.tuning.pools if pool.node is None and pool.total)

    @property
    def disk_ceiling(self) -> float | None:
        """Return the median rate at which the disk delivers the model's files, in bytes a second."""
        return figure(self.ceiling.bytes_per_s).median if self.ceiling else None

    @property
    def copy_rates(self) -> tuple[CopyRate, ...]:
        """Return the rates of copies to each GPU; empty if not measured."""
        return self.ceiling.host_to_device if self.ceiling else ()

    def weights_rate(self, kind: str) -> float | None:
        """Return the model's bytes over the weights phase, in bytes a second, of loads to a GPU."""
        seconds = self.summary.median(f"{kind}_phase_weights_s")
        return self.model.bytes / seconds if seconds and not all(sample.on_cpu for sample in self.valid) else None

    def host_to_device(self, way: str) -> float | None:
        """Return the `pinned` or `pageable` rate of copies to all devices in turn, equal parts each, in bytes/s."""
        rates = [rate for copy in self.copy_rates if (rate := copy.rate(way))]
        return len(rates) / sum(1 / rate for rate in rates) if rates else None


def read_result(document: object) -> Result:
    """Return a stored result; raise DocumentError if it breaks its schema: it may be of another version, or edited."""
    check_result(document)
    return typed(Result, document)


def share_of(rate: float, limit: float) -> float:
    """Return a rate as a share of a limit, 0..1; 1 beyond the limit, because a reached rate is possible."""
    return min(1.0, rate / limit)
