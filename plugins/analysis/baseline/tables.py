"""The tables of the per-host report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from analysis import statistics
from analysis.baseline.result import PoolUser, Result, SettingRow, share_of
from analysis.documents.samples import Phase
from analysis.documents.subject import COLD_SCOPES, Ceiling, CeilingTrial, Disk, Gpu, Names
from analysis.render import phases, units
from analysis.render.markdown import Markdown, code, fenced, md, table
from analysis.statistics import Figure

_KINDS = statistics.MEASURED_KINDS
_ALL = 0.995
"""A share from which on nothing worth explaining was left unread."""
_FINEST_S = 0.001
"""A smaller difference of two medians is not told: it is scatter."""
_ON = {True: "on", False: "off", None: "unknown"}


def model_line(result: Result) -> Markdown:
    """Return the line that names the loaded model."""
    loaded = result.model
    files = loaded.files
    count = len(files) if isinstance(files, list) else files
    # A file may hold a tied head twice, or buffers that nobody loads: those are no parameters.
    count_held = loaded.loaded.parameters if loaded.loaded else loaded.parameters
    parameters = None if count_held is None else f"{count_held / 1e9:.2f} billion parameters"
    facts = [
        f"{code(loaded.id)} ({loaded.source})",
        None if loaded.revision is None else f"revision {code(loaded.revision)}",
        parameters,
        f"{units.size(loaded.bytes)} of weights" + (f" in {count} file{'s' if count != 1 else ''}" if count else ""),
        None if loaded.dtype is None else f"stored as {md(loaded.dtype)}",
        None if loaded.path in (None, loaded.id) else f"in {code(str(loaded.path))}",
        _loaded(result),
    ]
    return Markdown(", ".join(fact for fact in facts if fact) + ".")


def image_line(result: Result) -> Markdown:
    """Return the line that names the image, and what its containers' own start adds; "" for bare processes."""
    image, starts = result.image, container_starts(result)
    if image is None:
        return Markdown("")
    told = [f"{units.seconds(each.median)} {kind}" for kind, each in zip(_KINDS, starts, strict=False) if each.n]
    added = f"; a container's own start, {', '.join(told)}, is in no other figure" if told else ""
    return Markdown(f" Each load ran in a new container of {code(image.name)}, by {md(image.runtime)}{added}.")


def _loaded(result: Result) -> str | None:
    """Return devices and dtype of the model in the valid samples: one pair, or all if samples differ."""
    pairs = dict.fromkeys((", ".join(sample.devices), sample.dtype) for sample in result.valid)
    parts = [f"on {md(where)} as {md(dtype)}" for where, dtype in pairs if where]
    return f"loaded {'; '.join(parts)}" if parts else None


def loaded(result: Result) -> Markdown:
    """Return what the model held of its files, and what share a cold first token needed; "" in older results."""
    sentences = []
    held = result.model.loaded
    if held:
        buffers = f" and {held.buffer_elements:,} of persistent buffers" if held.buffer_elements else ""
        sentences.append(
            f"{code(held.class_name)} held {held.parameters:,} elements of parameters{buffers}; "
            f"the files hold {held.stored_elements:,}."
        )
        if held.stored_twice.count:
            sentences.append(f"Stored beside what they are tied to: {_names(held.stored_twice)}.")
        if held.unplaced.count:
            sentences.append(
                f"Stored and not loaded, since the class has no place for them: {_names(held.unplaced)} "
                f"({held.unplaced_elements:,} elements)."
            )
        if held.quantization:
            sentences.append(f"The weights are quantised ({md(held.quantization)}).")
        if not held.is_cached:
            sentences.append("The class keeps no cache between tokens, so each token computes all of them again.")
    needed = result.summary.figure("cold_needed_share")
    if needed.n:
        why = "."
        if needed.median is not None and needed.median < _ALL:
            why = (
                ": they are a lazy mapping of the file, of which a token touches neither the embeddings of other words "
                "nor the experts that were not chosen."
            )
        sentences.append(
            f"The first token of a cold run needed {units.interval(needed, units.percent)} of the weights' bytes, "
            f"read-ahead included{why}"
        )
    return Markdown(" ".join(sentences))


def _names(found: Names) -> str:
    shown = ", ".join(code(name) for name in found.names)
    return shown + (f" and {found.count - len(found.names)} more" if found.count > len(found.names) else "")


