#!/usr/bin/python
"""Put the measurement's own environment on a host: scripts, and a virtual environment from a lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slm_environment
short_description: Make the environment that measures model loads
description:
  - Writes scripts into one folder, and makes a virtual environment there from a lock, with a Python of the host that
    the loader's user can execute.
  - An environment made from the same lock, with the same O(pip_options) and O(base_python), is left alone, which costs
    milliseconds. One that was interrupted is made again.
  - With O(python) an existing interpreter is used, and only the scripts are written.
author: slm-baseline maintainers
extends_documentation_fragment: [slm_baseline, slm_baseline.loader, slm_baseline.run]
options:
  state:
    description: >-
      C(absent) removes environment, scripts, embedded models and samples from O(home) and from every other home that
      this host has on record, and nothing else. A folder without our mark (C(.slm-baseline)) is left alone.
    type: str
    choices: [present, absent]
    default: present
  base_python:
    description: >-
      The Python to make the environment from, on a path that only root can write. Empty finds one in C(/usr/bin) or
      C(/usr/local/bin).
    type: str
    default: ""
  requirements:
    description: The lock, in pip's requirements format.
    type: str
    default: ""
  pip_options:
    description: Options for C(pip install), such as an index.
    type: list
    elements: str
    default: []
  scripts:
    description: Texts by file name.
    type: dict
    default: {}
attributes:
  check_mode: {support: full, description: Says what it would make.}
  diff_mode: {support: none, description: The lock and the scripts are files of the project.}
"""

EXAMPLES = r"""
- name: Install the environment
  slm_environment:
    requirements: "{{ lookup('file', 'requirements-host.txt') }}"
    scripts:
      slm_load.py: "{{ lookup('file', 'slm_load.py', rstrip=false) }}"
"""

RETURN = r"""
interpreter:
  description: The Python that runs the loader.
  returned: state is present
  type: str
  sample: /opt/slm-baseline/venv/bin/python
built:
  description: Whether the virtual environment was made, or would be in check mode.
  returned: success
  type: bool
scripts:
  description: Names of the scripts that were written, or would be.
  returned: success
  type: list
  elements: str
removed:
  description: Paths that were removed, or would be.
  returned: state is absent
  type: list
  elements: str
problem:
  description: The error in parts (knob, wanted, found, why, next_step).
  returned: failure
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.slm_baseline.host.accounts import find_account
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.install.environment import (
    build,
    changed_scripts,
    install_scripts,
    installed_parts,
    is_built,
    parse_environment,
    remove_parts,
)
from ansible.module_utils.slm_baseline.measuring.install.image import remove_noted_containers
from ansible.module_utils.slm_baseline.measuring.install.install_dir import require_home
from ansible.module_utils.slm_baseline.module import SETTER_ARGUMENTS, finish, leased, require_root

_ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "home": {"type": "str", "default": "/opt/slm-baseline"},
    "python": {"type": "str", "default": ""},
    "image": {"type": "str", "default": ""},
    "runtime": {"type": "str", "default": ""},
    "image_python": {"type": "str", "default": "python3"},
    "base_python": {"type": "str", "default": ""},
    "requirements": {"type": "str", "default": ""},
    "pip_options": {"type": "list", "elements": "str", "default": []},
    "scripts": {"type": "dict", "default": {}},
    "user": {"type": "str", "default": "nobody"},
    **SETTER_ARGUMENTS,
}


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, supports_check_mode=True)
    params = module.params

    def work(host: Host) -> dict[str, Any]:
        require_root(host, "slm_environment")
        environment = parse_environment(params)
        if params["state"] == "absent":
            parts = installed_parts(host, environment.home)
            if parts and not module.check_mode:
                # A purge ends a rollback: no later task would release the host.
                with leased(module, host, last=True):
                    remove_noted_containers(host)
                    remove_parts(host, parts)
            return {"changed": bool(parts), "removed": [path for paths in parts.values() for path in paths]}
        account = find_account(params["user"])
        require_home(host, environment.home)
        must_build = not is_built(host, environment)
        names = changed_scripts(host, environment, params["scripts"])
        if (must_build or names) and not module.check_mode:
            with leased(module, host):
                if must_build:
                    build(host, environment, account)
                install_scripts(host, environment, {name: params["scripts"][name] for name in names})
        return {
            "changed": must_build or bool(names),
            "interpreter": environment.interpreter,
            "built": must_build,
            "scripts": names,
        }

    finish(module, work)


if __name__ == "__main__":
    main()
