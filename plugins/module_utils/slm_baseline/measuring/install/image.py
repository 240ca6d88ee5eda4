"""The user's image in which the loader runs: found among those that root's docker or podman have here, never fetched.

Whatever would stop it is one error before anything changes: no image, no runtime, layers that containers do not share,
a host with GPUs that no container gets.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from ...containers.command_line import RUNTIMES
from ...containers.overlay import LayerStack, Overlay
from ...containers.runtime import LAYERED, Image, Runtime, daemon_address, find_recorded_runtime
from ...host.accounts import Account
from ...host.deadline import Deadline
from ...host.errors import SettingError
from ...host.files import Host
from ...host.paths import CONTAINERS_NOTE
from ...host.trust import find_program, untrusted
from ..loader.container import LABEL, ContainerLauncher
from ..loader.process import BARE, Launcher, Loader, plain_text
from ..model.files import MODEL_KNOB, Model
from ..probes.gpu import DRIVER_VERSION
from .environment import IMAGE_KNOB, Environment
from .interpreter import Interpreter

RUNTIME_KNOB = "slm_benchmark_runtime"
_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi", "/run/cdi")
_CDI_KIND = "nvidia.com/gpu"
_HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")
"""What docker runs for `--gpus` (daemon/nvidia_linux.go): a part of the NVIDIA container toolkit."""
_COUNT_GPUS = "import torch; print(torch.cuda.device_count())"
_COUNT_TIMEOUT_S = 300.0
_REMOVAL_S = 60.0


def find_launcher(host: Host, environment: Environment, model: Model | None = None) -> Launcher:
    """Return how the loader is started: bare, or in a container that has our folder and the model, read-only.

    SettingError for an image, a runtime or a toolkit that does not fit; nothing is changed or fetched.
    """
    if not environment.image:
        return BARE
    runtime, image = find_image(host, environment.image, environment.runtime)
    home = os.path.realpath(host.path(environment.home))
    # Before the first measurement there is none, and nothing is read from it.
    mounts = [home] if os.path.isdir(home) else []
    if model is not None:
        mounts += [path for path in model_mounts(host, model) if not path.startswith(f"{home}/")]
    devices = gpu_options(host, runtime)
    return ContainerLauncher(runtime, image.digest, environment.image, tuple(mounts), devices, image.layers)


def find_image(host: Host, name: str, wanted: str = "") -> tuple[Runtime, Image]:
    """Return the image of that name, and the runtime that has it; SettingError where none has it, or none answers."""
    installed = [each for each in RUNTIMES if find_program(host, each)] if not wanted else [wanted]
    found: list[tuple[Runtime, Image]] = []
    silent: list[SettingError] = []
    for each in installed:
        try:
            runtime = _find_runtime(host, each)
        except SettingError as error:
            silent.append(error)
            continue
        image = runtime.image(name)
        if image:
            found.append((runtime, image))
    if len(found) > 1:
        raise SettingError(
            IMAGE_KNOB,
            "one image of that name",
            f"{name} in docker and in podman",
            "Nobody can tell which of them is meant.",
            f"set {RUNTIME_KNOB} to docker or podman.",
        )
    if not found and silent:
        raise silent[0]
    if not found:
        has = " or ".join(installed)
        raise SettingError(
            IMAGE_KNOB,
            f"an image that {has or 'docker or podman'} of root has here",
            f"no image {name}" if installed else "neither docker nor podman that only root can write",
            "Nothing is pulled: what is measured must be what is served here.",
            f"get it there first ({installed[0] if installed else 'docker'} pull {name}, or load it from a file).",
        )
    _require_layers(name, *found[0])
    return found[0]


def _find_runtime(host: Host, name: str) -> Runtime:
    program = find_program(host, name)
    runtime = Runtime(name, program or "", daemon_address(host, RUNTIME_KNOB) if name == "docker" else "")
    reason = runtime.answers() if program else f"no {name} that only root can write"
    if reason:
        raise SettingError(
            RUNTIME_KNOB,
            f"{name}, which answers",
            reason,
            "It runs the image in which the loader is measured.",
            f"start {name}, or correct {RUNTIME_KNOB}.",
        )
    other = "a rootless one" if runtime.is_rootless() else "userns-remap" if runtime.renumbers_users() else ""
    if other:
        raise SettingError(
            RUNTIME_KNOB,
            f"{name} of root, with the host's user ids",
            other,
            "Its containers' users are others on the host, and may not read the model or report to us.",
            "measure with root's runtime, without userns-remap.",
        )
    return runtime


def _require_layers(name: str, runtime: Runtime, image: Image) -> None:
    if not image.is_layered:
        raise SettingError(
            RUNTIME_KNOB,
            f"layers in folders ({', '.join(LAYERED)})",
            f"{name} in {runtime.name}'s storage driver {image.driver or 'of another kind'}",
            "Its containers have copies or snapshots of their own, so no start would find the libraries in memory.",
            "set the runtime's storage driver to overlay.",
        )


def gpu_options(host: Host, runtime: Runtime) -> tuple[str, ...]:
    """Return the options that give a container the host's GPUs; none where it has none. SettingError: no toolkit."""
    if not host.exists(DRIVER_VERSION):
        return ()
    if runtime.name == "docker" and any(find_program(host, hook) for hook in _HOOKS):
        return ("--gpus", "all")
    if _has_cdi(host):
        return ("--device", f"{_CDI_KIND}=all")
    hook = f" and no {_HOOKS[0]}" if runtime.name == "docker" else ""
    raise SettingError(
        IMAGE_KNOB,
        "GPUs in the container, as the host has some",
        f"no CDI specification of {_CDI_KIND} in {' or '.join(_CDI_FOLDERS[:2])}{hook}",
        f"{runtime.name} gives GPUs to a container by NVIDIA's container toolkit.",
        "install nvidia-container-toolkit and run nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml.",
    )