def settings(result: Result) -> Markdown:
    """Return every wanted setting: before, now, verified, persistent."""
    tuning = result.tuning
    before = tuning.before
    rows = [
        [
            code(row.knob),
            _value(before.get(row.knob) if before else "no snapshot"),
            _value(row.runtime),
            _value(row.desired),
            Markdown("yes" if row.runtime == row.desired else "no"),
            _kept(row, result.host.systemd),
        ]
        for row in tuning.rows
    ]
    return (
        table(["Setting", "Before", "Now", "Asked for", "Verified", "Kept over a reboot"], rows) if rows else _NOTHING
    )


_NOTHING = Markdown("Nothing was asked for.")


def _value(value: str | None) -> Markdown:
    return md("absent" if value is None else value)


def _kept(row: SettingRow, systemd: bool | None) -> Markdown:
    if row.persisted != row.desired:
        return Markdown("no" if row.persisted is None else f"no: {md(row.persisted)}")
    if systemd is False:
        return code(row.source) if row.source else Markdown("waits for systemd")
    return Markdown(f"yes, {code(row.source)}" if row.source else "yes")


def times(result: Result) -> Markdown:
    """Return load, first, second and steady token, cold and warm, with intervals."""
    metrics = {
        "Load: start of the process to weights loaded": "load_real_s",
        "Time to first token: start of the process to first token": "time_to_first_token_s",
        "Second token alone": "second_token_s",
    }
    summary = result.summary
    # Older results have no steady token.
    if any(summary.figure(f"{kind}_steady_token_s").n for kind in _KINDS):
        metrics["Steady token: nothing is done for the first time"] = "steady_token_s"
    rows = [
        [name, *(Markdown(units.interval(summary.figure(f"{kind}_{metric}"), units.seconds)) for kind in _KINDS)]
        for name, metric in metrics.items()
    ]
    starts = container_starts(result)
    if starts:
        rows.insert(
            0,
            [
                "Start of the container, in no other time",
                *(Markdown(units.interval(each, units.seconds)) for each in starts),
            ],
        )
    return table(["", "Cold", "Warm"], rows)


def container_starts(result: Result) -> list[Figure]:
    """Return what the start of a container took, cold and warm; nothing for bare processes."""
    found = [
        statistics.figure(
            sample.container_start_s
            for sample in result.samples
            if sample.kind == kind and sample.container_start_s is not None
        )
        for kind in _KINDS
    ]
    return found if any(each.n for each in found) else []


def phases_table(result: Result) -> Markdown:
    """Return the seconds of every phase, and what a cold one reads."""
    rows = [
        [
            phases.label(name),
            *(Markdown(units.seconds(result.summary.median(f"{kind}_phase_{name}_s"))) for kind in _KINDS),
            Markdown(_cold_minus_warm(result, name)),
            Markdown(units.size(_cold_median(result, name, lambda phase: phase.read_bytes))),
        ]
        for name in result.summary.phases
    ]
    starts = container_starts(result)
    if starts:
        medians = [each.median for each in starts]
        seconds = [Markdown(units.seconds(each)) for each in medians]
        more = Markdown(_difference(*medians))
        rows.insert(0, ["container, before the process", *seconds, more, Markdown(units.size(None))])
    header = ["Phase", "Cold", "Warm", "Cold minus warm", "Read, cold"]
    return table(header, rows, numbers=range(1, 5)) if rows else Markdown("No valid sample got through a phase.")


def _cold_minus_warm(result: Result, name: str) -> str:
    """Return what a phase costs more when it is cold; it may be negative, since medians scatter."""
    return _difference(*(result.summary.median(f"{kind}_phase_{name}_s") for kind in _KINDS))


def _difference(cold: float | None, warm: float | None) -> str:
    if cold is None or warm is None:
        return units.seconds(None)
    if abs(cold - warm) < _FINEST_S:
        return "under 1 ms"
    return f"{'-' if cold < warm else ''}{units.seconds(abs(cold - warm))}"


def _cold_median(result: Result, name: str, counter: Callable[[Phase], int | None]) -> float | None:
    found = (sample.phase(name) for sample in result.samples if sample.kind == "cold")
    return statistics.figure(counter(phase) for phase in found if phase).median


