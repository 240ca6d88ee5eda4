"""Which image, runtime, GPUs and mounts a container gets, and what is refused before anything changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.containers.overlay import LayerStack, Overlay
from ansible.module_utils.slm_baseline.containers.runtime import Image, Runtime, parse_image
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.install import image
from ansible.module_utils.slm_baseline.measuring.install.environment import Environment, parse_environment
from ansible.module_utils.slm_baseline.measuring.install.interpreter import PACKAGES, Interpreter
from ansible.module_utils.slm_baseline.measuring.loader.process import BARE
from ansible.module_utils.slm_baseline.measuring.model.files import Model, ModelFile
from ansible.module_utils.slm_baseline.measuring.probes.gpu import DRIVER_VERSION

from tests.conftest import REPOSITORY
from tests.support.fakes import put

DOCKER, PODMAN = Runtime("docker", "/usr/bin/docker", "unix:///d.sock"), Runtime("podman", "/usr/bin/podman")
GOLDEN = (REPOSITORY / "tests/golden/containers/docker-20.10-image-inspect.json").read_text()
PARAMS: dict[str, Any] = {"home": "/opt/slm", "python": "", "base_python": "", "requirements": ""}


def refused(call: Any, *arguments: Any) -> SettingError:
    with pytest.raises(SettingError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value


class Runtimes:
    """Runtimes of a host, each with the images that it has; `problems` has what is wrong with one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: dict[str, dict[str, Image]] = {}
        self.problems: dict[str, str] = {}
        monkeypatch.setattr(
            image, "find_program", lambda host, name: f"/usr/bin/{name}" if name in self.images else None
        )
        monkeypatch.setattr(image, "daemon_address", lambda host, knob: "unix:///d.sock")
        monkeypatch.setattr(Runtime, "answers", lambda own: self.problem(own, "silent"))
        monkeypatch.setattr(Runtime, "is_rootless", lambda own: bool(self.problem(own, "rootless")))
        monkeypatch.setattr(Runtime, "renumbers_users", lambda own: bool(self.problem(own, "userns-remap")))
        monkeypatch.setattr(Runtime, "image", lambda own, name: self.images[own.name].get(name))

    def problem(self, runtime: Runtime, which: str) -> str:
        return which if self.problems.get(runtime.name) == which else ""


LAYERED = Image("sha256:1", "overlay2", ("/layers/1",))


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> Runtimes:
    return Runtimes(monkeypatch)


def test_the_runtime_that_has_the_image_is_found(runtimes: Runtimes, tmp_path: Path) -> None:
    runtimes.images = {"docker": {}, "podman": {"torch:1": LAYERED}}
    runtime, found = image.find_image(Host(tmp_path), "torch:1")
    assert (runtime.name, found) == ("podman", LAYERED)


def test_a_runtime_that_is_silent_stops_nothing_where_another_has_the_image(runtimes: Runtimes, tmp_path: Path) -> None:
    runtimes.images = {"docker": {}, "podman": {"torch:1": LAYERED}}
    runtimes.problems = {"docker": "silent"}
    assert image.find_image(Host(tmp_path), "torch:1")[0].name == "podman"


@pytest.mark.parametrize(
    ("images", "problems", "wanted", "said"),
    [
        ({}, {}, "", "neither docker nor podman"),
        ({"docker": {}}, {}, "", "docker pull torch:1"),
        ({"docker": {}}, {}, "podman", "no podman that only root can write"),
        ({"docker": {"torch:1": LAYERED}}, {"docker": "silent"}, "", "found silent"),
        ({"docker": {"torch:1": LAYERED}}, {"docker": "rootless"}, "", "a rootless one"),
        ({"docker": {"torch:1": LAYERED}}, {"docker": "userns-remap"}, "", "userns-remap"),
        ({"docker": {"torch:1": LAYERED}, "podman": {"torch:1": LAYERED}}, {}, "", "in docker and in podman"),
        ({"docker": {"torch:1": Image("sha256:1", "zfs")}}, {}, "", "storage driver zfs"),
        ({"docker": {"torch:1": Image("sha256:1", "fuse-overlayfs")}}, {}, "", "storage driver fuse-overlayfs"),
    ],
)
def test_an_image_that_cannot_be_used_is_one_line(
    runtimes: Runtimes, tmp_path: Path, images: Any, problems: dict[str, str], wanted: str, said: str
) -> None:
    runtimes.images, runtimes.problems = images, problems
    assert said in str(refused(image.find_image, Host(tmp_path), "torch:1", wanted))


