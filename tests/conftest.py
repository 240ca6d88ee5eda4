"""Makes the target-side package importable in tests under the name that Ansible gives it on a host."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils
import hypothesis
import pytest

# A busy machine is no bug: no test fails for taking long.
hypothesis.settings.register_profile("slm-baseline", deadline=None)
hypothesis.settings.load_profile("slm-baseline")

REPOSITORY = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(REPOSITORY / "plugins" / "module_utils"))
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "plugins"), str(REPOSITORY / "files")]

from ansible.module_utils.slm_baseline.host.files import Host  # noqa: E402 - needs the path above

from tests.support.fakes import build_host  # noqa: E402 - needs the path above


@pytest.fixture
def fake_host(tmp_path: Path) -> Host:
    """A host under a temporary folder; see fakes.py for what is on it."""
    return Host(build_host(tmp_path / "host"))