def held(result: Result) -> Markdown:
    """Return the memory of the process in five rows."""
    sizes = {
        "Resident (RSS)": "rss_bytes",
        "Anonymous memory, on which THP works": "anon_bytes",
        "of it THP-backed": "anon_huge_bytes",
        "From reserved pools, in neither RSS nor PSS": "hugetlb_bytes",
        "Read from storage": "read_bytes",
    }
    rows = [
        [name, *(Markdown(units.size(result.summary.median(f"{kind}_{metric}"))) for kind in _KINDS)]
        for name, metric in sizes.items()
    ]
    return table(["", "Cold", "Warm"], rows, numbers=(1, 2))


def memory(result: Result) -> Markdown:
    """Return the other figures of the process's memory."""
    sizes: Mapping[str, tuple[str, Callable[[float | None], str]]] = {
        "VSZ, virtual": ("vsz_bytes", units.size),
        "PSS, shared pages divided among their users": ("pss_bytes", units.size),
        "USS, this process alone": ("uss_bytes", units.size),
        "Backed by: files, PMD-mapped": ("file_pmd_bytes", units.size),
        "Backed by: shared memory, PMD-mapped": ("shmem_pmd_bytes", units.size),
        "Minor page faults": ("minor_faults", units.count),
        "Major page faults": ("major_faults", units.count),
    }
    rows = [
        [name, *(Markdown(unit(result.summary.median(f"{kind}_{metric}"))) for kind in _KINDS)]
        for name, (metric, unit) in sizes.items()
    ]
    return table(["", "Cold", "Warm"], rows, numbers=(1, 2))


def disk(result: Result) -> Markdown:
    """Return the disk's ceiling and the share of it that a cold load reached."""
    ceiling = result.ceiling
    if not ceiling or not ceiling.bytes_per_s:
        return Markdown("The disk's ceiling was not measured.")
    figure = statistics.figure(ceiling.bytes_per_s)
    share = statistics.figure(_capped(value) for value in result.summary.figure("cold_ceiling_share").values)
    flag = " A layer below this host caches (guest-cold): this is not the disk alone." if ceiling.guest_cold else ""
    return Markdown(
        f"{_way_read(ceiling)}: {units.interval(figure, units.rate)}.{flag} "
        "Share of it that a cold run reached between tokenizer and first token: "
        f"{units.interval(share, units.percent)}.{_tried(ceiling.trials)}"
    )


def _capped(share: float | None) -> float | None:
    """Return a share of the ceiling, at most 1: loads could exceed the less exact ceiling of older results."""
    return None if share is None else min(1.0, share)


def _way_read(ceiling: Ceiling) -> str:
    if ceiling.trials:
        return "The same files read from a cold page cache in several ways, the best of each pass"
    streams = f" in {ceiling.streams} streams" if ceiling.streams else ""
    return f"The same files read directly (O_DIRECT){streams}"


def _tried(trials: Iterable[CeilingTrial]) -> str:
    """Return a table of the read methods tried, the fastest first; "" for older results, which tried one."""
    ways: dict[tuple[str, int, int], list[CeilingTrial]] = {}
    for trial in trials:
        ways.setdefault((trial.how, trial.streams, trial.chunk_bytes), []).append(trial)
    medians = {way: statistics.figure(trial.bytes_per_s for trial in tried).median for way, tried in ways.items()}
    rows = [
        [
            _HOW[way[0]],
            way[1],
            Markdown(units.size(way[2])),
            Markdown(units.rate(medians[way])),
            "; ".join(dict.fromkeys(trial.reason for trial in ways[way] if trial.reason)),
        ]
        for way in sorted(ways, key=lambda way: medians[way] or 0.0, reverse=True)
    ]
    header = ["Read by", "Streams", "At a time", "Median", "Why no rate"]
    return f"\n\n{table(header, rows, numbers=(1, 2, 3))}" if rows else ""


_HOW = {
    "direct": "direct reads (O_DIRECT)",
    "buffered": "buffered reads",
    "populate": "mappings, populated (MADV_POPULATE_READ)",
}


