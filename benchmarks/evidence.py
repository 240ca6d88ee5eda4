"""Documents of a benchmark's observations: host, date, commit, and every start. All tables are made from them."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.meminfo import read_meminfo
from ansible.module_utils.slm_baseline.measuring.probes.gpu import read_gpus

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "transformers", "accelerate", "safetensors")


@dataclass
class Document:
    """One run of one benchmark. `facts` describe its subject; each block holds every arm once, in random order."""

    kind: str
    host: dict[str, Any]
    facts: dict[str, Any]
    starts: list[dict[str, Any]] = field(default_factory=list)
    taken_at: str = field(default_factory=lambda: now())
    commit: str = field(default_factory=lambda: commit_of(ROOT))

    @property
    def blocks(self) -> int:
        """Return how many blocks are complete."""
        return max((start["block"] for start in self.starts), default=0)

    def add_block(self, starts: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Add the starts of one block, by arm."""
        number = self.blocks + 1
        self.starts += [{"block": number, "arm": arm, **start} for arm, start in starts]

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": 1, **vars(self)}

    def write(self, path: Path) -> None:
        """Write the document to a file, atomically."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)

    @staticmethod
    def read(path: Path) -> Document:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Document(**{name: value for name, value in values.items() if name != "schema_version"})


def now() -> str:
    """Return the current instant, UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit_of(folder: Path) -> str:
    """Return the commit of a checkout; SLM_COMMIT if the code runs outside of one."""
    given = os.environ.get("SLM_COMMIT")
    if given:
        return given
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def told_of_host(python: str, packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
    """Return what has to be the same for another run to compare; no name, no serial number, no address.

    `packages` are those of this Python whose versions count.
    """
    gpus = read_gpus(Host())
    return {
        "kernel": platform.release().split("-")[0],
        "arch": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": read_meminfo(Host())["MemTotal"],
        "gpus": [gpu.name for gpu in gpus.gpus],
        "gpu_driver": gpus.driver,
        "persistence_mode": [gpu.persistence_mode for gpu in gpus.gpus],
        "software": versions_of(python, packages),
    }


def versions_of(python: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of a Python and its packages, without those that it lacks."""
    program = (
        "import importlib.metadata as m, json, platform, sys\n"
        "def v(n):\n"
        "    try: return m.version(n)\n"
        "    except m.PackageNotFoundError: return None\n"
        "print(json.dumps({'python': platform.python_version(), **{n: v(n) for n in sys.argv[1:]}}))"
    )
    command = [python, "-c", program, *packages]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env={"PATH": "/usr/bin:/bin"}
    )
    try:
        found = json.loads(answer.stdout)
    except ValueError:
        return {}
    return {name: str(version) for name, version in found.items() if version}
