"""Noise: what else the host did while a sample ran, and whether that was enough to call the sample noisy.

Sources: /proc/stat (Documentation/filesystems/proc.rst), /proc/pressure (Documentation/accounting/psi.rst).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...host.errors import ParseError
from ...host.files import Host
from .canary import Canary, CanaryReading, noise_reasons

OTHERS_CPU_SHARE = 0.10
"""Threshold of noise: other processes' CPU time over that of all CPUs."""
STEAL_SHARE = 0.02
"""Threshold of noise: time that the hypervisor gave to others."""
MEMORY_STALL_SHARE = 0.02
"""Threshold of noise: time in which some task waited for memory."""

_RESOURCES = ("cpu", "io", "memory")
_NUMBER = re.compile(r"[0-9]{1,20}")
_PSI_SOME = re.compile(r"^some .*\btotal=([0-9]{1,20})$", re.MULTILINE)


_UTIME, _CSTIME, _STARTTIME = 14 - 3, 17 - 3, 22 - 3
"""Indexes of utime (to cstime, with those between) and starttime among the fields after a process's name in
/proc/PID/stat; index 0 is its third field (proc_pid_stat(5)).
"""
_NAMED = 3
_NAMED_SHARE = 0.01
"""At most this many other processes are named, and none that used a smaller share of the CPUs."""

ProcessTimes = Mapping[tuple[int, int], tuple[str, float]]
"""Name and CPU seconds, including ended children, by pid and start."""


@dataclass(frozen=True)
class Activity:
    """The host's counters at one instant. `stalled_us` is PSI's `some` total by resource; None without PSI.

    `processes` are those alive then, without this one.
    """

    busy_s: float
    steal_s: float
    total_s: float
    load_1m: float
    uptime_s: float
    stalled_us: dict[str, int] | None
    processes: ProcessTimes = field(default_factory=dict)


@dataclass(frozen=True)
class Noise:
    """What else the host did while a sample ran. Shares are 0..1; `psi` has the share stalled by resource.

    `psi` is None without PSI, `load_1m` the load average before the sample. `canary` has the seconds of its pieces by
    name (canary.py), None in older samples.
    """

    noisy: bool
    reasons: tuple[str, ...]
    load_1m: float
    others_cpu_share: float
    steal_share: float
    psi: dict[str, float] | None
    foreign_gpu_processes: int
    canary: dict[str, float] | None = None
    canary_slowdown: float | None = None
    canary_waited_s: float | None = None

    def with_canary(self, canary: Canary, best: CanaryReading | None) -> Noise:
        """Return the noise with the canary's times, and one more reason for each slow piece of work."""
        noise = replace(self, canary=canary.seconds(), canary_slowdown=canary.slowdown, canary_waited_s=canary.waited_s)
        for reason in noise_reasons(canary, best):
            noise = noise.with_reason(reason)
        return noise

    def with_reason(self, reason: str | None) -> Noise:
        """Return the noise with one more reason; None adds nothing."""
        return replace(self, noisy=True, reasons=(*self.reasons, reason)) if reason else self


