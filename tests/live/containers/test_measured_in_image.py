"""A model measured in an image, by a real docker daemon on the real kernel, beside the same bare process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import CONTAINERS_NOTE, RUNS
from ansible.module_utils.slm_baseline.measuring.install.image import remove_noted_containers
from ansible.module_utils.slm_baseline.measuring.install.install_dir import forget_homes

from tests.conftest import REPOSITORY
from tests.live.containers.daemon import Daemon, running_daemon
from tests.live.containers.torch_image import import_torch_image
from tests.support.module_process import answer_in, begin_module
from tests.support.torch_python import find_torch_python

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may drop caches"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs Debian's docker.io"),
    pytest.mark.xdist_group("containers"),
]
IMAGE, BARE_IMAGE = "slm-torch:1", "slm-empty:1"
HOME = "/opt/slm-baseline-image-test"
SCRIPTS = {
    name: (REPOSITORY / "files" / name).read_text()
    for name in ("slm_load.py", "build_model.py", "try_model.py", "find_bytecode.py", "gpu_copy_rate.py")
}
LABEL = "slm-baseline.measurement"
RUN = {"id": "image-test"}
THP = "/sys/kernel/mm/transparent_hugepage/enabled"


class World:
    """A daemon with an image that has torch, and one that has nothing."""

    def __init__(self, daemon: Daemon, python: str, folder: Path) -> None:
        self.daemon, self.python = daemon, python
        root = folder / "root"
        root.mkdir()
        self.digest = import_torch_image(daemon, IMAGE, Path(python).parents[1], root)
        empty = folder / "empty"
        empty.mkdir()
        (empty / "nothing").touch()
        daemon.import_image(empty, BARE_IMAGE)

    def module(self, name: str, address: str = "", **given: Any) -> dict[str, Any]:
        arguments = {"run": RUN, **({} if name == "run_lease" else {"home": HOME}), **given}
        daemon = {"DOCKER_HOST": address or self.daemon.address}
        told, errors = begin_module(name, arguments, daemon, stderr=subprocess.PIPE).communicate()
        assert told.strip(), errors
        return answer_in(told.decode())

    def containers(self) -> list[str]:
        return self.daemon.docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()


def remove_traces() -> None:
    """Remove what these tests made, and nothing else: a purge would take what this host has of others, too."""
    host = Host()
    shutil.rmtree(HOME, ignore_errors=True)
    forget_homes(host, [HOME])
    shutil.rmtree(f"{RUNS}/{RUN['id']}", ignore_errors=True)
    Path(CONTAINERS_NOTE).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    python = find_torch_python()
    with running_daemon() as daemon, tempfile.TemporaryDirectory(prefix="slm-torch-", dir="/var/tmp") as folder:
        world = World(daemon, python, Path(folder))
        try:
            yield world
        finally:
            world.module("run_lease")
            remove_traces()


@pytest.fixture(scope="module")
def measured(world: World) -> dict[str, Any]:
    """The result of one block in the image: everything that the host needs is put there by the modules."""
    checked = world.module("slm_benchmark", state="checked", model="tiny", image=IMAGE)
    assert checked.get("msg") == "ready to measure", checked
    assert not Path(HOME).exists()
    assert not world.module("slm_environment", image=IMAGE, scripts=SCRIPTS).get("failed")
    built = world.module("slm_model", model="tiny", image=IMAGE, trial=SCRIPTS["try_model.py"])
    assert not built.get("failed"), built
    result = world.module("slm_benchmark", model="tiny", image=IMAGE)
    assert not result.get("failed"), result
    return result


def sample(result: dict[str, Any], wanted: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in result["samples"] if each["wanted"] == wanted)
    return found


def test_a_model_is_measured_in_an_image_cold_and_warm(world: World, measured: dict[str, Any]) -> None:
    cold, warm = sample(measured, "cold"), sample(measured, "warm")
    assert (cold["kind"], warm["kind"]) == ("cold", "warm"), (cold["reason"], cold["stderr_tail"], warm["reason"])
    # A cold start reads the image's libraries from the disk, through its layers; a warm one finds them in memory.
    phase = {each["name"]: each["read_bytes"] for each in cold["phases"]}
    assert phase["import_torch"] > 100 << 20
    assert warm["read_bytes"] < 8 << 20
    assert cold["container_start_s"] > 0
    assert warm["container_start_s"] > 0
    assert len(warm["tokens_s"]) == 11
    # What the loader says of its own memory is what the host sees of its process.
    assert warm["rss_bytes"] > 100 << 20
    assert not [reason for reason in warm["noise"]["reasons"] if "disagree" in reason]
    assert measured["benchmark"]["image"] == {"name": IMAGE, "digest": world.digest, "runtime": "docker"}
    assert measured["benchmark"]["imports"]["problem"] is None, measured["benchmark"]["imports"]
    assert not Path(f"{HOME}/venv").exists()
    assert world.containers() == []


def test_the_same_bare_process_reads_and_holds_as_much(world: World, measured: dict[str, Any]) -> None:
    bare = world.module("slm_benchmark", model="tiny", python=world.python, blocks=2)
    assert not bare.get("failed"), bare
    inside, outside = sample(measured, "warm"), sample(bare, "warm")
    assert outside["kind"] == "warm", outside["reason"]
    assert outside["container_start_s"] is None
    assert inside["rss_bytes"] == pytest.approx(outside["rss_bytes"], rel=0.15)
    assert inside["minor_faults"] == pytest.approx(outside["minor_faults"], rel=0.25)
    assert [each["name"] for each in inside["phases"]] == [each["name"] for each in outside["phases"]]


def test_only_the_libraries_of_the_image_can_be_evicted(world: World, measured: dict[str, Any]) -> None:
    result = world.module("slm_benchmark", model="tiny", image=IMAGE, scope="app", blocks=2)
    cold = sample(result, "cold")
    assert cold["kind"] == "cold", cold["reason"]
    assert {each["name"]: each["read_bytes"] for each in cold["phases"]}["import_torch"] > 100 << 20


def test_a_sweep_measures_whole_loads_in_the_image(world: World, measured: dict[str, Any]) -> None:
    """Two blocks of three arms; an arm's environment acts in the container, and the host is as it was afterwards."""
    transparent: dict[str, Any] = {
        "name": "thp",
        "thp": {"enabled": "always"},
        "env": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    }
    arms: list[dict[str, Any]] = [{"name": "stock"}, {"name": "stock-again"}, transparent]
    given = {"model": "tiny", "image": IMAGE}
    before = Path(THP).read_text()
    planned = world.module("slm_sweep", state="planned", arms=arms, dtypes=["auto"], weights_pairs=3, **given)
    try:
        assert not planned.get("failed"), planned
        assert planned["plan"]["weights_pairs"] == 0
        assert "a container of its own" in planned["plan"]["no_template"]
        for number in (1, 2):
            done = world.module("slm_sweep", state="block", **given)
            assert done.get("block") == number, done
        finished = world.module("slm_sweep", state="finished", **given)
        assert finished["image"] == {"name": IMAGE, "digest": world.digest, "runtime": "docker"}
        samples = finished["samples"]
        assert len(samples) == 2 * 3 * 2
        assert {each["kind"] for each in samples} <= {"cold", "warm"}, [each["reason"] for each in samples]
        assert all(each["container_start_s"] > 0 for each in samples)
        backed = {
            arm["name"]: [each["anon_huge_bytes"] for each in samples if each["arm"] == arm["name"]] for arm in arms
        }
        assert min(backed["thp"]) > max(backed["stock"])
    finally:
        world.module("slm_sweep", state="closed")
    assert Path(THP).read_text() == before
    assert world.containers() == []


