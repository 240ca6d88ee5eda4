"""What compiling modules without bytecode costs a start: measured once, by compiling the same sources again.

The sources are files that a container or a service opened. Root reads them and compiles nothing: a process of its own,
as the user `nobody`, gets them by a pipe, parses them and executes none (`compile` builds code, it does not run it).
It is the host's own interpreter, which may be another version than the target's, so the seconds are those of this
interpreter, and are told with its version.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..host.deadline import Deadline
from ..host.errors import ParseError
from ..host.files import Host
from ..host.foreign_files import open_foreign
from .recorder.interruption import PYTHON

MOST_BYTES = 256 << 20
"""How much source is compiled: ten times that of an engine with torch and transformers."""
_LONGEST_S = 120
_CPU_S = 60
_MEMORY_BYTES = 2 << 30
_USER = "nobody"
_PROGRAM = f"""
import json, platform, resource, sys, time
resource.setrlimit(resource.RLIMIT_CPU, ({_CPU_S + 5}, {_CPU_S + 5}))
resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY_BYTES}, {_MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
modules = 0
seconds = 0.0
for size in json.loads(sys.stdin.buffer.readline()):
    source = sys.stdin.buffer.read(size)
    if seconds > {_CPU_S}:
        continue
    began = time.process_time()
    try:
        compile(source, "module", "exec", dont_inherit=True)
    except Exception:
        continue
    seconds += time.process_time() - began
    modules += 1
print(json.dumps({{"modules": modules, "compile_s": seconds, "python": platform.python_version()}}))
"""


@dataclass(frozen=True)
class CompileCost:
    """CPU seconds in which this host's Python compiled so many of the `lacking` modules."""

    lacking: int
    modules: int
    compile_s: float
    python: str

    @property
    def note(self) -> str:
        """Return it as a sentence."""
        of = "" if self.modules == self.lacking else f" {self.modules} of"
        return (
            f"bytecode: compiling{of} the {self.lacking} modules without bytecode takes {self.compile_s:.1f} s of CPU"
            f" at each start, as measured once with this host's Python {self.python}."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as the module's result has it."""
        return {
            "lacking": self.lacking,
            "compiled": self.modules,
            "compile_s": self.compile_s,
            "python": self.python,
        }


def measure_compiling(host: Host, sources: Sequence[str], python: str = PYTHON) -> CompileCost | None:
    """Compile these files of the host once; None where that was not possible, or compiled none of them."""
    texts = list(_read(host, sources))
    given = json.dumps([len(text) for text in texts]).encode() + b"\n" + b"".join(texts)
    try:
        entry = pwd.getpwnam(_USER)
        done = subprocess.run(
            [python, "-IS", "-W", "ignore", "-c", _PROGRAM],
            input=given,
            capture_output=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            timeout=_LONGEST_S,
            check=False,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
        )
    except (OSError, KeyError, subprocess.SubprocessError):
        return None
    try:
        return None if done.returncode else parse_cost(done.stdout.decode("utf-8", "replace"), len(sources))
    except ParseError:
        return None


def parse_cost(text: str, lacking: int) -> CompileCost | None:
    """Return what the program has printed; None where it compiled nothing. ParseError for anything else."""
    try:
        told = json.loads(text)
        found = CompileCost(lacking, int(told["modules"]), float(told["compile_s"]), str(told["python"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise ParseError("compiling", "one line of JSON", text, "report this text as a bug.") from None
    return found if found.modules else None


def _read(host: Host, sources: Iterable[str]) -> Iterable[bytes]:
    left, until = MOST_BYTES, Deadline.after(_LONGEST_S)
    for path in sources:
        try:
            descriptor = open_foreign(host.path(path), os.O_NOFOLLOW, until.left_s(5))
        except OSError:
            continue
        with open(descriptor, "rb") as file:
            text = file.read(left + 1)
        if len(text) > left:
            return
        left -= len(text)
        yield text
