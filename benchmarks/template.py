"""Does a template's child load the weights as a fresh process does? Weights to first token of both, cold and warm.

Each pair is one load by a fresh process and one by a child of a template that has imported everything, in random
order, from the same state of the page cache. Prints both medians and the median of the paired ratios, child over
fresh process, with a bootstrap interval, for wall time and for CPU time, which other work on the machine affects far
less.
"""

from __future__ import annotations

import random
import statistics
import sys
from dataclasses import dataclass, replace

from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.loader.process import Observation, observe
from ansible.module_utils.slm_baseline.measuring.loader.template import Template, TemplateFailed, template
from ansible.module_utils.slm_baseline.measuring.protocol import WANTED, Subject, prepare_weights

from benchmarks.subject import Benchmark, Effect

WITHIN = 0.02
BENCHMARK = Benchmark("template", "Does a template's child load as a fresh process does?", sys.executable, "", pairs=15)


@dataclass(frozen=True)
class Weights:
    """From the tokenizer to the first token: seconds of wall time, CPU seconds and minor faults."""

    real_s: float
    cpu_s: float
    minor_faults: int

    @staticmethod
    def of(run: Observation) -> Weights:
        """Return the values of one load; exit if it failed."""
        if run.problem:
            raise SystemExit(f"the loader failed: {run.problem}\n{run.stderr_tail}")
        ready, first = run.events.marks["tokenizer"], run.events.marks["first_token"]
        cpu_s = first.cpu_user_s + first.cpu_system_s - ready.cpu_user_s - ready.cpu_system_s
        return Weights((first.t_ns - ready.t_ns) / 1e9, cpu_s, first.minor_faults - ready.minor_faults)


def compare(_host: Host, subject: Subject, pairs: int, rng: random.Random) -> int:
    """Measure the pairs of each state, print them and the differences; return 0 if both are within the limit."""
    loader = replace(subject.loader, arguments=("--model", subject.model.path))
    whole = replace(subject, loader=loader)
    try:
        with template(loader) as running:
            effects = [_compare(whole, running, pairs, rng, wanted) for wanted in WANTED]
    except TemplateFailed as error:
        raise SystemExit(f"template: {error}") from error
    return 0 if all(abs(effect.median) <= WITHIN for effect in effects) else 1


def _compare(subject: Subject, running: Template, pairs: int, rng: random.Random, wanted: str) -> Effect:
    fresh: list[Weights] = []
    forked: list[Weights] = []
    # The first pair may read what the others find in memory, so it is not counted.
    for pair in range(pairs + 1):
        for kind in rng.sample(("fresh", "forked"), k=2):
            prepare_weights(subject, wanted)
            run = observe(subject.loader, lambda pid: None) if kind == "fresh" else running.observe(lambda pid: None)
            if pair:
                (fresh if kind == "fresh" else forked).append(Weights.of(run))
        if pair:
            times = f"fresh {fresh[-1].real_s:.3f} s, forked {forked[-1].real_s:.3f} s"
            print(f"{wanted} pair {pair} of {pairs}: {times}", flush=True)
    effect = Effect.of([child.real_s / process.real_s for child, process in zip(forked, fresh, strict=True)])
    cpu = Effect.of([child.cpu_s / process.cpu_s for child, process in zip(forked, fresh, strict=True)])
    faults = [statistics.median(each.minor_faults for each in loads) for loads in (fresh, forked)]
    medians = [statistics.median(each.real_s for each in loads) for loads in (fresh, forked)]
    print(f"{wanted}: weights to first token, medians: fresh {medians[0]:.3f} s, forked {medians[1]:.3f} s")
    print(f"{wanted}: forked against fresh: time {effect}: {effect.verdict(WITHIN)}")
    print(f"{wanted}: CPU time {cpu}; minor faults {faults[0]:.0f} fresh, {faults[1]:.0f} forked", flush=True)
    return effect


if __name__ == "__main__":
    sys.exit(BENCHMARK.run(compare))
