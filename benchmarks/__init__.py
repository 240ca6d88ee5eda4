"""Benchmarks of the measurement itself: `python -m benchmarks.NAME`, as root, on a host where a baseline has run."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

_PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
sys.path.insert(0, str(_PLUGINS))
# The name that Ansible gives the package on a host.
ansible.module_utils.__path__.append(str(_PLUGINS / "module_utils"))
