"""The part of ansible.vars.manager that this project uses, typed."""

from typing import Any

class VariableManager:
    def __init__(self, loader: Any = ...) -> None: ...
