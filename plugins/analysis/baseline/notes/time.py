"""Rules for notes about what a load waits for."""

from __future__ import annotations

from typing import NamedTuple

from analysis import statistics
from analysis.baseline.result import Result, share_of
from analysis.render import units
from analysis.render.markdown import md

IMPORTS_SHARE = 0.25
COSTLIEST = 3
WORTH_SHARE = 0.02
"""Share of the warm TTFT below which there is no note."""
LATE_READ_SHARE = 0.5
ONE_TIME_FACTOR = 3
LIMIT_SHARE = 0.8
BOTH_SHARE = 0.5
WAIT_SHARE = 0.25


def cold_is_warm(result: Result) -> str | None:
    """Note that the interval of the ratio of cold to warm loads, paired within blocks, contains 1."""
    if not result.same_load:
        return None
    return "Cold and warm loads do not differ beyond noise: reading the files is not what this load waits for."


def weights_read_late(result: Result) -> str | None:
    """Note, on a CPU, that at least half of the model's bytes are read after the load, by the first forward pass."""
    shares = [
        phase.read_bytes / sample.model_bytes
        for sample in result.valid
        if sample.kind == "cold"
        and sample.on_cpu
        and sample.model_bytes
        and (phase := sample.phase("first_token"))
        and phase.read_bytes is not None
    ]
    share = statistics.figure(shares).median
    if share is None or share < LATE_READ_SHARE:
        return None
    return (
        f"A cold load does not read the model: {units.percent(min(share, 1.0))} of its bytes come from the disk during "
        "the first token, because the weights are mapped and read on first touch. Compare the time to first "
        "token, not the load."
    )


def imports_dominate(result: Result) -> str | None:
    """Note that importing torch and transformers takes at least 25 % of the cold load."""
    load = result.summary.median("cold_load_real_s")
    imports = [result.summary.median(f"cold_phase_{name}_s") for name in ("import_torch", "import_transformers")]
    spent = sum(seconds for seconds in imports if seconds is not None)
    if not load or spent / load < IMPORTS_SHARE:
        return None
    sure = f" (estimate from {units.counted(result.quiet_blocks, 'quiet block')})" if result.is_estimate else ""
    return (
        f"Imports{sure} are {units.percent(spent / load)} of the cold load: {units.seconds(spent)} of "
        f"{units.seconds(load)}. "
        f"That part is Python reading and linking libraries, not the model.{_costliest(result)}"
    )


def _costliest(result: Result) -> str:
    """Return the packages in which a warm start spends most of its imports; "" if not measured."""
    packages = result.imports.packages[:COSTLIEST] if result.imports else ()
    named = ", ".join(f"{md(package.name)} {units.seconds(package.seconds)}" for package in packages)
    return f" Warm, most of it is {named}." if named else ""


def imports_unknown(result: Result) -> str | None:
    """Note that the imports could not be measured."""
    if result.imports is None or not result.imports.problem:
        return None
    return f"The imports could not be looked at, so nothing is known of bytecode: {md(result.imports.problem)}"


def no_bytecode(result: Result) -> str | None:
    """Note that compiling modules without bytecode costs a start at least 2 % of the warm TTFT."""
    bytecode = result.imports.bytecode if result.imports else None
    token = result.summary.median("warm_time_to_first_token_s")
    if bytecode is None or not token or bytecode.saving_s < WORTH_SHARE * token:
        return None
    at_least = "" if bytecode.compiled >= bytecode.lacking else "more than "
    return (
        f"{units.count(bytecode.lacking)} of {units.count(bytecode.valid + bytecode.lacking)} imported modules have no "
        "bytecode that the loader's user can read, so Python compiles them anew at every start, cold or warm: "
        f"{at_least}{units.seconds(bytecode.saving_s)}. {_IN_AN_IMAGE if result.image else _ON_A_HOST}"
    )


_ON_A_HOST = "`first_token.yml` keeps it; so does an installer that compiles (uv: `UV_COMPILE_BYTECODE=1`)."
_IN_AN_IMAGE = (
    "Best compile them as the image is built (`RUN python3 -m compileall -q` with its folders of packages); "
    "`first_token.yml` gives a container a folder that keeps it."
)


def kernels_compiled(result: Result) -> str | None:
    """Note that compiling kernels costs a start at least 2 % of the warm TTFT."""
    kernels, token = result.kernels, result.summary.median("warm_time_to_first_token_s")
    saving_s = kernels.saving_s(sample for sample in result.valid if sample.kind == "warm") if kernels else None
    if kernels is None or kernels.kept is None or not token or not saving_s or saving_s < WORTH_SHARE * token:
        return None
    later_s = max(0.0, kernels.compiling.second_token - kernels.kept.second_token) if kernels.compiling else 0.0
    second = f" and {units.seconds(later_s)} of its second" if later_s else ""
    return (
        f"Each start compiles kernels anew: {units.seconds(saving_s)} of its first token{second}, where "
        f"{units.count(kernels.files)} files ({units.size(kernels.bytes)}) would keep them. A service whose home lasts "
        "keeps them there by itself; for one without (`nobody`, `DynamicUser=`, a container made anew) "
        "`first_token.yml` keeps them, or `CUDA_CACHE_PATH` in a lasting folder that its own user may write."
    )


