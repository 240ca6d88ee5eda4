"""Synthetic sweeps: documents with known effects, as a host with that truth would have produced them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ARMS: list[dict[str, Any]] = [
    {"name": "stock", "about": "the host as it was", "settings": {}, "env": {}},
    {"name": "stock-again", "about": "the same once more: what differs is noise", "settings": {}, "env": {}},
    {"name": "always", "about": "THP for all memory", "settings": {"thp.enabled": "always"}, "env": {}},
    {"name": "never", "about": "no THP", "settings": {"thp.enabled": "never"}, "env": {}},
    {
        "name": "madvise-torch",
        "about": "PyTorch asks for THP",
        "settings": {"thp.enabled": "madvise"},
        "env": {"THP_MEM_ALLOC_ENABLE": "1"},
    },
    {
        "name": "pool-glibc",
        "about": "malloc takes reserved pages",
        "settings": {"hugepages.2M": "1024"},
        "env": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"},
    },
]
PHASES = {
    "interpreter": 0.03,
    "import_torch": 1.1,
    "import_transformers": 0.7,
    "device_ready": 0.01,
    "tokenizer": 0.2,
    "weights": 0.5,
    "first_token": 1.0,
}
MIB = 1 << 20


def document(
    blocks: int = 8,
    effects: Mapping[tuple[str, str, str], float] | None = None,
    noise: float = 0.01,
    seed: int = 1,
    arms: list[dict[str, Any]] | None = None,
    weights_effects: Mapping[tuple[str, str, str], float] | None = None,
) -> dict[str, Any]:
    """A sweep document without its analysis. `effects` maps (arm, dtype, kind) to a factor on every time.

    `weights_effects` does so for the phases `weights` and `first_token` alone. Where an effect below 1 is given, minor
    faults fall to a fifth and 1 GiB is backed by THP, as with an allocator that asks for it.
    """
    rng = np.random.default_rng(seed)
    effects, weights_effects = effects or {}, weights_effects or {}
    used = ARMS if arms is None else arms
    measurements = [
        _measurement(
            rng,
            block,
            arm,
            dtype,
            wanted,
            effects.get((arm["name"], dtype, wanted), 1.0),
            weights_effects.get((arm["name"], dtype, wanted), 1.0),
            noise,
        )
        for block in range(1, blocks + 1)
        for arm in used
        for dtype in ("auto", "float32")
        for wanted in ("cold", "warm")
    ]
    return {
        "schema_version": 1,
        "run_id": "20260101T000000Z",
        "kind": "sweep",
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:40:00Z",
        "host": _host(),
        "model": {
            "id": "tiny",
            "source": "embedded",
            "revision": None,
            "path": "/models/tiny",
            "bytes": 64 * MIB,
            "files": 1,
            "dtype": "bfloat16",
            "parameters": 32_000_000,
        },
        "software": {"python": "3.11.2", "torch": "2.13.0"},
        "protocol": {
            "blocks": 8,
            "budget_s": 2400,
            "precision": 0.03,
            "seed": 7,
            "dtypes": ["auto", "float32"],
            "cold_scope": "app",
            "timeout_s": 120,
            "user": "nobody",
            "loader_sha256": None,
        },
        "stock": {"thp.enabled": "madvise", "thp.defrag": "madvise", "hugepages.2M": "0"},
        "arms": used,
        "left_out": [],
        "stopped": {"reason": f"all {blocks} blocks are measured", "blocks": blocks, "spent_s": 2100.0},
        "ceiling": {"bytes_per_s": [2.0e9], "streams": 4, "guest_cold": False},
        "measurements": measurements,
    }


def _measurement(
    rng: np.random.Generator,
    block: int,
    arm: Mapping[str, Any],
    dtype: str,
    wanted: str,
    effect: float,
    weights_effect: float,
    noise: float,
) -> dict[str, Any]:
    scale = effect * (1.6 if wanted == "cold" else 1.0) * float(np.exp(rng.normal(0, noise)))
    phases = {
        name: seconds * scale * (weights_effect if name in ("weights", "first_token") else 1.0)
        for name, seconds in PHASES.items()
    }
    token_s = sum(phases.values())
    huge = 1024 * MIB if effect < 1 else 0
    anon = 2048 * MIB if dtype == "float32" else 300 * MIB
    return {
        "arm": arm["name"],
        "dtype_asked": dtype,
        "attempt": 1,
        "elapsed_s": 100.0,
        "abandoned": False,
        "sample": {
            "block": block,
            "arm": arm["name"],
            "wanted": wanted,
            "kind": wanted,
            "reason": None,
            "order": 0,
            "started_at": "2026-01-01T00:00:00Z",
            "dtype": "float32" if dtype == "float32" else "bfloat16",
            "device": "cpu",
            "settings": arm["settings"],
            "env": arm["env"],
            "load_real_s": token_s - phases["first_token"],
            "time_to_first_token_s": token_s,
            "second_token_s": 0.1,
            "phases": [{"name": name, "seconds": seconds} for name, seconds in phases.items()],
            "resident_before": 0.0 if wanted == "cold" else 1.0,
            "read_bytes": 64 * MIB if wanted == "cold" else 0,
            "rss_bytes": anon + 700 * MIB + int(rng.integers(0, MIB)),
            "vsz_bytes": 8192 * MIB,
            "pss_bytes": anon + 650 * MIB + int(rng.integers(0, MIB)),
            "anon_bytes": anon,
            "anon_huge_bytes": huge,
            "file_pmd_bytes": 0,
            "shmem_pmd_bytes": 0,
            "hugetlb_bytes": 140 * MIB if arm["name"] == "pool-glibc" else 0,
            "minor_faults": int((180_000 if effect < 1 else 900_000) * np.exp(rng.normal(0, 0.001))),
            "major_faults": 80,
            "cpu_user_s": 3.0 * scale,
            "cpu_system_s": 1.0 * scale,
            "vmstat": {
                "thp_fault_alloc": huge // (2 * MIB) + int(rng.integers(0, 3)),
                "thp_fault_fallback": 0,
                "compact_stall": 0,
            },
            "noise": {"noisy": False, "reasons": []},
            "exit_code": 0,
            "signal": None,
            "stderr_tail": None,
        },
    }


def _host() -> dict[str, Any]:
    return {
        "name": "gpu-1",
        "kernel": "6.18.0",
        "arch": "x86_64",
        "distribution": "Debian 12",
        "cpu_model": "A processor",
        "cpus": 2,
        "numa_nodes": 1,
        "memory_bytes": 24 << 30,
        "page_size_bytes": 4096,
        "systemd": True,
        "psi": False,
        "disk": None,
        "filesystem": None,
        "gpus": [],
        "gpu_driver": None,
    }
