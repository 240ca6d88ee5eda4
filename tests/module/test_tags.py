"""What each choice of tags does of baseline.yml, with modules that only note that they were called."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
GOLDEN = json.loads((REPOSITORY / "tests/golden/results/troubled.json").read_text())
TABLE = REPOSITORY / "docs/tags.md"
DONE = ("set", "measured", "stored", "shown")
"""What a run can do: settings set, model measured, result stored, report written."""

STUB = """
import json, os, sys
from ansible.module_utils.basic import AnsibleModule, _load_params

name = {name!r}
given = _load_params()
given = given if isinstance(given, dict) else {{}}
module = AnsibleModule({{key: {{"type": "raw"}} for key in given if not key.startswith("_")}}, supports_check_mode=True)
answers = json.load(open({answers!r}))
with open({log!r}, "a") as log:
    told = "preflight " if module.params.get("preflight") else ""
    log.write(told + name + " " + str(module.params.get("state", "")) + "\\n")
module.exit_json(**answers.get((told + name).strip(), {{"changed": False}}))
"""
MODULES = ("memory_info", "thp", "hugepages", "hugetlbfs", "slm_environment", "slm_model", "slm_benchmark", "run_lease")


class Project:
    """The project with modules that note their call, in a folder of its own, as a checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.answers = folder, folder / "log", folder / "answers.json"
        for name in ("plugins", "roles", "files", "baseline.yml", "playbooks"):
            source = REPOSITORY / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name, **_keeping_links(source))
        shutil.rmtree(folder / "plugins/module_utils")
        (folder / "plugins/module_utils").symlink_to(REPOSITORY / "plugins/module_utils")
        (folder / "library").mkdir()
        for name in MODULES:
            stub = STUB.format(name=name, answers=str(self.answers), log=str(self.log))
            (folder / f"library/{name}.py").write_text(stub)
        shutil.copy(REPOSITORY / "ansible.cfg", folder)
        host = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
        (folder / "hosts.json").write_text(json.dumps({"gpu-hosts": {"hosts": {"one": host}}}))
        self.answer()

    def answer(self, pending: bool = True, drift: bool = False) -> None:
        """What the modules will say."""
        tuning = GOLDEN["tuning"]
        rows = [{**row, "verdict": "clean"} for row in tuning["rows"]]
        if drift:
            rows[0] = {**rows[0], "verdict": "drift", "detail": "thp.enabled is always, should be madvise"}
        facts = {
            "values": tuning["runtime"],
            "persisted": {knob: {"value": value, "source": "a:1"} for knob, value in tuning["persisted"].items()},
            **{key: tuning[key] for key in ("pools", "pool_users", "mounts")},
            "unfinished_sweep": False,
            "before": tuning["before"],
        }
        memory = {"changed": False, "rows": rows, "competitors": [], "desired": tuning["desired"], "memory": facts}
        benchmark: dict[str, Any] = {
            **{key: GOLDEN[key] for key in ("model", "software", "protocol", "ceiling", "samples")},
            "host": {key: value for key, value in GOLDEN["host"].items() if key != "name"},
        }
        told = {
            "memory_info": memory,
            "preflight memory_info": {**memory, "pending": pending},
            "slm_benchmark": {"changed": True, "msg": "block 1 of 1", "benchmark": benchmark},
        }
        self.answers.write_text(json.dumps(told))

    def run(
        self, *options: str, playbook: str = "baseline.yml", said: str | None = None, **variables: Any
    ) -> tuple[int, list[str], str]:
        """Exit code, what was done, and the output."""
        for name in ("results", "reports"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.log.write_text("")
        done = subprocess.run(
            [ANSIBLE, "-i", "hosts.json", playbook, "-e", json.dumps({"slm_benchmark_runs": 1, **variables}), *options],
            cwd=self.folder,
            env={**os.environ, "ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_HOME": f"{self.folder}/.ansible"},
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        calls = self.log.read_text().splitlines()
        seen = {
            "set": any(call.startswith("thp") for call in calls),
            "measured": "slm_benchmark " in calls,
            "stored": any((self.folder / "results/one").glob("2*.json")),
            "shown": (self.folder / "reports/one/README.md").exists(),
        }
        return done.returncode, [name for name in DONE if seen[name]], done.stdout + done.stderr


def _keeping_links(source: Path) -> dict[str, Any]:
    return {"symlinks": True, "ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("checkout"))


TABLED: list[tuple[str, list[str]]] = [
    ("", ["set", "measured", "stored", "shown"]),
    ("--tags tune", ["set"]),
    ("--tags measure", ["measured", "stored"]),
    ("--tags report", []),
    ("--tags tune,measure", ["set", "measured", "stored"]),
    ("--tags tune,report", ["set"]),
    ("--tags measure,report", ["measured", "stored", "shown"]),
    ("--skip-tags tune", ["measured", "stored", "shown"]),
    ("--skip-tags measure", ["set"]),
    ("--skip-tags report", ["set", "measured", "stored"]),
    ("--tags tune,measure --skip-tags measure", ["set"]),
    ("--tags tagged", ["set", "measured", "stored", "shown"]),
    ("--skip-tags always", ["set", "measured", "stored", "shown"]),
]
"""Options, and what a run with them does on a host that was never tuned and never measured."""
REFUSED = [
    "--tags tuen",
    "--tags tune,tuen",
    "--skip-tags mesure",
    "--tags untagged",
    "--skip-tags all",
    "--skip-tags tune,measure,report",
    "--tags tune --skip-tags tune",
    "--skip-tags tagged",
    '--start-at-task "Measure the model"',
    '--start-at-task "Set huge page pools"',
    '--start-at-task "No such task"',
]
"""Options that leave nothing to do, or that name what is not there."""


def _words(options: str) -> Sequence[str]:
    return [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', options)]


@pytest.mark.parametrize(("options", "wanted"), TABLED, ids=[options or "none" for options, _ in TABLED])
def test_each_choice_of_tags_does_its_parts_and_no_other(project: Project, options: str, wanted: list[str]) -> None:
    code, done, shown = project.run(*_words(options))
    assert done == wanted, shown
    # A host without a result has no report to show, and to ask for it alone is an error.
    assert code == (2 if options == "--tags report" else 0), shown


# The others through the look-up's own function: tests/unit/control/test_slm_parts.py.
@pytest.mark.parametrize("options", [REFUSED[1], REFUSED[5], REFUSED[9]])
def test_what_leaves_nothing_to_do_is_refused(project: Project, options: str) -> None:
    code, done, shown = project.run(*_words(options))
    assert code not in (0, None), shown
    assert done == []
    assert project.log.read_text() == ""
    assert "Nothing was read or changed. Next: " in " ".join(shown.split()), shown
    assert "Traceback" not in shown
    if "tuen" in options:
        assert "did you mean tune?" in " ".join(shown.split())


def test_the_page_has_the_table() -> None:
    rows = ["| options | " + " | ".join(DONE) + " |", "|---|" + "---|" * len(DONE)]
    for options, wanted in TABLED:
        cells = ("yes" if name in wanted else "" for name in DONE)
        rows.append(f"| {f'`{options}`' if options else 'none'} | {' | '.join(cells)} |")
    rows += [f"| `{options}` | refused | | | |" for options in REFUSED]
    assert "\n".join(rows) in TABLE.read_text(), "docs/tags.md: wanted\n" + "\n".join(rows)


def test_a_stored_result_is_shown_by_a_run_that_measures_nothing(project: Project) -> None:
    code, _, shown = project.run()
    assert code == 0, shown
    kept = project.folder / "kept"
    shutil.copytree(project.folder / "results", kept, dirs_exist_ok=True)
    code, done, shown = project.run("--skip-tags", "measure", report_results_dir=str(kept))
    assert (code, done) == (0, ["set", "shown"]), shown
    assert "**Tuned since:**" in (project.folder / "reports/one/README.md").read_text()


def test_a_step_that_is_left_out_is_no_success(project: Project) -> None:
    """--step: yes to the look, no to a check of arguments and to what sets, yes to all that follows."""
    code, done, shown = project.run("--tags", "tune", "--step", said="y\nn\nn\nc\n")
    assert (code, done) == (2, []), shown
    assert "tuning: wanted every setting in force and read back; found that it was not set." in " ".join(shown.split())


def test_drift_after_setting_fails_the_host_whatever_follows(project: Project) -> None:
    project.answer(drift=True)
    try:
        for options in ("--tags tune", "--skip-tags measure", ""):
            code, done, shown = project.run(*_words(options))
            assert (code, done) == (2, ["set"]), shown
            assert "thp.enabled is always, should be madvise" in shown
    finally:
        project.answer()


SITE = """
- name: Others first
  hosts: gpu-hosts
  gather_facts: false
  tasks:
    - {name: A task of theirs, ansible.builtin.debug: {msg: theirs}, tags: [nginx]}
- name: Ours
  import_playbook: playbooks/baseline.yml
  tags: [gpu]
"""


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("", ["set", "measured", "stored", "shown"]),
        ("--tags nginx", []),
        ("--tags gpu", ["set", "measured", "stored", "shown"]),
        ("--tags gpu --skip-tags measure", ["set"]),
        ("--tags nginx,tune", ["set"]),
        ('--start-at-task "A task of theirs"', ["set", "measured", "stored", "shown"]),
    ],
)
def test_tags_of_a_playbook_that_imports_this_one_are_its_own(
    project: Project, options: str, wanted: list[str]
) -> None:
    (project.folder / "site.yml").write_text(SITE)
    code, done, shown = project.run(*_words(options), playbook="site.yml")
    assert (code, done) == (0, wanted), shown


def test_a_task_of_ours_is_no_place_to_start_from_there_either(project: Project) -> None:
    (project.folder / "site.yml").write_text(SITE)
    code, done, shown = project.run("--start-at-task", "Measure the model", playbook="site.yml")
    assert code not in (0, None), shown
    assert (done, project.log.read_text()) == ([], "")


def test_every_play_asks_for_its_parts_where_nothing_can_skip_it() -> None:
    for path in (REPOSITORY / "playbooks").glob("*.yml"):
        hosts = re.findall(r"^  hosts: .*$", path.read_text(), re.MULTILINE)
        assert hosts, path
        assert [line for line in hosts if "slm_parts" not in line] == [], path


def test_a_play_without_parts_refuses_a_choice_of_them(project: Project) -> None:
    code, _, shown = project.run("--tags", "tune", playbook="playbooks/rollback.yml")
    assert code not in (0, None), shown
    assert "Nothing was read or changed." in " ".join(shown.split())
    assert project.log.read_text() == ""
