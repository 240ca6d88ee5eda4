"""report.yml through the real ansible-playbook: the page from stored results alone, without any host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import fleet_samples as samples

REPOSITORY = Path(__file__).resolve().parents[2]


def play(folder: Path, name: str = "report.yml", *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook, report.yml where none is named, for a fleet of which no host exists."""
    hosts = {"gpu-1": None, "gpu-2": None, "gpu-9": None}
    groups = {"gpu-hosts": {"hosts": hosts}, "rack-1": {"hosts": {"gpu-1": None, "switch": None}}}
    (folder / "inventory.json").write_text(json.dumps({"all": {"children": groups}}))
    given = {"fleet_results_dir": f"{folder}/results", "fleet_reports_dir": f"{folder}/reports", **variables}
    (folder / "vars.json").write_text(json.dumps(given))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(folder / "inventory.json"),
            "-e",
            f"@{folder}/vars.json",
            name,
            *options,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def stored(folder: Path) -> dict[str, Any]:
    page = (folder / "reports/index.html").read_text(encoding="utf-8")
    (block,) = re.findall(r'<script type="application/json" id="fleet">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(block)
    return found


@pytest.mark.parametrize("name", ["baseline", "sweep", "first_token"])
def test_every_run_ends_with_the_page(tmp_path: Path, name: str) -> None:
    run = play(tmp_path, f"{name}.yml", "--list-tasks")
    assert "fleet : Write the page of the fleet" in run.stdout, run.stdout + run.stderr


def test_the_page_comes_from_stored_files_and_the_inventory(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 2, 3)
    (tmp_path / "results/gpu-1/20250101T000000Z.json").write_text("{")
    (tmp_path / "reports/audit").mkdir(parents=True)
    (tmp_path / "reports/audit/audit.json").write_text(json.dumps(samples.audit({"gpu-1": "clean", "gpu-2": "drift"})))
    (tmp_path / "reports/gpu-1").mkdir()
    (tmp_path / "reports/gpu-1/README.md").write_text("# a report\n")
    run = play(tmp_path, fleet_stale_days=36500)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "[WARNING]" not in run.stdout + run.stderr
    found = stored(tmp_path)
    assert {host["name"]: (host["status"], host["measured"]) for host in found["hosts"]} == {
        "gpu-1": ("clean", "measured"),
        "gpu-2": ("drift", "measured"),
        "gpu-9": ("unknown", "never"),
    }
    assert [host["report"] for host in found["hosts"]] == [True, False, False]
    assert [[found["groups"][index] for index in host["groups"]] for host in found["hosts"]] == [["rack-1"], [], []]
    assert (found["results"], found["left_out"][0][0]) == ("../results", "gpu-1/20250101T000000Z.json")
    assert "3 hosts: 1 clean, 1 drift, 1 unknown" in run.stdout
    assert "left out: gpu-1/20250101T000000Z.json" in run.stdout


def test_retention_is_asked_for_by_its_name(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 2, 4)
    run = play(tmp_path, report_keep_runs=2)
    assert run.returncode == 0, run.stdout + run.stderr
    assert [len(list((tmp_path / "results" / host).iterdir())) for host in ("gpu-1", "gpu-2")] == [2, 2]
    assert "changed=1" in run.stdout


@pytest.mark.parametrize(("name", "value"), [("keep_runs", "-1"), ("stale_days", "soon"), ("runs_shown", 0)])
def test_a_bad_number_is_refused_by_its_name(tmp_path: Path, name: str, value: Any) -> None:
    samples.build(tmp_path / "results", 1, 1)
    run = play(tmp_path, "report.yml", **{f"fleet_{name}": value})
    assert run.returncode == 2
    assert f"fleet_{name}" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert not (tmp_path / "reports").exists()


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    run = play(tmp_path)
    assert run.returncode == 2
    assert "fleet_reports_dir" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
