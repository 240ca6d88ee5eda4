"""The collection, built and installed into an empty environment: full names work in a playbook that lies elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.files import Host

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
HOST = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
INVENTORY = {"gpu-hosts": {"hosts": {"gpu-1": HOST}}}


class Elsewhere:
    """A folder that knows nothing of this repository but the installed collection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "HOME": str(folder / "home"),
            "PWD": str(folder),
            "PATH": f"{BIN}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
        }
        (folder / "home").mkdir()
        (folder / "hosts.json").write_text(json.dumps(INVENTORY))

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def play(self, tasks: list[dict[str, Any]], *arguments: str) -> subprocess.CompletedProcess[str]:
        play = {"hosts": "gpu-hosts", "gather_facts": False, "tasks": tasks}
        (self.folder / "play.yml").write_text(json.dumps([play]))
        return self.run("ansible-playbook", "-i", "hosts.json", "play.yml", *arguments)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    folder = tmp_path_factory.mktemp("elsewhere")
    place = Elsewhere(folder)
    built = place.run(sys.executable, ROOT / "packaging/collection/build.py", folder / "build")
    assert built.returncode == 0, built.stderr
    (artifact,) = (folder / "build").glob("slm-baseline-*.tar.gz")
    installed = place.run("ansible-galaxy", "collection", "install", "--offline", artifact)
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(folder / "build")
    return place


def test_every_page_is_shown(elsewhere: Elsewhere) -> None:
    names = [f"slm.baseline.{name}" for name in MODULES]
    shown = elsewhere.run("ansible-doc", "-j", *names)
    assert shown.returncode == 0, shown.stderr
    pages = json.loads(shown.stdout)
    assert sorted(pages) == names
    assert all("root" in page["doc"]["options"] for page in pages.values())
    roles = elsewhere.run("ansible-doc", "-t", "role", "-j", "-l", "slm.baseline")
    assert sorted(json.loads(roles.stdout)) == [f"slm.baseline.{name}" for name in ROLES], roles.stderr


def test_a_module_sets_and_restores_by_its_full_name(elsewhere: Elsewhere, fake_host: Host) -> None:
    knob = fake_host.path("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs")
    root = str(fake_host.root)
    done = elsewhere.play([{"slm.baseline.thp": {"khugepaged": {"scan_sleep_millisecs": 20000}, "root": root}}])
    assert "changed=1" in done.stdout, done.stdout + done.stderr
    assert knob.read_text().strip() == "20000"
    restored = elsewhere.play([{"slm.baseline.memory_snapshot": {"state": "restored", "root": root}}])
    assert "changed=1" in restored.stdout, restored.stdout + restored.stderr
    assert knob.read_text().strip() == "10000"


def test_a_role_writes_its_report_into_the_current_folder(elsewhere: Elsewhere) -> None:
    results = elsewhere.folder / "results/gpu-1"
    results.mkdir(parents=True)
    shutil.copy(ROOT / "tests/golden/results/gpu.json", results / "20260314T092000Z-ab12cd.json")
    done = elsewhere.play([{"import_role": {"name": "slm.baseline.report"}}])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (elsewhere.folder / "reports/gpu-1/README.md").read_text().startswith("# ")
    assert "<svg" in (elsewhere.folder / "reports/gpu-1/phases.svg").read_text()


def test_the_audit_runs_by_its_full_name(elsewhere: Elsewhere) -> None:
    wanted = ("-e", json.dumps({"thp_enabled": "madvise"}))
    done = elsewhere.run("ansible-playbook", "slm.baseline.audit", "-i", "hosts.json", *wanted)
    host = json.loads((elsewhere.folder / "reports/audit/audit.json").read_text())["hosts"]["gpu-1"]
    # This machine need not be tuned.
    assert (host["status"], done.returncode) in [("clean", 0), ("drift", 2)], done.stdout + done.stderr
    assert [row["knob"] for row in host["rows"]][:1] == ["thp.enabled"]


def test_a_run_that_reaches_no_host_ends_in_an_error(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("ansible-playbook", "slm.baseline.audit", "-i", "somewhere,")
    assert (done.returncode, "found none in the inventory" in done.stderr) == (2, True), done.stdout + done.stderr


def test_a_variable_that_nothing_knows_ends_in_an_error(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("ansible-playbook", "slm.baseline.audit", "-i", "hosts.json", "-e", "thp_enable=never")
    assert (done.returncode, "did you mean thp_enabled?" in done.stderr) == (2, True), done.stdout + done.stderr
    play = [{"import_role": {"name": "slm.baseline.thp"}, "vars": {"thp_enable": "never"}}]
    enabled = {"ANSIBLE_CALLBACKS_ENABLED": "slm.baseline.check_names"}
    (elsewhere.folder / "own.yml").write_text(json.dumps([{"hosts": "gpu-hosts", "tasks": play}]))
    done = elsewhere.run("ansible-playbook", "-i", "hosts.json", "own.yml", **enabled)
    assert (done.returncode, "did you mean thp_enabled?" in done.stderr) == (2, True), done.stdout + done.stderr


def test_every_playbook_is_found(elsewhere: Elsewhere) -> None:
    names = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))
    playbooks = [f"slm.baseline.{name.removesuffix('.yml')}" for name in names]
    done = elsewhere.run("ansible-playbook", *playbooks, "-i", "hosts.json", "--syntax-check")
    assert done.returncode == 0, done.stderr
    assert all(f"/slm/baseline/playbooks/{name}\n" in done.stdout for name in names), done.stdout


def test_no_file_of_the_collection_names_the_repository(elsewhere: Elsewhere) -> None:
    tree = elsewhere.folder / "home/.ansible/collections/ansible_collections/slm/baseline"
    for path in tree.rglob("*.py"):
        text = path.read_text()
        assert "ansible.module_utils.slm_baseline" not in text, path
        assert "sys.path.insert(0, _ROOT)" not in text, path
    for path in tree.glob("roles/*/defaults/main.yml"):
        assert "role_path" not in path.read_text(), path
    assert os.path.isfile(tree / "plugins/plugin_utils/schemas/result.schema.json")
