"""Building an embedded model on the host, with the builder that `slm_environment` put there."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from ..host.errors import SettingError
from ..host.files import Host
from .loader_process import printable
from .run import ModelPlace, embedded_path

BUILDER = "build_model.py"
_BUILD_TIMEOUT_S = 3600.0


def build_model(host: Host, python: str, place: ModelPlace) -> dict[str, Any]:
    """Make the embedded model right, doing only what is missing; the builder's `changed`, `built` and `bytes`.

    SettingError with the builder's own last line where it fails. An interrupted build is taken up where it stopped.
    """
    path = embedded_path(place)
    builder = host.path(f"{place.home}/{BUILDER}")
    command = [python, "-B", str(builder), "--shape", place.model]
    command += ["--output", str(host.path(path))]
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"},
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _failed(place, str(error)) from error
    if answer.returncode:
        raise _failed(place, (printable(answer.stderr[-1000:]).splitlines() or ["no word"])[-1])
    try:
        result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        return {"changed": bool(result["changed"]), "built": list(result["built"]), "bytes": int(result["bytes"])}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _failed(place, f"the builder ended with {printable(answer.stdout[-200:])!r}") from error


def _failed(place: ModelPlace, found: str) -> SettingError:
    return SettingError(
        "slm_benchmark_model",
        f"the embedded model {place.model} in {embedded_path(place)}",
        found,
        "It is built on the host, because no network is assumed.",
        "put right what it says and run again; what is built already stays.",
    )
