"""A host that tunes itself: ansible-pull from a git repository with this project's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SHIPPED = (*("ansible.cfg", "audit.yml", "inventory", "playbooks", "roles", "library", "plugins", "files"),)
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of its own with the files that a run needs."""
    folder = tmp_path / "repository"
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "As shipped"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


def test_a_host_audits_itself(repository: Path, tmp_path: Path) -> None:
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [
            *(BIN / "ansible-pull", "--url", repository, "--directory", checkout, "--inventory", "inventory/hosts.yml"),
            *("--extra-vars", json.dumps({"ansible_become": False}), "audit.yml"),
        ],
        cwd=tmp_path,
        env={"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    audit = json.loads((checkout / "reports/audit/audit.json").read_text())
    # This machine need not be tuned.
    assert audit["hosts"]["localhost"]["status"] in ("clean", "drift"), done.stdout + done.stderr
    assert done.returncode in (0, 2), done.stdout + done.stderr
    assert "Compare the host with its wanted tuning" in done.stdout
