"""Which parts of a play --tags and --skip-tags select; a selection that the play cannot follow is rejected.

The rule is here alone. The callback `check_names` applies it before the first play, and the look-up `slm_parts` in each
play's `hosts`, which Ansible cannot be told to leave out as it can a callback.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from .names import ALWAYS_TAGS, unknown_tags

_FULL = "slm.baseline"


class Refused(Exception):
    """A selection that the play cannot follow; the text is the whole error."""


def selects(tag: str, run: Iterable[str], skip: Iterable[str]) -> bool:
    """Return whether a task with only this tag, or without any ("untagged"), is run: ansible/playbook/taggable.py."""
    run, skip = set(run) or {"all"}, set(skip)
    is_tagged = tag != "untagged"
    wanted = bool(run & {"all", tag}) or ("tagged" in run and is_tagged)
    return wanted and not skip & {"all", tag} and not ("tagged" in skip and is_tagged)


def select(
    parts: Sequence[str], run: Iterable[str], skip: Iterable[str], importers: Collection[str] | None = None
) -> list[str]:
    """Return the selected parts; Refused for tags that name nothing here, or leave nothing.

    `importers` are all tags of the playbooks by others that import this play, None where it is run by itself. A tag of
    theirs may be on the whole play, so that it selects all parts, or only on their own tasks.
    """
    run, skip = list(run), list(skip)
    refuse_unknown(run, skip, parts if importers is None else [*parts, *importers])
    if importers is not None:
        foreign = [tag for tag in run if tag not in {*parts, *ALWAYS_TAGS}]
        return [part for part in parts if selects(part, ["all"] if foreign else run, skip)]
    chosen = [part for part in parts or ("untagged",) if selects(part, run, skip)]
    if not chosen:
        asked = " ".join(
            [
                *([f"--tags {','.join(run)}"] if set(run) - {"all"} else []),
                *([f"--skip-tags {','.join(skip)}"] if skip else []),
            ]
        )
        following = "correct --tags and --skip-tags, or leave them out."
        raise Refused(_refusal("tags", _wanted(parts), asked, "They leave nothing to do.", following))
    return [part for part in chosen if part in parts]


def refuse_unknown(run: Iterable[str], skip: Iterable[str], known: Collection[str]) -> None:
    """Raise Refused for tags that are none of the `known` ones and none of Ansible's own."""
    for option, tags in (("--tags", run), ("--skip-tags", skip)):
        unknown = unknown_tags(sorted(tags), known)
        if unknown:
            told = " / ".join(f"unknown tag {tag}" for tag in unknown)
            raise Refused(_refusal(option, _wanted(known), told, "", "correct the name, or leave it out."))


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
            f"{name!r}.",
            "A task needs what those before it found on the host.",
            "leave it out; what is as wanted is not done again, and --tags selects a part of the play.",
        )
    )


def _wanted(tags: Iterable[str]) -> str:
    names = [tag for tag in dict.fromkeys(tags) if tag not in ALWAYS_TAGS]
    return f"some of {', '.join(names)}" if names else "none: this play has no tags"


def _refusal(what: str, wanted: str, found: str, why: str, following: str) -> str:
    ended = found if found.endswith((".", "?")) else f"{found}."
    return " ".join(
        filter(
            None, [f"{what}: wanted {wanted}; found {ended}", why, f"Nothing was read or changed. Next: {following}"]
        )
    )


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
