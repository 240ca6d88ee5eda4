"""Makes the target-side package importable in tests under the name that Ansible gives it on a host."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

REPOSITORY = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(REPOSITORY / "module_utils"))
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "files")]
