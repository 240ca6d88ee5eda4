"""The part of ansible.playbook that this project uses, typed."""

from typing import Any

from ansible.vars.manager import VariableManager

class Playbook:
    @staticmethod
    def load(file_name: str, variable_manager: VariableManager | None = ..., loader: Any = ...) -> Playbook: ...
    def get_plays(self) -> list[Any]: ...