def pools(result: Result) -> Markdown:
    """Return the pools with their cost, their users, and the mounts that offer them."""
    tuning = result.tuning
    held = [pool for pool in tuning.pools if pool.total or pool.knob in tuning.desired]
    if not held:
        return Markdown("No pool holds a page, so pools cost nothing.")
    rows = [
        [
            code(pool.knob),
            *(Markdown(units.count(pages)) for pages in (pool.total, pool.free)),
            # The kernel counts reserved pages only for a whole size, not for each node.
            Markdown("-" if pool.reserved is None else units.count(pool.reserved)),
            Markdown(units.count(pool.surplus)),
            Markdown(units.size(pool.total * pool.size_bytes)),
            Markdown(units.size(pool.idle_bytes)),
        ]
        for pool in held
    ]
    header = ["Pool", "Pages", "Free", "Reserved", "Surplus", "Takes", "Idle: nobody else can use it"]
    parts = [table(header, rows, numbers=range(1, 7)), _users(tuning.pool_users)]
    if tuning.mounts:
        mounts = [[code(mount.path), md(mount.options), mount.stacked] for mount in tuning.mounts]
        parts.append(table(["hugetlbfs mount", "Options", "Mounts on this path"], mounts, numbers=(2,)))
    return Markdown("\n\n".join(parts))


def _users(users: Iterable[PoolUser]) -> Markdown:
    rows = [[code(user.name), user.pid, Markdown(units.size(user.bytes))] for user in users]
    return table(["Used by", "Process", "Maps"], rows, numbers=(1, 2)) if rows else Markdown("No process uses a pool.")


def gpus(result: Result) -> Markdown:
    """Return the devices, how the load uses their memory, and their copy rates; "" without a GPU."""
    host = result.host
    if not host.gpus:
        return Markdown("")
    driver = f"Driver {md(host.gpu_driver)}, CUDA {md(host.cuda)}, torch {md(result.software.get('torch'))}."
    header = ["GPU", "Name", "Memory", "PCIe link", "Persistence mode", "Others on it at the end"]
    rows = [
        [
            gpu.index,
            gpu.name,
            Markdown(units.size(gpu.memory_bytes)),
            _link(gpu),
            _ON[gpu.persistence_mode],
            _foreign(gpu),
        ]
        for gpu in host.gpus
    ]
    return Markdown("\n\n".join(filter(None, [driver, table(header, rows), _gpu_use(result), _feeding(result)])))


def _link(gpu: Gpu) -> str:
    if not gpu.pcie_generation or not gpu.pcie_width:
        return "unknown"
    now = f"generation {gpu.pcie_generation}, {gpu.pcie_width} lanes"
    most = (gpu.pcie_generation_max, gpu.pcie_width_max)
    if None in most or most == (gpu.pcie_generation, gpu.pcie_width):
        return now
    return f"{now} (up to generation {most[0]}, {most[1]} lanes)"


def _foreign(device: Gpu) -> Markdown:
    names = [
        f"{p.get('name')} (pid {p.get('pid')})" if isinstance(p, Mapping) else str(p) for p in device.foreign_processes
    ]
    return Markdown(", ".join(md(name) for name in names) or "none")


