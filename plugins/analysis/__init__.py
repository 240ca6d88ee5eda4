"""Control-side code of slm-baseline: documents in, reports out. Python 3.11 and later.

The wings: `text` imports none of the others; `baseline`, `audit`, `sweep` and `fleet` import `text` alone. No
Ansible, and nothing of the target side: the halves share JSON alone. tests/unit/test_wings.py holds it.
"""
