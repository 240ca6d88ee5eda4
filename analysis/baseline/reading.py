"""What notes and report read from a result: medians, valid samples, rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.text import statistics

Document = Mapping[str, Any]
NOT_A_GPU = frozenset({"cpu", "disk"})
"""Places of weights that accelerate names beside GPUs."""


def median(document: Document, key: str) -> float | None:
    """The median of one figure of the summary; None where nothing was measured."""
    figure = document["summary"].get(key)
    return figure["median"] if figure else None


def valid(document: Document) -> list[Mapping[str, Any]]:
    """The samples that enter figures."""
    return [sample for sample in document["samples"] if sample["kind"] in statistics.MEASURED_KINDS]


def devices(sample: Mapping[str, Any]) -> list[str]:
    """Where a sample's weights were, in the loader's words: `cuda:0`, `cpu`, `disk`; empty where it never said."""
    return [name for name in (sample.get("device") or "").split(",") if name]


def on_cpu(sample: Mapping[str, Any]) -> bool:
    """Whether a sample ran without a GPU."""
    return NOT_A_GPU.issuperset(devices(sample))


def same_load(document: Document) -> bool:
    """Whether a cold load may take as long as a warm one: the interval of their ratio holds 1. False without one.

    The ratio is paired within blocks. The two loads' own intervals also hold what both share, the drift from block to
    block, and may meet where cold was slower in every block.
    """
    ratio = document["summary"]["cold_to_warm_load_ratio"]
    return ratio["ci_low"] is not None and bool(ratio["ci_low"] <= 1 <= ratio["ci_high"])


def whole_pools(document: Document) -> list[Mapping[str, Any]]:
    """Pools that hold pages, each size once."""
    return [pool for pool in document["tuning"]["pools"] if pool["node"] is None and pool["total"]]


def weights_rate(document: Document, kind: str) -> float | None:
    """The model's bytes over the weights phase, in bytes a second, of loads to a GPU."""
    seconds = median(document, f"{kind}_phase_weights_s")
    on_gpu = any(not on_cpu(sample) for sample in valid(document))
    return document["model"]["bytes"] / seconds if seconds and on_gpu else None


def host_to_device(document: Document, way: str) -> float | None:
    """The `pinned` or `pageable` copy rate to all devices in turn, equal parts to each, in bytes a second."""
    copies = (document["ceiling"] or {}).get("host_to_device") or []
    rates = [copy[f"{way}_bytes_per_s"] for copy in copies if copy[f"{way}_bytes_per_s"]]
    return len(rates) / sum(1 / rate for rate in rates) if rates else None


def share_of(rate: float, limit: float) -> float:
    """A rate as a share of a limit, 0..1: what was reached can be done, whatever a measurement beside it gave."""
    return min(1.0, rate / limit)
