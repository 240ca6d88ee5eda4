"""The whole job from each supported control node: plays on a fake root, the collection, and its pages.

Nothing of this machine is set: the modules work on a tree of plain files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host

from tests.conftest import REPOSITORY
from tests.live.control_nodes.conftest import ControlNode
from tests.support.fakes import put

MODULES = ("memory_info", "thp", "hugepages", "hugetlbfs", "run_lease", "memory_snapshot", "first_token")
ROLES = sorted(path.name for path in (REPOSITORY / "roles").iterdir())
OVERCOMMIT = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
TUNING = {"hugepages_overcommit": {"2M": 8}, "thp_khugepaged": {"defrag": 0}, "hugepages_pools": []}
LOCAL = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "/usr/bin/python3"}


class Project:
    """The plays of this repository, with modules that work on a fake root, and one host."""

    def __init__(self, host: Host, folder: Path, connection: dict[str, object] | None = None) -> None:
        self.host, self.folder = host, folder
        roots = json.dumps({module: {"root": str(host.root)} for module in MODULES})
        shutil.copytree(REPOSITORY / "playbooks", folder / "playbooks", symlinks=True)
        for path in (folder / "playbooks").glob("*.yml"):
            play = path.read_text(encoding="utf-8")
            path.write_text(
                play.replace("  gather_facts: false\n", f"  gather_facts: false\n  module_defaults: {roots}\n", 1)
            )
        inventory = {"gpu-hosts": {"hosts": {"one": {**LOCAL, **(connection or {})}}}}
        (folder / "hosts.json").write_text(json.dumps(inventory))
        folders = {f"{name}_dir": str(folder / name) for name in ("audit_reports", "fleet_reports", "report_reports")}
        self.variables = {**TUNING, **folders, "report_results_dir": str(folder / "results")}

    def run(self, node: ControlNode, *arguments: str, prefix: tuple[str, ...] = (), **given: object) -> tuple[int, str]:
        """A play's exit code and output."""
        variables = json.dumps({**self.variables, **given})
        done = subprocess.run(
            [*prefix, node.bin / "ansible-playbook", "-i", "hosts.json", "-e", variables, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "ANSIBLE_HOME": str(self.folder / ".ansible"),
                "ANSIBLE_NOCOLOR": "1",
                "PATH": f"{node.bin}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(fake_host: Host, tmp_path: Path) -> Project:
    return Project(fake_host, tmp_path)


def test_a_host_is_tuned_audited_and_restored(node: ControlNode, project: Project) -> None:
    tune = ("playbooks/baseline.yml", "--tags", "tune")
    code, shown = project.run(node, *tune, "--check", "--diff")
    assert (code, project.host.read(OVERCOMMIT).strip()) == (0, "0"), shown
    code, shown = project.run(node, *tune)
    assert (code, project.host.read(OVERCOMMIT).strip()) == (0, "8"), shown
    code, shown = project.run(node, *tune)
    assert code == 0, shown
    assert re.search(r"one +: ok=1 +changed=0 .*skipped=0", shown), shown
    assert "WARNING" not in shown.replace("[WARNING]: Platform", ""), shown
    assert project.run(node, "playbooks/audit.yml")[0] == 0
    put(project.host.root, OVERCOMMIT, "9\n")
    code, shown = project.run(node, "playbooks/audit.yml")
    assert (code, "hugepages_overcommit.2M is 9, should be 8" in shown) == (2, True), shown
    put(project.host.root, OVERCOMMIT, "8\n")
    code, shown = project.run(node, "playbooks/rollback.yml")
    assert (code, project.host.read(OVERCOMMIT).strip()) == (0, "0"), shown
    assert (project.folder / "report_reports/one/rollback.md").exists()


def test_what_cannot_be_right_is_refused_before_the_first_change(node: ControlNode, project: Project) -> None:
    tune = (str(REPOSITORY / "baseline.yml"), "--tags", "tune")
    code, shown = project.run(node, *tune, thp_enable="always")
    assert (code, "did you mean thp_enabled?" in shown, "TASK [" in shown) == (2, True, False), shown
    code, shown = project.run(node, str(REPOSITORY / "baseline.yml"), "--tags", "tun")
    assert (code, "did you mean tune?" in shown, "TASK [" in shown) == (2, True, False), shown
    # A variable whose own template lacks something is none that is left out.
    code, shown = project.run(node, "playbooks/baseline.yml", "--tags", "tune", thp_enabled="{{ nowhere }}")
    assert (code, "'nowhere' is undefined" in shown) == (2, True), shown
    assert project.host.read(OVERCOMMIT).strip() == "0"


def test_the_collection_is_installed_shown_and_checked(node: ControlNode, tmp_path: Path) -> None:
    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(tmp_path / "home"), "PATH": f"{node.bin}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    (tmp_path / "home").mkdir()
    (tmp_path / "hosts.json").write_text(json.dumps({"gpu-hosts": {"hosts": {"one": LOCAL}}}))
    run(node.bin / "python", REPOSITORY / "packaging/collection/build.py", tmp_path / "build")
    (artifact,) = (tmp_path / "build").glob("slm-baseline-*.tar.gz")
    run("ansible-galaxy", "collection", "install", "--offline", artifact)
    shutil.rmtree(tmp_path / "build")
    modules = sorted(f"slm.baseline.{path.stem}" for path in (REPOSITORY / "library").glob("*.py"))
    assert sorted(json.loads(run("ansible-doc", "-j", *modules).stdout)) == modules
    roles = run("ansible-doc", "-t", "role", "-j", "-l", "slm.baseline")
    assert sorted(json.loads(roles.stdout)) == [f"slm.baseline.{name}" for name in ROLES]
    plays = [f"slm.baseline.{path.stem}" for path in sorted((REPOSITORY / "playbooks").glob("*.yml"))]
    checked = run("ansible-playbook", *plays, "-i", "hosts.json", "--syntax-check")
    assert "does not support Ansible version" not in checked.stderr


def test_an_older_one_is_refused_in_one_line(old_node: ControlNode, project: Project) -> None:
    code, shown = project.run(old_node, str(REPOSITORY / "baseline.yml"), "--tags", "tune")
    (line,) = [line for line in shown.splitlines() if line.strip() and "WARNING" not in line]
    assert code == 2, shown
    assert f"found ansible-core {old_node.core} with Python 3.11. Nothing was read or changed. Next: " in line


PSUTIL = """
import os
class Error(Exception): pass
class Process:
    def __init__(self, pid=None): self.pid = pid or os.getpid()
    def create_time(self): return 90000.0 + self.pid
def pids(): return [1, os.getpid(), os.getppid()]
def boot_time(): return 86400.0
"""
"""What a Mac's psutil tells; that of Linux needs /proc."""


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[dict[str, object]]:
    """This machine as a host by ssh, on the loopback; how to connect to it."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if os.geteuid() != 0 or program is None:
        pytest.skip("needs root and openssh-server")
    folder = tmp_path / "sshd"
    folder.mkdir()
    for name in ("host_key", "login_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    options = ["AuthorizedKeysFile=" + str(folder / "login_key.pub"), "StrictModes=no", "UsePAM=no", "PidFile=none"]
    port = 20022
    command = ["-D", "-e", "-p", str(port), "-h", str(folder / "host_key"), "-f", "/dev/null"]
    command += [word for option in [*options, "ListenAddress=127.0.0.1"] for word in ("-o", option)]
    # It wants its folder in /run, which is this machine's.
    script = f'mount -t tmpfs none /run && mkdir /run/sshd && exec {program} "$@"'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        assert "listening" in process.stderr.readline()
        yield {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(folder / "login_key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        }
        process.terminate()


def test_a_control_node_without_proc_tunes_hosts_by_ssh(
    node: ControlNode, fake_host: Host, tmp_path: Path, sshd: dict[str, object]
) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub/psutil.py").write_text(PSUTIL)
    project = Project(fake_host, tmp_path, sshd)
    mac = 'mount -t tmpfs none /proc && exec env PYTHONPATH=%s "$@"' % (tmp_path / "stub")
    prefix = ("unshare", "--mount", "sh", "-c", mac, "sh")
    for words in (["baseline.yml", "--tags", "tune"], ["audit.yml"], ["rollback.yml"]):
        code, shown = project.run(node, f"playbooks/{words[0]}", *words[1:], prefix=prefix)
        assert (code, "Traceback" in shown) == (0, False), shown
    assert fake_host.read(OVERCOMMIT).strip() == "0"
    assert (tmp_path / "report_reports/one/rollback.md").exists()