def parse_cpu_times(stat: str, ticks_per_s: int) -> tuple[float, float, float]:
    """Parse the first line of /proc/stat: busy, stolen and all CPU seconds since boot, of all CPUs."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu" or not all(map(_NUMBER.fullmatch, fields[1:])):
        raise ParseError("/proc/stat", "`cpu` and at least eight numbers", stat)
    # guest time is already included in user time, so it is left out.
    user, nice, system, idle, iowait, irq, softirq, steal = (int(field) / ticks_per_s for field in fields[1:9])
    busy = user + nice + system + irq + softirq
    return busy, steal, busy + idle + iowait + steal


def parse_stalled_us(pressure: str) -> int:
    """Parse a file of /proc/pressure: microseconds since boot in which some task stalled."""
    match = _PSI_SOME.search(pressure)
    if not match:
        raise ParseError("/proc/pressure", "a line `some avg10=... total=number`", pressure)
    return int(match[1])


def parse_process_times(stat: str, ticks_per_s: int) -> tuple[str, int, float]:
    """Parse /proc/PID/stat: a process's name, start in ticks, and CPU seconds; ParseError for other text.

    The name, in parentheses, may hold blanks, parentheses and anything else that its owner likes.
    """
    before, _, after = stat.rpartition(")")
    fields = after.split()
    times = fields[_UTIME : _CSTIME + 1]
    if len(fields) <= _STARTTIME or not all(map(_NUMBER.fullmatch, [*times, fields[_STARTTIME]])):
        raise ParseError("/proc/PID/stat", "a name and at least 20 fields", stat)
    name = "".join(char for char in before.partition("(")[2] if char.isprintable())
    return name.partition("/")[0][:32] or "?", int(fields[_STARTTIME]), sum(map(int, times)) / ticks_per_s


def read_process_times(host: Host) -> ProcessTimes:
    """Read the times of every process but this one; those that end meanwhile are skipped."""
    ticks, own = os.sysconf("SC_CLK_TCK"), str(os.getpid())
    found = {}
    for pid in host.names("/proc"):
        if pid.isdecimal() and pid.isascii() and pid != own:
            with contextlib.suppress(ParseError):
                name, started, cpu_s = parse_process_times(host.read_or_none(f"/proc/{pid}/stat") or "", ticks)
                found[int(pid), started] = name, cpu_s
    return found


def busiest(before: ProcessTimes, after: ProcessTimes, total_s: float) -> list[str]:
    """Return up to three names that used most CPU time between two readings; processes of one name count together."""
    used: dict[str, float] = {}
    for identity, (name, cpu_s) in after.items():
        used[name] = used.get(name, 0.0) + max(0.0, cpu_s - before.get(identity, ("", 0.0))[1])
    most = sorted(used, key=lambda name: -used[name])[:_NAMED]
    return [name for name in most if used[name] >= _NAMED_SHARE * total_s]


def has_psi(host: Host) -> bool:
    """Return whether the kernel offers pressure stall information; with psi=0 the files exist but cannot be read."""
    return host.read_or_none("/proc/pressure/cpu") is not None


def read_activity(host: Host) -> Activity:
    """Read the host's counters now."""
    pressure = {name: host.read_or_none(f"/proc/pressure/{name}") for name in _RESOURCES}
    stalled = {name: parse_stalled_us(text) for name, text in pressure.items() if text is not None}
    load, uptime = host.read("/proc/loadavg").split(), host.read("/proc/uptime").split()
    return Activity(
        *parse_cpu_times(host.read("/proc/stat"), os.sysconf("SC_CLK_TCK")),
        load_1m=float(load[0]),
        uptime_s=float(uptime[0]),
        stalled_us=stalled or None,
        processes=read_process_times(host),
    )


def judge_noise(before: Activity, after: Activity, own_cpu_s: float, foreign_gpu: int = 0) -> Noise:
    """Judge the sample's `noise`: values, and in `reasons` each that reached its threshold.

    `own_cpu_s` is the loader's own CPU time, `foreign_gpu` how many processes of others were on the GPUs. Load average
    and the stalls on CPU and disk are reported but not judged: the loader itself and the one before cause them too.
    """
    elapsed_s = max(after.uptime_s - before.uptime_s, 0.01)
    total_s = max(after.total_s - before.total_s, 0.01)
    others = max(0.0, after.busy_s - before.busy_s - own_cpu_s) / total_s
    steal = max(0.0, after.steal_s - before.steal_s) / total_s
    stalls = None
    if before.stalled_us is not None and after.stalled_us is not None:
        stalls = {
            f"{name}_share": round((after.stalled_us[name] - count) / 1e6 / elapsed_s, 4)
            for name, count in before.stalled_us.items()
            if name in after.stalled_us
        }
    reasons = []
    if others >= OTHERS_CPU_SHARE:
        names = ", ".join(busiest(before.processes, after.processes, total_s))
        reasons.append(f"other processes used {others:.0%} of the CPUs" + (f": {names}" if names else ""))
    if steal >= STEAL_SHARE:
        reasons.append(f"the hypervisor took {steal:.0%} of the CPUs")
    if stalls and stalls.get("memory_share", 0.0) >= MEMORY_STALL_SHARE:
        reasons.append(f"tasks waited for memory {stalls['memory_share']:.0%} of the time")
    if foreign_gpu:
        reasons.append(f"{foreign_gpu} other process(es) on the GPU")
    return Noise(
        noisy=bool(reasons),
        reasons=tuple(reasons),
        load_1m=before.load_1m,
        others_cpu_share=round(others, 4),
        steal_share=round(steal, 4),
        psi=stalls,
        foreign_gpu_processes=foreign_gpu,
    )
