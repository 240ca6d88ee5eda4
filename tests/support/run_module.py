"""Runs one module of the library as Ansible would, in this process: run_module.py NAME < arguments as JSON.

Its result is the last line of standard output. For tests that need a module in namespaces of their own.
"""

from __future__ import annotations

import json
import sys

from ansible.module_utils import basic

from tests import conftest


def main(name: str) -> None:
    path = conftest.REPOSITORY / "library" / f"{name}.py"
    given = json.dumps({"ANSIBLE_MODULE_ARGS": json.load(sys.stdin)}).encode()
    vars(basic).update(_ANSIBLE_ARGS=given, _ANSIBLE_PROFILE="legacy")
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main(sys.argv[1])
