"""A loader in a container, with a stand-in for the runtime: channels, clock, options, and what is left of it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.containers.runtime import Runtime
from ansible.module_utils.slm_baseline.host import libc
from ansible.module_utils.slm_baseline.host.accounts import Account
from ansible.module_utils.slm_baseline.measuring.loader.container import (
    ContainerLauncher,
    NotStarted,
    find_refusal,
    loaders_status,
)
from ansible.module_utils.slm_baseline.measuring.loader.events import phases
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader, Observation, observe

from tests.conftest import REPOSITORY

SUPPORT = REPOSITORY / "tests" / "support"


class World:
    """A runtime that starts processes, and a loader that speaks the protocol through a folder's pipes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.scratch = folder, folder / "bin" / "state", folder / "scratch"
        (folder / "bin").mkdir()
        self.scratch.mkdir()
        client = folder / "bin" / "docker"
        client.write_text(f"#!{sys.executable}\n{(SUPPORT / 'stand_in_docker.py').read_text()}")
        client.chmod(0o755)
        self.state.mkdir()
        fake = (SUPPORT / "fake_loader.py").read_text()
        opened = "os.open(sys.argv[-1] + '/{}', os.O_{})"
        fake = fake.replace('int(sys.argv[sys.argv.index("--events-fd") + 1])', opened.format("events", "WRONLY"))
        fake = fake.replace('int(sys.argv[sys.argv.index("--hold-fd") + 1])', opened.format("hold", "RDONLY"))
        (folder / "fake.py").write_text(fake)
        self.launcher = ContainerLauncher(Runtime("docker", str(client), "unix:///d.sock"), "sha256:1", "torch:1")

    def loader(self, mode: str = "good", timeout_s: float = 20.0) -> Loader:
        script = str(self.folder / "fake.py")
        return Loader(
            sys.executable, script, (mode,), None, timeout_s, scratch=str(self.scratch), launcher=self.launcher
        )

    def observe(self, mode: str = "good", held: Callable[[int], None] = lambda pid: None) -> Observation:
        return observe(self.loader(mode, 3.0 if mode == "hang" else 20.0), held)

    @property
    def words(self) -> list[str]:
        """The words with which the client was called last."""
        found: list[str] = json.loads((self.state / "words").read_text())
        return found

    @property
    def left(self) -> list[str]:
        return [path.name for path in self.state.iterdir() if path.name.startswith("slm-baseline-")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_good_run_is_told_by_its_own_process(world: World) -> None:
    held: list[str] = []
    seen = world.observe(held=lambda pid: held.append(Path(f"/proc/{pid}/cmdline").read_text()))
    assert (seen.problem, seen.exit_code, seen.signal) == (None, 0, None), seen.stderr_tail
    # Not the client, but the process in the container.
    assert len(held) == 1
    assert "--channel" in held[0]
    assert "docker" not in held[0]
    assert seen.usage.cpu_user_s >= 0.5
    assert world.left == []
    assert list(world.scratch.iterdir()) == []


def test_the_start_of_the_container_is_in_no_phase(world: World) -> None:
    (world.state / "slow").touch()
    seen = world.observe()
    assert seen.events.container_start_s is not None
    assert seen.events.container_start_s >= 0.3
    first, mark = phases(seen.events)[0], seen.events.marks["interpreter"]
    assert first.name == "interpreter"
    assert first.seconds == pytest.approx((mark.t_ns - seen.events.spawn_ns) / 1e9)


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("crash", "ended with exit code 1"),
        ("killed", "killed by SIGKILL"),
        ("hang", "still running after 3 s"),
        ("rubbish", "where a JSON object was due"),
        ("silent", "never reported held"),
    ],
)
def test_a_bad_run_says_why_and_leaves_no_container(world: World, mode: str, problem: str) -> None:
    seen = world.observe(mode)
    assert problem in (seen.problem or "")
    assert world.left == []
    assert list(world.scratch.iterdir()) == []


