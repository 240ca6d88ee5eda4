"""Who this run is: an identity that neither the clock nor another container nor a nested run changes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from ansible import constants

from lookup.slm_run import alive, controller_id, describe, identity, main_pid, parse_stat

STAT = "{pid} ({name}) S 1 77 77 0 -1 {flags} 9 0 0 0 1 2 3 4 20 0 1 0 {start} 900 5 18446744073709551615\n"


@pytest.mark.parametrize("name", ["ansible-playbook", "a b", "x) R 1 2 (y", "", ")"])
def test_the_start_stands_after_the_last_parenthesis(name: str) -> None:
    assert parse_stat(STAT.format(pid=7, name=name, start=123456, flags=4194560)) == (123456, False)


def test_the_kernels_own_threads_are_told_apart() -> None:
    assert parse_stat(STAT.format(pid=2, name="kthreadd", start=1, flags=0x00208040)) == (1, True)


@pytest.mark.parametrize("text", ["", "7 (x", "7 (x) S 1", STAT.format(pid=7, name="x", start="soon", flags=0)])
def test_other_text_has_no_start(text: str) -> None:
    with pytest.raises(ValueError, match=r"no start|invalid literal"):
        parse_stat(text)


def test_setting_the_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Processes come and go meanwhile; this one stays.
    monkeypatch.setattr(psutil, "pids", lambda: [os.getpid()])
    first = describe()
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 3600)
    assert describe() == first
    assert identity(os.getpid()) == [os.getpid(), first["controller"]["started"]]


def test_no_place_for_a_note_falls_back_to_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "gone"))
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: 86400.0)
    assert describe()["started_at"] == "1970-01-02T00:00:00Z"


def test_a_process_without_a_readable_stat_has_its_start_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert identity(os.getpid()) == [os.getpid(), round(psutil.Process().create_time(), 2)]


def test_a_controller_is_a_boot_its_namespaces_and_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = [str(os.stat(f"/proc/self/ns/{name}").st_ino) for name in ("pid", "user")]
    assert controller_id("b") == "/".join(["b", *namespaces, str(os.getuid())])
    mine = controller_id("b")
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert controller_id("b") != mine


def test_a_controller_without_namespaces_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def missing(path: Any, **more: Any) -> os.stat_result:
        if str(path).startswith("/proc/self/ns/"):
            raise FileNotFoundError(path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", missing)
    assert controller_id("b") == ""


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control node as macOS is: nothing under /proc can be read or is there, and psutil asks the kernel otherwise."""
    stat, read_text = os.stat, Path.read_text

    def no_stat(path: Any, **more: Any) -> os.stat_result:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return stat(path, **more)

    def no_text(path: Path, *positional: Any, **more: Any) -> str:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return read_text(path, *positional, **more)

    monkeypatch.setattr(os, "stat", no_stat)
    monkeypatch.setattr(Path, "read_text", no_text)
    monkeypatch.setattr(psutil, "pids", lambda: [1, os.getpid()])
    monkeypatch.setattr(psutil, "boot_time", lambda: 86400.2)
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: 90000.0 + process.pid)


@pytest.mark.usefixtures("without_proc")
def test_a_control_node_without_proc_is_a_run_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    run = describe()
    assert [run["controller"]["pid"], run["controller"]["started"]] in run["alive"]
    assert run["controller"]["id"].endswith(f" 86400/{os.getuid()}")
    assert describe() == run
    monkeypatch.setattr(psutil, "boot_time", lambda: 172800.0)
    assert describe()["controller"]["id"] != run["controller"]["id"]


def test_outside_a_worker_this_process_is_the_run() -> None:
    assert main_pid() == os.getpid()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    # Another program's pool is no worker of Ansible's: what it forks is a run of its own.
    process = context.Process(target=lambda: queue.put(main_pid()))
    process.start()
    assert queue.get() == process.pid
    process.join()


def test_a_process_that_ends_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "pids", lambda: [2**22 + 1])
    assert list(alive()) == []


def test_processes_of_other_users_are_no_runs_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    stat = os.stat

    def owned(path: Any, **more: Any) -> os.stat_result:
        found = stat(path, **more)
        return os.stat_result([*found[:4], 4243, *found[5:]]) if str(path).startswith("/proc/") else found

    monkeypatch.setattr(os, "stat", owned)
    assert list(alive()) == []


def test_a_living_run_is_seen_with_its_start_whatever_it_is_called(tmp_path: Path) -> None:
    program = tmp_path / "any-name"
    program.write_text("import sys; print(flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert identity(process.pid) in list(alive())
        process.communicate()
