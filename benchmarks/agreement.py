"""Do our medians agree with hyperfine's? The same loader, cold and warm, alternately in one run.

Each pair is one observed load (`load_real_s`) and one load timed by hyperfine, in random order; before each
the page cache is brought into the same state. hyperfine runs the loader without a shell, as the same user with the same
environment, and until the weights are loaded; its time also includes the end of the process. Prints both medians and
the median of the paired ratios, ours over hyperfine's, with a bootstrap interval.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import statistics
import subprocess
import sys

from ansible.module_utils.slm_baseline.host.accounts import run_as
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.protocol import WANTED, Subject

from benchmarks.subject import Benchmark, Effect, load_real_s, loaders_environment, observed, prepare, until_loaded

HYPERFINE = "/usr/bin/hyperfine"
WITHIN = 0.05
BENCHMARK = Benchmark("agreement", "Do our medians agree with hyperfine's?", HYPERFINE, "hyperfine", pairs=10)


def by_hyperfine(subject: Subject) -> float:
    """Time one load with hyperfine; return the seconds."""
    with loaders_environment(subject) as environment:
        export = os.path.join(environment["HOME"], "hyperfine.json")
        subprocess.run(
            [HYPERFINE, "--shell=none", "--runs=1", "--export-json", export, shlex.join(until_loaded(subject))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment,
            check=True,
            **run_as(subject.loader.account),
        )
        with open(export, encoding="utf-8") as stream:
            seconds = float(json.load(stream)["results"][0]["times"][0])
    return seconds


def compare(host: Host, subject: Subject, pairs: int, rng: random.Random) -> int:
    """Measure the pairs of each state, print them and the agreement; return 0 if both are within the limit."""
    effects = [_compare(host, subject, pairs, rng, wanted) for wanted in WANTED]
    return 0 if all(abs(effect.median) <= WITHIN for effect in effects) else 1


def _compare(host: Host, subject: Subject, pairs: int, rng: random.Random, wanted: str) -> Effect:
    ours: list[float] = []
    theirs: list[float] = []
    for pair in range(pairs):
        for kind in rng.sample(("ours", "hyperfine"), k=2):
            prepare(host, subject, wanted)
            if kind == "ours":
                ours.append(load_real_s(observed(subject)))
            else:
                theirs.append(by_hyperfine(subject))
        print(f"{wanted} pair {pair + 1} of {pairs}: ours {ours[-1]:.3f} s, hyperfine {theirs[-1]:.3f} s", flush=True)
    effect = Effect.of([mine / other for mine, other in zip(ours, theirs, strict=True)])
    medians = f"ours {statistics.median(ours):.3f} s, hyperfine {statistics.median(theirs):.3f} s"
    print(f"{wanted}: medians {medians}; ours against hyperfine {effect}: {effect.verdict(WITHIN)}", flush=True)
    return effect


if __name__ == "__main__":
    sys.exit(BENCHMARK.run(compare))
