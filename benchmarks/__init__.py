"""Benchmarks of the measurement itself: `python -m benchmarks.NAME`, as root, where a baseline has run."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

# Under the name that Ansible gives the package on a host.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))
