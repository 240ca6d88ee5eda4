#!/usr/bin/python
"""Set huge page pools, now and at boot, and prove that the kernel gave every page."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hugepages
short_description: Set huge page pools, now and at boot, verified
description:
  - Sets pools of huge pages by page size and, where asked, by NUMA node, reads back what the kernel granted, and keeps
    them over reboots with a C(tmpfiles.d) drop-in of its own.
  - A pool that the kernel grants only in part is a failure that says what was asked and what was got, and the
    change is undone.
  - Pools that would grow beyond O(max_share) of RAM, or leave less than O(margin) available, are refused before
    anything is written.
  - A size that is left out stays untouched; one that an earlier run set returns to its value in the snapshot.
  - Pages that are not ours stay, as do those in use or reserved. A pool that has more pages of others than are
    wanted is left as it is (C(left)), now and at the next boot.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run, slm_baseline.losses]
options:
  pools:
    description: >-
      The pools: a list of C({size, count, node}). Sizes are such as C(2M) or C(1G), counts are pages. C(memory) in
      place of C(count) is a size such as C(4G), or a share such as C(25%) of the memory of the host, or of the node.
    type: raw
    required: true
  overcommit:
    description:
      - "Pages that the kernel may add to a pool while programs use them, by page size, such as C({2M: 512})."
      - These pages are taken when a program asks, not reserved, so the memory guard does not count them. Most kernels
        take no such limit for 1 GiB pages.
    type: raw
  compact:
    description: Whether one memory compaction may be tried when pages are short. It can stall the host for a while.
    type: bool
    default: false
  max_share:
    description: The largest share of RAM that the pools may take.
    type: raw
    default: 0.5
  margin:
    description: Memory that must stay available beside the pools.
    type: raw
    default: 1G
attributes:
  check_mode: {support: full, description: Predicts exactly the changes of the real run.}
  diff_mode: {support: full, description: Shows each pool and the drop-in before and after.}
"""

EXAMPLES = r"""
- name: Reserve 2 GiB of 2 MiB pages
  hugepages:
    pools:
      - {size: 2M, count: 1024}

- name: Reserve 1 GiB of 2 MiB pages on each of two nodes
  hugepages:
    pools:
      - {size: 2M, count: 512, node: 0}
      - {size: 2M, count: 512, node: 1}

- name: Reserve a quarter of the memory
  hugepages:
    pools:
      - {size: 2M, memory: 25%}

- name: No reserved pages, but up to a gigabyte for programs that ask
  hugepages:
    pools: []
    overcommit: {2M: 512}
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode; pools in pages.
  returned: success
  type: list
  elements: dict
  sample: [{knob: hugepages.2M, before: "0", after: "1024"}]
dropped:
  description: Those of C(changes) that restore what an earlier run set and this one does not ask for.
  returned: success
  type: list
  elements: dict
left:
  description: Pools that keep pages which are not ours, one sentence each.
  returned: success
  type: list
  elements: str
undone:
  description: Changes of an interrupted sweep that were undone first; the same form as C(changes).
  returned: success, not in check mode
  type: list
  elements: dict
verified:
  description: Every page asked for was read back from the kernel.
  returned: success, not in check mode
  type: bool
reboot_required:
  description: The pages can be had at boot only.
  returned: when a pool of 1 GiB pages is short
  type: bool
boot_arguments:
  description: What to add to the kernel command line for them.
  returned: when a pool of 1 GiB pages is short
  type: str
  sample: hugepagesz=1G hugepages=4
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.processes import pool_readers
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish, warn
from ansible.module_utils.slm_baseline.setter import apply_wanted
from ansible.module_utils.slm_baseline.settings.audit.survey import left_to_others
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.settings.kinds.overcommit import Overcommit
from ansible.module_utils.slm_baseline.settings.kinds.pools import Pools
from ansible.module_utils.slm_baseline.settings.state.losses import Limits, parse_accept_loss


def tell_left(module: AnsibleModule, host: Host, pools: Pools, changes: list[dict[str, str]]) -> list[str]:
    """Warn about pools that stay as others set them, and about readers of pools; return the warnings on the former."""
    left = list(left_to_others(host, [pools]).values())
    readers = pool_readers(host) if any(change["knob"].startswith("hugepages.") for change in changes) else []
    for reader in readers:
        warn(module, f"{reader} reads the pools when it starts, and goes on with what it found then: restart it.")
    for sentence in left:
        warn(module, sentence)
    return left


def main() -> None:
    module = AnsibleModule(
        {
            "pools": {"type": "raw", "required": True},
            "overcommit": {"type": "raw"},
            "compact": {"type": "bool", "default": False},
            "max_share": {"type": "raw", "default": 0.5},
            "margin": {"type": "raw", "default": "1G"},
            "accept_loss": {"type": "raw"},
            **SETTER_ARGUMENTS,
        },
        supports_check_mode=True,
    )

    def work(host: Host) -> dict[str, Any]:
        guard = Guard.parse(module.params["margin"], module.params["max_share"])
        accept = parse_accept_loss(module.params["accept_loss"])
        pools = replace(
            Pools.parse(host, module.params["pools"]), limits=Limits(accept, guard), compact=module.params["compact"]
        )
        overcommit = Overcommit.parse(host, module.params["overcommit"])
        result = apply_wanted(module, host, "hugepages", [pools, overcommit], accept)
        return {**result, "left": tell_left(module, host, pools, result["changes"])}

    finish(module, work)


if __name__ == "__main__":
    main()
