"""Rejects a run with unknown variables or tags, or impossible values, before its first task."""

from __future__ import annotations

DOCUMENTATION = r"""
name: check_names
type: notification
short_description: Refuse variables and tags that nothing knows and values that cannot be, before the first task
description:
  - Applies to the plays in C(playbooks) of this project, and to plays that use its roles.
  - A variable with a prefix of this project's alone (first_token_, hugepages_, hugetlbfs_, memory_snapshot_, slm_,
    thp_) must be one that a role documents. Any other variable is refused only where it is a slip away from one.
  - A documented variable's value must be of its type; keys of its entries must be known.
  - C(slm_other_variables) lists names or patterns that are another project's.
  - Ansible loads it without configuration, since it lies beside the playbooks.
author: slm-baseline maintainers
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

_HOME = Path(__file__).resolve().parents[2]
_EXIT_CODE = 2
"""Exit code of ansible-playbook when a host fails."""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "check_names"

    def __init__(self) -> None:
        super().__init__()
        self._checked: set[str] = set()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Check tags against the whole playbook: one that is in no play of it selects nothing."""
        from analysis.console.plays import is_own, tags_of
        from analysis.console.tags import Refused, refuse_unknown

        plays = playbook.get_plays()
        given = context.CLIARGS
        # With several playbooks a tag may belong to another one, which is not loaded here.
        if len(given["args"]) > 1 or not any(is_own(play, _HOME) for play in plays):
            return
        try:
            refuse_unknown(given["tags"], given["skip_tags"], sorted(set().union(*map(tags_of, plays))))
        except Refused as refused:
            self._end(str(refused))

    def v2_playbook_on_play_start(self, play: Any) -> None:
        from analysis.console.names import OTHERS, read_known, read_options, unknown_variables
        from analysis.console.plays import concerns
        from analysis.console.values import wrong_values

        # A play starts once for each of its batches.
        if play.get_path() in self._checked or not concerns(play, _HOME):
            return
        self._checked.add(play.get_path())

        manager = play.get_variable_manager()
        loader = play.get_loader()
        scopes = list(_scopes(play, manager, loader))
        others = [str(name) for _, variables in scopes for name in _listed(variables.get(OTHERS))]
        given = [
            (str(name), value, _place(name, value, where)) for where, scope in scopes for name, value in scope.items()
        ]
        unknown = unknown_variables(((name, place) for name, _, place in given), read_known(_HOME), others)
        if unknown:
            names = " / ".join(f"unknown variable {name}" for name in unknown)
            note = f"Where one is another project's, list it in {OTHERS}."
            self._end(f"{names} Nothing was read or changed. Next: correct the name. {note}")
        wrong = wrong_values(given, read_options(_HOME))
        if wrong:
            self._end(f"{' / '.join(wrong)} Nothing was read or changed. Next: correct the value.")

    def _end(self, error: str) -> None:
        self._display.error(error, wrap_text=False)
        # Not an Ansible exception: raised in a callback, that would become a warning.
        raise SystemExit(_EXIT_CODE)


def _scopes(play: Any, manager: Any, loader: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sources of variables of the play's hosts, by name and place; of all batches, not only the first."""
    from analysis.console.plays import folder_of, own_roles

    yield "extra variables", manager.extra_vars
    yield f"play {play.get_name()}", play.vars or {}
    for path in play.get_vars_files():
        # A name that is a template is known only once its host is.
        if isinstance(path, str) and "{{" not in path:
            found = loader.path_dwim_relative_stack([str(folder_of(play))], "vars", path)
            # Not cached: Ansible would later read the cached values as plain text, not as templates.
            yield path, loader.load_from_file(found, cache="none") or {}
    for item in own_roles(play, _HOME):
        yield "a role here", {**item.vars, **getattr(item, "_role_params", {})}
    inventory = manager._inventory
    hosts = inventory.get_hosts(play.hosts, ignore_restrictions=True)
    groups = {group.name: group for host in hosts for group in host.get_groups()}
    for kind, entities in (("group", groups.values()), ("host", hosts)):
        for entity in entities:
            place = f"{kind} {entity.name}"
            yield place, entity.vars
            yield place, get_vars_from_inventory_sources(loader, inventory._sources, [entity], "task")
            yield place, get_vars_from_path(loader, loader.get_basedir(), [entity], "task")


def _listed(value: Any) -> list[Any]:
    """Return a list as the user gave it, or of one name; an empty one where it is neither."""
    return [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []


def _place(name: Any, value: Any, where: str) -> str:
    """Return the file and line of a variable, where this version of Ansible knows them; else the scope."""
    position = getattr(name, "ansible_pos", None) or getattr(value, "ansible_pos", None)
    if position:
        return f"{position[0]}:{position[1]}"
    with contextlib.suppress(ImportError, AttributeError):
        from ansible._internal._datatag._tags import Origin

        origin = Origin.get_tag(name) or Origin.get_tag(value)
        if origin and origin.path:
            return f"{origin.path}:{origin.line_num}"
    return where
