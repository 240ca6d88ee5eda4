"""Headroom: whether there is memory for the model, and whether others use the GPUs."""

from __future__ import annotations

from ...host.cgroup import memory_limit_bytes
from ...host.errors import SettingError
from ...host.files import Host
from ...host.meminfo import parse_meminfo
from .gpu import GpuFacts

LIBRARIES_BYTES = 1 << 30
"""Memory of a loader besides its weights: torch and transformers imported, a prompt, a few tokens."""
_ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def needed_bytes(weight_bytes: int, parameters: int, dtype: str) -> int:
    """Estimate the bytes one load takes. The weights are in the page cache, or copied where the dtype differs."""
    return max(weight_bytes, parameters * _ELEMENT_BYTES.get(dtype, 0)) + LIBRARIES_BYTES


def require_memory(host: Host, needed: int) -> None:
    """Raise SettingError where the host, or the loader's control group, has less memory than it takes."""
    text = host.read_or_none("/proc/meminfo")
    available = parse_meminfo(text).get("MemAvailable") if text else None
    limit = memory_limit_bytes(host)
    for found, what in ((available, "available (MemAvailable)"), (limit, "in this control group (memory.max)")):
        if found is not None and found < needed:
            raise SettingError(
                "slm_benchmark_model",
                f"{needed / 2**30:.1f} GiB of memory for the model and its libraries",
                f"{found / 2**30:.1f} GiB {what}",
                "With less, loading it takes memory from what else runs here, and nothing of it stays warm.",
                "measure when the host has less to do, lift the limit, or choose a smaller model.",
            )


def require_free_gpus(gpus: GpuFacts, allow_busy: bool) -> None:
    """Raise SettingError where others use a GPU: a load takes its memory and copy engines."""
    if allow_busy:
        return
    for gpu in gpus.gpus:
        for process in gpu.processes:
            name = f" ({process.name[:80]})" if process.name and process.name.isprintable() else ""
            more = f" and {len(gpu.processes) - 1} more" if len(gpu.processes) > 1 else ""
            raise SettingError(
                "slm_benchmark_allow_busy_gpu",
                "GPUs that nobody else uses",
                f"process {process.pid}{name}{more} on GPU {gpu.index}",
                "A load would take memory and copy engines from it, and its times would be of both.",
                "measure when they are free, or set slm_benchmark_allow_busy_gpu to true.",
            )
