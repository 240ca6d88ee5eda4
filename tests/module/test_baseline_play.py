"""The whole tuning play through real Ansible, on a fake root whose files are plain: what each run does on a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host

from tests.conftest import REPOSITORY
from tests.support.fakes import put

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
OVERCOMMIT = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
MODULES = ("memory_info", "thp", "hugepages", "hugetlbfs", "run_lease")
TUNING = {"hugepages_overcommit": {"2M": 8}, "thp_khugepaged": {"defrag": 0}, "hugepages_pools": []}


class Play:
    """baseline.yml --tags tune, its modules led to the fake root."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        text = (REPOSITORY / "playbooks/baseline.yml").read_text(encoding="utf-8")
        roots = json.dumps({module: {"root": str(host.root)} for module in MODULES})
        assert "  gather_facts: false\n" in text
        text = text.replace("  gather_facts: false\n", f"  gather_facts: false\n  module_defaults: {roots}\n")
        for path in ("vars/tuning.yml", "tasks/set.yml"):
            text = text.replace(path, str(REPOSITORY / "playbooks" / path))
        (folder / "play.yml").write_text(text)
        (folder / "hosts.yml").write_text("gpu-hosts: {hosts: {one: {ansible_connection: local}}}\n")

    def run(self, *arguments: str, **variables: object) -> tuple[int, list[str], str]:
        """Exit code, the tasks that ran a module on the host, and the output."""
        given = {"ansible_become": False, "ansible_python_interpreter": sys.executable, **TUNING, **variables}
        done = subprocess.run(
            [ANSIBLE, "-i", "hosts.yml", "play.yml", "--tags", "tune", "-e", json.dumps(given), *arguments, "-vvv"],
            cwd=self.folder,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": f"{REPOSITORY}/ansible.cfg",
                "ANSIBLE_HOME": f"{self.folder}/.ansible",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        tasks = re.split(r"^TASK \[(.*?)\].*$", done.stdout, flags=re.MULTILINE)
        remote = [
            name for name, said in zip(tasks[1::2], tasks[2::2], strict=True) if "ESTABLISH LOCAL CONNECTION" in said
        ]
        return done.returncode, remote, done.stdout + done.stderr


@pytest.fixture
def play(fake_host: Host, tmp_path: Path) -> Play:
    return Play(fake_host, tmp_path)


def test_a_run_that_changes_nothing_is_one_task_on_the_host(play: Play) -> None:
    code, first, shown = play.run()
    assert (code, len(first)) == (0, 5), shown
    assert play.host.read(OVERCOMMIT).strip() == "8"
    code, second, shown = play.run()
    assert (code, second) == (0, ["Check the host before the first change"]), shown
    # Each task is a process on the control node, one that is left out too.
    assert re.search(r"one +: ok=1 +changed=0 .*skipped=0", shown), shown
    put(play.host.root, OVERCOMMIT, "9\n")
    code, third, shown = play.run()
    assert (code, third, play.host.read(OVERCOMMIT).strip()) == (0, first, "8"), shown


def test_what_a_cut_run_left_open_is_no_run_that_changes_nothing(play: Play) -> None:
    play.run()
    put(play.host.root, "/run/slm-baseline/sweep-prior.json", "{}")
    code, tasks, shown = play.run()
    assert (code, len(tasks)) == (2, 2), shown
    assert "sweep-prior.json" in shown
