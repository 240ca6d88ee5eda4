#!/usr/bin/python
"""Record a host's memory settings before they are changed, and restore them exactly."""

from __future__ import annotations

DOCUMENTATION = r"""
module: memory_snapshot
short_description: Record a host's memory settings before the first change, and restore them exactly
description:
  - C(present) records every knob, pool, mount, file and folder that the tuning could touch, durably, once. It never
    records values of this project's own.
  - C(restored) restores what the tuning set and nobody has changed since, verifies by reading back, moves the
    snapshot into an archive, and says so when there is nothing to restore. What others changed since then is left and
    listed, as is what a file of theirs sets by now. What cannot be restored, or would cost others files, pages, mounts
    or services, is named and the snapshot is kept, so that it can be repeated.
  - The snapshot of another machine, as a clone of a tuned host has it, is refused without O(force).
  - The modules that set something record what they need by themselves, before their first change.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run, slm_baseline.losses]
options:
  state:
    description: Whether to record or to restore.
    type: str
    choices: [present, restored]
    default: present
  force:
    description: >-
      Whether C(restored) also puts the snapshot's values over what others changed since. After a rollback it restores
      what that one left, and nothing else.
    type: bool
    default: false
  first_token:
    description: >-
      Whether C(restored) first removes what shortens starts, as M(first_token) does with C(absent). A rollback is one
      task on the host that way.
    type: bool
    default: false
  margin:
    description: Memory that must stay available where C(restored) makes a pool larger.
    type: raw
    default: 1G
  mounts:
    description: The wanted mounts, in the form of M(hugetlbfs)'s option; their paths are recorded too.
    type: raw
attributes:
  check_mode: {support: full, description: Says what would be recorded or restored.}
  diff_mode: {support: full, description: Shows what is or would be restored.}
"""

EXAMPLES = r"""
- name: Record the prior state
  memory_snapshot:
    mounts: "{{ hugetlbfs_mounts }}"

- name: Restore the prior state
  memory_snapshot:
    state: restored
"""

RETURN = r"""
status:
  description: C(recorded), C(kept), C(restored), C(nothing) to restore, or C(incomplete).
  returned: always
  type: str
before:
  description: The prior values by knob name.
  returned: always, empty where there is no snapshot
  type: dict
changes:
  description: What was restored, or would be.
  returned: when state is restored
  type: list
  elements: dict
undone:
  description: Changes of an interrupted sweep that were undone before the state was recorded.
  returned: when state is present
  type: list
  elements: dict
left:
  description: >-
    What others changed since the tuning or rely on by a file of theirs, and what was therefore left, with the value
    before the tuning.
  returned: when state is restored
  type: list
  elements: dict
  sample: [{knob: thp.shmem_enabled, found: advise, before: never, why: changed by others since}]
first_token:
  description: What was removed of the first token's targets (C(removed)), and what others changed since (C(left)).
  returned: when state is restored
  type: dict
archive:
  description: Where the snapshot of a complete restore was moved.
  returned: after a complete restore
  type: str
attempts:
  description: >-
    Earlier rollbacks that did not come to an end: C(run_id), C(began_at), C(changes), C(left) and C(problems), the
    latter as text.
  returned: when state is restored
  type: list
  elements: dict
note:
  description: Why there is nothing to restore, where there is nothing.
  returned: when state is restored
  type: str
  sample: "nothing to restore: this host has no snapshot, so nothing was ever set here"
problems:
  description: What could not be restored, one error in parts each.
  returned: when a restore is incomplete
  type: list
  elements: dict
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.first_token.places import has_anything, target_names
from ansible.module_utils.slm_baseline.first_token.removed import Removal
from ansible.module_utils.slm_baseline.host.clock import now
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, fail, finish, leased, require_root, warn
from ansible.module_utils.slm_baseline.setter import leased_and_undone
from ansible.module_utils.slm_baseline.settings.audit.conflicts.find import find_conflicts
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.settings.kinds.mounts import Mounts
from ansible.module_utils.slm_baseline.settings.rollback.rollback import Rollback, RollbackOutcome, roll_back
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import ensure, predict
from ansible.module_utils.slm_baseline.settings.state.losses import Limits, parse_accept_loss


def _record(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Take or extend the snapshot, or say in check mode that it would be."""
    wanted = [Mounts.parse(host, module.params["mounts"])]
    if module.check_mode:
        undone: list[dict[str, str]] = []
        snapshot, is_new = predict(host, wanted, now(), "check")
    else:
        with leased_and_undone(module, host) as (run_id, undone):
            snapshot, is_new = ensure(host, wanted, now(), run_id)
    return {
        "changed": is_new or bool(undone),
        "status": "recorded" if is_new else "kept",
        "undone": undone,
        "before": snapshot.values(),
        "taken_at": snapshot.taken_at,
    }


