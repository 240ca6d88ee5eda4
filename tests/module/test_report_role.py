"""The report role through the real ansible-playbook, in folders of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.documents.storage import folder_name

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests/golden/results"
HOSTILE = "db|1 <i>x</i> `y`"
RUN = {"id": "20260314T092000Z-ab12cd", "started_at": "2026-03-14T09:20:00Z"}


def pieces(golden: dict[str, Any]) -> dict[str, Any]:
    """What a run would have registered to end in this document."""
    tuning = golden["tuning"]
    return {
        "report_benchmark": {
            **{key: golden[key] for key in ("model", "software", "protocol", "ceiling", "samples")},
            "host": {key: value for key, value in golden["host"].items() if key != "name"},
        },
        "report_memory": {
            "memory": {
                "values": tuning["runtime"],
                "persisted": {knob: {"value": value, "source": "a:1"} for knob, value in tuning["persisted"].items()},
                "pools": tuning["pools"],
                "pool_users": tuning["pool_users"],
                "mounts": tuning["mounts"],
                "unfinished_sweep": False,
            },
            "desired": tuning["desired"],
            "rows": tuning["rows"],
            "competitors": [],
        },
        "report_before": tuning["before"],
        "report_run": RUN,
    }


def play(
    folder: Path, host: str, variables: dict[str, Any], tasks_from: str = "main"
) -> subprocess.CompletedProcess[str]:
    connection = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (folder / "inventory.json").write_text(json.dumps({"gpu-hosts": {"hosts": {host: connection}}}))
    (folder / "vars.json").write_text(
        json.dumps(
            {**variables, "report_results_dir": f"{folder}/results", "report_reports_dir": f"{folder}/reports"},
        )
    )
    (folder / "play.yml").write_text(
        "- hosts: gpu-hosts\n  gather_facts: false\n  vars_files: [vars.json]\n  tasks:\n"
        f"    - ansible.builtin.import_role: {{name: report, tasks_from: {tasks_from}}}\n"
    )
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["ansible-playbook", "-i", "inventory.json", "play.yml"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def golden() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / "troubled.json").read_text())
    return document


def test_a_measured_host_gets_result_picture_and_page_and_can_be_rendered_again(
    tmp_path: Path, golden: dict[str, Any]
) -> None:
    first = play(tmp_path, HOSTILE, pieces(golden))
    assert first.returncode == 0, first.stdout + first.stderr
    name = folder_name(HOSTILE)
    stored = json.loads((tmp_path / f"results/{name}/{RUN['id']}.json").read_text())
    assert stored["host"]["name"] == HOSTILE
    assert stored["samples"] == golden["samples"]
    assert stored["summary"] == golden["summary"]
    assert stored["tuning"] == {**golden["tuning"], "notes": []}
    page = tmp_path / f"reports/{name}/README.md"
    picture = tmp_path / f"reports/{name}/phases.svg"
    assert "# Huge-page baseline of db\\|1 &lt;i&gt;x&lt;/i&gt; \\`y\\`\n" in page.read_text()
    assert picture.read_text().startswith("<?xml")

    before = page.read_text()
    page.unlink()
    again = play(tmp_path, HOSTILE, {})
    assert again.returncode == 0, again.stdout + again.stderr
    assert page.read_text() == before
    assert "changed=1 " in again.stdout


def test_a_run_shows_its_own_result_whatever_else_is_stored(tmp_path: Path, golden: dict[str, Any]) -> None:
    """A clock that was ahead left a later name, a full disk half a file, another release another form."""
    folder = tmp_path / "results/node-a"
    folder.mkdir(parents=True)
    ahead = {**golden, "run_id": "20991231T000000Z-aaaaaa", "finished_at": "2099-12-31T00:10:00Z"}
    (folder / "20991231T000000Z-aaaaaa.json").write_text(json.dumps(ahead))
    (folder / "20250101T000000Z-bbbbbb.json").write_text(json.dumps(golden)[:1000])
    (folder / "20270101T000000Z-cccccc.json").write_text(json.dumps({**golden, "schema_version": 0}))
    first = play(tmp_path, "node-a", pieces(golden))
    assert first.returncode == 0, first.stdout + first.stderr
    page = tmp_path / "reports/node-a/README.md"
    assert f"run `{RUN['id']}`" in page.read_text()

    (folder / "20270101T000000Z-dddddd.json").write_text(json.dumps(golden)[:1000])
    page.unlink()
    again = play(tmp_path, "node-a", {})
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"run `{RUN['id']}`" in page.read_text()
    printed = " ".join((again.stdout + again.stderr).split())
    for name, reason in (
        ("20991231T000000Z-aaaaaa", "that run's clock was ahead"),
        ("20270101T000000Z-cccccc", "does not have the form"),
        ("20270101T000000Z-dddddd", "is not a whole JSON document"),
    ):
        assert f"{name}.json" in printed
        assert reason in printed


def test_an_older_run_or_another_model_is_shown_where_it_is_asked_for(tmp_path: Path, golden: dict[str, Any]) -> None:
    folder = tmp_path / "results/node-a"
    folder.mkdir(parents=True)
    ids = "20250101T000000Z-aaaaaa", "20250201T000000Z-bbbbbb"
    for run_id, model in zip(ids, ("tiny", "phi-3-mini"), strict=True):
        document = {**golden, "run_id": run_id, "model": {**golden["model"], "id": model}}
        (folder / f"{run_id}.json").write_text(json.dumps(document))
    page = tmp_path / "reports/node-a/README.md"
    for given, shown in (
        ({}, ids[1]),
        ({"report_show_run": ids[0]}, ids[0]),
        ({"report_show_model": "tiny"}, ids[0]),
        ({"report_show_model": "phi-3-mini"}, ids[1]),
    ):
        outcome = play(tmp_path, "node-a", given)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        assert f"run `{shown}`" in page.read_text()
    for given, told in (
        ({"report_show_run": "../node-b/x"}, "report_show_run: wanted the id of a run"),
        ({"report_show_run": "20240101T000000Z-cccccc"}, "20240101T000000Z-cccccc.json cannot be read"),
        ({"report_show_model": "qwen"}, "No result of node-a with the model qwen"),
    ):
        outcome = play(tmp_path, "node-a", given)
        assert outcome.returncode == 2
        assert told in " ".join((outcome.stdout + outcome.stderr).split())


def test_a_host_without_results_is_told_how_to_get_one(tmp_path: Path) -> None:
    outcome = play(tmp_path, "node-a", {})
    assert outcome.returncode == 2
    assert "No result of node-a that can be used is stored in" in outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr


def test_a_rollback_has_its_page_and_one_that_had_nothing_to_do_has_none(tmp_path: Path) -> None:
    restored = {"status": "restored", "changes": [{"knob": "thp.enabled", "before": "always", "after": "madvise"}]}
    given = {"report_rollback": {**restored, "left": []}, "report_run": RUN}
    page = tmp_path / f"reports/{folder_name(HOSTILE)}/rollback.md"
    nothing = play(tmp_path, HOSTILE, {**given, "report_rollback": {"status": "nothing"}}, "rollback")
    assert (nothing.returncode, page.exists()) == (0, False), nothing.stdout
    written = play(tmp_path, HOSTILE, given, "rollback")
    assert written.returncode == 0, written.stdout + written.stderr
    assert "# Rollback of db\\|1 &lt;i&gt;x&lt;/i&gt;" in page.read_text()
    assert "`thp.enabled` | `always` | `madvise`" in page.read_text()
    page.unlink()
    page.mkdir()
    refused = play(tmp_path, HOSTILE, given, "rollback")
    assert refused.returncode == 2
    assert "the rollback's page cannot be written" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