def _has_cdi(host: Host) -> bool:
    return any(
        _CDI_KIND in (host.read_or_none(f"{folder}/{name}") or "")
        for folder in _CDI_FOLDERS
        for name in host.names(folder)
        if name.endswith((".yaml", ".json"))
    )


def require_gpus_inside(python: str, account: Account | None, launcher: Launcher) -> None:
    """Raise SettingError where the container was to have GPUs, and its torch finds none."""
    if not isinstance(launcher, ContainerLauncher) or not launcher.devices:
        return
    loader = Loader(python, "", (), account, _COUNT_TIMEOUT_S, launcher=launcher)
    try:
        answer = loader.run(["-c", _COUNT_GPUS], _COUNT_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        found = str(error)
    else:
        said = plain_text(answer.output[-200:])
        if not answer.returncode and said.isdecimal() and int(said):
            return
        found = (plain_text(answer.errors[-1000:]).splitlines() or ["none"])[-1][:300] if said != "0" else "none"
    raise SettingError(
        IMAGE_KNOB,
        "a torch in the image that finds the host's GPUs",
        found,
        f"The host has GPUs, and the container was given them ({' '.join(launcher.devices)}).",
        "choose an image with a CUDA build of torch that this driver supports, or mend the container toolkit.",
    )


def model_mounts(host: Host, model: Model) -> list[str]:
    """Return what a container needs of a model: its folder, and each file to which a link leads out of it.

    SettingError where others than root could lead root's runtime elsewhere: it mounts whatever lies there.
    """
    folder = os.path.realpath(host.path(model.path))
    paths = [folder, *(file.path for file in model.files if os.path.dirname(file.path) != folder)]
    for path in paths:
        weak = untrusted(host, path)
        if weak:
            raise SettingError(
                MODEL_KNOB,
                "a model in a place that only root can change, where it is mounted into a container",
                f"{path}: {weak}",
                "Root's runtime mounts what lies there, wherever its owner lets it lead.",
                "copy it to a folder of root's, or measure without slm_benchmark_image.",
            )
    return paths


def with_real_path(host: Host, model: Model) -> Model:
    """Return the model by the path of its folder without links: there it is mounted."""
    return replace(model, path=os.path.realpath(host.path(model.path)))


def with_layers(host: Host, interpreter: Interpreter, launcher: Launcher, scope: str) -> Interpreter:
    """Return the interpreter with the layers that have its files; SettingError where a scope needs them, unknown."""
    if not isinstance(launcher, ContainerLauncher):
        return interpreter
    if not launcher.layers and scope != "host":
        raise SettingError(
            "slm_benchmark_cold_scope",
            "host, for this image",
            scope,
            f"{launcher.runtime.name} does not tell in which folders its layers lie, so their files cannot be evicted.",
            "set slm_benchmark_cold_scope to host.",
        )
    return replace(interpreter, layers=LayerStack(host, Overlay(launcher.layers)))


def remove_left_containers(host: Host, launcher: Launcher) -> None:
    """Remove containers of a killed measurement, and note that this host may have some; SettingError if one stays."""
    if isinstance(launcher, ContainerLauncher):
        host.write_durably(CONTAINERS_NOTE, f"{launcher.runtime.name} {launcher.runtime.address}\n".encode())
        _remove_all(launcher.runtime)


def remove_noted_containers(host: Host) -> None:
    """Remove what a killed measurement left, where one in an image was made since the host was started."""
    name, _, address = (host.read_or_none(CONTAINERS_NOTE) or "").strip().partition(" ")
    runtime = find_recorded_runtime(host, name, address)
    # A daemon that does not run has no container running.
    if runtime and not runtime.answers():
        _remove_all(runtime)


def _remove_all(runtime: Runtime) -> None:
    if not runtime.remove_labelled(LABEL, Deadline.after(_REMOVAL_S)):
        raise SettingError(
            RUNTIME_KNOB,
            "no container of an interrupted measurement",
            f"one with the label {LABEL} that {runtime.name} cannot remove",
            "It may still hold a model.",
            f"look at {runtime.name} ps --filter label={LABEL}.",
        )
