"""A coverage-guided fuzzer (atheris) over every parser: `python tests/fuzz/fuzz_parsers.py --seconds 60`.

Each target is fuzzed in a process of its own for its share of the time, from its golden texts and whatever earlier
runs found. Prints a line a target; exits 1 where one broke, with the input that did it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

import atheris

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = REPOSITORY / ".cache/fuzz"
_DONE = re.compile(r"Done ([0-9]+) runs")
_COVERAGE = re.compile(r"cov: ([0-9]+)")
_LONGEST = 8192

sys.path.insert(0, str(REPOSITORY))
with atheris.instrument_imports(include=["ansible.module_utils.slm_baseline", "analysis"]):
    import tests.conftest  # noqa: F401 - makes the target-side code importable
    from tests.fuzz.targets import TARGETS, Target


@dataclass(frozen=True)
class Run:
    """What fuzzing one target came to."""

    target: Target
    executions: int
    coverage: int
    crash: str


def fuzz(target: Target, seconds: int) -> Run:
    """Fuzz one target in a child, since libFuzzer ends the process it runs in."""
    corpus = CORPUS / re.sub(r"[^a-z0-9]+", "-", target.name.lower())
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed.encode())
    folder = Path(tempfile.mkdtemp(prefix="slm-fuzz-", dir="/dev/shm"))
    try:
        pid = os.fork()
        if pid == 0:
            # The child's own temporary files go the same way, however it ends.
            tempfile.tempdir = str(folder)
            _become_fuzzer(target, corpus, seconds, folder / "log")
        os.waitpid(pid, 0)
        text = (folder / "log").read_text(errors="replace")
    finally:
        shutil.rmtree(folder)
    done = _DONE.search(text)
    coverage = _COVERAGE.findall(text)
    crash = "" if done and "Uncaught" not in text and "ERROR: libFuzzer" not in text else text[-4000:]
    return Run(target, int(done[1]) if done else 0, int(coverage[-1]) if coverage else 0, crash)


def _become_fuzzer(target: Target, corpus: Path, seconds: int, log: Path) -> None:
    """In the child: fuzz to the end of the time or to the first crash. Does not return."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    crashes = CORPUS / "crashes"
    crashes.mkdir(exist_ok=True)

    def once(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        try:
            target.survives(text)
        except BaseException:
            print("Uncaught in", target.name, "with", ascii(text[:2000]), flush=True)
            traceback.print_exc()
            sys.stderr.flush()
            raise

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-artifact_prefix={crashes}/{corpus.name}-",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]
    try:
        atheris.Setup([sys.argv[0], *options, str(corpus)], once)
        atheris.Fuzz()
    finally:
        # Whatever the parent would do on its way out is not the child's.
        os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="time for all targets together")
    parser.add_argument("--only", help="one target by name, as the list of a run spells it")
    arguments = parser.parse_args()
    targets = [target for target in TARGETS if arguments.only in (None, target.name)]
    if not targets:
        parser.error(f"no target {arguments.only!r}; there are: {', '.join(target.name for target in TARGETS)}")
    seconds = max(1, arguments.seconds // len(targets))
    runs = []
    for target in targets:
        run = fuzz(target, seconds)
        runs.append(run)
        end = "BROKE" if run.crash else "survived"
        print(f"{target.name:20} {run.executions:>9,} executions  coverage {run.coverage:>4}  {end}", flush=True)
        if run.crash:
            print(run.crash)
    broken = [run.target.name for run in runs if run.crash]
    verdict = f"broken: {', '.join(broken)}" if broken else "none broke"
    print(f"{len(runs)} targets, {sum(run.executions for run in runs):,} executions, {verdict}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
