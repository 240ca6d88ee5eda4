"""Target-side code of slm-baseline: what its modules run on a host. Standard library only, Python 3.9 and later.

The packages, and what each may import (checked by tests/unit/test_import_contracts.py):

    host        one host's files, errors, clock, lease, /proc     imports none of the others
    settings    kinds of settings: plan, snapshot, restore        host
    first_token what a start reads, recorded and replayed         host
    measuring   one loader run, its sample, the page cache        host
    sweep       arms of settings, each of them measured           host, settings, first_token, measuring
    zipimport_once.py  compiles each sent module only once        none
    module.py   code that every Ansible module shares             host
    setter.py   code that modules which set something share       host, settings, module.py
"""

import json
import sys

if sys.version_info < (3, 9):  # noqa: UP036 - this is where it is found out
    found = ".".join(map(str, sys.version_info[:2]))
    problem = f"host: wanted Python 3.9 or later; found {found}. Nothing was read or changed there. "
    problem += "Next: name a later one in ansible_python_interpreter."
    print(json.dumps({"failed": True, "changed": False, "msg": problem}))
    sys.exit(1)

from .zipimport_once import compile_once

compile_once(__spec__)
