"""The parts of a play that its tags select; a selection under which the play would do nothing is rejected."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slm_parts
short_description: Which parts of a play this run's tags select
description:
  - Each task of this project's plays has the tag of one part of the play, or none where the play has no parts.
  - Refuses C(--tags) and C(--skip-tags) that name no part or leave none, and C(--start-at-task), since a part cannot
    begin in its middle. Looked up in C(hosts) of a play, it is asked before anything can be skipped.
  - Where playbooks of others import the play, their tags and tasks are theirs, and are not refused.
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

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

_ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "playbooks").is_dir())
"""The root of the checkout, or of the collection."""
_FULL = "slm.baseline"
_SPECIAL = {"all", "tagged", "untagged", "always", "never"}
"""Tags with a meaning in Ansible (https://docs.ansible.com, Tags: special tags)."""


class Refused(Exception):
    """A selection that the play cannot follow; the text is the whole error."""


def selects(tag: str, run: Iterable[str], skip: Iterable[str]) -> bool:
    """Return whether a task with only this tag, or without any ("untagged"), is run: ansible/playbook/taggable.py."""
    run, skip = set(run) or {"all"}, set(skip)
    is_tagged = tag != "untagged"
    wanted = bool(run & {"all", tag}) or ("tagged" in run and is_tagged)
    return wanted and not skip & {"all", tag} and not ("tagged" in skip and is_tagged)


def select(parts: Sequence[str], run: Iterable[str], skip: Iterable[str], is_imported: bool) -> list[str]:
    """Return the selected parts; Refused for tags that name nothing here or leave nothing.

    `is_imported`: other people's playbooks import the play. A tag that is no part may be theirs then: on the whole
    play, so that it selects all parts, or only on their own tasks.
    """
    run, skip = list(run), list(skip)
    known = {*parts, *_SPECIAL}
    foreign = [tag for tag in run if tag not in known]
    if is_imported:
        return [part for part in parts if selects(part, ["all"] if foreign else run, skip)]
    for option, tags in (("--tags", run), ("--skip-tags", skip)):
        for tag in tags:
            if tag not in known:
                raise Refused(_unknown(option, tag, parts))
    chosen = [part for part in parts or ("untagged",) if selects(part, run, skip)]
    if not chosen:
        asked = " ".join(
            [
                *([f"--tags {','.join(run)}"] if set(run) - {"all"} else []),
                *([f"--skip-tags {','.join(skip)}"] if skip else []),
            ]
        )
        raise Refused(_refusal("tags", _wanted(parts), asked, "They leave nothing to do."))
    return [part for part in chosen if part in parts]


def refuse_start(name: str, own: Iterable[str], is_imported: bool) -> None:
    """Raise Refused where a run is to start at a task of ours: results of earlier tasks would be missing.

    Other people's playbooks may start at a task of their own.
    """
    if is_imported and not any(name == task or fnmatch.fnmatch(task, name) for task in own):
        return
    raise Refused(
        _refusal(
            "--start-at-task",
            "the start of the play",
            repr(name),
            "A task needs what those before it found on the host.",
            "leave it out; what is as wanted is not done again, and --tags selects a part of the play.",
        )
    )


def _wanted(parts: Sequence[str]) -> str:
    return f"some of {', '.join(parts)}" if parts else "none: this play has no tags"


def _unknown(option: str, tag: str, parts: Sequence[str]) -> str:
    near = difflib.get_close_matches(tag, parts, 1)
    hint = f"did you mean {near[0]}?" if near else ""
    return _refusal(option, _wanted(parts), tag, "No task has this tag.", hint)


def _refusal(what: str, wanted: str, found: str, why: str, hint: str = "") -> str:
    following = hint or "correct --tags and --skip-tags, or leave them out."
    return f"{what}: wanted {wanted}; found {found}. {why} Nothing was read or changed. Next: {following}"


def task_names(root: Path) -> Iterable[str]:
    """Yield the names of tasks in the project's plays and roles, as `--start-at-task` takes them."""
    for path in [*root.glob("playbooks/**/*.yml"), *root.glob("roles/*/tasks/*.yml")]:
        role = f"{path.parts[-3]} : " if path.parts[-2] == "tasks" and path.parts[-4] == "roles" else ""
        for name in re.findall(r"^\s*- name: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield from {name, f"{role}{name}", f"{_FULL}.{role}{name}"} if role else {name}


def is_ours(playbook: str, root: Path) -> bool:
    """Return whether a playbook, as given on the command line, is one of the project's own."""
    if playbook.startswith(f"{_FULL}."):
        return True
    path = Path(playbook).resolve()
    return path.parent in (root, root / "playbooks") and (root / "playbooks" / path.name).exists()


class LookupModule(LookupBase):
    """The class that Ansible looks for in this file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        given: Mapping[str, Any] = context.CLIARGS
        is_imported = not all(is_ours(str(playbook), _ROOT) for playbook in given.get("args") or ("",))
        try:
            if given.get("start_at_task"):
                refuse_start(str(given["start_at_task"]), task_names(_ROOT), is_imported)
            return select([str(term) for term in terms], given.get("tags", ()), given.get("skip_tags", ()), is_imported)
        except Refused as refused:
            raise AnsibleError(str(refused)) from None
