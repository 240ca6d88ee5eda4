"""The real modules, each run in a forked process of its own, traced or not.

A fork costs 20 ms where a fresh interpreter costs 300: the matrix has thousands of runs.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from ansible.module_utils import basic

from tests.live.faults.strace import Call, attach, parse_log

REPOSITORY = Path(__file__).resolve().parents[3]
LIBRARY = REPOSITORY / "library"
PACKAGE = REPOSITORY / "plugins" / "module_utils" / "slm_baseline"

IN_MEMORY = {"accept_loss": ["persistence./etc", "persistence./var/lib"]}
"""For modules that tune or restore on a stage whose folders lie in memory."""
_ON_STAGE = ("thp", "hugepages", "hugetlbfs", "memory_snapshot")


def arguments_on_stage(module: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A module's arguments on a stage, whose /etc and /var/lib outlive no reboot; `accept_loss=None`: as given."""
    more = arguments.get("accept_loss", ())
    if more is None or not (module in _ON_STAGE or arguments.get("preflight")):
        return dict(arguments)
    return {**arguments, "accept_loss": [*IN_MEMORY["accept_loss"], *more]}


@dataclass(frozen=True)
class Step:
    """One module call of a sequence."""

    module: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a module ended: its JSON (empty where it was killed), what else it printed, and the traced calls."""

    result: dict[str, Any]
    output: str
    signal: int
    calls: list[Call]

    @property
    def is_fine(self) -> bool:
        return bool(self.result) and not self.result.get("failed")


class Modules:
    """Runs steps as one controller's consecutive runs: each run is a new one, and those before it are dead."""

    def __init__(self, scratch: Path) -> None:
        self._log = scratch / "strace.log"
        self.code = {path.stem: compile(path.read_text(), str(path), "exec") for path in LIBRARY.glob("*.py")}
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._run = 0
        self._import_beforehand()

    @staticmethod
    def _import_beforehand() -> None:
        """What every child would import for itself, and the standard library's lazy imports."""
        for path in PACKAGE.rglob("[a-z]*.py"):
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            importlib.import_module(f"ansible.module_utils.slm_baseline.{name}")
        for name in (
            "grp",
            "pwd",
            "syslog",
            "ctypes",
            "ansible.module_utils._internal._json._profiles._module_legacy_m2c",
        ):
            importlib.import_module(name)
        gc.freeze()

    def new_run(self) -> None:
        """A new playbook run starts, from the same controller; its forerunner's process has gone."""
        self._run += 1

    def identity(self) -> dict[str, Any]:
        pid, started = 100_000 + self._run, float(self._run)
        controller = {"name": "stage", "id": self._boot_id, "pid": pid, "started": started}
        return {"id": f"run-{self._run}", "controller": controller, "alive": [[pid, started]]}

    def run(
        self, step: Step, inject: str | None = None, trace: bool = False, others: Sequence[Sequence[float]] = ()
    ) -> Ended:
        """Run one module; `inject` is strace's, `trace` traces without injecting, `others` are runs that live too."""
        identity = self.identity()
        arguments = {
            **arguments_on_stage(step.module, step.arguments),
            "run": {**identity, "alive": [*identity["alive"], *others]},
        }
        out_read, out_write = os.pipe()
        gate_read, gate_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(gate_write)
            become_module(self.code[step.module], arguments, out_write, gate_read)
        os.close(out_write)
        os.close(gate_read)
        tracer = attach(pid, self._log, inject) if inject or trace else None
        os.close(gate_write)
        with os.fdopen(out_read, encoding="utf-8") as pipe:
            output = pipe.read()
        status = os.waitpid(pid, 0)[1]
        calls = []
        if tracer:
            tracer.communicate(timeout=60)
            calls = parse_log(self._log.read_text())
        signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        result = {}
        with contextlib.suppress(ValueError):
            # A warning may stand before it.
            result = json.loads(output[output.rfind("\n{") + 1 :])
        return Ended(result, output, signal, calls)


def become_module(code: CodeType, arguments: dict[str, Any], out: int, gate: int) -> None:
    """In the child: wait for the gate, run the module with its output in the pipe, and end. Does not return."""
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
        os.read(gate, 1)
        # Where AnsibleModule looks first, as a module's own main() run by the controller finds it.
        given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        vars(basic).update(_ANSIBLE_ARGS=given, _ANSIBLE_PROFILE="legacy")
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)
