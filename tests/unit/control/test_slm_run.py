"""Who this run is: an identity that neither the clock nor another container nor a nested run changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from ansible import constants

from lookup_plugins.slm_run import alive, controller_id, describe, identity, main_process, parse_start

STAT = "{pid} ({name}) S 1 77 77 0 -1 4194560 9 0 0 0 1 2 3 4 20 0 1 0 {start} 900 5 18446744073709551615\n"


@pytest.mark.parametrize("name", ["ansible-playbook", "a b", "x) R 1 2 (y", "", ")"])
def test_the_start_stands_after_the_last_parenthesis(name: str) -> None:
    assert parse_start(STAT.format(pid=7, name=name, start=123456)) == 123456


@pytest.mark.parametrize("text", ["", "7 (x", "7 (x) S 1", STAT.format(pid=7, name="x", start="soon")])
def test_other_text_has_no_start(text: str) -> None:
    with pytest.raises(ValueError, match=r"no start|invalid literal"):
        parse_start(text)


def test_setting_the_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = describe()
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 3600)
    assert describe() == first
    assert identity(psutil.Process()) == [os.getpid(), first["controller"]["started"]]


def test_no_place_for_a_note_falls_back_to_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "gone"))
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: 86400.0)
    assert describe()["started_at"] == "1970-01-02T00:00:00Z"


def test_a_process_without_a_readable_stat_has_its_start_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert identity(psutil.Process()) == [os.getpid(), round(psutil.Process().create_time(), 2)]


def test_a_controller_is_a_boot_a_process_namespace_and_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    assert controller_id("b") == f"b/{os.stat('/proc/self/ns/pid').st_ino}/{os.getuid()}"
    mine = controller_id("b")
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert controller_id("b") != mine


def test_a_controller_without_namespaces_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "stat", missing)
    assert controller_id("b") == ""


class FakeProcess:
    """A process of a made-up tree: `ansible-playbook` or something else, or one that has gone."""

    def __init__(self, pid: int, command: str = "", parents: list[FakeProcess] | None = None) -> None:
        self.pid = pid
        self.command = command
        self.ancestors = parents or []

    def cmdline(self) -> list[str]:
        return ["python3", f"/usr/bin/{self.command}"]

    def parents(self) -> list[FakeProcess]:
        return self.ancestors

    def create_time(self) -> float:
        raise psutil.NoSuchProcess(self.pid)


def test_a_run_inside_another_is_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = [FakeProcess(3, "module"), FakeProcess(2, "ansible-playbook"), FakeProcess(1, "init")]
    main = FakeProcess(4, "ansible-playbook")
    worker = FakeProcess(5, "ansible-playbook", [main, *outer])
    monkeypatch.setattr(psutil, "Process", lambda: worker)
    assert main_process().pid == 4


def test_a_process_that_ends_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = FakeProcess(2**22 + 1, "ansible-playbook")
    monkeypatch.setattr(psutil, "process_iter", lambda: [gone])
    assert list(alive()) == []


def test_a_living_playbook_is_seen_with_its_start(tmp_path: Path) -> None:
    program = tmp_path / "ansible-playbook"
    program.write_text("import sys; print(flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert identity(psutil.Process(process.pid)) in list(alive())
        process.communicate()
