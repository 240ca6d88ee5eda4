"""Which plays are this project's, or use its roles. Takes Ansible's objects, but imports none of its classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def folder_of(play: Any) -> Path:
    """Return the folder of the playbook that contains a play."""
    return Path(play.get_path().rpartition(":")[0]).resolve().parent


def is_own(play: Any, home: Path) -> bool:
    """Return whether a play is in one of the project's playbooks, wherever it is imported."""
    return folder_of(play) == home / "playbooks"


def own_roles(play: Any, home: Path) -> Iterator[Any]:
    """Yield the roles of the project that a play lists, and its tasks and blocks that import or include one."""
    names = {path.name for path in (home / "roles").iterdir()}
    for item in [*play.roles, *tasks_below([*play.pre_tasks, *play.tasks, *play.post_tasks])]:
        role = getattr(item, "_role", None) or item
        included = str(getattr(item, "_role_name", None) or "")
        path = getattr(role, "_role_path", None)
        if included.rpartition(".")[2] in names or (path and Path(path).resolve().parent == home / "roles"):
            yield item


def concerns(play: Any, home: Path) -> bool:
    """Return whether a play runs anything of the project."""
    return is_own(play, home) or any(True for _ in own_roles(play, home))


def tags_of(play: Any) -> set[str]:
    """Return every tag of a play, of its roles and of its tasks."""
    return {str(tag) for item in [play, *tasks_below(play.compile())] for tag in item.tags}


def tasks_below(items: list[Any]) -> Iterator[Any]:
    """Yield blocks and tasks with everything in them."""
    for item in items:
        yield item
        for part in ("block", "rescue", "always"):
            yield from tasks_below(getattr(item, part, None) or [])
