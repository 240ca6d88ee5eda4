"""The part of ansible.plugins.lookup that this project uses, typed."""

from typing import Any

class LookupBase:
    _loader: Any
    _templar: Any
    def run(self, terms: list[Any], variables: dict[str, Any] | None = ..., **kwargs: Any) -> list[Any]: ...
