"""The observer against loaders that work, crash, hang, are killed and write rubbish."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.accounts import find_account
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.measuring.loader import process
from ansible.module_utils.slm_baseline.measuring.loader.events import phases
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader, Observation, observe, plain_text

from tests.conftest import REPOSITORY

FAKE = REPOSITORY / "tests" / "support" / "fake_loader.py"


def run(tmp_path: Path, mode: str, timeout_s: float = 20, env: tuple[tuple[str, str], ...] = ()) -> Observation:
    loader = Loader(sys.executable, str(FAKE), (mode,), None, timeout_s, env, scratch=str(tmp_path))
    return observe(loader, lambda pid: None)


def processes(word: str) -> list[str]:
    """Command lines that still hold the word, once the killed ones have had time to go: SIGKILL is no instant."""
    deadline = time.monotonic() + 5
    while (found := processes_now(word)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def processes_now(word: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in command and folder.name != str(os.getpid()):
            found.append(command)
    return found


def test_a_good_run_is_told_from_spawn_to_second_token(tmp_path: Path) -> None:
    held: list[int] = []
    loader = Loader(sys.executable, str(FAKE), ("good",), None, 20.0, scratch=str(tmp_path))
    seen = observe(loader, held.append)
    assert seen.problem is None
    assert (seen.exit_code, seen.signal) == (0, None)
    assert len(held) == 1
    assert seen.events.report is not None
    assert seen.events.report.memory.pss_bytes == 3072
    found = phases(seen.events)
    assert [phase.name for phase in found][-2:] == ["first_token", "second_token"]
    to_first_token_s = (seen.events.marks["first_token"].t_ns - seen.events.spawn_ns) / 1e9
    assert sum(phase.seconds for phase in found[:-1]) == pytest.approx(to_first_token_s)
    assert seen.usage.cpu_user_s + seen.usage.cpu_system_s > 0


def test_the_loader_is_the_first_that_the_oom_killer_takes(tmp_path: Path) -> None:
    scores: list[str] = []
    loader = Loader(sys.executable, str(FAKE), ("good",), None, 20.0, scratch=str(tmp_path))
    observe(loader, lambda pid: scores.append(Path(f"/proc/{pid}/oom_score_adj").read_text().strip()))
    assert scores == ["1000"]


def test_the_loader_gets_a_clean_environment_and_a_home_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "leaks")
    seen = run(tmp_path, "good", env=(("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),))
    told = json.loads(seen.stderr_tail)
    assert told["cwd"] == "/"
    assert "OURS" not in told["env"]
    assert told["env"]["HF_HUB_OFFLINE"] == told["env"]["TRANSFORMERS_OFFLINE"] == "1"
    assert told["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert told["env"]["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert told["env"]["HOME"].startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_time_between_held_and_resumed_is_in_no_phase(tmp_path: Path) -> None:
    loader = Loader(sys.executable, str(FAKE), ("good",), None, 20.0, scratch=str(tmp_path))
    seen = observe(loader, lambda pid: time.sleep(0.3))
    held, resumed = seen.events.marks["held"], seen.events.marks["resumed"]
    assert (resumed.t_ns - held.t_ns) / 1e9 >= 0.3
    assert phases(seen.events)[-1].seconds < 0.3


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("crash", "ended with exit code 1"),
        ("killed", "killed by SIGKILL"),
        ("leave-child", "never reported import_transformers"),
        ("silent", "never reported held, resumed, second_token, done"),
        ("rubbish", "where a JSON object was due"),
        ("endless", "longer than 1 MiB"),
        ("order", "event second_token came where import_transformers was due"),
        ("past", "earlier than what came before it"),
    ],
)
def test_a_bad_run_says_why(tmp_path: Path, mode: str, problem: str) -> None:
    seen = run(tmp_path, mode)
    assert problem in (seen.problem or "")
    assert processes(f"{FAKE} {mode}") == []


def test_a_held_loader_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"/proc/{pid}/smaps_rollup")

    monkeypatch.setattr(process, "_DYING_S", 0.1)
    seen = observe(Loader(sys.executable, str(FAKE), ("good",), None, 20.0, scratch=str(tmp_path)), refuse)
    assert (seen.problem or "").startswith("what holds the model cannot be read: [Errno 13] Permission denied: '/proc/")
    assert processes(f"{FAKE} good") == []


@pytest.mark.parametrize(
    "error",
    [ProcessLookupError(errno.ESRCH, "No such process"), ParseError("status", "a line `VmSize: number kB`", "Name:")],
)
def test_a_loader_killed_while_it_is_read_tells_by_its_signal(tmp_path: Path, error: Exception) -> None:
    def read(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        raise error

    seen = observe(Loader(sys.executable, str(FAKE), ("good",), None, 20.0, scratch=str(tmp_path)), read)
    assert seen.problem == "killed by SIGKILL"


def test_a_hung_loader_and_its_children_are_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    seen = run(tmp_path, "hang-in-child", timeout_s=0.7)
    assert time.monotonic() - began < 10
    assert seen.problem == "still running after 0.7 s; last event: import_torch"
    assert seen.signal == "SIGKILL"
    assert processes("sleep 61.5") == []


def test_a_child_left_behind_is_killed_and_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    run(tmp_path, "leave-child")
    assert time.monotonic() - began < 10
    assert processes("sleep 62.5") == []


def test_a_child_that_left_group_and_parent_is_ended(tmp_path: Path) -> None:
    run(tmp_path, "leave-daemon")
    assert processes("sleep 64.5") == []


@pytest.mark.parametrize("mode", ["flood-after-end", "fork-bomb"])
def test_a_child_that_floods_the_pipes_or_forks_holds_nobody(tmp_path: Path, mode: str) -> None:
    seen = bounded(tmp_path, mode)
    assert "never reported import_transformers" in seen
    assert processes(f"{FAKE} {mode}") == []


def test_a_loader_that_fills_the_pipe_it_waits_on_holds_nobody(tmp_path: Path) -> None:
    assert "last event: held" in bounded(tmp_path, "fill-hold")


def test_a_home_of_3000_nested_folders_is_removed(tmp_path: Path) -> None:
    assert run(tmp_path, "deep-home").problem is None
    assert list(tmp_path.iterdir()) == []


def bounded(tmp_path: Path, mode: str) -> str:
    """The problem that an observer of its own process finds, within a minute."""
    script = BOUNDED.format(tests=str(FAKE.parents[1]), fake=str(FAKE), mode=mode, scratch=str(tmp_path))
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


BOUNDED = """
import sys
sys.path.insert(0, {tests!r})
import conftest
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader, observe
print(observe(Loader(sys.executable, {fake!r}, ({mode!r},), None, 4.0, scratch={scratch!r}), lambda pid: None).problem)
"""


def test_stderr_is_kept_without_control_characters(tmp_path: Path) -> None:
    assert run(tmp_path, "crash").stderr_tail == "no [31mweights[0m here"
    assert plain_text(b"a\rb\x00\x07c\xff\n") == "a\nbc\N{REPLACEMENT CHARACTER}"


def test_an_interpreter_that_cannot_start_is_a_setting_error(tmp_path: Path) -> None:
    loader = Loader("/nonexistent/python", str(FAKE), ("good",), None, 5.0, scratch=str(tmp_path))
    with pytest.raises(SettingError, match="slm_benchmark_python"):
        observe(loader, lambda pid: None)


OBSERVER = """
import sys
sys.path.insert(0, {tests!r})
import conftest
from ansible.module_utils.slm_baseline.measuring.loader.process import ControllerGone, Loader, observe
try:
    observe(Loader(sys.executable, {fake!r}, ("hang", {mark!r}), None, 50.0, scratch={scratch!r}), lambda pid: None)
except ControllerGone:
    sys.exit(7)
"""


@pytest.mark.parametrize("way", ["hang up", "kill"])
def test_the_loader_dies_with_its_observer_or_the_controller(tmp_path: Path, way: str) -> None:
    mark = f"mark-{os.getpid()}-{way.replace(' ', '-')}"
    script = OBSERVER.format(tests=str(FAKE.parents[1]), fake=str(FAKE), mark=mark, scratch=str(tmp_path))
    observer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert observer.stdout is not None
    loader = f"{FAKE} hang {mark}"
    assert eventually(lambda: bool(processes(loader)))
    if way == "hang up":
        observer.stdout.close()
        assert observer.wait(20) == 7
    else:
        observer.kill()
        observer.wait(20)
        observer.stdout.close()
    assert eventually(lambda: not processes(loader))


def eventually(condition: object, within_s: float = 15) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_only_an_unprivileged_user_that_exists_may_load() -> None:
    with pytest.raises(SettingError, match="no such user"):
        find_account("nobody-of-that-name")
    with pytest.raises(SettingError, match="no such user"):
        find_account("no\0body")
    with pytest.raises(SettingError, match="unprivileged"):
        find_account("root")
    assert find_account("nobody").uid != 0
