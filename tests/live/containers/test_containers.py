"""Targets in containers, by a real docker daemon on the real kernel; the container is made anew before each replay."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token.audit import rows_of
from ansible.module_utils.slm_baseline.first_token.plan import Plan, parse_plan
from ansible.module_utils.slm_baseline.host.caches import drop_host_caches
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mincore import resident_ranges
from ansible.module_utils.slm_baseline.host.paths import PROGRAMS, STATE, STOPPED_NOTE, TARGETS

from tests.conftest import REPOSITORY
from tests.live.containers.daemon import Daemon, running_daemon
from tests.live.containers.image import ENGINE, PYTHON, make_root
from tests.support.module_process import answer_in, begin_module, first_token_programs

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may watch a file system"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs Debian's docker.io"),
    pytest.mark.xdist_group("containers"),
]
NAME = "slm-containers-test"
SYSTEMCTL = Path(__file__).with_name("systemctl.py")
UNIT_NAME = "slm-containers-unit"
GIVEN = f"{TARGETS}/{NAME}/given"
IMAGE = "slm-engine:1"
COMPILING = "slm-engine-compiling:1"
WEIGHTS_BYTES = 48 << 20
READY = {"type": "health", "timeout_s": 60}
HEALTH = ("--health-cmd", f"{PYTHON} -S -c \"import os,sys; sys.exit(not os.path.exists('/run/healthy'))\"")
PATIENCE_S = 120.0


class World:
    """A daemon, its image, a model outside of it, and the module."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        self.models, self.out = folder / "models", folder / "out"
        for path in (self.models, self.out):
            path.mkdir()
        (self.models / "weights").write_bytes(os.urandom(1 << 20) * (WEIGHTS_BYTES >> 20))
        make_root(folder / "root")
        daemon.import_image(folder / "root", IMAGE)
        self.environment = {**os.environ, "DOCKER_HOST": daemon.address}

    def make(self, *more: str, name: str = NAME, image: str = IMAGE, health: bool = True) -> None:
        """Make the container anew, and leave it stopped."""
        self.daemon.docker("rm", "--force", name, check=False)
        told = [*HEALTH, "--health-interval", "500ms", "--health-retries", "200"] if health else []
        self.daemon.docker(
            *("create", "--name", name, "--network", "none", *told, *more),
            *("--volume", f"{self.models}:/models:ro", "--volume", f"{self.out}:/out"),
            *(image, PYTHON, ENGINE, "/models/weights", "/out/report"),
        )

    def start(self, name: str = NAME) -> dict[str, Any]:
        """Start the container and return the engine's report once it is healthy."""
        (self.out / "report").unlink(missing_ok=True)
        self.daemon.docker("start", name)
        self.wait_until(lambda: self.state(name, "{{.State.Health.Status}}") == "healthy")
        report: dict[str, Any] = json.loads((self.out / "report").read_text())
        return report

    def state(self, name: str = NAME, form: str = "{{.State.Running}}") -> str:
        return self.daemon.docker("inspect", "--format", form, name, check=False)

    def wait_until(self, holds: Any) -> None:
        until = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < until, self.daemon.docker("ps", "--all")
            time.sleep(0.1)

    def begin(self, address: str = "", **given: Any) -> subprocess.Popen[bytes]:
        """Start the module; `address` is another daemon's."""
        environment = {**self.environment, **({"DOCKER_HOST": address} if address else {})}
        arguments = {"name": NAME, "programs": first_token_programs(), **given}
        return begin_module("first_token", arguments, environment, stderr=subprocess.PIPE)

    def module(self, **given: Any) -> dict[str, Any]:
        told, errors = self.begin(**given).communicate(timeout=300)
        assert told.strip(), errors
        return answer_in(told.decode())

    def rows(self) -> list[dict[str, Any]]:
        """Return the audit rows of the target."""
        return rows_of(Host(), NAME)

    @property
    def plan(self) -> Plan:
        return parse_plan(Host().read(f"{TARGETS}/{NAME}/plan"))


def everything_of_ours() -> set[str]:
    """Every path below our folders and systemd's, but for what another run of the project may have."""
    tops = (STATE, "/etc/systemd/system", "/run/systemd/system", "/run/slm-baseline/first-token")
    return {str(path) for top in tops for path in Path(top).rglob("*")}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    before = everything_of_ours()
    with running_daemon() as daemon, tempfile.TemporaryDirectory(prefix="slm-engine-", dir="/var/tmp") as folder:
        world = World(daemon, Path(folder))
        try:
            yield world
        finally:
            world.module(state="absent")
    assert everything_of_ours() == before


