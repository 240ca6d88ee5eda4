"""The part of ansible.plugins.callback that this project uses, typed."""

from typing import Any

class CallbackBase:
    _display: Any
    def __init__(self) -> None: ...
