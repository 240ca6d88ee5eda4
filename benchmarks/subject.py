"""The subject of every benchmark: one model and its loader on this machine, used under a lease."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ansible.module_utils.slm_baseline.host import lease
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.loader.process import Observation, clean_environment, observe
from ansible.module_utils.slm_baseline.measuring.probes import page_cache
from ansible.module_utils.slm_baseline.measuring.protocol import Subject
from ansible.module_utils.slm_baseline.measuring.run import make_subject, parse_request

from analysis import statistics

Compare = Callable[[Host, Subject, int, random.Random], int]
"""Measures this many pairs in an order drawn from the generator; returns the exit status."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its name and purpose, the program it needs and the Debian package that has it."""

    name: str
    about: str
    needs: str
    package: str
    pairs: int

    def run(self, compare: Compare, arguments: Sequence[str] | None = None) -> int:
        """Read the command line, make the subject under a lease, compare; print one line for what a user can fix."""
        options = self._options(arguments)
        host, run = Host(), {"id": f"bench-{os.getpid()}"}
        given = {name: getattr(options, name) for name in ("home", "python", "model", "user")}
        fixed = {"base_python": "", "requirements": "", "revision": "", "hf_home": "", "offline": True}
        kept = {"dtype": "auto", "scope": "host", "blocks": 1, "timeout_s": 600}
        try:
            # Under a lease, because a subject empties its scratch folder, which must not be that of an active run.
            with lease.held(host, run):
                subject = make_subject(host, parse_request({**fixed, **kept, **given}))
                return compare(host, subject, options.pairs, random.Random(options.seed))
        except SettingError as error:
            raise SystemExit(f"{self.name}: {error}") from error
        finally:
            lease.release(host, run["id"])

    def _options(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.about)
        parser.add_argument("--home", default="/opt/slm-baseline", help="slm_benchmark_home (default: %(default)s)")
        parser.add_argument("--python", default="", help="slm_benchmark_python")
        parser.add_argument("--model", default="qwen2.5-0.5b", help="default: %(default)s")
        parser.add_argument("--user", default="nobody", help="default: %(default)s")
        parser.add_argument("--pairs", type=int, default=self.pairs, help="default: %(default)s")
        parser.add_argument("--seed", type=int, default=1, help="of the order (default: %(default)s)")
        options = parser.parse_args(arguments)
        if os.geteuid() != 0:
            parser.error("needs root, as measuring does")
        if not os.access(self.needs, os.X_OK):
            parser.error(f"needs {self.needs} (Debian: apt-get install {self.package})")
        if options.pairs < statistics.FEWEST_FOR_INTERVAL:
            parser.error(f"--pairs must be at least {statistics.FEWEST_FOR_INTERVAL}")
        return options


def prepare(host: Host, subject: Subject, wanted: str) -> None:
    """Bring the page cache into the state from which both sides of a pair start: everything in it, or nothing."""
    if wanted == "warm":
        page_cache.warm([*subject.interpreter.all_files(), *subject.files])
    else:
        page_cache.drop_host_caches(host)
        page_cache.evict(subject.files)


def observed(subject: Subject) -> Observation:
    """Observe one load as for a sample; nothing is read of it while it holds the model."""
    run = observe(replace(subject.loader, arguments=("--model", subject.model.path)), lambda pid: None)
    if run.problem:
        raise SystemExit(f"the loader failed: {run.problem}\n{run.stderr_tail}")
    return run


def load_real_s(run: Observation) -> float:
    """Return the seconds from spawn to the loaded weights, as a sample has them."""
    return (run.events.marks["weights"].t_ns - run.events.spawn_ns) / 1e9


@contextlib.contextmanager
def loaders_environment(subject: Subject) -> Iterator[dict[str, str]]:
    """Yield the environment of a loader that is run by hand, with a home of its own."""
    loader = subject.loader
    with tempfile.TemporaryDirectory(dir=loader.scratch) as home:
        if loader.account is not None:
            os.chown(home, loader.account.uid, loader.account.gid)
        yield clean_environment(loader, home)


def until_loaded(subject: Subject) -> list[str]:
    """Return the loader's command for a run by hand: it ends where load_real_s does."""
    return [subject.loader.python, subject.loader.script, "--model", subject.model.path, "--until", "loaded"]


@dataclass(frozen=True)
class Effect:
    """The median of paired ratios with its 95 % interval, both as shares around 0: 0.01 is 1 % more."""

    median: float
    low: float
    high: float
    pairs: int

    @staticmethod
    def of(ratios: Sequence[float]) -> Effect:
        """Return the effect of at least `statistics.FEWEST_FOR_INTERVAL` ratios."""
        figure = statistics.figure(ratios)
        if figure.median is None or figure.ci_low is None or figure.ci_high is None:
            raise ValueError("too few pairs for an interval")
        return Effect(figure.median - 1, figure.ci_low - 1, figure.ci_high - 1, figure.n)

    def __str__(self) -> str:
        return f"{self.median:+.2%} [{self.low:+.2%}, {self.high:+.2%}] over {self.pairs} pairs"

    def verdict(self, limit: float) -> str:
        """Return whether the effect is within a limit, and whether the interval is, in words."""
        if abs(self.median) > limit:
            return f"NOT within {limit:.0%}"
        if self.low < -limit or self.high > limit:
            return f"within {limit:.0%}, and the interval reaches further: repeat it when the machine is quiet"
        return f"within {limit:.0%}"