@pytest.fixture(scope="module")
def recorded(world: World) -> dict[str, Any]:
    """The result of recording a container that did not run."""
    world.make()
    result = world.module(container=NAME, ready=READY)
    assert not result.get("failed"), result
    assert world.state() == "false"
    return result


def layers_of(world: World) -> list[str]:
    return world.daemon.docker("image", "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", IMAGE).split(":")


def test_nearly_all_that_the_engine_opened_from_its_image_is_in_the_plan_by_its_layer(
    world: World, recorded: dict[str, Any]
) -> None:
    opened = json.loads((world.out / "report").read_text())["files"]
    (layer,) = layers_of(world)
    from_image = [path for path in opened if not path.startswith(("/models/", "/out/"))]
    planned = {file.path for file in world.plan.files}
    in_layers = [path for path in from_image if f"{layer}{path}" in planned]
    assert len(from_image) > 150
    assert len(in_layers) >= 0.95 * len(from_image), sorted(set(from_image) - set(in_layers))
    # The model lies outside of the image, and counts as weights.
    assert [file.path for file in world.plan.files if file.is_weights] == [f"{world.models}/weights"]
    # Nothing of the container itself: it is gone when the next one starts.
    container = world.state(form="{{.GraphDriver.Data.UpperDir}}").rpartition("/")[0]
    assert not [path for path in planned if path.startswith(container) or world.state(form="{{.Id}}") in path]
    assert all(row["verdict"] == "clean" for row in recorded["rows"])


