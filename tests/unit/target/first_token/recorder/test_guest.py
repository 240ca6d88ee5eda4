"""A target's container: how it is found, started and put back, and what is refused before anything is stopped."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.containers.remade import Written
from ansible.module_utils.slm_baseline.containers.runtime import Container, Runtime
from ansible.module_utils.slm_baseline.first_token.plan import Plan
from ansible.module_utils.slm_baseline.first_token.recorder import guest, interruption, members
from ansible.module_utils.slm_baseline.first_token.recorder.container import (
    Started,
    put_container_back,
    start_container,
    stop_container,
)
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Seen
from ansible.module_utils.slm_baseline.first_token.recorder.guest import Guest, find_guest
from ansible.module_utils.slm_baseline.first_token.recorder.interruption import promised, read_note, started_by
from ansible.module_utils.slm_baseline.first_token.recorder.members import ContainerMembers
from ansible.module_utils.slm_baseline.first_token.recorder.placing import Placed
from ansible.module_utils.slm_baseline.first_token.recorder.record import Recording
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import STOPPED_NOTE

from tests.conftest import REPOSITORY

TARGET = Target("llm", container="engine", ready=Ready("health", timeout_s=5))
FOUND = Container("1" * 64, "engine", "engine:1", "sha256:1", "running", driver="overlay2", has_health_check=True)
SOON = Deadline.after(600)


class World:
    """A runtime whose container goes through some states, one a question; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[Container | None] = [FOUND]
        self.asked: list[str] = []
        self.refuses = ""
        monkeypatch.setattr(Runtime, "call", lambda runtime, *words, timeout_s=30: self.call(*words))
        monkeypatch.setattr(Runtime, "container", lambda runtime, name: self.next())
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        for name in ("find_by_container", "find_runtime"):
            monkeypatch.setattr(guest, name, getattr(self, name))
        monkeypatch.setattr(guest, "find_program", lambda host, name: f"/usr/bin/{name}" if name == "docker" else None)
        self.runtime = Runtime("docker", "/usr/bin/docker", "unix:///d.sock")
        self.started = Started(self.runtime, FOUND)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(" ".join(words))
        return subprocess.CompletedProcess(words, bool(self.refuses), "", self.refuses)

    def next(self) -> Container | None:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def find_by_container(self, host: Host, knob: str, name: str, runtime: str) -> tuple[Runtime, Container]:
        found = self.next()
        assert found
        return self.runtime, found

    def find_runtime(self, host: Host, knob: str, name: str) -> Runtime:
        return replace(self.runtime, name=name, program=f"/usr/bin/{name}")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def unit_of(line: str, **more: Any) -> Unit:
    shown = f"{{ path=x ; argv[]={line} ; flags= ; start_time=[n/a] }}"
    values = {"name": "llm.service", "type": "simple", "user": "", "group": "", "has_dynamic_user": False, **more}
    return Unit(**values, state="active", control_group="/system.slice/llm.service", facts=(("ExecStartEx", shown),))


