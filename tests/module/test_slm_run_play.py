"""The look-up of the run through Ansible itself: one identity in all workers, and the play among those that live."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
PLAY = """
- hosts: all
  gather_facts: false
  vars: {slm_run: "{{ lookup('slm_run') }}", us: "{{ [slm_run.controller.pid, slm_run.controller.started] }}"}
  tasks:
    - debug: {msg: "run={{ slm_run.id }} is {{ us in slm_run.alive }}."}
    - debug: {msg: "run={{ slm_run.id }} is {{ us in slm_run.alive }}."}
"""


WRAPPER = """
import sys
from ansible.cli.playbook import PlaybookCLI
sys.exit(PlaybookCLI(["tune-my-fleet", *sys.argv[1:]]).run())
"""
AS_A_CHILD = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


@pytest.mark.parametrize(
    "program",
    [
        [PLAYBOOK],
        [sys.executable, "-X", "utf8", "-W", "ignore", PLAYBOOK],
        [sys.executable, "-m", "ansible", "playbook"],
        [sys.executable, "tune-my-fleet.py"],
        # As ansible-navigator and ansible-runner do.
        [sys.executable, "-c", AS_A_CHILD, PLAYBOOK],
        ["sh", "-c", '"$@"; exit $?', "sh", PLAYBOOK],
    ],
    ids=["plain", "options of python", "module", "wrapper", "child", "shell"],
)
def test_every_worker_of_a_play_has_the_same_run_and_sees_it_live(tmp_path: Path, program: list[str | Path]) -> None:
    (tmp_path / "tune-my-fleet.py").write_text(WRAPPER)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "ansible.cfg").touch()
    settings = {"ANSIBLE_LOOKUP_PLUGINS": f"{ROOT}/plugins/lookup", "ANSIBLE_HOME": f"{tmp_path}/.ansible"}
    shown = subprocess.run(
        [*program, "-i", "a,b,c", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, **settings, "ANSIBLE_CONFIG": f"{tmp_path}/ansible.cfg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    told = re.findall(r"run=(\S+) is (\w+)\.", shown.stdout)
    assert len(told) == 6
    assert len(set(told)) == 1, told
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", told[0][0])
    assert told[0][1] == "True"