def resident_share(plan: Plan) -> float:
    """Return how much of the plan's files is in memory."""
    held = wanted = 0
    for file in plan.files:
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            ranges = resident_ranges(descriptor, file.size_bytes, 0, Deadline.after(60))
        finally:
            os.close(descriptor)
        pages = {page for first, count in ranges for page in range(first, first + count)}
        for first, count in file.ranges or [(0, -(-file.size_bytes // plan.page_bytes))]:
            wanted += count
            held += sum(page in pages for page in range(first, first + count))
    return held / wanted


def test_a_replay_serves_a_container_that_is_made_anew(world: World, recorded: dict[str, Any]) -> None:
    world.make()
    drop_host_caches(Host())
    cold = world.start()["read_bytes"]
    world.make()
    drop_host_caches(Host())
    assert resident_share(world.plan) < 0.2
    said = subprocess.run(
        [PYTHON, "-IS", REPOSITORY / "files/slm_replay.py", f"{TARGETS}/{NAME}/plan"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "stale=0 unread=0" in said, [path for path in world.plan.folders if not os.path.isdir(path)]
    assert resident_share(world.plan) > 0.99
    ahead = world.start()["read_bytes"]
    # All that is left is what the container has of its own, and what the kernel reads around.
    assert cold > WEIGHTS_BYTES
    assert ahead < 0.05 * cold
    assert [row["verdict"] for row in world.module(container=NAME, ready=READY)["rows"]] == ["clean"] * 2


def test_a_start_by_slm_start_replays_beside_it(world: World, recorded: dict[str, Any]) -> None:
    world.make()
    drop_host_caches(Host())
    subprocess.run(
        [f"{PROGRAMS}/slm-start", NAME, "--", "docker", "start", NAME], env=world.environment, check=True, stdout=-3
    )
    world.wait_until(lambda: world.state(form="{{.State.Health.Status}}") == "healthy")
    assert resident_share(world.plan) > 0.95


def test_the_unit_at_boot_reads_the_plan_and_what_each_container_makes_anew_is_named(recorded: dict[str, Any]) -> None:
    unit = Path(f"/etc/systemd/system/slm-first-token-{NAME}.service")
    assert f"ExecStart=/usr/bin/python3 -IS {PROGRAMS}/slm_replay.py {TARGETS}/{NAME}/plan" in unit.read_text()
    assert os.readlink(f"/etc/systemd/system/basic.target.wants/{unit.name}") == str(unit)
    assert [note for note in recorded["notes"] if f"--volume {GIVEN}/vllm:/root/.cache/vllm:Z" in note]
    assert "docker start" in recorded["summary"]
    (cache,) = recorded["remade"]["caches"].items()
    assert (cache[0], cache[1]["files"]) == ("/root/.cache/vllm", 1)
    assert 0 < cache[1]["first_written_s"] == cache[1]["last_written_s"] < PATIENCE_S
    second = f"{cache[1]['last_written_s']:.1f}"
    told = f"/root/.cache/vllm: 1 file, written between second {second} and {second} of the start"
    assert [note for note in recorded["notes"] if told in note]
    # All of its modules have bytecode.
    assert recorded["remade"]["bytecode"] is None


def test_modules_that_each_container_compiles_are_told_with_their_seconds(
    world: World, recorded: dict[str, Any]
) -> None:
    make_root(world.folder / "compiling", compiles=False)
    world.daemon.import_image(world.folder / "compiling", COMPILING)
    world.make(name="slm-compiling", image=COMPILING)
    try:
        result = world.module(name="slm-compiling", container="slm-compiling", ready=READY)
        cost = result["remade"]["bytecode"]
        assert cost["lacking"] > 100
        # The image's Python is the host's, so it compiles whatever the engine has compiled.
        assert cost["compiled"] == cost["lacking"]
        assert cost["compile_s"] > 0
        told = f"compiling the {cost['lacking']} modules without bytecode takes {cost['compile_s']:.1f} s of CPU"
        assert [note for note in result["notes"] if told in note]
        assert "--env PYTHONPYCACHEPREFIX=" in result["given"]["use"]
    finally:
        world.module(name="slm-compiling", state="absent")
        world.daemon.docker("rm", "--force", "slm-compiling", check=False)


def test_a_container_that_is_made_anew_with_the_options_keeps_its_cache(world: World, recorded: dict[str, Any]) -> None:
    given = recorded["given"]
    assert (given["how"], given["volumes"]) == ("options", [f"{GIVEN}/vllm:/root/.cache/vllm:Z"])
    assert (os.stat(GIVEN).st_mode & 0o777, os.listdir(f"{GIVEN}/vllm")) == (0o700, [])
    world.make(*shlex.split(given["use"]))
    world.start()
    assert Path(f"{GIVEN}/vllm/graph").read_text() == "compiled"
    # Recorded with other options, it keeps what it has; no file that each start writes anew is in the plan.
    result = world.module(container=NAME, ready=READY, replay="together")
    assert (result["given"]["how"], Path(f"{GIVEN}/vllm/graph").read_text()) == ("mounted", "compiled")
    assert not [file.path for file in world.plan.files if file.path.startswith(GIVEN)]
    # A rollback takes nothing that a container has mounted; without that container all of it goes.
    assert world.module(state="absent")["left"] == [GIVEN]
    assert Path(f"{GIVEN}/vllm/graph").exists()
    world.make()
    assert world.module(state="absent")["left"] == []
    assert not os.path.exists(f"{TARGETS}/{NAME}")
    assert world.module(container=NAME, ready=READY)["changed"]


def test_a_second_run_changes_nothing_and_a_running_container_keeps_running(
    world: World, recorded: dict[str, Any]
) -> None:
    world.make()
    world.start()
    before = world.state(form="{{.State.StartedAt}}")
    result = world.module(container=NAME, ready=READY)
    assert (result["changed"], world.state(form="{{.State.StartedAt}}")) == (False, before)
    # Asked otherwise, it is recorded again, and runs afterwards.
    result = world.module(container=NAME, ready=READY, replay="ahead")
    assert result["stops"] == [{"target": NAME, "unit": f"container {NAME}", "runs": True, "times": 2, "with": []}]
    assert result["changed"]
    assert world.state() == "true"
    assert world.state(form="{{.State.StartedAt}}") != before


def test_a_recording_that_is_killed_leaves_the_container_running(world: World, recorded: dict[str, Any]) -> None:
    world.make()
    world.start()
    before = world.state(form="{{.State.StartedAt}}")
    process = world.begin(container=NAME, ready=READY, replay="together")
    # Within the stop: the container is down, and nobody has started it again yet. Asking now and then could miss that.
    world.daemon.docker("wait", NAME)
    process.kill()
    process.communicate()
    world.wait_until(lambda: world.state() == "true" and not os.path.exists(STOPPED_NOTE))
    assert world.state(form="{{.State.StartedAt}}") != before


def test_another_image_under_the_name_makes_the_plan_stale_by_name(world: World, recorded: dict[str, Any]) -> None:
    former = world.daemon.docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
    newer = world.folder / "newer"
    newer.mkdir()
    (newer / "file").write_text("another image")
    world.daemon.docker("rm", "--force", NAME)
    now = world.daemon.import_image(newer, IMAGE)
    try:
        rows = world.rows()
        assert [row["verdict"] for row in rows if row["knob"].endswith(".plan")] == ["drift"]
        assert f"the image {IMAGE} is {now[:19]} now, and was {former[:19]}" in rows[0]["detail"]
    finally:
        world.daemon.docker("tag", former, IMAGE)
        world.daemon.docker("image", "rm", now)
    assert {row["verdict"] for row in world.rows()} == {"clean"}


@pytest.fixture(scope="module")
def bystanders(world: World) -> Iterator[None]:
    """A container that runs, one that goes when it is stopped, and one without a health check."""
    world.make("--rm", name="slm-removed")
    world.make(name="slm-unhealthy", health=False)
    world.daemon.docker("start", "slm-unhealthy")
    yield
    world.daemon.docker("rm", "--force", "slm-removed", "slm-unhealthy")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"container": "no-such-container"}, "no such container"),
        ({"container": "x"}, "a container's name"),
        ({"container": "-rm"}, "a container's name"),
        ({"container": "slm-removed"}, "(--rm)"),
        ({"container": "slm-unhealthy"}, "slm-unhealthy without one"),
        ({"container": "slm-unhealthy", "runtime": "podman"}, "no podman"),
        ({"container": NAME, "ready": {"type": "notify"}}, "notify needs a unit"),
        ({"container": NAME, "command": ["/bin/true"], "user": "nobody"}, "a command beside it"),
        ({"runtime": "docker", "command": ["/bin/true"], "user": "nobody"}, "with `container` or `unit`"),
    ],
)
@pytest.mark.usefixtures("bystanders")
def test_bad_input_is_one_line_and_changes_nothing(world: World, given: dict[str, Any], words: str) -> None:
    def state() -> tuple[object, ...]:
        return (
            everything_of_ours(),
            world.state("slm-unhealthy", "{{.State.StartedAt}}"),
            world.daemon.docker("ps", "-aq"),
        )

    before = state()
    result = world.module(**{"name": "slm-bad", **given})
    assert result.get("failed"), result
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert state() == before


def test_a_daemon_that_does_not_answer_is_one_line(world: World) -> None:
    before = everything_of_ours()
    result = world.module(container="other", ready=READY, name="slm-bad", address=f"unix://{world.folder}/no.sock")
    assert result.get("failed")
    assert "docker, which answers" in result["msg"]
    assert everything_of_ours() == before


def test_a_unit_that_makes_its_container_anew_at_each_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --rm` in a unit: nobody knows the container's id before it starts, and none is there afterwards."""
    unit, name, port = "slm-containers-test.service", "slm-unit", free_port()
    command = [
        *(str(shutil.which("docker")), "run", "--rm", "--name", name, "--network", "host"),
        *("--volume", f"{world.models}:/models:ro", "--volume", f"{world.out}:/out"),
        *(IMAGE, PYTHON, ENGINE, "/models/weights", "/out/report", str(port)),
    ]
    programs = Path(tempfile.mkdtemp(prefix="slm-systemctl-", dir="/var/lib"))
    try:
        client = programs / "systemctl"
        told = {"SLM_UNIT": unit, "SLM_UNIT_CONTAINER": name, "SLM_UNIT_COMMAND": " ".join(command)}
        told["DOCKER_HOST"] = world.daemon.address
        words = ["env", *(f"{key}={value}" for key, value in told.items()), sys.executable, str(SYSTEMCTL)]
        client.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        for path in (programs, client):
            path.chmod(0o755)
        monkeypatch.setattr(world, "environment", {**world.environment, "PATH": f"{programs}:{os.environ['PATH']}"})
        result = world.module(name=UNIT_NAME, unit=unit, ready={"type": "port", "port": port, "timeout_s": 60})
        assert not result.get("failed"), result
        assert world.state(name) == ""
        plan = parse_plan(Host().read(f"{TARGETS}/{UNIT_NAME}/plan"))
        assert (plan.facts["image"], "container" in plan.facts) == (IMAGE, False)
        (layer,) = layers_of(world)
        opened = json.loads((world.out / "report").read_text())["files"]
        from_image = [path for path in opened if not path.startswith(("/models/", "/out/"))]
        planned = {file.path for file in plan.files}
        assert len([path for path in from_image if f"{layer}{path}" in planned]) >= 0.95 * len(from_image)
        drop_in = Path(f"/etc/systemd/system/{unit}.d/slm-first-token.conf")
        assert f"Wants=slm-first-token-{UNIT_NAME}.service" in drop_in.read_text()
        assert world.module(name=UNIT_NAME, state="absent")["removed"]
        assert not drop_in.parent.exists()
    finally:
        world.daemon.docker("rm", "--force", name, check=False)
        shutil.rmtree(programs)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_a_rollback_leaves_nothing_and_the_container_runs_on(world: World, recorded: dict[str, Any]) -> None:
    world.make()
    world.start()
    result = world.module(state="absent")
    assert f"{TARGETS}/{NAME}" in result["removed"]
    assert not [path for path in everything_of_ours() if NAME in path]
    assert world.state() == "true"
