"""Rules for notes about what backs the process's memory."""

from __future__ import annotations

from analysis import statistics
from analysis.baseline.notes.tuning import idle_pool
from analysis.baseline.result import Result
from analysis.render import units
from analysis.render.markdown import md

_OPT_INS = ("THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES")


def weights_file_backed(result: Result) -> str | None:
    """Note, on a CPU and in the stored dtype, that non-anonymous resident memory covers at least the model's bytes."""
    model = result.model
    backed = statistics.figure(
        sample.rss_bytes - sample.anon_bytes
        for sample in result.valid
        if sample.on_cpu
        and sample.dtype == model.dtype
        and sample.rss_bytes is not None
        and sample.anon_bytes is not None
    ).median
    if backed is None or backed < model.bytes:
        return None
    return (
        f"The weights stay a mapping of their file ({units.size(backed)} of the resident memory is file-backed): in "
        "this dtype THP, which works on anonymous memory, cannot help them."
    )


def weights_cast(result: Result) -> str | None:
    """Note, on a CPU and in another dtype than stored, that anonymous memory covers at least the model's bytes."""
    model = result.model
    stored = (None, model.dtype)
    samples = [sample for sample in result.valid if sample.on_cpu and sample.dtype not in stored]
    anonymous = statistics.figure(sample.anon_bytes for sample in samples).median
    if model.dtype is None or anonymous is None or anonymous < model.bytes:
        return None
    return (
        f"The weights were cast from {md(model.dtype)} to {md(samples[0].dtype)} and so became anonymous memory "
        f"({units.size(anonymous)}): this is where THP and the allocator's settings act."
    )


def madvise_alone(result: Result) -> str | None:
    """Note that THP is `madvise`, no allocator was set to use it, and no byte was THP-backed in any valid sample."""
    samples = result.valid
    asked = any(name in (sample.env or {}) for sample in samples for name in _OPT_INS)
    if result.tuning.runtime.get("thp.enabled") != "madvise" or asked or not samples:
        return None
    if any(sample.anon_huge_bytes != 0 for sample in samples):
        return None
    return (
        "THP is `madvise`, and nothing asked for it: PyTorch does with `THP_MEM_ALLOC_ENABLE=1`, all of malloc with "
        "`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`."
    )


def no_huge_page_used(result: Result) -> str | None:
    """Note that nothing used THP although it is `madvise`, that no sample used a pool, and what idle pages cost."""
    parts = [note for rule in (madvise_alone, pool_unused_by_load, idle_pool) if (note := rule(result))]
    return " ".join(parts) or None


def thp_backed(result: Result) -> str | None:
    """Note any THP-backed anonymous memory in the cold or the warm median."""
    parts = []
    for kind in statistics.MEASURED_KINDS:
        huge, anonymous = result.summary.median(f"{kind}_anon_huge_bytes"), result.summary.median(f"{kind}_anon_bytes")
        if huge and anonymous:
            parts.append(f"{units.size(huge)} ({units.percent(huge / anonymous)} of the anonymous memory) {kind}")
    return f"THP-backed: {', '.join(parts)}." if parts else None


def file_pmd(result: Result) -> str | None:
    """Note any file pages mapped by PMD in the cold or the warm median."""
    mapped = [result.summary.median(f"{kind}_file_pmd_bytes") or 0 for kind in statistics.MEASURED_KINDS]
    if not any(mapped):
        return None
    return (
        f"The kernel maps {units.size(max(mapped))} of file pages with huge mappings (CONFIG_READ_ONLY_THP_FOR_FS or "
        "large folios)."
    )


def pool_unused_by_load(result: Result) -> str | None:
    """Note that pools hold pages and no valid sample used any."""
    samples = result.valid
    if not result.whole_pools or not samples or any(sample.hugetlb_bytes != 0 for sample in samples):
        return None
    return "The load took nothing from the pool; malloc does with `GLIBC_TUNABLES=glibc.malloc.hugetlb=2`."
