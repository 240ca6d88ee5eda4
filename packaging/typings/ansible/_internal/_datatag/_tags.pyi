"""The part of Ansible's data tags that this project uses, typed; they came with 2.19."""

from typing import Any

class Origin:
    path: str | None
    line_num: int | None
    @classmethod
    def get_tag(cls, value: Any) -> Origin | None: ...