def error_of(call: Callable[[], object]) -> SettingError:
    with pytest.raises(SettingError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_container_is_started_and_waited_for_until_it_is_healthy(world: World) -> None:
    looks: list[int] = []
    world.states = [replace(FOUND, health=health) for health in ("starting", "starting", "healthy")]
    stop_container(TARGET, world.started, SOON)
    start_container(TARGET, world.started, SOON, lambda: looks.append(1))
    assert world.asked == ["stop -- engine", "start -- engine"]
    assert len(looks) == 1
    assert len(world.states) == 1


@pytest.mark.parametrize(
    ("how", "last", "words"),
    [
        ("health", replace(FOUND, status="exited", exit_code=3), "exit status 3"),
        ("health", replace(FOUND, status="exited"), "exit status 0"),
        ("health", None, "gone"),
        ("exit", replace(FOUND, status="exited", exit_code=1), "exit status 1"),
        ("health", replace(FOUND, health="unhealthy"), "unhealthy after 0 s"),
        ("exit", FOUND, "still running after 0 s"),
    ],
)
def test_a_start_that_does_not_get_ready_is_one_error(
    world: World, how: str, last: Container | None, words: str
) -> None:
    world.states = [last]
    late = replace(TARGET, ready=Ready(how, timeout_s=0))
    assert words in error_of(lambda: start_container(late, world.started, SOON)).found


def test_a_container_that_is_ready_by_its_end_is_looked_at_while_it_runs(world: World) -> None:
    looks: list[int] = []
    world.states = [FOUND, FOUND, replace(FOUND, status="exited")]
    start_container(replace(TARGET, ready=Ready("exit")), world.started, SOON, lambda: looks.append(1))
    assert len(looks) == 3


def test_a_runtime_that_refuses_is_one_error(world: World) -> None:
    world.refuses = "Error response from daemon: no\nmore\n"
    for call in (stop_container, start_container):
        assert error_of(lambda call=call: call(TARGET, world.started, SOON)).found.endswith("daemon: no")  # type: ignore[misc]


def test_the_container_is_put_back_as_it_was(world: World) -> None:
    assert put_container_back(TARGET, world.started) == []
    assert world.asked == []
    stopped = replace(FOUND, status="exited")
    world.states = [stopped, replace(FOUND, health="healthy")]
    assert put_container_back(TARGET, world.started) == []
    assert world.asked == ["start -- engine"]
    world.states, world.asked = [FOUND], []
    assert put_container_back(TARGET, Started(world.runtime, stopped)) == []
    assert world.asked == ["stop -- engine"]
    # Somebody has removed it: a runtime that answers does not know it.
    world.states, world.asked = [None], []
    assert put_container_back(TARGET, world.started) == []
    assert all(words.startswith("version") for words in world.asked)
    world.refuses = "no daemon"
    assert put_container_back(TARGET, world.started) == ["container engine: no daemon"]
    world.states, world.refuses = [stopped], "no such image"
    assert put_container_back(TARGET, world.started) == ["container engine: no such image"]


def test_a_container_by_its_name(world: World) -> None:
    found = find_guest(Host(), TARGET, None)
    assert found
    assert found.started == world.started
    assert find_guest(Host(), Target("llm", command=("/bin/true",), user="x"), None) is None


@pytest.mark.parametrize(
    ("line", "name", "runtime"),
    [
        ("/usr/bin/docker run --rm --name llm image", "llm", "docker"),
        ("/usr/bin/podman run --name=systemd-llm --cgroups=split image", "systemd-llm", "podman"),
    ],
)
def test_a_unit_that_runs_a_container_is_recognised(world: World, line: str, name: str, runtime: str) -> None:
    world.states = [None]
    found = find_guest(Host(), Target("llm", unit="llm.service"), unit_of(line))
    assert found
    assert (found.name, found.runtime.name, found.started) == (name, runtime, None)
    assert find_guest(Host(), Target("llm", unit="llm.service"), unit_of("/opt/app serve")) is None


def test_a_unit_whose_command_tells_no_name_is_given_one(world: World) -> None:
    world.states = [None]
    compose = unit_of("/usr/bin/docker compose up")
    assert "names none" in error_of(lambda: find_guest(Host(), Target("llm", unit="llm.service"), compose)).found
    found = find_guest(Host(), Target("llm", unit="llm.service", container="p-llm-1"), unit_of("/opt/start.sh"))
    assert found
    assert (found.name, found.runtime.name) == ("p-llm-1", "docker")


def test_podman_of_another_user_is_refused(world: World) -> None:
    unit = unit_of("/usr/bin/podman run --name x image", user="app")
    error = error_of(lambda: find_guest(Host(), Target("llm", unit="llm.service"), unit))
    assert "runs it as app" in error.found
    assert "nothing was stopped" in error.next_step


def test_layers_on_another_driver_are_refused_before_anything_is_stopped(world: World) -> None:
    world.states = [replace(FOUND, driver="btrfs")]
    assert "btrfs" in error_of(lambda: find_guest(Host(), TARGET, None)).found
    unit = unit_of("/usr/bin/docker run --name x image")
    assert "btrfs" in error_of(lambda: find_guest(Host(), Target("llm", unit="llm.service"), unit)).found


def test_a_container_that_outlives_its_unit_is_refused(world: World) -> None:
    made = Guest("first_token.llm", world.runtime, "engine")
    assert "still runs" in error_of(made.require_stopped).found
    world.states = [None]
    made.require_stopped()


def recording(container: Container | None, **placed: Any) -> Recording:
    return Recording(Plan({"page_bytes": "4096"}), Seen(), 0, container=container, placed=Placed(**placed))


def test_a_recording_is_completed_with_its_image_or_refused(world: World) -> None:
    made = Guest("first_token.llm", world.runtime, "engine")
    facts = made.complete(recording(FOUND)).plan.facts
    assert (facts["image"], facts["image_id"], facts["page_bytes"]) == ("engine:1", "sha256:1", "4096")
    assert "container" not in facts
    assert (
        Guest("k", world.runtime, "engine", world.started).complete(recording(FOUND)).plan.facts["container"]
        == "engine"
    )
    assert "no such container" in error_of(lambda: made.complete(recording(None))).found
    fuse = recording(FOUND, drivers=["fuse.fuse-overlayfs"])
    assert "fuse.fuse-overlayfs" in error_of(lambda: made.complete(fuse)).found
    assert "zfs" in error_of(lambda: made.complete(recording(replace(FOUND, driver="zfs")))).found


def test_the_output_says_how_much_of_the_image_was_found(world: World) -> None:
    made = Guest("first_token.llm", world.runtime, "engine")
    found = recording(FOUND, from_image=20, in_layers=19, written={"/root/.cache/vllm": Written(1, 1.0, 2.0)})
    notes = made.notes(TARGET, found, 60)
    assert notes[0].startswith("container: 19 of 20 files that were opened from engine:1 ")
    assert "--volume llm-vllm:/root/.cache/vllm" in notes[1]
    assert "compiles 60 modules" in notes[2]


def test_processes_belong_by_the_container_that_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {10: "a" * 64, 11: "b" * 64, 12: "", 13: "c" * 64, 14: ""}
    monkeypatch.setattr(members, "read_container", groups.get)
    monkeypatch.setattr(members, "identity", lambda pid: (1, pid) if pid in groups else None)
    belongs = ContainerMembers({"a" * 64}, lambda pid: pid == 14)
    assert [belongs(pid) for pid in (10, 11, 12, 13, 14, 15)] == [False, True, False, True, True, None]
    # Afterwards the runtime tells which one was the target's.
    assert [belongs.is_of(pid, "b" * 64) for pid in (11, 13, 14)] == [True, False, True]
    # A runtime's process moves to the container's group after its start.
    groups[12] = "b" * 64
    assert belongs(12) is True
    assert ContainerMembers(set())(14) is False


def test_the_note_has_what_starts_the_container_again(
    world: World, fake_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (os.path.dirname(STOPPED_NOTE), "/etc/systemd/system", "/proc/sys/kernel/random"):
        os.makedirs(fake_host.path(folder), exist_ok=True)
    monkeypatch.setattr(interruption, "systemctl", lambda *words: subprocess.CompletedProcess([], 0, "", ""))
    with promised(fake_host, TARGET, world.started):
        note = read_note(fake_host) or {}
    assert started_by(note) == ["container engine"]
    assert (note["start"], note["stop"]) == ([], [])
    assert note["containers"][0]["start"] == ["/usr/bin/docker", "start", "--", "engine"]
    assert note["containers"][0]["answers"] == ["/usr/bin/docker", "version", "--format", "{{.Server.Version}}"]
    assert note["containers"][0]["environment"]["DOCKER_HOST"] == "unix:///d.sock"
    assert not fake_host.exists(STOPPED_NOTE)
    with promised(fake_host, TARGET, Started(replace(world.runtime, name="podman", program="/usr/bin/podman"), FOUND)):
        start = (read_note(fake_host) or {})["containers"][0]["start"]
    assert start[0] == "/usr/bin/systemd-run"
    assert start[-4:] == ["/usr/bin/podman", "start", "--", "engine"]


def test_the_program_that_waits_waits_for_no_container_that_is_gone(tmp_path: Path) -> None:
    note = {
        **{"start": [], "stop": [], "remove": [], "pid": 0, "started": 0},
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "containers": [
            {
                **{"name": "engine", "ran": True, "environment": {"PATH": "/usr/bin:/bin"}},
                **{"start": ["false"], "stop": ["false"], "ask": ["false"], "answers": ["echo", "20.10"]},
            }
        ],
    }
    path = tmp_path / "note"
    path.write_text(json.dumps(note))
    program = ["/usr/bin/python3", "-IS", str(REPOSITORY / "files/slm_restart.py"), str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, path.exists()) == (0, False), done.stderr


@pytest.mark.parametrize("ran", [True, False])
def test_the_program_that_waits_starts_a_container_again_or_stops_it(tmp_path: Path, ran: bool) -> None:
    state = tmp_path / "state"
    state.write_text("false" if ran else "true")
    client = tmp_path / "client"
    client.write_text(
        f"#!/bin/sh\ncase $1 in start) echo true > {state};; stop) echo false > {state};; *) cat {state};; esac\n"
    )
    client.chmod(0o755)
    commands = {verb: [str(client), verb] for verb in ("start", "stop", "ask")}
    note = {
        "start": [],
        "stop": [],
        "remove": [],
        "containers": [{"name": "engine", "ran": ran, "environment": {"PATH": "/usr/bin:/bin"}, **commands}],
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid": 0,
        "started": 0,
    }
    path = tmp_path / "note"
    path.write_text(json.dumps(note))
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", str(REPOSITORY / "files/slm_restart.py"), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert state.read_text().strip() == ("true" if ran else "false")
    assert not path.exists()
    assert ("engine" in done.stdout) is ran
