"""A run with a variable or a tag that nothing knows ends before its first task, through Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.module.test_tags import SITE, Project

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
INVENTORY = """
gpu-hosts:
  hosts: {gpu-1: {}, gpu-2: {report_email: ops}}
  vars: {ansible_connection: local, ansible_become: false, audit_log: /var/log/audit}
"""
NOTHING = "Nothing was read or changed. Next: "


def play(folder: Path, playbook: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "hosts.yml").write_text(INVENTORY)
    return subprocess.run(
        [PLAYBOOK, "-i", folder / "hosts.yml", playbook, *arguments],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a run that did nothing else."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "TASK [" not in done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert NOTHING in line
    return line


@pytest.mark.parametrize(
    ("path", "text", "place", "meant"),
    [
        ("group_vars/gpu-hosts.yml", "thp_enabled: always\nhugepage_pools: []\n", ":2)", "hugepages_pools"),
        ("group_vars/all.yml", "hugetlbfs_mount: []\n", ":1)", "hugetlbfs_mounts"),
        ("host_vars/gpu-2.yml", "thp_defrg: never\n", ":1)", "thp_defrag"),
    ],
)
def test_of_the_inventory(path: str, text: str, place: str, meant: str, tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_text(text)
    # The host is of the second batch: nothing is changed on the first one either.
    line = refused(play(tmp_path, REPOSITORY / "baseline.yml", "-e", "baseline_serial=1", "--check"))
    assert f"({tmp_path / path}{place}; did you mean {meant}?" in line


def test_of_the_command_line_in_every_play(tmp_path: Path) -> None:
    for path in sorted(REPOSITORY.glob("playbooks/*.yml")):
        line = refused(play(tmp_path, REPOSITORY / path.name, "-e", "rollback_purg=true"))
        assert "unknown variable rollback_purg (extra variables); did you mean rollback_purge?" in line


@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
def test_tags(option: str, tmp_path: Path) -> None:
    line = refused(play(tmp_path, REPOSITORY / "baseline.yml", option, "tun"))
    assert "unknown tag tun; did you mean tune?" in line
    assert "wanted some of measure, report, tune;" in line


@pytest.mark.parametrize(("playbook", "theirs"), [("baseline.yml", False), ("site.yml", True)])
def test_tags_where_no_callback_is_loaded(tmp_path: Path, playbook: str, theirs: bool) -> None:
    project = Project(tmp_path)
    (tmp_path / "playbooks/callback_plugins").unlink()
    configuration = (tmp_path / "ansible.cfg").read_text()
    (tmp_path / "ansible.cfg").write_text(configuration.replace("callback_plugins = plugins/callback\n", ""))
    (tmp_path / "site.yml").write_text(SITE)
    for option in ("--tags", "--skip-tags"):
        code, done, shown = project.run(option, "tuen", playbook=playbook)
        assert (code, done, project.log.read_text()) == (2, [], ""), shown
        told = " ".join(shown.split())
        assert f"{option}: wanted some of tune, measure, report" in told
        assert "found unknown tag tuen; did you mean tune? Nothing was read or changed. Next: correct the name" in told
        assert ("nginx" in told) == theirs


@pytest.mark.parametrize(
    "body",
    [
        {"roles": [{"role": "thp", "vars": {"thp_enable": "always"}}]},
        {"roles": [{"role": "thp", "thp_enable": "always"}]},
        {"roles": ["thp"], "vars": {"thp_enable": "always"}},
        {"roles": ["thp"], "vars_files": ["site.yml"]},
        {"tasks": [{"include_role": {"name": "thp"}, "vars": {"thp_enable": "always"}}]},
        {"tasks": [{"block": [{"import_role": {"name": "thp"}, "vars": {"thp_enable": "always"}}]}]},
    ],
)
def test_of_a_play_of_ones_own_that_uses_a_role(body: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("thp_enable: always\n")
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "gpu-hosts", "gather_facts": False, **body}]))
    assert "did you mean thp_enabled?" in refused(play(tmp_path, tmp_path / "play.yml"))


def test_what_is_another_projects_is_left_alone(tmp_path: Path) -> None:
    mine = {"hosts": "gpu-hosts", "gather_facts": False, "tasks": [{"debug": {"msg": "done"}}]}
    (tmp_path / "play.yml").write_text(json.dumps([mine]))
    done = play(tmp_path, tmp_path / "play.yml", "-e", "thp_enable=1", "--tags", "all")
    assert (done.returncode, "did you mean" in done.stderr) == (0, False), done.stderr
    listed = play(
        tmp_path,
        REPOSITORY / "report.yml",
        "-e",
        '{"slm_other_variables": ["thp_site_*"], "thp_site_note": 1}',
        "--check",
    )
    assert listed.returncode == 0, listed.stdout + listed.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sweep_budget_s: ten\n", "sweep_budget_s: wanted a number; found 'ten'. In "),
        ("first_token_targets:\n  - {name: a, contaner: b}\n", "found 'contaner'; did you mean container? In "),
        ("rollback_force: perhaps\n", "wanted true or false; found 'perhaps'. In "),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/gpu-hosts.yml").write_text(text)
    line = refused(play(tmp_path, REPOSITORY / "baseline.yml", "--check"))
    assert said in line
    assert "Next: correct the value." in line
