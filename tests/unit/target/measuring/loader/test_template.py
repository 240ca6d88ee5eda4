"""The real loader as a template, with stand-ins for what it imports: its children, and whoever misbehaves."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from ansible.module_utils.slm_baseline.measuring.loader.events import phases
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader
from ansible.module_utils.slm_baseline.measuring.loader.template import TemplateFailed, template

from tests.conftest import REPOSITORY
from tests.support.fake_packages import write_packages

SCRIPT = REPOSITORY / "files" / "slm_load.py"


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    packages = write_packages(tmp_path / "packages")
    return loader_of(packages)


def loader_of(packages: Path, script: Path = SCRIPT, **env: str) -> Loader:
    given = {"PYTHONPATH": str(packages), "CALLS": str(packages / "calls"), **env}
    scratch = packages.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    python = sys.executable
    return Loader(python, str(script), ("--model", "m"), None, 20.0, tuple(given.items()), scratch=str(scratch))


def calls(loader: Loader) -> list[str]:
    return [call.split()[0] for call in Path(dict(loader.env)["CALLS"]).read_text().splitlines()]


def test_children_load_the_weights_and_only_the_template_imports(loader: Loader) -> None:
    with template(loader) as running:
        pids: list[int] = []
        seen = [running.observe(pids.append) for _ in range(3)]
        assert running.pid not in pids
    assert [each.problem for each in seen] == [None] * 3
    assert [phase.name for phase in phases(seen[0].events)] == ["weights", "first_token", "second_token"]
    assert len(set(pids)) == 3
    assert calls(loader).count("code") == calls(loader).count("tokenizer") == 1
    assert calls(loader).count("model") == 3


def test_counters_of_a_child_begin_where_its_clock_begins(loader: Loader) -> None:
    with template(loader) as running:
        memory = psutil.Process(running.pid).memory_info()
        events = running.observe(lambda pid: None).events
    begun = events.beginning
    assert begun == events.marks["tokenizer"]
    # It has copied the template's own memory by then, which is not its weights' doing.
    assert begun.minor_faults > (memory.rss - memory.shared) / os.sysconf("SC_PAGESIZE") / 2


def test_nothing_is_left_of_a_template_and_its_child(loader: Loader) -> None:
    with template(loader) as running:
        running.observe(lambda pid: None)
        process = psutil.Process(running.pid)
        assert process.children() == []
    assert not psutil.pid_exists(running.pid)
    assert psutil.Process().children() == []
    assert list(Path(loader.scratch).iterdir()) == []


def test_a_child_that_fails_is_an_observation_and_the_next_one_is_none_the_worse(tmp_path: Path) -> None:
    loader = loader_of(write_packages(tmp_path / "packages"), FAKE_FAIL="weights")
    with template(loader) as running:
        for _ in range(2):
            seen = running.observe(lambda pid: None)
            assert (seen.problem, seen.exit_code) == ("ended with exit code 2", 2)
            assert seen.stderr_tail == "slm_load: 'm' cannot be loaded: header too large"


def test_a_child_that_is_killed_says_so(loader: Loader) -> None:
    with template(loader) as running:
        seen = running.observe(lambda pid: os.kill(pid, signal.SIGKILL))
    assert (seen.problem, seen.signal) == ("killed by SIGKILL", "SIGKILL")


def test_a_template_that_cannot_import_says_why(tmp_path: Path) -> None:
    loader = loader_of(write_packages(tmp_path / "packages"), FAKE_FAIL="tokenizer")
    with pytest.raises(TemplateFailed, match="the tokenizer of 'm' cannot be loaded"), template(loader):
        pass


def test_a_template_that_was_killed_forks_nothing(loader: Loader) -> None:
    with template(loader) as running:
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(TemplateFailed, match="forks no child"):
            running.observe(lambda pid: None)


MISBEHAVING = """
import os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--template-fd") + 1]))
channel.sendall(b"r")
socket.recv_fds(channel, 1, 3)
for _ in range(CHILDREN):
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.waitpid(between, 0)
channel.sendall(b"r")
time.sleep(60)
"""


@pytest.mark.parametrize("children", [0, 2])
def test_a_template_with_any_other_number_of_children_is_none(tmp_path: Path, children: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(MISBEHAVING.replace("CHILDREN", str(children)))
    loader = loader_of(write_packages(tmp_path / "packages"), script)
    with template(loader) as running:
        with pytest.raises(TemplateFailed, match=f"there are {children}"):
            running.observe(lambda pid: None)
        assert [each.pid for each in psutil.Process().children()] == [running.pid]
