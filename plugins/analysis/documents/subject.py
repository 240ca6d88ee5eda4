"""What was measured: host, model, and their limits; plugins/schemas/result.schema.json describes the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """The image in whose containers the loader ran."""

    name: str
    digest: str
    runtime: str


@dataclass(frozen=True)
class Disk:
    """The disk that holds the model."""

    device: str
    model: str | None
    rotational: bool | None
    read_ahead_bytes: int | None


@dataclass(frozen=True)
class Filesystem:
    """The file system that holds the model."""

    type: str
    mount_point: str


@dataclass(frozen=True)
class Gpu:
    """One GPU of the host. `foreign_processes` holds what the host reported: objects, names or process ids."""

    index: int
    name: str
    memory_bytes: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    persistence_mode: bool | None = None
    foreign_processes: tuple[object, ...] = ()


@dataclass(frozen=True)
class MeasuredHost:
    """The measured host; `name` is that of the inventory."""

    name: str
    kernel: str
    arch: str
    distribution: str
    cpu_model: str | None
    cpus: int
    numa_nodes: int
    memory_bytes: int
    systemd: bool | None
    psi: bool | None
    disk: Disk | None
    filesystem: Filesystem | None
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    cuda: str | None = None
    free_page_reporting: bool | None = None


@dataclass(frozen=True)
class Names:
    """Names of tensors: how many, and the first few."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """What the loader held of the model's files, in elements."""

    class_name: str
    stored_elements: int
    parameters: int
    buffer_elements: int
    stored_twice: Names
    unplaced: Names
    unplaced_elements: int
    quantization: str | None
    is_cached: bool


@dataclass(frozen=True)
class Model:
    """The loaded model; `files` is the number of weight files, or their names. `loaded` is None in old results."""

    id: str
    source: str
    revision: str | None
    path: str | None
    bytes: int
    files: object
    dtype: str | None
    parameters: int | None
    loaded: Loaded | None = None


@dataclass(frozen=True)
class CopyRate:
    """How fast one GPU receives bytes from the host's memory, in bytes a second."""

    index: int
    pinned_bytes_per_s: float | None
    pageable_bytes_per_s: float | None

    def rate(self, way: str) -> float | None:
        """Return the rate of copies from `pinned` or from `pageable` memory."""
        return self.pinned_bytes_per_s if way == "pinned" else self.pageable_bytes_per_s


@dataclass(frozen=True)
class CeilingTrial:
    """One read method for the model's files, tried for the disk's ceiling; no rate if `reason` says why not."""

    how: str
    streams: int
    chunk_bytes: int
    bytes_per_s: float | None
    reason: str | None


@dataclass(frozen=True)
class Ceiling:
    """How fast the model's files and the GPUs can be fed; `guest_cold`: a layer below the host seems to cache."""

    bytes_per_s: tuple[float, ...]
    streams: int | None
    guest_cold: bool | None
    host_to_device: tuple[CopyRate, ...] = ()
    trials: tuple[CeilingTrial, ...] = ()


Software = Mapping[str, str | None]
"""Version by package; None if it is not installed."""

COLD_SCOPES = {
    "host": "the whole page cache was dropped (sync, drop_caches 3)",
    "app": "interpreter, libraries and model were evicted from the page cache",
    "weights": "the model's files were evicted from the page cache",
}
"""How a load was made cold, by the protocol's `cold_scope`."""
