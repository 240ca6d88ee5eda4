"""How the user called a run, so that the commands named in its last lines work when they are typed."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from analysis.render.markdown import plain

_PROGRAM = "ansible-playbook"


@dataclass(frozen=True)
class Invocation:
    """The program and the playbook as they were typed, and the inventories that were named; empty: none was."""

    program: str = _PROGRAM
    playbook: str = ""
    inventories: tuple[str, ...] = ()

    def command(self, play: str, *options: str) -> str:
        """Return the command for another of the project's playbooks, such as `rollback`, quoted for the shell."""
        chosen = [word for name in self.inventories for word in ("-i", name)]
        return " ".join(shlex.quote(plain(word)) for word in (self.program, self._beside(play), *chosen, *options))

    def _beside(self, play: str) -> str:
        """Return the other playbook's name: in the same collection or folder, where that has it."""
        collection, _, name = self.playbook.rpartition(".")
        if collection.count(".") == 1 and "/" not in collection and name not in ("yml", "yaml"):
            return f"{collection}.{play}"
        beside = Path(self.playbook).parent / f"{play}.yml"
        return str(beside) if beside.is_file() else f"{play}.yml"


def program_typed(argument: str) -> str:
    """Return how to type the running program: its bare name only where the shell would find the same one."""
    found = shutil.which(_PROGRAM)
    if not Path(argument).name.startswith(_PROGRAM):
        return _PROGRAM
    is_found = found is not None and Path(found).resolve() == Path(argument).resolve()
    return _PROGRAM if is_found or "/" not in argument else argument
