"""Rules for notes about what backs the process's memory."""

from __future__ import annotations

from analysis.baseline.reading import Document, median, on_cpu, valid, whole_pools
from analysis.text import statistics, units
from analysis.text.markdown import md

_OPT_INS = ("THP_MEM_ALLOC_ENABLE", "GLIBC_TUNABLES")


def weights_file_backed(document: Document) -> str | None:
    """On a CPU, in the dtype as stored, resident memory that is not anonymous covers at least the model's bytes."""
    model = document["model"]
    samples = [sample for sample in valid(document) if on_cpu(sample) and sample.get("dtype") == model["dtype"]]
    backed = statistics.figure(sample["rss_bytes"] - sample["anon_bytes"] for sample in samples)["median"]
    if backed is None or backed < model["bytes"]:
        return None
    return (
        f"The weights stay a mapping of their file: {units.size(backed)} of the resident memory is file-backed, beside "
        f"a model of {units.size(model['bytes'])}. THP works on anonymous memory, so in this dtype it cannot help the "
        "weights."
    )


def weights_cast(document: Document) -> str | None:
    """On a CPU, in another dtype than stored, anonymous memory covers at least the model's bytes."""
    model = document["model"]
    stored = (None, model["dtype"])
    samples = [sample for sample in valid(document) if on_cpu(sample) and sample.get("dtype") not in stored]
    anonymous = statistics.figure(sample["anon_bytes"] for sample in samples)["median"]
    if model["dtype"] is None or anonymous is None or anonymous < model["bytes"]:
        return None
    return (
        f"The weights were cast from {md(model['dtype'])} to {md(samples[0]['dtype'])} and so became anonymous memory "
        f"({units.size(anonymous)}): this is where THP and the allocator's settings act."
    )


def madvise_alone(document: Document) -> str | None:
    """THP is `madvise`, no allocator was told to ask for it, and not one byte was THP-backed in any valid sample."""
    samples = valid(document)
    asked = any(name in (sample.get("env") or {}) for sample in samples for name in _OPT_INS)
    if document["tuning"]["runtime"].get("thp.enabled") != "madvise" or asked or not samples:
        return None
    if any(sample["anon_huge_bytes"] != 0 for sample in samples):
        return None
    return (
        "THP is set to `madvise` and nothing asked for it: 0 B of the process were THP-backed. PyTorch asks only when "
        "told to, with `THP_MEM_ALLOC_ENABLE=1` (or `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` for all of glibc's malloc)."
    )


def thp_backed(document: Document) -> str | None:
    """Any THP-backed anonymous memory in the cold or the warm median."""
    told = []
    for kind in statistics.MEASURED_KINDS:
        huge, anonymous = median(document, f"{kind}_anon_huge_bytes"), median(document, f"{kind}_anon_bytes")
        if huge and anonymous:
            told.append(f"{units.size(huge)} ({units.percent(huge / anonymous)} of the anonymous memory) {kind}")
    return f"THP-backed: {', '.join(told)}." if told else None


def file_pmd(document: Document) -> str | None:
    """Any file pages mapped by PMD in the cold or the warm median."""
    mapped = [median(document, f"{kind}_file_pmd_bytes") or 0 for kind in statistics.MEASURED_KINDS]
    if not any(mapped):
        return None
    return (
        f"The kernel maps {units.size(max(mapped))} of file pages with huge mappings (CONFIG_READ_ONLY_THP_FOR_FS or "
        "large folios)."
    )


def pool_unused_by_load(document: Document) -> str | None:
    """Pools hold pages and not one valid sample used any."""
    samples = valid(document)
    if not whole_pools(document) or not samples or any(sample["hugetlb_bytes"] != 0 for sample in samples):
        return None
    return (
        "Loading the model took nothing from the pool: `from_pretrained` touches neither pools nor hugetlbfs. A "
        "process uses them when its allocator does, for example with `GLIBC_TUNABLES=glibc.malloc.hugetlb=2`."
    )
