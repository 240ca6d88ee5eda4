#!/usr/bin/env python3
"""Does the observer change what it observes? `load_real_s` against the same loader by hand under /usr/bin/time.

Both run `slm_load.py` warm on the same model as the same user; by hand it stops where load_real_s ends
(`--until loaded`). Pairs are interleaved and each pair's order is drawn. Prints the median ratio, observed over by
hand, with a bootstrap interval, and whether it lies within 2 %. Needs root, as measuring does, and GNU time.

By hand, the clock also runs over the end of the process, which the loader keeps short (it leaves by _exit) but which
has to give back all memory. What the observer itself costs is shown apart: its own CPU time per run, all of it spent
before the spawn, asleep in poll(2), or while the loader is held.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

from ansible.module_utils.slm_baseline.host import lease  # noqa: E402  found through the path above
from ansible.module_utils.slm_baseline.host.errors import SettingError  # noqa: E402
from ansible.module_utils.slm_baseline.host.files import Host  # noqa: E402
from ansible.module_utils.slm_baseline.measuring import page_cache  # noqa: E402  found through the path above
from ansible.module_utils.slm_baseline.measuring.loader_process import clean_environment, observe, run_as  # noqa: E402
from ansible.module_utils.slm_baseline.measuring.protocol import Subject  # noqa: E402
from ansible.module_utils.slm_baseline.measuring.run import make_subject, parse_request  # noqa: E402

TIME = "/usr/bin/time"
WITHIN = 0.02
RESAMPLES = 10_000
_TOLD = re.compile(r"^fidelity ([0-9.]+) ([0-9.]+) ([0-9.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """One load: seconds on the clock, and CPU seconds, which other work on the machine moves far less."""

    real_s: float
    cpu_s: float


def warm(subject: Subject) -> None:
    page_cache.warm([*subject.interpreter.all_files(), *subject.files])


def by_hand(subject: Subject) -> Load:
    """What GNU time says, to its hundredth of a second, of one load without an observer."""
    loader = subject.loader
    assert loader.account is not None
    with tempfile.TemporaryDirectory(dir=loader.scratch) as home:
        os.chown(home, loader.account.uid, loader.account.gid)
        answer = subprocess.run(
            [
                TIME,
                "-f",
                "fidelity %e %U %S",
                loader.python,
                loader.script,
                "--model",
                subject.model.path,
                "--until",
                "loaded",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=clean_environment(loader, home),
            check=True,
            **run_as(loader.account),
        )
    match = _TOLD.search(answer.stderr)
    if not match:
        raise SystemExit(f"fidelity: {TIME} said nothing: {answer.stderr[-300:]}")
    return Load(float(match[1]), float(match[2]) + float(match[3]))


def observed(subject: Subject, arguments: tuple[str, ...]) -> tuple[Load, float]:
    """One observed load (load_real_s), and the CPU seconds that the observer itself spent on it."""
    loader = replace(subject.loader, arguments=arguments)
    before = resource.getrusage(resource.RUSAGE_SELF)
    run = observe(loader, lambda pid: None)
    after = resource.getrusage(resource.RUSAGE_SELF)
    if run.problem:
        raise SystemExit(f"fidelity: the loader failed: {run.problem}\n{run.stderr_tail}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    loaded = run.events.marks["weights"]
    load = Load((loaded.t_ns - run.events.spawn_ns) / 1e9, loaded.cpu_user_s + loaded.cpu_system_s)
    return load, cpu_s


def interval(ratios: list[float], rng: random.Random) -> tuple[float, float]:
    """The percentile bootstrap interval (95 %) of the median."""
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


def main() -> int:
    parser = argparse.ArgumentParser(description="What does the observer cost?")
    parser.add_argument("--home", default="/opt/slm-baseline", help="slm_benchmark_home (default: %(default)s)")
    parser.add_argument("--python", default="", help="slm_benchmark_python")
    parser.add_argument("--model", default="qwen2.5-0.5b", help="default: %(default)s")
    parser.add_argument("--user", default="nobody", help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the order (default: %(default)s)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, as measuring does: sudo make bench")
    if not os.access(TIME, os.X_OK):
        parser.error(f"needs GNU time as {TIME} (Debian: apt-get install time)")
    if options.pairs < 2:
        parser.error("--pairs must be at least 2")
    fixed = {"base_python": "", "requirements": "", "revision": "", "hf_home": "", "offline": True}
    kept = {"dtype": "auto", "scope": "host", "blocks": 1, "timeout_s": 600}
    given = {name: getattr(options, name) for name in ("home", "python", "model", "user")}
    host, run = Host(), {"id": f"bench-{os.getpid()}"}
    try:
        # Under a lease, since a subject begins with an empty scratch: not that of a run at work.
        with lease.held(host, run):
            subject = make_subject(host, parse_request({**fixed, **kept, **given}))
            return compare(subject, options.pairs, random.Random(options.seed))
    except SettingError as error:
        raise SystemExit(f"fidelity: {error}") from error
    finally:
        lease.release(host, run["id"])


def compare(subject: Subject, pairs: int, rng: random.Random) -> int:
    """Measure the pairs, print them and their verdict; 0 where it is good."""
    arguments = ("--model", subject.model.path)
    ratios, cpu_ratios, costs = [], [], []
    # The first load of each kind may read what warming missed, so it is not counted.
    for pair in range(pairs + 1):
        loads = {}
        for kind in rng.sample(("by hand", "observed"), k=2):
            warm(subject)
            if kind == "by hand":
                loads[kind] = by_hand(subject)
            else:
                loads[kind], cost_s = observed(subject, arguments)
        if pair:
            seen, alone = loads["observed"], loads["by hand"]
            ratios.append(seen.real_s / alone.real_s)
            cpu_ratios.append(seen.cpu_s / alone.cpu_s)
            costs.append(cost_s)
            told = f"observed {seen.real_s:.3f} s, by hand {alone.real_s:.2f} s"
            print(f"pair {pair} of {pairs}: {told}, ratio {ratios[-1]:.4f}", flush=True)
    median, (low, high) = statistics.median(ratios), interval(ratios, rng)
    is_within = abs(median - 1) <= WITHIN
    print(f"median ratio {median:.4f} [{low:.4f}, {high:.4f}] over {len(ratios)} pairs")
    low_cpu, high_cpu = interval(cpu_ratios, rng)
    print(f"median ratio of CPU seconds {statistics.median(cpu_ratios):.4f} [{low_cpu:.4f}, {high_cpu:.4f}]")
    print(f"the observer used {statistics.median(costs) * 1e3:.1f} ms of CPU a run, most of it to start the loader")
    print(f"{'within' if is_within else 'NOT within'} {WITHIN:.0%}")
    if low < 1 - WITHIN or high > 1 + WITHIN:
        print("the interval reaches further: other work disturbs the clock; repeat it when the machine is quiet")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
