"""The parts of a play that its tags select; a selection under which the play would do nothing is rejected."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slm_parts
short_description: Which parts of a play this run's tags select
description:
  - Each task of this project's plays has the tag of one part of the play, or none where the play has no parts.
  - Refuses C(--tags) and C(--skip-tags) that name no part or leave none, and C(--start-at-task), since a part cannot
    begin in its middle. Looked up in C(hosts) of a play, it is asked before anything can be skipped.
  - Where playbooks of others import the play, tags and tasks that are in these are theirs, and are not refused.
author: slm-baseline maintainers
options:
  _terms:
    description: The parts of the play; none for a play without tags.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: What is this run to do?
  ansible.builtin.debug:
    msg: "{{ lookup('slm_parts', 'tune', 'measure', 'report', wantlist=true) }}"
"""

RETURN = r"""
_raw:
  description: The parts that are selected, in the order given.
  type: list
  elements: str
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.playbook import Playbook
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible.vars.manager import VariableManager

# Ansible loads this file by its path, so `analysis` beside its folder is not importable until the root is named.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from analysis.console.names import ALWAYS_TAGS
from analysis.console.plays import tags_of
from analysis.console.tags import Refused, is_ours, refuse_start, select, task_names

_HOME = next(folder for folder in Path(__file__).resolve().parents if (folder / "playbooks").is_dir())
"""The root of the checkout, or of the collection."""
_EXIT_CODE = 2
"""Exit code of ansible-playbook when a host fails."""


class LookupModule(LookupBase):
    """The class that Ansible looks for in this file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        given: Mapping[str, Any] = context.CLIARGS
        parts = [str(term) for term in terms]
        asked = [*given.get("tags", ()), *given.get("skip_tags", ())]
        playbooks = [str(playbook) for playbook in given.get("args") or ("",)]
        is_imported = not all(is_ours(playbook, _HOME) for playbook in playbooks)
        try:
            if given.get("start_at_task"):
                refuse_start(str(given["start_at_task"]), task_names(_HOME), is_imported)
            importers = self._tags_of(playbooks, asked, parts) if is_imported else None
            return select(parts, given.get("tags", ()), given.get("skip_tags", ()), importers)
        except Refused as refused:
            Display().error(str(refused), wrap_text=False)
            # Not an Ansible exception: of `hosts`, that would become exit code 4 and a page of text.
            raise SystemExit(_EXIT_CODE) from None

    def _tags_of(self, playbooks: Sequence[str], asked: Sequence[str], parts: Sequence[str]) -> set[str]:
        """Return the tags in the playbooks that import ours, read again only where a tag may be theirs."""
        foreign = set(asked) - {*parts, *ALWAYS_TAGS}
        if not foreign:
            return set()
        try:
            manager = VariableManager(loader=self._loader)
            plays = [play for path in playbooks for play in Playbook.load(path, manager, self._loader).get_plays()]
            return {tag for play in plays for tag in tags_of(play)}
        except AnsibleError:
            # A playbook by its full name, or one that needs its variables to be read: whatever they name is theirs.
            return foreign
