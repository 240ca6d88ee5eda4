"""Rules for notes about where the weights were: a GPU host does not always load onto its GPU."""

from __future__ import annotations

from analysis.baseline.result import Result
from analysis.documents.samples import NOT_A_GPU
from analysis.render import units
from analysis.render.markdown import md

SHARED_BYTES = 256 << 20
"""A driver itself uses some megabytes."""


def gpu_unseen(result: Result) -> str | None:
    """Note that the host has GPUs of which torch saw none in a valid sample."""
    host, samples = result.host, result.valid
    unseen = [sample for sample in samples if sample.on_cpu and not sample.gpu]
    if not host.gpus or not unseen:
        return None
    which = "" if len(unseen) == len(samples) else f" in {len(unseen)} of {len(samples)} valid samples"
    found = "a GPU" if len(host.gpus) == 1 else f"{len(host.gpus)} GPUs"
    torch, driver, cuda = (md(text) for text in (result.software.get("torch"), host.gpu_driver, host.cuda))
    return (
        f"These are figures of the CPU{which}: the host has {found} and torch saw none. Look at the driver and at "
        f"torch's build first (driver {driver} for CUDA {cuda}, torch {torch}): a CPU build sees no GPU, and one for "
        f"a newer CUDA may not. Then see whether {md(result.protocol.user)}, who runs the loader, may open "
        "`/dev/nvidia*`. In the loader's Python, as that user, `import torch; torch.cuda.init()` says what is wrong."
    )


def gpu_left_out(result: Result) -> str | None:
    """Note that torch saw some but not all of the host's GPUs in every valid sample."""
    uses = [use for sample in result.valid for use in sample.gpu or ()]
    seen = {use.shown_index for use in uses}
    unseen = [gpu.index for gpu in result.host.gpus if gpu.index not in seen]
    if not seen or not unseen or any(use.driver_index is None for use in uses):
        return None
    named = ", ".join(map(str, unseen))
    return (
        f"torch saw {len(seen)} of the host's {len(result.host.gpus)} GPUs, and not {named}: the loader's Python sets "
        "CUDA_VISIBLE_DEVICES, or its user may not open the device. GPUs are numbered here as nvidia-smi numbers them."
    )


def gpu_shared(result: Result) -> str | None:
    """Note that other processes held 256 MiB or more of a GPU that the loader used, before a valid sample began."""
    taken: dict[int, int] = {}
    for use in (use for sample in result.valid for use in sample.gpu or ()):
        if (use.memory_before_bytes or 0) >= SHARED_BYTES:
            taken[use.shown_index] = max(taken.get(use.shown_index, 0), use.memory_before_bytes or 0)
    if not taken:
        return None
    named = ", ".join(f"{units.size(size)} of GPU {index}" for index, size in sorted(taken.items()))
    return (
        f"Others hold {named} already: it is part of what is in use with the model held, and their work may slow the "
        "load down."
    )


def weights_off_gpu(result: Result) -> str | None:
    """Note that torch saw a GPU but left weights on the CPU or the disk in a valid sample."""
    samples = [sample for sample in result.valid if sample.gpu or not sample.on_cpu]
    spilled = [sample for sample in samples if NOT_A_GPU.intersection(sample.devices)]
    if not spilled:
        return None
    places = "; ".join(dict.fromkeys(md(", ".join(sample.devices)) for sample in spilled))
    return (
        f"Not all weights went to the GPU in {len(spilled)} of {len(result.valid)} valid samples; they were on "
        f"{places}. What stays outside is copied in for every token, so the figures are neither a GPU's nor a CPU's. "
        "See what else holds the GPU's memory, or measure a smaller model."
    )
