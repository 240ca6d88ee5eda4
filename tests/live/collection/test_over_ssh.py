"""The built collection, installed in an empty environment, against two hosts over ssh; over_ssh.py has the checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.live.collection.over_ssh import SSHD
from tests.support.torch_python import find_torch_python


@pytest.mark.skipif(os.geteuid() != 0 or not Path(SSHD).exists(), reason="root and Debian's openssh-server")
def test_the_installed_collection_does_the_job_of_a_checkout(tmp_path: Path) -> None:
    """With a Python that has torch, a measurement too; without one, everything else."""
    try:
        python = find_torch_python()
    except pytest.skip.Exception:
        python = ""
    done = subprocess.run(
        [sys.executable, "-m", "tests.live.collection.over_ssh", tmp_path, python],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= (17 if python else 14)
