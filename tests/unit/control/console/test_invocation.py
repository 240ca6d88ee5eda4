"""Commands in a run's last lines are those that the user can type where the run was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis.console.closing import Closing
from analysis.console.invocation import Invocation, program_typed


def test_the_way_back_is_called_as_the_run_was() -> None:
    typed = Invocation(".venv/bin/ansible-playbook", "baseline.yml", ("my hosts.yml", "more.yml"))
    assert typed.command("rollback", "-l", "a") == (
        ".venv/bin/ansible-playbook rollback.yml -i 'my hosts.yml' -i more.yml -l a"
    )
    assert Invocation().command("rollback", "-l", "a;b") == "ansible-playbook rollback.yml -l 'a;b'"
    closing = Closing(invocation=typed)
    closing.note("a", "thp", {"changes": [{"knob": "thp.enabled", "before": "always", "after": "never"}]})
    assert closing.lines()[-1] == f"to undo: {typed.command('rollback', '-l', 'a')}"


@pytest.mark.parametrize(
    ("playbook", "found"),
    [
        ("slm.baseline.baseline", "slm.baseline.rollback"),
        ("sub/baseline.yml", "sub/rollback.yml"),
        # A user's own playbook has no rollback beside it.
        ("own/site.yml", "rollback.yml"),
        ("my.own.yml", "rollback.yml"),
        ("", "rollback.yml"),
    ],
)
def test_the_other_playbook_lies_beside_the_one_that_ran(
    playbook: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/rollback.yml").touch()
    assert Invocation(playbook=playbook).command("rollback") == f"ansible-playbook {found}"


def test_a_program_is_named_by_its_path_where_the_shell_would_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("venv", "bin"):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "ansible-playbook"
        program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert program_typed("venv/ansible-playbook") == "venv/ansible-playbook"
    assert program_typed(str(tmp_path / "bin/ansible-playbook")) == "ansible-playbook"
    # Started by another program, such as a runner or a test.
    assert program_typed("/usr/bin/python3") == "ansible-playbook"
    monkeypatch.setenv("PATH", "/nowhere")
    assert program_typed("bin/ansible-playbook") == "bin/ansible-playbook"
