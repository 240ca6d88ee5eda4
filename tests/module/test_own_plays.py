"""Plays of a user's own: roles alone, strategies and batches, and jobs that end in any way, one after the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import LEASE

from tests.conftest import REPOSITORY
from tests.module.test_audit_play import MEMORY_INFO
from tests.module.test_tags import ANSIBLE, DONE, Project

LOCAL = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
KNOB = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("checkout"))


def own_play(project: Project, **play: Any) -> str:
    (project.folder / "own.yml").write_text(json.dumps([{"hosts": "gpu-hosts", "gather_facts": False, **play}]))
    return "own.yml"


def test_a_measurement_by_roles_alone_is_stored_and_shown(project: Project) -> None:
    code, done, shown = project.run(playbook=own_play(project, roles=["slm_benchmark", "report"]))
    assert (code, done) == (0, [name for name in DONE if name != "set"]), shown


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (
            {"name": "report", "tasks_from": "rollback"},
            "the role memory_snapshot, tasks_from restore, registers before",
        ),
        ({"name": "report"}, "Next: measure it once"),
    ],
)
def test_a_role_without_what_it_needs_says_where_that_comes_from(
    project: Project, task: dict[str, str], told: str
) -> None:
    code, _, shown = project.run(playbook=own_play(project, tasks=[{"import_role": task}]))
    assert code == 2
    assert told in " ".join(shown.split())
    assert "Traceback" not in shown


def test_a_folder_that_cannot_hold_the_result_is_found_out_before_anything_is_changed(project: Project) -> None:
    (project.folder / "a file").write_text("")
    code, done, shown = project.run(report_results_dir="a file/results")
    assert (code, done) == (2, []), shown
    told = f"report_results_dir: wanted a folder on the control node with room for 4 MiB; found {project.folder}/a file"
    assert told in " ".join(shown.split()), shown
    code, done, shown = project.run(report_keep_runs=-1)
    assert (code, done) == (2, []), shown
    assert "report_keep_runs: wanted a whole number from 0 to 1000000; found -1." in " ".join(shown.split())


def test_a_result_that_could_not_be_stored_is_fetched_with_one_command(project: Project) -> None:
    """The disk of the control node fills up in the middle: here a folder stands where the result is to be."""
    answers = json.loads(project.answers.read_text())
    run = {"id": "20260314T092000Z-ab12cd", "started_at": "2026-03-14T09:20:00Z"}
    memory = answers["memory_info"]
    kept = {"benchmark": answers["slm_benchmark"]["benchmark"], "memory": memory, "before": {}, "run": run}
    answers["slm_benchmark"]["kept"] = {**kept, "finished_at": "2026-03-14T09:30:00Z"}
    project.answers.write_text(json.dumps(answers))
    for name in ("fetch.yml", "playbooks/fetch.yml"):
        (project.folder / name).write_bytes((REPOSITORY / name).read_bytes())
    code, _, shown = project.run(playbook="fetch.yml")
    assert code == 0, shown
    stored = json.loads((project.folder / "results/one/20260314T092000Z-ab12cd.json").read_text())
    assert (stored["started_at"], stored["finished_at"]) == ("2026-03-14T09:20:00Z", "2026-03-14T09:30:00Z")
    assert (project.folder / "reports/one/README.md").exists()


AUDITED = {
    "gpu-hosts": {
        "vars": LOCAL,
        "hosts": {
            "a-clean": {"thp_enabled": "madvise"},
            "b-drifted": {"thp_enabled": "drifted"},
            "c-clean": {"thp_enabled": "madvise"},
            "d-down": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1},
        },
    }
}


def audit(project: Project, limit: str, **play: Any) -> tuple[int, dict[str, str], str]:
    """The role audit in a play of one's own: exit code, each host's status in the last audit.json, output."""
    (project.folder / "library/memory_info.py").write_text(MEMORY_INFO)
    (project.folder / "fleet.json").write_text(json.dumps(AUDITED))
    (project.folder / "audit-own.yml").write_text(
        json.dumps([{"hosts": "gpu-hosts", "gather_facts": False, "roles": ["audit"], **play}])
    )
    done = subprocess.run(
        [ANSIBLE, "-i", "fleet.json", "audit-own.yml", "-l", limit],
        cwd=project.folder,
        env={**os.environ, "ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_HOME": f"{project.folder}/.ansible"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found = json.loads((project.folder / "reports/audit/audit.json").read_text())["hosts"]
    return done.returncode, {name: host["status"] for name, host in found.items()}, done.stdout + done.stderr


ALL = {"a-clean": "clean", "b-drifted": "drift", "c-clean": "clean"}


@pytest.mark.parametrize(
    ("limit", "play", "code", "statuses"),
    [
        ("a-clean,c-clean", {"serial": 1}, 0, {"a-clean": "clean", "c-clean": "clean"}),
        ("a-clean,b-drifted,c-clean", {"strategy": "free"}, 2, ALL),
        ("a-clean,b-drifted,c-clean", {"any_errors_fatal": True}, 2, ALL),
        ("a-clean,d-down", {"ignore_unreachable": True}, 0, {"a-clean": "clean", "d-down": "unreachable"}),
    ],
    ids=["serial", "free", "any_errors_fatal", "ignore_unreachable"],
)
def test_an_audit_in_any_order_ends_with_the_same_verdicts(
    project: Project, limit: str, play: dict[str, Any], code: int, statuses: dict[str, str]
) -> None:
    found = audit(project, limit, **play)
    assert found[:2] == (code, statuses), found[2]
    # A host that was not asked yet is nobody's error, in no summary on the way.
    assert "gave no answer" not in found[2]


JOB = """
- hosts: all
  gather_facts: false
  module_defaults: {{thp: {{root: {root}}}}}
  roles: [thp]
  tasks:
    - {{name: Go on with other hosts, ansible.builtin.command: {then}}}
"""


def job(folder: Path, host: Host, value: int, then: str) -> subprocess.Popen[str]:
    """A job as a controller in containers starts it: a process namespace of its own, gone with its first process."""
    (folder / f"job-{value}.yml").write_text(JOB.format(root=host.root, then=then))
    given = {**LOCAL, "thp_khugepaged": {"scan_sleep_millisecs": value}}
    command: list[str | Path] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", ANSIBLE, "-i", "one,"]
    return subprocess.Popen(
        [*command, f"job-{value}.yml", "-e", json.dumps(given)],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": f"{REPOSITORY}/ansible.cfg", "ANSIBLE_HOME": f"{folder}/.ansible-{value}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a process namespace")
def test_jobs_in_fresh_process_namespaces_follow_one_another_whatever_ended_the_last(
    fake_host: Host, tmp_path: Path
) -> None:
    """Roles alone release nothing; the second job is killed in its middle, and the third finds the host free."""
    first = job(tmp_path, fake_host, 20001, "/bin/true")
    shown = first.communicate(timeout=300)[0]
    assert first.returncode == 0, shown
    left = json.loads(fake_host.read(LEASE))["run_id"]
    second = job(tmp_path, fake_host, 20002, "sleep 600")
    while fake_host.read(KNOB).strip() != "20002":
        assert second.poll() is None, second.communicate()[0]
        time.sleep(0.2)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate(timeout=60)
    assert json.loads(fake_host.read(LEASE))["run_id"] != left
    third = job(tmp_path, fake_host, 20003, "/bin/true")
    shown = third.communicate(timeout=300)[0]
    assert third.returncode == 0, shown
    assert fake_host.read(KNOB).strip() == "20003"
