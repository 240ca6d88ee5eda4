"""A module of the library as a process of its own (run_module.py), from its arguments to its answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.conftest import REPOSITORY


def first_token_programs() -> dict[str, str]:
    """The programs that the role gives the module `first_token`."""
    names = ("slm_replay.py", "slm_fit.py", "slm_restart.py")
    return {name: (REPOSITORY / "files" / name).read_text(encoding="utf-8") for name in names}


def begin_module(
    name: str, arguments: Mapping[str, Any], environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a module and give it its arguments; `environment` is added to ours, `options` are more of Popen's."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.run_module", name],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        **options,
    )
    assert process.stdin
    with process.stdin:
        process.stdin.write(json.dumps(arguments).encode())
    process.stdin = None
    return process


def read_output(process: subprocess.Popen[bytes], until: float) -> str:
    """What it says until it closes its output; TimeoutError at `until`, by the monotonic clock."""
    assert process.stdout
    output = b""
    with process.stdout:
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError
            more = os.read(process.stdout.fileno(), 1 << 16)
            if not more:
                return output.decode("utf-8", "replace")
            output += more


def answer_in(text: str) -> dict[str, Any]:
    """The module's result, the last line of what it said; ValueError for any other text."""
    lines = text.strip().splitlines()
    result: dict[str, Any] = json.loads(lines[-1] if lines else "")
    return result
