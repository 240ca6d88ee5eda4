"""The ways of docs/running.md, as printed: a checkout inside another project, by roles and by an imported play."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.module.test_tags import ANSIBLE, Project

PAGE = (REPOSITORY / "docs/running.md").read_text()


def printed(begins: str) -> str:
    """The indented block of the page that begins with this line, without what follows its first empty line."""
    block = PAGE[PAGE.index(f"    {begins}") :].split("\n\n")[0]
    return "".join(f"{line.removeprefix('    ')}\n" for line in block.splitlines())


def test_the_page_has_the_lines() -> None:
    assert "roles_path = roles:slm-baseline/roles" in printed("[defaults]")
    assert yaml.safe_load(printed("- hosts: gpu-hosts"))[0]["roles"][0] == "thp"


@pytest.mark.parametrize("way", ["roles", "import"])
def test_a_checkout_inside_another_project_tunes_measures_and_shows(tmp_path: Path, way: str) -> None:
    (tmp_path / "slm-baseline").mkdir()
    project = Project(tmp_path / "slm-baseline")
    project.log.write_text("")
    site = yaml.safe_load(printed("- hosts: gpu-hosts" if way == "roles" else "- name: Our web servers"))
    if way == "roles":
        (tmp_path / "ansible.cfg").write_text(printed("[defaults]"))
        # The stubs' own hosts are this machine's user's.
        site[0]["become"] = False
    else:
        (tmp_path / "ansible.cfg").write_text("")
        site[0]["tasks"] = []
    (tmp_path / "site.yml").write_text(yaml.safe_dump(site))
    done = subprocess.run(
        [ANSIBLE, "-i", "slm-baseline/hosts.json", "site.yml", "-e", json.dumps({"slm_benchmark_runs": 1})],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_HOME": f"{tmp_path}/.ansible"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    calls = project.log.read_text().splitlines()
    assert any(call.startswith("thp") for call in calls), shown
    assert "slm_benchmark " in calls
    assert any((project.folder / "results/one").glob("2*.json")), shown
    assert (project.folder / "reports/one/README.md").exists(), shown
