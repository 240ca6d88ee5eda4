"""The part of ansible.playbook.taggable that this project's tests use, typed."""

from collections.abc import Sequence
from typing import Any

class Taggable:
    tags: list[str]
    def evaluate_tags(self, only_tags: Sequence[str], skip_tags: Sequence[str], all_vars: dict[str, Any]) -> bool: ...