def not_required(result: Result) -> str | None:
    """Note that imported packages that nothing requires cost a start at least 2 % of the warm TTFT."""
    token = result.summary.median("warm_time_to_first_token_s")
    found = result.imports.not_required if result.imports else ()
    worth = [each for each in found if token and each.seconds >= WORTH_SHARE * token]
    if not worth:
        return None
    named = "; ".join(
        f"{md(each.importer or 'a function')} imports {md(each.distribution)}, {units.seconds(each.seconds)}, because "
        "it is there"
        for each in worth
    )
    return (
        f"{named}. Nothing that the loader needs requires {'it' if len(worth) == 1 else 'these'}: "
        f"{'an image' if result.image else 'an environment'} without starts that much sooner."
    )


def disk_share(result: Result) -> str | None:
    """Note, on a CPU, that the disk limits tokenizer to first token: alone from 80 % of its ceiling, in part from 50 %.

    It also limits in part, whatever the rate, if a warm load needs at most half of that time: the rest is reading.
    """
    reached = result.summary.median("cold_ceiling_share")
    if reached is None or not all(sample.on_cpu for sample in result.valid):
        return None
    share = min(1.0, reached)
    longer = _longer(result, "weights", "first_token")
    return (
        f"Between tokenizer and first token a cold run reads at {units.percent(share)} of the disk's ceiling"
        f"{longer.words if longer else ''}: {_verdict('disk', share, longer)}."
    )


def gpu_limits(result: Result) -> str | None:
    """Note, on a GPU, the weights phase against the lower of two limits, disk and copies to the GPU: as `disk_share`.

    For a warm load, copies are the only limit.
    """
    parts = [limit for kind in statistics.MEASURED_KINDS if (limit := _gpu_limit(result, kind))]
    return f"In the weights phase alone, {'; '.join(parts)}." if parts else None


def _gpu_limit(result: Result, kind: str) -> str | None:
    rate = result.weights_rate(kind)
    limits = {"copies": result.host_to_device("pageable")}
    if kind == "cold":
        limits["disk"] = result.disk_ceiling
    known = {name: limit for name, limit in limits.items() if limit}
    if rate is None or not known:
        return None
    name = min(known, key=lambda limit: known[limit])
    share = share_of(rate, known[name])
    longer = _longer(result, "weights") if kind == "cold" else None
    return (
        f"the {kind} weights arrive at {units.rate(rate)}, {units.percent(share)} of what {_LIMITS[name]} can do"
        f"{longer.words if longer else ''}: {_verdict(name, share, longer)}"
    )


_LIMITS = {"disk": "the disk", "copies": "host-to-device copies from pageable memory"}


class _Longer(NamedTuple):
    """The share of a cold phase that a warm load does not need, and the seconds in words."""

    share: float
    words: str


def _longer(result: Result, *names: str) -> _Longer | None:
    """Compare a cold load's phases of these names with a warm load's; return None if either was not measured."""
    seconds = [
        [result.summary.median(f"{kind}_phase_{name}_s") for name in names] for kind in statistics.MEASURED_KINDS
    ]
    cold, warm = (sum(each for each in phase if each is not None) for phase in seconds)
    if not cold or any(each is None for phase in seconds for each in phase):
        return None
    return _Longer(1 - warm / cold, f", in {units.seconds(cold)} against {units.seconds(warm)} warm")


def _verdict(limit: str, share: float, longer: _Longer | None) -> str:
    """Return what a load waits for, from the share of a limit that it reaches and from what a warm load does not need.

    A loader that alternates between reads and work keeps a disk half busy and still spends much of its time waiting for
    it.
    """
    if share >= LIMIT_SHARE:
        return "that is the limit"
    if longer and longer.share >= WAIT_SHARE:
        return "disk and loader both count"
    return f"{limit} and loader both count" if share >= BOTH_SHARE else "the loader itself is the limit"


def gpu_state(result: Result) -> str | None:
    """Note a GPU without persistence mode, below its link width, or with other users' processes on it."""
    parts = []
    for gpu in result.host.gpus:
        name = f"GPU {gpu.index}"
        if gpu.persistence_mode is False:
            parts.append(
                f"{name} has persistence mode off, so a first context pays for starting the driver{_ready(result)}"
            )
        if gpu.pcie_width and gpu.pcie_width_max and gpu.pcie_width < gpu.pcie_width_max:
            parts.append(f"{name} runs on {gpu.pcie_width} of {gpu.pcie_width_max} PCIe lanes")
    return f"{'; '.join(parts)}." if parts else None


def _ready(result: Result) -> str:
    """Return the time until a warm start's devices are ready, in words; "" if not measured."""
    seconds = result.summary.median("warm_phase_device_ready_s")
    if not seconds:
        return ""
    return f" ({units.seconds(seconds)} until the devices were ready; 0.3 s a GPU is usual with it on)"


def one_time_work(result: Result) -> str | None:
    """Note a warm first token that takes three times as long as a steady one; in older results, as the second."""
    summary = result.summary
    first, steady = summary.median("warm_phase_first_token_s"), summary.median("warm_steady_token_s")
    other = steady or summary.median("warm_second_token_s")
    if not first or not other or first < ONE_TIME_FACTOR * other:
        return None
    which = "a steady one" if steady else "the second"
    more = "" if steady else " The second has some of that, too; what a token costs is the third and later."
    return (
        f"Even warm, the first token takes {units.ratio(first / other)} {which} ({units.seconds(first)} against "
        f"{units.seconds(other)}): one-time work, such as loading kernels and touching the weights for the first "
        f"time.{more}"
    )
