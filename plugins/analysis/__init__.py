"""Control-side code of slm-baseline: reads documents, writes reports. Needs Python 3.11 or later.

`documents`, `statistics.py` and `render` are shared; `baseline`, `audit`, `sweep`, `fleet` and `console` import those
three alone. Nothing here imports Ansible or the code that runs on hosts: the two halves share JSON alone.
tests/unit/test_import_contracts.py checks this.
"""
