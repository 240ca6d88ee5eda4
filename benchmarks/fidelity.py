"""Does the observer change what it observes? `load_real_s` against the same loader by hand under GNU time.

Both load the same model warm as the same user; by hand the loader stops where load_real_s ends (`--until loaded`).
Pairs are interleaved, the order within each is random. Prints the observer's effect: the median of observed over by
hand, with a bootstrap interval.

By hand, the time also includes the end of the process, which the loader keeps short (it leaves by _exit) but which
has to free all memory. The observer's own cost is shown separately: its own CPU time per run, all of it spent
before the spawn, asleep in poll(2), or while the loader is held.
"""

from __future__ import annotations

import random
import re
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass

from ansible.module_utils.slm_baseline.host.accounts import run_as
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.protocol import Subject

from benchmarks.subject import Benchmark, Effect, load_real_s, loaders_environment, observed, prepare, until_loaded

TIME = "/usr/bin/time"
WITHIN = 0.02
BENCHMARK = Benchmark("fidelity", "What does the observer cost?", TIME, "time", pairs=15)
_TIMES = re.compile(r"^fidelity ([0-9.]+) ([0-9.]+) ([0-9.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """One load: seconds of wall time, and CPU seconds, which other work on the machine affects far less."""

    real_s: float
    cpu_s: float


def by_hand(subject: Subject) -> Load:
    """Run one load without an observer; return what GNU time reports, to a hundredth of a second."""
    with loaders_environment(subject) as environment:
        answer = subprocess.run(
            [TIME, "-f", "fidelity %e %U %S", *until_loaded(subject)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment,
            check=True,
            **run_as(subject.loader.account),
        )
    match = _TIMES.search(answer.stderr)
    if not match:
        raise SystemExit(f"fidelity: {TIME} gave no times: {answer.stderr[-300:]}")
    return Load(float(match[1]), float(match[2]) + float(match[3]))


def watched(subject: Subject) -> tuple[Load, float]:
    """Observe one load; return it and the CPU seconds that the observer itself spent on it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    run = observed(subject)
    after = resource.getrusage(resource.RUSAGE_SELF)
    loaded = run.events.marks["weights"]
    load = Load(load_real_s(run), loaded.cpu_user_s + loaded.cpu_system_s)
    return load, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(host: Host, subject: Subject, pairs: int, rng: random.Random) -> int:
    """Measure the pairs, print them and the observer's effect; return 0 if it is within the limit."""
    ratios, cpu_ratios, costs = [], [], []
    # The first load of each kind may read what the warm-up missed, so it is not counted.
    for pair in range(pairs + 1):
        loads = {}
        for kind in rng.sample(("by hand", "observed"), k=2):
            prepare(host, subject, "warm")
            if kind == "by hand":
                loads[kind] = by_hand(subject)
            else:
                loads[kind], cost_s = watched(subject)
        if pair:
            seen, alone = loads["observed"], loads["by hand"]
            ratios.append(seen.real_s / alone.real_s)
            cpu_ratios.append(seen.cpu_s / alone.cpu_s)
            costs.append(cost_s)
            times = f"observed {seen.real_s:.3f} s, by hand {alone.real_s:.2f} s"
            print(f"pair {pair} of {pairs}: {times}, ratio {ratios[-1]:.4f}", flush=True)
    effect = Effect.of(ratios)
    print(f"the observer's effect on load time: {effect}")
    print(f"the observer's effect on CPU time: {Effect.of(cpu_ratios)}")
    print(f"the observer used {statistics.median(costs) * 1e3:.1f} ms of CPU a run, most of it to start the loader")
    print(effect.verdict(WITHIN))
    return 0 if abs(effect.median) <= WITHIN else 1


if __name__ == "__main__":
    sys.exit(BENCHMARK.run(compare))