def test_without_an_image_the_loader_runs_bare(tmp_path: Path) -> None:
    assert image.find_launcher(Host(tmp_path), Environment("/opt/slm", python="/usr/bin/python3")) is BARE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": "torch 1"}, "a name such as"),
        ({"image": "--privileged"}, "a name such as"),
        ({"image": "torch\n"}, "a name such as"),
        ({"image": "t" * 600}, "a name such as"),
        ({"image": "torch:1", "python": "/usr/bin/python3"}, "leave one of them empty"),
        ({"image": "torch:1", "runtime": "containerd"}, "docker or podman"),
        ({"image": "torch:1", "image_python": "python3 -c"}, "without spaces"),
        ({"image": "torch:1", "image_python": "-c"}, "without spaces"),
        ({"image": "torch:1", "image_python": "/" + "p" * 200}, "without spaces"),
    ],
)
def test_a_bad_variable_is_refused(given: dict[str, str], said: str) -> None:
    assert said in str(refused(parse_environment, {**PARAMS, **given}))


def test_an_image_brings_its_own_python() -> None:
    found = parse_environment({**PARAMS, "image": "repo/torch@sha256:00", "runtime": "podman"})
    assert (found.interpreter, found.image, found.runtime) == ("python3", "repo/torch@sha256:00", "podman")
    assert (
        parse_environment({**PARAMS, "image": "t", "image_python": "/opt/v/bin/python"}).python == "/opt/v/bin/python"
    )


@pytest.mark.parametrize(
    ("runtime", "files", "hooks", "options"),
    [
        (DOCKER, {}, (), ()),
        (DOCKER, {DRIVER_VERSION: "NVRM"}, ("nvidia-container-runtime-hook",), ("--gpus", "all")),
        (
            DOCKER,
            {DRIVER_VERSION: "NVRM", "/etc/cdi/nvidia.yaml": "kind: nvidia.com/gpu"},
            (),
            ("--device", "nvidia.com/gpu=all"),
        ),
        (
            PODMAN,
            {DRIVER_VERSION: "NVRM", "/var/run/cdi/nvidia.json": '{"kind": "nvidia.com/gpu"}'},
            ("nvidia-container-runtime-hook",),
            ("--device", "nvidia.com/gpu=all"),
        ),
    ],
)
def test_a_host_with_gpus_gives_them_as_its_toolkit_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime, files: Any, hooks: Any, options: Any
) -> None:
    for path, text in files.items():
        put(tmp_path, path, text)
    monkeypatch.setattr(image, "find_program", lambda host, name: name if name in hooks else None)
    assert image.gpu_options(Host(tmp_path), runtime) == options


@pytest.mark.parametrize("runtime", [DOCKER, PODMAN], ids=lambda runtime: runtime.name)
def test_gpus_without_a_toolkit_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    put(tmp_path, DRIVER_VERSION, "NVRM")
    put(tmp_path, "/etc/cdi/other.yaml", "kind: vendor.com/net")
    monkeypatch.setattr(image, "find_program", lambda host, name: None)
    assert "nvidia-ctk cdi generate" in str(refused(image.gpu_options, Host(tmp_path), runtime))


def model_in(folder: Path, *files: str) -> Model:
    found = tuple(ModelFile(os.path.basename(path), os.path.realpath(path), 1, "weights") for path in files)
    return Model("m", "local", str(folder), None, found, "bfloat16", 7)


