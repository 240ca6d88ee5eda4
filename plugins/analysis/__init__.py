"""Control-side code of slm-baseline: documents in, reports out. Python 3.11 and later.

`documents`, `statistics.py` and `render` are what the others write with; `baseline`, `audit`, `sweep`,
`fleet` and `console` import those three alone. No Ansible, and nothing of the target side: the halves share JSON alone.
tests/unit/test_import_contracts.py holds it.
"""
