"""A sample, one run of the loader, on the control side; plugins/schemas/result.schema.json describes the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOT_A_GPU = frozenset({"cpu", "disk"})
"""Places of weights, other than GPUs, that accelerate names."""


@dataclass(frozen=True)
class Phase:
    """One phase of a load; None if it was not measured."""

    name: str
    seconds: float | None
    read_bytes: int | None = None
    minor_faults: int | None = None
    major_faults: int | None = None
    cpu_s: float | None = None


@dataclass(frozen=True)
class Noise:
    """Other activity on the host during a sample; `canary`: seconds that fixed pieces of work took beside it."""

    noisy: bool
    reasons: tuple[str, ...]
    canary: Mapping[str, float] | None = None
    canary_slowdown: float | None = None


@dataclass(frozen=True)
class GpuUse:
    """A sample's use of one GPU, in bytes. `index` is torch's, `driver_index` nvidia-smi's, which people know."""

    index: int
    driver_index: int | None = None
    memory_before_bytes: int | None = None
    memory_after_bytes: int | None = None
    allocated_bytes: int | None = None
    peak_bytes: int | None = None

    @property
    def shown_index(self) -> int:
        """Return the GPU's number for people: nvidia-smi's, if known."""
        return self.index if self.driver_index is None else self.driver_index


@dataclass(frozen=True)
class Replayed:
    """What a replay beside a sample did: bytes the kernel read for it, its CPU seconds, and how long it ran."""

    when: str
    read_bytes: int
    cpu_s: float
    first_request_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True)
class Sample:
    """One run of the loader: `wanted` is the requested kind, `kind` the actual one. None: not measured."""

    block: int
    wanted: str
    kind: str
    reason: str | None
    load_real_s: float | None
    time_to_first_token_s: float | None
    phases: tuple[Phase, ...]
    resident_before: float | None
    read_bytes: int | None
    rss_bytes: int | None
    vsz_bytes: int | None
    pss_bytes: int | None
    anon_bytes: int | None
    anon_huge_bytes: int | None
    file_pmd_bytes: int | None
    hugetlb_bytes: int | None
    minor_faults: int | None
    major_faults: int | None
    order: int | None = None
    dtype: str | None = None
    device: str | None = None
    env: Mapping[str, str] | None = None
    second_token_s: float | None = None
    steady_token_s: float | None = None
    container_start_s: float | None = None
    needed_share: float | None = None
    read_share: float | None = None
    model_bytes: int | None = None
    uss_bytes: int | None = None
    shmem_pmd_bytes: int | None = None
    cpu_user_s: float | None = None
    cpu_system_s: float | None = None
    vmstat: Mapping[str, int] | None = None
    gpu: tuple[GpuUse, ...] | None = None
    ceiling_bytes_per_s: float | None = None
    ceiling_share: float | None = None
    noise: Noise | None = None
    stderr_tail: str | None = None
    replay: Replayed | None = None

    @property
    def is_valid(self) -> bool:
        """Return whether the actual kind is the requested one."""
        return self.kind == self.wanted

    @property
    def is_noisy(self) -> bool:
        """Return whether other work on the host could have disturbed the sample; False if that was not recorded."""
        return self.noise is not None and self.noise.noisy

    @property
    def devices(self) -> tuple[str, ...]:
        """Return where the weights were, in the loader's words: `cuda:0`, `cpu`, `disk`; empty if unknown."""
        return tuple(name for name in (self.device or "").split(",") if name)

    @property
    def on_cpu(self) -> bool:
        """Return whether the sample ran without a GPU."""
        return NOT_A_GPU.issuperset(self.devices)

    def phase(self, name: str) -> Phase | None:
        """Return the phase of this name; None if the sample never finished it."""
        return next((phase for phase in self.phases if phase.name == name), None)

    def phase_seconds(self, name: str) -> float | None:
        """Return how long one phase took, in seconds; None if not measured."""
        found = self.phase(name)
        return None if found is None else found.seconds