def _restore(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Restore, or say in check mode what would be; an incomplete restore fails with every reason."""
    dry_run, force = module.check_mode, module.params["force"]
    # The snapshot's pools may take any share of memory, but the memory must be there.
    guard = Guard.parse(module.params["margin"], 1.0)
    limits = Limits(parse_accept_loss(module.params["accept_loss"]), guard)
    with contextlib.nullcontext() if dry_run else leased(module, host, last=True):
        run_id = (module.params["run"] or {}).get("id", "")
        # Restore settings first: a failure in a target's folder, which another user may have filled, must not prevent
        # it.
        done = roll_back(host, dry_run, force, Rollback(limits, find_conflicts, run_id, now()))
        removal = _remove_targets(host, force, dry_run) if module.params["first_token"] else Removal()
    warn(module, removal.warning)
    warn(module, done.warning)
    if done.left:
        values = "; ".join(
            f"{entry['knob']} is {entry['found']}, was {entry['before']} ({entry['why']})" for entry in done.left
        )
        warn(module, f"others rely on it, left: {values}. Next: set by hand what is not wanted.")
    result = _answer(done, removal)
    if result["problems"]:
        reasons = " / ".join([*map(str, done.problems), *removal.problems])
        fail(module, f"rollback incomplete: {reasons}", **result)
    return result


def _remove_targets(host: Host, force: bool, dry_run: bool) -> Removal:
    """Remove recorded starts; failures are reported together with those of the restore."""
    if not has_anything(host):
        return Removal()
    # Imported late: a host compiles every import, and most hosts have no target.
    from ansible.module_utils.slm_baseline.first_token.remove import remove_all

    try:
        return remove_all(host, target_names(host), force, dry_run)
    except SettingError as error:
        return Removal(problems=[str(error)])


def _answer(done: RollbackOutcome, removal: Removal) -> dict[str, Any]:
    def text(side: str) -> str:
        return "".join(f"{change['knob']}: {change[side]}\n" for change in done.changes)

    problems = [
        {"knob": "first_token", "wanted": "removed", "found": found, "why": "", "next_step": "run it again."}
        for found in removal.problems
    ]
    return {
        "changed": bool(done.changes or removal.removed or removal.started),
        "status": "incomplete" if problems else done.status,
        "before": done.before,
        "changes": done.changes,
        "left": done.left,
        "archive": done.archive,
        "problems": [problem.as_dict() for problem in done.problems] + problems,
        "attempts": list(done.attempts),
        "note": done.note,
        "first_token": {"removed": removal.removed, "left": removal.left},
        "diff": {"before": removal.diff + text("before"), "after": text("after")},
    }


def main() -> None:
    module = AnsibleModule(
        {
            "state": {"type": "str", "choices": ["present", "restored"], "default": "present"},
            "force": {"type": "bool", "default": False},
            "first_token": {"type": "bool", "default": False},
            "margin": {"type": "raw", "default": "1G"},
            "mounts": {"type": "raw"},
            "accept_loss": {"type": "raw"},
            **SETTER_ARGUMENTS,
        },
        supports_check_mode=True,
    )

    def work(host: Host) -> dict[str, Any]:
        require_root(host, "memory snapshot")
        return _restore(module, host) if module.params["state"] == "restored" else _record(module, host)

    finish(module, work)


if __name__ == "__main__":
    main()
