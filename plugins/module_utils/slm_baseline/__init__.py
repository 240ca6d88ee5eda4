"""Target-side code of slm-baseline: what its modules run on a host. Standard library only, Python 3.9 and later.

The packages, and whom each may import (tests/unit/test_import_contracts.py holds it):

    host        one host's files, errors, clock, lease, /proc     imports none of the others
    settings    kinds of settings: plan, snapshot, restore        host
    first_token what a start reads, recorded and replayed         host
    measuring   one loader run, its sample, the page cache        host
    sweep       arms of settings, each of them measured           host, settings, first_token, measuring
    zipimport_once.py  how the modules are imported on a host     none
    module.py   what every Ansible module does around its work    host
    setter.py   what those that set something do besides          host, settings, module.py
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
