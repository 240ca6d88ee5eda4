#!/usr/bin/python
"""Set transparent huge pages, now and at boot, and prove that the kernel took it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: thp
short_description: Set transparent huge pages (THP), now and at boot, verified
description:
  - Sets the THP knobs of a host at run time, reads each back, and keeps them over reboots with a C(tmpfiles.d) drop-in
    of its own.
  - A knob that is left out stays untouched. One that an earlier run set and that is now left out returns to its value
    in the snapshot.
  - Either all changes take or none stay. Before the first one the host's prior state is recorded (see
    M(memory_snapshot)).
  - THP settings touch only memory mapped later; processes that run already keep what they have.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run, slm_baseline.losses]
options:
  enabled:
    description: When anonymous memory gets THP. Legal values are what the kernel's file offers.
    type: raw
  defrag:
    description: What a page fault does when no huge page is free.
    type: raw
  shmem_enabled:
    description: THP for shared memory and tmpfs.
    type: raw
  khugepaged:
    description: Whole numbers for files in C(transparent_hugepage/khugepaged).
    type: raw
  sizes:
    description: "Per-size (mTHP) policy by size: a mapping such as C({64K: madvise})."
    type: raw
attributes:
  check_mode: {support: full, description: Predicts exactly the changes of the real run.}
  diff_mode: {support: full, description: Shows each knob and drop-in before and after.}
"""

EXAMPLES = r"""
- name: Give THP to programs that ask for it, without stalls on a fault
  thp:
    enabled: madvise
    defrag: never
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample: [{knob: thp.enabled, before: always, after: madvise}]
dropped:
  description: Those of C(changes) that restore what an earlier run set and this one does not ask for.
  returned: success
  type: list
  elements: dict
undone:
  description: Changes of an interrupted sweep that were undone first; the same form as C(changes).
  returned: success, not in check mode
  type: list
  elements: dict
verified:
  description: Every wanted value was read back from the kernel.
  returned: success, not in check mode
  type: bool
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish
from ansible.module_utils.slm_baseline.setter import apply_wanted
from ansible.module_utils.slm_baseline.settings.kinds.thp import Thp
from ansible.module_utils.slm_baseline.settings.state.losses import parse_accept_loss

KEYS = ("enabled", "defrag", "shmem_enabled", "khugepaged", "sizes")


def main() -> None:
    module = AnsibleModule(
        {**{key: {"type": "raw"} for key in (*KEYS, "accept_loss")}, **SETTER_ARGUMENTS}, supports_check_mode=True
    )

    def work(host: Host) -> dict[str, Any]:
        accept = parse_accept_loss(module.params["accept_loss"])
        thp = Thp.parse(host, {key: module.params[key] for key in KEYS})
        return apply_wanted(module, host, "thp", [thp], accept)

    finish(module, work)


if __name__ == "__main__":
    main()
