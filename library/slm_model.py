#!/usr/bin/python
"""Build an embedded model on the host, or find and check a local or cached one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slm_model
short_description: Build or check the model to be measured on the host
description:
  - Builds an embedded model (C(qwen2.5-0.5b), C(qwen2.5-1.5b), C(phi-3-mini), C(tiny)) with the builder that
    M(slm_environment) put on the host. What is right already is not built again.
  - A local folder or a hub id is found and checked, and never fetched. With O(trial) it is tried as well.
author: slm-baseline maintainers
extends_documentation_fragment:
  - slm_baseline
  - slm_baseline.loader
  - slm_baseline.model
  - slm_baseline.trial
  - slm_baseline.run
attributes:
  check_mode: {support: full, description: Says whether a model would have to be built.}
  diff_mode: {support: none, description: A model has no readable difference.}
"""

EXAMPLES = r"""
- name: Build the default embedded model
  slm_model:
    model: qwen2.5-0.5b
"""

RETURN = r"""
model:
  description: The model as the result document has it (id, source, revision, path, bytes, files, dtype, parameters).
  returned: success, not in check mode where it is yet to be built
  type: dict
built:
  description: Names of the files that were built.
  returned: success, not in check mode
  type: list
  elements: str
tried:
  description: The model, as O(model) names it, where its trial ran; empty where none did.
  returned: success, not in check mode where it is yet to be built
  type: str
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.accounts import find_account
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.install.environment import parse_environment
from ansible.module_utils.slm_baseline.measuring.install.image import find_launcher
from ansible.module_utils.slm_baseline.measuring.install.model_build import build_model
from ansible.module_utils.slm_baseline.measuring.model.files import EMBEDDED_MODEL_BYTES
from ansible.module_utils.slm_baseline.measuring.run import find_model, parse_model, require_loadable
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish, leased, require_root

_ARGUMENTS: dict[str, Any] = {
    "model": {"type": "str", "required": True},
    "revision": {"type": "str", "default": ""},
    "home": {"type": "str", "default": "/opt/slm-baseline"},
    "python": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "runtime": {"type": "str", "default": ""},
    "image_python": {"type": "str", "default": "python3"},
    "hf_home": {"type": "str", "default": ""},
    "offline": {"type": "bool", "default": True},
    "user": {"type": "str", "default": "nobody"},
    "trial": {"type": "str", "default": ""},
    **SETTER_ARGUMENTS,
}


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)

    params = module.params

    def work(host: Host) -> dict[str, Any]:
        require_root(host, "slm_model")
        place = parse_model(params)
        account = find_account(params["user"])
        built: dict[str, Any] = {"changed": False, "built": []}
        environment = parse_environment(params)
        if place.model in EMBEDDED_MODEL_BYTES:
            if module.check_mode:
                return {"changed": not host.exists(f"{place.embedded_path}/manifest.json")}
            with leased(module, host):
                launcher = find_launcher(host, environment)
                built = build_model(host, environment.interpreter, place, account, launcher)
        model = find_model(host, place, account)
        # In check mode the environment may be yet to be built.
        program = "" if module.check_mode else params["trial"]
        tried = place.model if require_loadable(host, environment, program, model, account) else ""
        return {"changed": built["changed"], "built": built["built"], "model": model.as_dict(), "tried": tried}

    finish(module, work)


if __name__ == "__main__":
    main()
