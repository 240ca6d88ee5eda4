"""A run that reaches no host ends in an error, through Ansible itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
PLAYS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))
HOSTS = """
gpu-hosts: {hosts: {gpu-1: {}}}
others: {hosts: {web-1: {}}}
"""


def play(path: Path, inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PLAYBOOK, "-i", inventory, path, *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", PLAYS)
def test_every_play_has_an_entry_point(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", PLAYS)
def test_a_limit_outside_the_group_ends_in_an_error(name: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS)
    done = play(ROOT / name, inventory, "--limit", "web-1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "hosts: wanted at least one host of gpu-hosts; found none with --limit web-1 in the inventory" in done.stderr
    assert f"Next: ansible-inventory -i {inventory} --graph" in done.stderr


@pytest.mark.parametrize("content", ["others: {hosts: {web-1: {}}}", ""])
@pytest.mark.parametrize("limit", [(), ("--limit", "gpu-hosts")])
def test_an_inventory_without_the_group_ends_in_an_error(content: str, limit: tuple[str, ...], tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(content)
    done = play(ROOT / "audit.yml", inventory, *limit)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "[ERROR]: " in done.stderr
    if not (content and limit):
        assert done.returncode == 2
        assert "hosts: wanted at least one host of gpu-hosts; found none" in done.stderr


def test_a_limit_that_names_no_host_at_all_is_an_error_of_ansible(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(HOSTS)
    done = play(ROOT / "audit.yml", inventory, "--limit", "gpu-99")
    assert done.returncode == 1
    assert "leaves us with no hosts to target" in done.stderr


def test_a_play_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    inventory, theirs = tmp_path / "hosts.yml", tmp_path / "theirs.yml"
    inventory.write_text(HOSTS)
    theirs.write_text("- hosts: nowhere\n  tasks: []\n")
    done = play(theirs, inventory)
    assert done.returncode == 0, done.stderr
    assert "skipping: no hosts matched" in done.stdout