def test_a_container_that_the_runtime_keeps_is_removed(world: World) -> None:
    (world.state / "keeps").touch()
    assert world.observe().problem is None
    assert world.left == []


def test_the_container_has_no_rights_and_no_network(world: World) -> None:
    runtime = world.launcher.runtime
    launcher = ContainerLauncher(runtime, "sha256:1", "torch:1", ('/models/a,"b"',), ("--gpus", "all"))
    account, env = Account("app", 77, 78), (("A", "b=c"),)
    loader = Loader("/py", "", (), account, 1.0, env, writable=("/cache",), launcher=launcher)
    words = launcher._options(loader, "n", "/py", ())
    pairs = list(itertools.pairwise(words))
    for pair in (
        *(("--network", "none"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"), ("--user", "77:78")),
        *(("--pull", "never"), ("--entrypoint", "/py"), ("--env", "A=b=c"), ("--env", "USER=app"), ("--gpus", "all")),
        *(("--name", "n"), ("--label", "slm-baseline.measurement=n"), ("--env", "HF_HUB_OFFLINE=1")),
        ("--mount", 'type=bind,"source=/models/a,""b""","target=/models/a,""b""",readonly'),
        ("--mount", "type=bind,source=/cache,target=/cache"),
    ):
        assert pair in pairs, pair
    assert {"--rm", "--read-only"} <= set(words)
    # The image's own search path stays.
    assert not [word for word in words if word.startswith("PATH=")]
    assert "--privileged" not in words


def test_the_image_is_named_by_its_digest(world: World) -> None:
    world.observe()
    assert world.words[world.words.index("sha256:1") + 1 :][0] == "good"
    assert world.launcher.record() == {"name": "torch:1", "digest": "sha256:1", "runtime": "docker"}


def test_a_program_beside_the_loader_runs_there_too(world: World) -> None:
    done = world.loader().run(["-c", "import sys; print(sys.stdin.read(), 7)"], 20.0, b"asked")
    assert (done.returncode, done.output) == (0, b"asked 7\n")
    assert world.left == []


def test_what_the_runtime_refuses_is_told_in_its_words(world: World) -> None:
    (world.state / "refuses").touch()
    with pytest.raises(NotStarted, match="no room"):
        world.loader().run(["-c", "1"], 20.0)


@pytest.mark.parametrize(
    ("code", "errors", "said"),
    [
        (
            125,
            b"docker: Error response from daemon: x.\nRun 'docker run --help'",
            "docker: Error response from daemon: x.",
        ),
        (127, b"Error: crun: python3: not found\n", "Error: crun: python3: not found"),
        (1, b"docker: of the program itself", ""),
        (127, b"sh: not found", ""),
    ],
)
def test_an_error_of_the_runtime_is_told_from_one_of_the_program(code: int, errors: bytes, said: str) -> None:
    assert find_refusal(code, errors) == said


def test_a_signal_is_told_through_the_client() -> None:
    assert loaders_status((128 + signal.SIGKILL) << 8) == signal.SIGKILL
    assert loaders_status(2 << 8) == 2 << 8
    assert loaders_status(255 << 8) == 255 << 8


def test_events_before_the_program_was_executed_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    other = world.folder / "other"
    other.touch()
    watch = libc.watch_file
    monkeypatch.setattr(libc, "watch_file", lambda path, mask: watch(str(other), mask))
    assert "before its program was seen" in (world.observe().problem or "")


def test_a_loader_whose_observer_has_gone_does_not_wait_for_it(tmp_path: Path) -> None:
    for name in ("events", "hold"):
        os.mkfifo(tmp_path / name)
    shutil.copy(REPOSITORY / "files" / "slm_load.py", tmp_path)
    done = subprocess.run(
        [sys.executable, tmp_path / "slm_load.py", "--channel", tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert len(done.stderr.splitlines()) == 1
