"""Rules for notes about what a load waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis import statistics, units
from analysis.reading import Document, host_to_device, median, on_cpu, overlap, valid, weights_rate

IMPORTS_SHARE = 0.25
LATE_READ_SHARE = 0.5
ONE_TIME_FACTOR = 3
LIMIT_SHARE = 0.8
DISK_MINOR_SHARE = 0.5


def cold_is_warm(document: Document) -> str | None:
    """The intervals of cold and warm load overlap."""
    if not overlap(document):
        return None
    return "Cold and warm loads do not differ beyond noise: reading the files is not what this load waits for."


def weights_read_late(document: Document) -> str | None:
    """On a CPU, at least half of the model's bytes are read after the load is over, by the first forward pass."""
    shares = [
        late / sample["model_bytes"]
        for sample in valid(document)
        if sample["kind"] == "cold"
        and on_cpu(sample)
        and sample.get("model_bytes")
        and (late := _phase_bytes(sample, "first_token")) is not None
    ]
    share = statistics.figure(shares)["median"]
    if share is None or share < LATE_READ_SHARE:
        return None
    return (
        f"A cold load does not read the model: {units.percent(min(share, 1.0))} of its bytes come from the disk during "
        "the first token, because the weights are mapped and read on first touch. Compare the time to first "
        "token, not the load."
    )


def _phase_bytes(sample: Mapping[str, Any], name: str) -> int | None:
    return next((phase.get("read_bytes") for phase in sample["phases"] if phase["name"] == name), None)


def imports_dominate(document: Document) -> str | None:
    """Importing torch and transformers takes at least 25 % of the cold load."""
    load = median(document, "cold_load_real_s")
    imports = [median(document, f"cold_phase_{name}_s") for name in ("import_torch", "import_transformers")]
    spent = sum(seconds for seconds in imports if seconds is not None)
    if not load or spent / load < IMPORTS_SHARE:
        return None
    return (
        f"Imports are {units.percent(spent / load)} of the cold load: {units.seconds(spent)} of {units.seconds(load)}. "
        "That part is Python reading and linking libraries, not the model."
    )


def disk_share(document: Document) -> str | None:
    """On a CPU, the cold read rate as a share of the disk's ceiling: the limit from 80 %, not the limit under 50 %."""
    share = median(document, "cold_ceiling_share")
    if share is None or not all(on_cpu(sample) for sample in valid(document)):
        return None
    if share >= LIMIT_SHARE:
        return f"A cold load reads at {units.percent(share)} of the disk's ceiling: the disk is the limit."
    verdict = "mostly it waits for something else" if share < DISK_MINOR_SHARE else "disk and loader both count"
    return f"A cold load reads at {units.percent(share)} of the disk's ceiling: {verdict}."


def gpu_limits(document: Document) -> str | None:
    """On a GPU, which limit the weights phase comes within 80 % of: the disk's ceiling or the host-to-device rate."""
    sentences = [_gpu_limit(document, kind) for kind in statistics.MEASURED_KINDS]
    return " ".join(sentence for sentence in sentences if sentence) or None


def _gpu_limit(document: Document, kind: str) -> str | None:
    rate = weights_rate(document, kind)
    limits: dict[str, float | None] = {
        "host-to-device copies from pageable memory": host_to_device(document, "pageable")
    }
    if kind == "cold":
        limits["the disk"] = statistics.figure((document["ceiling"] or {}).get("bytes_per_s", []))["median"]
    known = {name: limit for name, limit in limits.items() if limit}
    if rate is None or not known:
        return None
    name = min(known, key=lambda limit: known[limit])
    share = rate / known[name]
    reached = f"The {kind} weights arrive at {units.rate(rate)}, {units.percent(share)} of what {name} can do"
    if share >= LIMIT_SHARE:
        return f"{reached}: that is the limit."
    return f"{reached}: the loader itself is the limit."


def gpu_state(document: Document) -> str | None:
    """A GPU without persistence mode, below its link width, or with processes of others on it."""
    told = []
    for gpu in document["host"]["gpus"]:
        name = f"GPU {gpu['index']}"
        if gpu.get("persistence_mode") is False:
            told.append(f"{name} has persistence mode off, so a first context may pay for starting the driver")
        if gpu.get("pcie_width") and gpu.get("pcie_width_max") and gpu["pcie_width"] < gpu["pcie_width_max"]:
            told.append(f"{name} runs on {gpu['pcie_width']} of {gpu['pcie_width_max']} PCIe lanes")
    return f"{'; '.join(told)}." if told else None


def one_time_work(document: Document) -> str | None:
    """The warm first token takes at least three times as long as the second."""
    first, second = median(document, "warm_phase_first_token_s"), median(document, "warm_second_token_s")
    if not first or not second or first < ONE_TIME_FACTOR * second:
        return None
    return (
        f"Even warm, the first token takes {units.ratio(first / second)} the second ({units.seconds(first)} against "
        f"{units.seconds(second)}): one-time work, such as loading kernels and touching the weights for the first time."
    )
