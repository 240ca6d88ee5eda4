"""How many small faults in a room the unit tests notice: `make mutation ROOM=plugins/module_utils/slm_baseline/host`.

cosmic-ray lists every mutation of the room's code; a sample drawn with a fixed seed is tried, one at a time, in a copy
of the working tree. A mutation that no test notices is printed with its diff. What changes no behaviour is left out:
annotations are never evaluated, and docstrings are no code. The tests of each run in a fork of this process, which has
pytest loaded: importing it takes longer than the tests of most rooms.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import ansible.module_utils.basic  # noqa: F401  imported once, for all forks
import hypothesis.strategies  # noqa: F401
import pytest
from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).resolve().parents[1]
PREFIXES = {"plugins/module_utils/slm_baseline": "tests/unit/target", "plugins/analysis": "tests/unit/control"}
PATIENCE_S = 300.0
_STEP_S = 0.02


def tests_of(room: str) -> list[str]:
    """The unit tests of a room or a file: the ones beside it in tests/unit, or those of the nearest folder above."""
    if room.startswith("files/"):
        return ["tests/unit/loader"]
    for prefix, tests in PREFIXES.items():
        if room.startswith(prefix):
            path = Path(tests, os.path.relpath(room, prefix))
            if path.suffix == ".py":
                path = path.with_name(f"test_{path.name}")
            while not (ROOT / path).exists():
                path = path.parent
            return [str(path)]
    raise SystemExit(f"mutation: wanted a room below {' or '.join(PREFIXES)} or files; found {room}")


def annotation_spans(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end, as (line, column)."""
    for node in ast.walk(ast.parse(source)):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef):
            found = [node.returns, *(each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg))]
        elif isinstance(node, ast.AnnAssign):
            found = [node.annotation]
        for one in found:
            if one is not None and one.end_lineno is not None and one.end_col_offset is not None:
                yield (one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)


def mutations_of(room: str) -> list[MutationSpec]:
    """Every mutation of the room that can change what its code does, in a stable order."""
    path = ROOT / room
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    left_out = {file.relative_to(ROOT): list(annotation_spans(file.read_text(encoding="utf-8"))) for file in files}
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/work.sqlite", WorkDB.Mode.create) as work:
        init([file.relative_to(ROOT) for file in files], work, {})
        found = [mutation for item in work.work_items for mutation in item.mutations]
    found.sort(key=lambda each: (str(each.module_path), each.start_pos, each.operator_name, each.occurrence))
    return [
        mutation
        for mutation in found
        if not any(begin <= mutation.start_pos < end for begin, end in left_out[mutation.module_path])
    ]


def copy_tree(folder: Path) -> None:
    """Copy what git tracks, and what it does not ignore, so that a mutation never touches the tree one works in."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source = ROOT / name
        if source.exists() or source.is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name, follow_symlinks=False)


def passes(tests: Sequence[str]) -> bool:
    """Run these tests in a fork of this process; return whether all pass in time."""
    pid = os.fork()
    if pid == 0:
        _run_tests(tests)
    until = time.monotonic() + PATIENCE_S
    done = status = 0
    while not done and time.monotonic() < until:
        time.sleep(_STEP_S)
        done, status = os.waitpid(pid, os.WNOHANG)
    # What a test started, and left, ends with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not done:
        os.waitpid(pid, 0)
    return bool(done) and status == 0


def _run_tests(tests: Sequence[str]) -> NoReturn:
    status = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        status = int(
            pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0", *tests])
        )
    finally:
        os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", help="a folder or file of the product")
    parser.add_argument("--sample", type=int, default=60, help="mutations to try")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws another sample")
    parser.add_argument("--tests", nargs="+", help="the tests to run, if not those beside the room")
    given = parser.parse_args()
    os.chdir(ROOT)
    room = os.path.relpath(given.room, ROOT)
    tests = given.tests or tests_of(room)
    every = mutations_of(room)
    drawn = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    # Bytecode of a mutation may have the time and size of the next one's source.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    survived = 0
    with tempfile.TemporaryDirectory(prefix="slm-mutation-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        if not passes(tests):
            raise SystemExit(f"mutation: the tests fail without any mutation: {' '.join(tests)}")
        for mutation in drawn:
            with use_mutation(
                mutation.module_path, get_operator(mutation.operator_name)(), mutation.occurrence
            ) as codes:
                if not passes(tests):
                    continue
            survived += 1
            print(f"survived: {mutation.module_path}:{mutation.start_pos[0]} {mutation.operator_name}")
            before, after = ((code or "").splitlines() for code in codes)
            print("\n".join(list(difflib.unified_diff(before, after, lineterm="", n=3))[2:]), flush=True)
    killed = len(drawn) - survived
    print(
        f"{room}: {killed} of {len(drawn)} mutations noticed ({killed / max(len(drawn), 1):.0%}), {len(every)} in all"
    )


if __name__ == "__main__":
    main()
