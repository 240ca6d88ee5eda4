"""Every play finds its roles, modules and plugins from any folder, with and without an ansible.cfg in force."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PLAYS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))
INVENTORY = {
    "gpu-hosts": {"hosts": {"here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}
}


@pytest.fixture(params=["a folder of one's own", "a folder that everybody may write"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder without the project's ansible.cfg; Ansible takes none at all from one that everybody may write."""
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": INVENTORY}}))
    if request.param == "a folder that everybody may write":
        tmp_path.chmod(0o777)
        (tmp_path / "ansible.cfg").write_text("[defaults]\nroles_path = /nowhere\n")
    return tmp_path


def run(folder: Path, play: Path, *options: str) -> subprocess.CompletedProcess[str]:
    kept = {"HOME": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"}
    command = [str(BIN / "ansible-playbook"), "-i", str(folder / "hosts.json"), str(play), *options]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("name", PLAYS)
def test_a_play_of_the_root_is_read_whole(elsewhere: Path, name: str) -> None:
    done = run(elsewhere, ROOT / name, "--syntax-check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_audit_compares_and_writes_its_report(elsewhere: Path) -> None:
    variables = {"ansible_become": False, "audit_reports_dir": str(elsewhere / "audit")}
    done = run(elsewhere, ROOT / "audit.yml", "-e", json.dumps(variables))
    audit = json.loads((elsewhere / "audit" / "audit.json").read_text())
    # This machine need not be tuned.
    assert audit["hosts"]["here"]["status"] in ("clean", "drift", "error"), done.stdout + done.stderr
    assert "was not found" not in done.stdout + done.stderr
    assert "Unable to retrieve file contents" not in done.stdout + done.stderr


def test_without_the_links_beside_the_playbooks_roles_are_not_found(elsewhere: Path) -> None:
    """What the links are for: a copy of the plays alone finds nothing."""
    (elsewhere / "playbooks" / "vars").mkdir(parents=True)
    for name in ("audit.yml", "vars/tuning.yml"):
        (elsewhere / "playbooks" / name).write_bytes((ROOT / "playbooks" / name).read_bytes())
    done = run(elsewhere, elsewhere / "playbooks" / "audit.yml", "--syntax-check")
    assert done.returncode != 0
    assert "the role 'audit' was not found" in done.stdout + done.stderr
