"""The part of ansible.plugins.action that this project uses, typed."""

from typing import Any

class ActionBase:
    _task: Any
    _templar: Any
    _loader: Any
    _connection: Any
    def run(self, tmp: str | None = ..., task_vars: dict[str, Any] | None = ...) -> dict[str, Any]: ...
    def validate_argument_spec(self, argument_spec: dict[str, Any], **kwargs: Any) -> tuple[Any, dict[str, Any]]: ...
