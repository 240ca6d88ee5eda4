"""The sweep's play through the real ansible-playbook, as far as it goes without a measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from analysis.sweep.document import analysed
from analysis.sweep.report import PICTURES
from tests.support.sweep_samples import document

REPOSITORY = Path(__file__).resolve().parents[2]


def play(folder: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run sweep.yml with its results and reports under `folder`, for a host that does not exist."""
    host = {"ansible_host": "192.0.2.1", "ansible_connection": "ssh", "ansible_become": False}
    (folder / "inventory.json").write_text(json.dumps({"gpu-hosts": {"hosts": {"gpu-1": host}}}))
    given = {"sweep_results_dir": f"{folder}/results", "sweep_reports_dir": f"{folder}/reports", **variables}
    (folder / "vars.json").write_text(json.dumps(given))
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(folder / "inventory.json"),
            "-e",
            f"@{folder}/vars.json",
            "sweep.yml",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_newest_stored_sweep_is_rendered_anew_without_its_host(tmp_path: Path) -> None:
    results = tmp_path / "results/gpu-1"
    results.mkdir(parents=True)
    for run_id, blocks in (("20250101T000000Z", 1), ("20260101T000000Z", 6)):
        stored = analysed({**document(blocks=blocks), "run_id": run_id})
        (results / f"sweep-{run_id}.json").write_text(json.dumps(stored))
    run = play(tmp_path, sweep_render_only=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "[WARNING]" not in run.stdout + run.stderr
    assert sorted(path.name for path in (tmp_path / "reports/gpu-1").iterdir()) == sorted(
        ["sweep.md", "sweep.json", *PICTURES]
    )
    beside = json.loads((tmp_path / "reports/gpu-1/sweep.json").read_text())
    assert beside == json.loads((results / "sweep-20260101T000000Z.json").read_text())
    assert "6 blocks of 6 arms" in (tmp_path / "reports/gpu-1/sweep.md").read_text()
    assert "6 blocks of 6 arms" in run.stdout


def test_a_truncated_sweep_is_named_and_the_latest_whole_one_shown(tmp_path: Path) -> None:
    results = tmp_path / "results/gpu-1"
    results.mkdir(parents=True)
    whole = json.dumps(analysed({**document(blocks=1), "run_id": "20260101T000000Z"}))
    (results / "sweep-20260101T000000Z.json").write_text(whole)
    (results / "sweep-20260201T000000Z.json").write_text(whole[:9999])
    run = play(tmp_path, sweep_render_only=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "reports/gpu-1/sweep.md").is_file()
    assert "sweep-20260201T000000Z.json is not a whole JSON document" in " ".join((run.stdout + run.stderr).split())


def test_without_a_stored_sweep_it_says_what_to_do(tmp_path: Path) -> None:
    run = play(tmp_path, sweep_render_only="true")
    assert run.returncode == 2
    assert "No sweep of gpu-1 that can be used is stored" in run.stdout + run.stderr
    assert "ansible-playbook sweep.yml -l gpu-1" in run.stdout + run.stderr
