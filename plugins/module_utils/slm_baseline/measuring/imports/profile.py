"""A profile of imports: one more warm run, with the interpreter's own import timing.

It is never a sample, since the timing slows it a little. Then one process of the same user looks for each module's
bytecode and compiles the modules without any in memory: every start pays for that again where nobody could store the
result.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...host.errors import SettingError
from ..install.interpreter import PACKAGES
from ..loader.process import Loader, observe, plain_text
from ..probes import page_cache
from .importtime import Imported, as_distributions, by_package, not_required, parse_import_times

TOP_PACKAGES = 10
STDERR_BYTES = 16 << 20
"""Far more than any start prints: 4,000 imports take 400 KiB."""
SCRIPT = "find_bytecode.py"
"""The program beside the loader that looks for bytecode (files/find_bytecode.py)."""
COMPILE_LIMIT_S = 60.0
_TIMEOUT_S = 180.0
_MOST_READ_BYTES = 8 << 20
"""A run that read more than this from disk was not warm, and its import times include the disk's."""


@dataclass(frozen=True)
class Bytecode:
    """How many imported modules have bytecode that fits the source and is readable by the loader's user, and the cost.

    `compile_s` is the CPU time of compiling `compiled` of those that have none; `load_s` is the time to read their
    bytecode instead, so the difference is what each start could save.
    """

    valid: int
    missing: int
    stale: int
    unreadable: int
    compiled: int
    compile_s: float
    load_s: float

    @property
    def saving_s(self) -> float:
        """Return the least that each start would save if all modules had bytecode."""
        return max(0.0, self.compile_s - self.load_s)


class NoAnswer(Exception):
    """The imports could not be profiled; the message says why, for the report."""


def profile_imports(loader: Loader, files: Sequence[page_cache.PathLike]) -> dict[str, Any]:
    """Return the `imports` of the result document; where it fails in any way, `problem` says why and the run goes on.

    `loader` is the one that makes samples, with its model; `files` are the model's. ControllerGone passes through.
    """
    try:
        imports, read_bytes = _timed_imports(loader, files)
        answer = _ask(loader, [each.name for each in imports])
        return {"problem": None, "read_bytes": read_bytes, **describe(imports, answer)}
    except (NoAnswer, SettingError, OSError) as error:
        return {"problem": str(error)}


def describe(imports: Sequence[Imported], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document's entry on these imports, from the answer of the process that looked for their bytecode."""
    try:
        states = answer["states"]
        bytecode = Bytecode(
            valid=int(states.get("valid", 0)),
            missing=int(states.get("missing", 0)),
            stale=int(states.get("stale", 0)),
            unreadable=int(states.get("unreadable", 0)),
            compiled=int(answer["compiled"]),
            compile_s=float(answer["compile_s"]),
            load_s=float(answer["load_s"]),
        )
        if not all(0 <= figure < math.inf for figure in vars(bytecode).values()):
            raise ValueError(str(bytecode))
        standard = frozenset(map(str, answer["standard"]))
        distributions = as_distributions(answer["distributions"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise NoAnswer(f"the process that looked for bytecode gave an odd answer: {error!r}") from error
    packages = by_package(imports, standard)
    extras = not_required(imports, distributions, PACKAGES)
    return {
        "seconds": sum(each.self_s for each in imports),
        "modules": len(imports),
        "packages": [vars(each) for each in packages[:TOP_PACKAGES]],
        "bytecode": {**vars(bytecode), "saving_s": bytecode.saving_s},
        "not_required": [vars(each) for each in extras[:TOP_PACKAGES]],
    }


def _timed_imports(
    loader: Loader, files: Sequence[page_cache.PathLike], tries: int = 2
) -> tuple[list[Imported], int | None]:
    """Return the imports of a warm run and the bytes it read from disk; repeat a run that was not warm."""
    timed = replace(loader, env=(*loader.env, ("PYTHONPROFILEIMPORTTIME", "1")), stderr_bytes=STDERR_BYTES)
    for left in reversed(range(tries)):
        page_cache.warm(files)
        run = observe(timed, lambda pid: None)
        if run.problem:
            raise NoAnswer(f"the loader with import timing failed: {run.problem}")
        read_bytes = run.events.marks["first_token"].read_bytes
        if not left or read_bytes is None or read_bytes <= _MOST_READ_BYTES:
            break
    return parse_import_times(run.stderr_tail), read_bytes


def _ask(loader: Loader, names: Sequence[str]) -> Mapping[str, Any]:
    """Query these modules' bytecode and the installed distributions, in the loader's Python as the loader's user."""
    folder = loader.script.rpartition("/")[0]
    asked = {"names": list(names), "folder": folder, "limit_s": COMPILE_LIMIT_S}
    try:
        answer = loader.run([f"{folder}/{SCRIPT}"], _TIMEOUT_S, json.dumps(asked).encode())
        if answer.returncode:
            last = plain_text(answer.errors[-1000:]).splitlines()[-1:] or [f"exit code {answer.returncode}"]
            raise NoAnswer(f"looking for bytecode failed: {last[0]}")
        said = json.loads(answer.output)
    except (OSError, subprocess.SubprocessError, ValueError, RecursionError) as error:
        raise NoAnswer(f"looking for bytecode failed: {error}") from error
    if not isinstance(said, dict):
        raise NoAnswer("the process that looked for bytecode gave no answer")
    return said