def test_first_token_arms_are_refused_in_an_image(world: World, measured: dict[str, Any]) -> None:
    arms = [{"name": "stock"}, {"name": "stock-again"}, {"name": "replay", "first_token": {"replay": "together"}}]
    result = world.module("slm_sweep", state="planned", arms=arms, dtypes=["auto"], model="tiny", image=IMAGE)
    assert "slm_benchmark_image: wanted nothing, for replay" in result["msg"]


def test_a_loader_that_takes_too_long_leaves_no_container(world: World, measured: dict[str, Any]) -> None:
    result = world.module("slm_benchmark", model="tiny", image=IMAGE, timeout_s=1)
    assert {each["kind"] for each in result["samples"]} == {"failed"}
    assert "still running after 1 s" in result["samples"][0]["reason"]
    assert world.containers() == []


def test_a_container_that_a_killed_measurement_left_is_removed_by_a_purge(
    world: World, measured: dict[str, Any]
) -> None:
    world.daemon.docker(
        *("run", "--detach", "--network", "none", "--label", f"{LABEL}=left", IMAGE),
        *("python3", "-c", "import time; time.sleep(600)"),
    )
    assert len(world.containers()) == 1
    remove_noted_containers(Host())
    assert world.containers() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "slm-nowhere:1"}, "docker pull slm-nowhere:1"),
        ({"image": "slm nowhere"}, "slm_benchmark_image: wanted a name"),
        ({"image": BARE_IMAGE}, '"python3": executable file not found'),
        ({"image": IMAGE, "image_python": "/usr/bin/python3.11"}, "without torch"),
        ({"image": IMAGE, "python": "/usr/bin/python3"}, "leave one of them empty"),
        ({"image": IMAGE, "runtime": "podman"}, "no podman"),
        ({"image": IMAGE, "runtime": "containerd"}, "docker or podman"),
        ({"image": IMAGE, "address": "unix:///nowhere.sock"}, "which answers"),
        ({"image": IMAGE, "address": "tcp://127.0.0.1:1"}, "of this host"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_bad_input_is_one_line_and_nothing_is_changed(world: World, given: dict[str, Any], said: str) -> None:
    images = set(world.daemon.docker("images", "--quiet").split())
    result = world.module("slm_benchmark", state="checked", model="tiny", **given)
    assert result.get("failed"), result
    assert said in result["msg"], result["msg"]
    assert "\n" not in result["msg"]
    assert set(world.daemon.docker("images", "--quiet").split()) == images
    assert world.containers() == []


def test_a_measurement_that_is_killed_ends_its_loader(world: World, measured: dict[str, Any]) -> None:
    """Its loader finds nobody who reads its events, and ends: nothing has to come and end it."""
    events = subprocess.Popen(
        ["docker", "--host", world.daemon.address, "events", "--filter", "event=start", "--format", "{{.ID}}"],
        stdout=subprocess.PIPE,
    )
    # Another request than those before, or its block would be there already.
    given = {"home": HOME, "model": "tiny", "image": IMAGE, "timeout_s": 599, "run": RUN}
    process = begin_module("slm_benchmark", given, {"DOCKER_HOST": world.daemon.address}, stderr=subprocess.DEVNULL)
    assert events.stdout
    # The first container looks at the packages, the second one loads.
    for _ in range(2):
        events.stdout.readline()
    process.kill()
    process.wait()
    events.kill()
    events.wait()
    for container in world.containers():
        with contextlib.suppress(AssertionError):
            world.daemon.docker("wait", container)
    assert world.daemon.docker("ps", "--quiet", "--filter", f"label={LABEL}") == ""
