"""The part of ansible.module_utils.basic that this project uses, typed: ansible-core ships no type information."""

from typing import Any, NoReturn

class AnsibleModule:
    params: dict[str, Any]
    check_mode: bool
    no_log_values: set[str]
    _diff: bool
    def __init__(
        self,
        argument_spec: dict[str, Any],
        *,
        supports_check_mode: bool = ...,
        mutually_exclusive: list[list[str]] = ...,
        required_if: list[Any] = ...,
    ) -> None: ...
    def exit_json(self, **kwargs: Any) -> NoReturn: ...
    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn: ...
    def warn(self, warning: str) -> None: ...
    def run_command(
        self, args: list[str], check_rc: bool = ..., environ_update: dict[str, str] | None = ...
    ) -> tuple[int, str, str]: ...
    def get_bin_path(self, arg: str, required: bool = ..., opt_dirs: list[str] | None = ...) -> str | None: ...