def _gpu_use(result: Result) -> Markdown:
    """Return medians by kind and device."""
    fields = ("memory_before_bytes", "memory_after_bytes", "allocated_bytes", "peak_bytes")
    rows = []
    for kind in _KINDS:
        uses = [use for sample in result.samples if sample.kind == kind for use in sample.gpu or []]
        medians = {}
        for index in sorted({use.shown_index for use in uses}):
            mine = [use for use in uses if use.shown_index == index]
            medians[index] = [statistics.figure(getattr(use, field) for use in mine).median for field in fields]
            rows.append([kind, index, *(Markdown(units.size(value)) for value in medians[index])])
        if len(medians) > 1:
            sums = [_sum(values) for values in zip(*medians.values(), strict=True)]
            rows.append([kind, "all", *(Markdown(units.size(value)) for value in sums)])
    header = ["Load", "GPU", "In use before", "With the model held", "torch holds", "torch's peak"]
    return table(header, rows, numbers=range(1, 6)) if rows else Markdown("")


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum; None if any value is unknown."""
    known = list(values)
    return None if None in known else sum(each for each in known if each is not None)


def _feeding(result: Result) -> Markdown:
    """Return copy rates by device, and the share of them that the weights reach."""
    copies = result.copy_rates
    if not copies:
        return Markdown("Host-to-device rates were not measured.")
    # torch numbers only the devices that it sees; people know nvidia-smi's numbers.
    shown = {use.index: use.shown_index for sample in result.samples for use in sample.gpu or []}
    rows = [
        [shown.get(copy.index, copy.index), *(Markdown(units.rate(copy.rate(way))) for way in ("pinned", "pageable"))]
        for copy in copies
    ]
    reached = []
    for kind in _KINDS:
        rate = result.weights_rate(kind)
        shares = [
            f"{units.percent(share_of(rate, limit))} of {way} copies"
            for way in ("pinned", "pageable")
            if rate and (limit := result.host_to_device(way))
        ]
        if rate and shares:
            reached.append(f"{kind} weights arrive at {units.rate(rate)}: {', '.join(shares)}")
    text = f"In the weights phase the {'; the '.join(reached)}." if reached else ""
    limits = table(["GPU", "Host to device, pinned", "Host to device, pageable"], rows, numbers=range(3))
    return Markdown("\n\n".join(filter(None, [limits, text])))


def noise(result: Result) -> Markdown:
    """Return how many samples are noisy; the notes have the reasons."""
    recorded = [sample.noise for sample in result.samples if sample.noise]
    if not recorded:
        return Markdown("Noise was not recorded.")
    noisy = sum(item.noisy for item in recorded)
    count = f"Noisy samples: {noisy} of {len(recorded)}, for the reasons in the notes above."
    found = count if noisy else "No sample met other work that could disturb it."
    psi = " Pressure stall information (PSI) is unavailable on this kernel." if result.host.psi is False else ""
    return Markdown(f"{found}{psi}")


def samples(result: Result) -> Markdown:
    """Return every sample, the excluded ones too."""
    rows = [
        [
            sample.block,
            sample.wanted,
            sample.kind,
            Markdown(units.seconds(sample.load_real_s)),
            Markdown(units.seconds(sample.time_to_first_token_s)),
            Markdown(units.percent(sample.resident_before)),
            Markdown(units.size(sample.read_bytes)),
            Markdown(units.percent(_capped(sample.ceiling_share))) if sample.wanted == "cold" else Markdown(""),
            "noisy" if sample.is_noisy else "",
            sample.reason or "",
        ]
        for sample in result.samples
    ]
    header = ["Block", "Wanted", "Kind", "Load", "First token", "Resident before", "Read", "Of disk ceiling", "Noise"]
    return table([*header, "Reason"], rows, numbers=(0, 3, 4, 5, 6, 7))


def failures(result: Result) -> Markdown:
    """Return what failed loaders wrote to stderr; "" if none did."""
    parts = [
        f"Block {sample.block}, {sample.wanted}, failed with:\n\n{fenced(sample.stderr_tail)}"
        for sample in result.samples
        if sample.kind == "failed" and sample.stderr_tail
    ]
    return Markdown("\n\n".join(parts))


def setup(result: Result) -> Markdown:
    """Return host, software and protocol: comparable results have the same ones."""
    host, protocol = result.host, result.protocol
    nodes = f"{host.numa_nodes} NUMA node{'' if host.numa_nodes == 1 else 's'}"
    disk_facts, files = host.disk, host.filesystem
    rows = {
        "Kernel": f"{host.kernel} ({host.arch})",
        "Distribution": host.distribution,
        "CPU": f"{host.cpu_model or 'unknown model'}, {host.cpus} CPUs, {nodes}",
        "Memory": Markdown(units.size(host.memory_bytes)),
        "Disk": _disk_facts(disk_facts),
        "Filesystem": f"{files.type} on {files.mount_point}" if files else "unknown",
        "Software": ", ".join(f"{name} {version}" for name, version in result.software.items() if version),
        "Image": f"{result.image.name} ({result.image.digest}), in {result.image.runtime}" if result.image else None,
        "Cold means": COLD_SCOPES[protocol.cold_scope],
        "Blocks": f"{protocol.blocks}, each one cold and one warm load",
        "Loader runs as": protocol.user,
        "dtype asked for": protocol.dtype,
        "Loader, SHA-256": code(protocol.loader_sha256) if protocol.loader_sha256 else None,
    }
    told = {name: value for name, value in rows.items() if value is not None or name != "Image"}
    return table(["", ""], [[name, md(value, limit=400)] for name, value in told.items()])


def _disk_facts(facts: Disk | None) -> str:
    if not facts:
        return "unknown"
    # This is the kernel's value, not ours: it reports many virtual disks as rotating.
    turns = "rotating" if facts.rotational else "not rotating"
    kind = "of unknown kind" if facts.rotational is None else f"reported by the kernel as {turns}"
    ahead = "" if facts.read_ahead_bytes is None else f", read-ahead {units.size(facts.read_ahead_bytes)}"
    return f"{facts.device}, {facts.model or 'unknown model'}, {kind}{ahead}"