def test_a_model_is_mounted_with_what_its_links_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, blobs = tmp_path / "real", tmp_path / "blobs"
    real.mkdir()
    blobs.mkdir()
    (real / "config.json").touch()
    (blobs / "1").touch()
    (real / "weights").symlink_to(blobs / "1")
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setattr(image, "untrusted", lambda host, path: None)
    model = model_in(tmp_path / "link", f"{real}/config.json", f"{real}/weights")
    assert image.model_mounts(Host(), model) == [str(real), str(blobs / "1")]
    assert image.with_real_path(Host(), model).path == str(real)


def test_a_model_that_another_user_could_swap_is_not_mounted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "m").mkdir()
    assert "others can write" in str(refused(image.model_mounts, Host(), model_in(tmp_path / "m")))


def test_files_of_an_image_are_those_of_its_layers(tmp_path: Path) -> None:
    put(tmp_path, "/layers/2/opt/lib/torch/new.py", "")
    put(tmp_path, "/layers/1/opt/lib/torch/old.py", "")
    put(tmp_path, "/layers/1/opt/python", "")
    put(tmp_path, "/opt/lib/of-the-host.py", "")
    (tmp_path / "layers/1/opt/lib/link.py").symlink_to("/opt/lib/of-the-host.py")
    host = Host(tmp_path)
    layers = LayerStack(host, Overlay(("/layers/2", "/layers/1")))
    real = {"/usr/lib/venv": "/opt/lib", "/usr/bin/python": "/opt/python"}
    packages: dict[str, str | None] = dict.fromkeys(PACKAGES, "1")
    found = Interpreter((3, 11, 2), packages, ("/usr/lib/venv",), (), "/usr/bin/python", real, layers)
    # Paths of the host as its layers have them; here the root is not in them, since the walk is of the real system.
    assert found._on_host("/usr/bin/python") == ["/layers/1/opt/python"]
    inside = [entry.path for entry in layers.folders("/opt/lib")]
    assert inside == ["/layers/2/opt/lib", "/layers/1/opt/lib"]


def test_a_layers_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    layer = tmp_path / "layer/lib"
    layer.mkdir(parents=True)
    (layer / "own.py").touch()
    (layer / "link.py").symlink_to(tmp_path / "outside")
    (layer / "folder").symlink_to("/")
    layers = LayerStack(Host(), Overlay((str(tmp_path / "layer"),)))
    found = Interpreter((3, 11, 2), dict.fromkeys(PACKAGES, "1"), ("/lib",), (), "/python", {}, layers)
    assert list(found.library_files()) == [str(layer / "own.py")]


def test_layers_that_nobody_tells_are_enough_for_the_whole_host_alone(
    runtimes: Runtimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes.images = {
        "docker": {"torch:1": Image("sha256:1", "overlayfs"), "sha256:1": Image("sha256:1", "overlayfs")}
    }
    launcher = image.find_launcher(Host(tmp_path), Environment("/opt/slm", "python3", image="torch:1"))
    python = Interpreter((3, 11, 2), dict.fromkeys(PACKAGES, "1"), (), (), "/python")
    assert image.with_layers(Host(tmp_path), python, launcher, "host").layers is not None
    told = refused(image.with_layers, Host(tmp_path), python, launcher, "app")
    assert told.knob == "slm_benchmark_cold_scope"
    assert image.with_layers(Host(tmp_path), python, BARE, "app") == python


def test_the_layers_of_an_image_are_read_from_the_runtimes_answer() -> None:
    found = parse_image(GOLDEN)
    assert found.driver == "overlay2"
    assert found.is_layered
    assert found.digest.startswith("sha256:")
    assert [path.rpartition("/")[2] for path in found.layers] == ["diff", "diff"]
    (document,) = json.loads(GOLDEN)
    document["GraphDriver"] = {"Name": "overlayfs", "Data": None}
    assert parse_image(json.dumps([document])) == Image(found.digest, "overlayfs")
