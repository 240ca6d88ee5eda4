"""Rules for notes about what a load waits for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from analysis.baseline.reading import Document, host_to_device, median, on_cpu, same_load, share_of, valid, weights_rate
from analysis.text import statistics, units

IMPORTS_SHARE = 0.25
LATE_READ_SHARE = 0.5
ONE_TIME_FACTOR = 3
LIMIT_SHARE = 0.8
BOTH_SHARE = 0.5
WAIT_SHARE = 0.25


def cold_is_warm(document: Document) -> str | None:
    """The interval of the ratio of cold to warm loads, paired within blocks, holds 1."""
    if not same_load(document):
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
    """On a CPU, the disk between tokenizer and first token: the limit from 80 % of its ceiling, one of two from 50 %.

    One of two also where a warm load needs at most half of that time, whatever the rate: the rest is reading.
    """
    reached = median(document, "cold_ceiling_share")
    if reached is None or not all(on_cpu(sample) for sample in valid(document)):
        return None
    share = min(1.0, reached)
    longer = _longer(document, "weights", "first_token")
    return (
        f"Between tokenizer and first token a cold run reads at {units.percent(share)} of the disk's ceiling"
        f"{longer.words if longer else ''}: {_verdict('disk', share, longer)}."
    )


def gpu_limits(document: Document) -> str | None:
    """On a GPU, the weights phase beside the lower of two limits, the disk and host-to-device copies: as `disk_share`.

    Warm, copies are the only limit.
    """
    told = [limit for kind in statistics.MEASURED_KINDS if (limit := _gpu_limit(document, kind))]
    return f"In the weights phase alone, {'; '.join(told)}." if told else None


def _gpu_limit(document: Document, kind: str) -> str | None:
    rate = weights_rate(document, kind)
    limits = {"copies": host_to_device(document, "pageable")}
    if kind == "cold":
        limits["disk"] = statistics.figure((document["ceiling"] or {}).get("bytes_per_s", []))["median"]
    known = {name: limit for name, limit in limits.items() if limit}
    if rate is None or not known:
        return None
    name = min(known, key=lambda limit: known[limit])
    share = share_of(rate, known[name])
    longer = _longer(document, "weights") if kind == "cold" else None
    return (
        f"the {kind} weights arrive at {units.rate(rate)}, {units.percent(share)} of what {_LIMITS[name]} can do"
        f"{longer.words if longer else ''}: {_verdict(name, share, longer)}"
    )


_LIMITS = {"disk": "the disk", "copies": "host-to-device copies from pageable memory"}


class _Longer(NamedTuple):
    """How much of a cold stretch a warm load does without, and the seconds in words."""

    share: float
    words: str


def _longer(document: Document, *names: str) -> _Longer | None:
    """A cold load's phases of these names beside a warm one's; None where either was not measured."""
    seconds = [[median(document, f"{kind}_phase_{name}_s") for name in names] for kind in statistics.MEASURED_KINDS]
    cold, warm = (sum(each for each in phase if each is not None) for phase in seconds)
    if not cold or any(each is None for phase in seconds for each in phase):
        return None
    return _Longer(1 - warm / cold, f", in {units.seconds(cold)} against {units.seconds(warm)} warm")


def _verdict(limit: str, share: float, longer: _Longer | None) -> str:
    """What a load waits for, from the share of a limit that it reaches and from what it does without when warm.

    A loader that reads, then works, then reads keeps a disk half busy and still spends much of its time waiting for it.
    """
    if share >= LIMIT_SHARE:
        return "that is the limit"
    if longer and longer.share >= WAIT_SHARE:
        return "disk and loader both count"
    return f"{limit} and loader both count" if share >= BOTH_SHARE else "the loader itself is the limit"


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
