#!/usr/bin/python
"""Release a host at the end of a run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_lease
short_description: Release a host at the end of a run
description:
  - Every changing task of this project renews a lease in C(/run/slm-baseline), so that a second run that starts
    meanwhile is rejected with a clear error. This module ends the lease, so that the next run need not wait.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.run]
options:
  run:
    required: true
attributes:
  check_mode: {support: full, description: Does nothing.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Release the host
  run_lease:
    run: "{{ slm_run }}"
"""

RETURN = r"""
released:
  description: Whether this run held the host.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host import lease
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.module import COMMON_ARGUMENTS, RUN_ARGUMENT, finish


def main() -> None:
    module = AnsibleModule({**COMMON_ARGUMENTS, "run": {**RUN_ARGUMENT, "required": True}}, supports_check_mode=True)

    def work(host: Host) -> dict[str, Any]:
        released = not module.check_mode and lease.release(host, module.params["run"]["id"])
        return {"changed": False, "released": released}

    finish(module, work)


if __name__ == "__main__":
    main()
