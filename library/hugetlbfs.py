#!/usr/bin/python
"""Mount hugetlbfs, now and at boot, and prove that the mount is the one asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hugetlbfs
short_description: Mount hugetlbfs, now and at boot, verified
description:
  - Mounts hugetlbfs with nosuid and nodev, reads the options back from C(mountinfo), and keeps the mount over reboots
    with a systemd mount unit of its own.
  - Options are changed by unmounting and mounting, since the kernel ignores a remount without saying so. A busy mount
    is refused, and who uses it is named.
  - A mount that an earlier run made and that is left out now is unmounted, unless others changed it since.
  - No mount goes while files lie on it, another mount namespace or a bind mount has it, or a unit is bound to it.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run, slm_baseline.losses]
options:
  mounts:
    description:
      - "The mounts: a list of C({path, page_size, size, mode, owner, group}). Owner and group are names on the host."
    type: raw
    required: true
attributes:
  check_mode: {support: full, description: Predicts exactly the changes of the real run.}
  diff_mode: {support: full, description: Shows each mount and unit before and after.}
"""

EXAMPLES = r"""
- name: Mount hugetlbfs for the group that serves models
  hugetlbfs:
    mounts:
      - {path: /mnt/huge, page_size: 2M, mode: "0770", group: serving}
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample: [{knob: hugetlbfs./mnt/huge, before: not mounted, after: "pagesize=2M,mode=0770,uid=0,gid=0"}]
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
  description: Exactly one hugetlbfs stands on each path, with the options asked for.
  returned: success, not in check mode
  type: bool
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish
from ansible.module_utils.slm_baseline.setter import apply_wanted
from ansible.module_utils.slm_baseline.settings.kinds.mounts import Mounts
from ansible.module_utils.slm_baseline.settings.state.losses import parse_accept_loss


def main() -> None:
    module = AnsibleModule(
        {"mounts": {"type": "raw", "required": True}, "accept_loss": {"type": "raw"}, **SETTER_ARGUMENTS},
        supports_check_mode=True,
    )

    def work(host: Host) -> dict[str, Any]:
        accept = parse_accept_loss(module.params["accept_loss"])
        mounts = replace(Mounts.parse(host, module.params["mounts"]), accept=accept)
        return apply_wanted(module, host, "hugetlbfs", [mounts], accept)

    finish(module, work)


if __name__ == "__main__":
    main()
