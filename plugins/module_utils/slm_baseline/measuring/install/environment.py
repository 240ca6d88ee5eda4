"""The measurement's own environment on a host: scripts, and a virtual environment made from a lock.

Everything lies in one folder of our own (install_dir.py), which the purge removes. A stamp, written last, holds the
hashes of what the environment was made from: checking it reads one file, and an interrupted build is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...containers.command_line import RUNTIMES
from ...host.accounts import Account
from ...host.errors import SettingError
from ...host.files import Host, temporary_name
from ...host.paths import CONTAINERS_NOTE, RUNS
from ...host.rmtree import remove_folder_if_empty, remove_tree
from ...host.subprocesses import run_bounded
from ...host.trust import require_trusted, search_path, untrusted
from ..loader.process import plain_text
from ..model.files import EMBEDDED_MODEL_BYTES
from .install_dir import forget_homes, homes_of, make_home, remove_home, require_home

_STAMP = "slm-baseline.json"
_FEWEST_MINOR = 11
_CANDIDATES = tuple(
    f"{folder}/python3{minor}"
    for minor in ("", *(f".{number}" for number in range(_FEWEST_MINOR, 20)))
    for folder in ("/usr/bin", "/usr/local/bin")
)
_PROBE = "import ensurepip, os, sys, venv; print(sys.version_info[1], int(os.access(sys.argv[1], os.X_OK)))"
_PROBE_TIMEOUT_S = 60.0
_BUILD_TIMEOUT_S = 3600.0
_FILES = ("requirements.txt", "slm_load.py", "build_model.py", "try_model.py", "gpu_copy_rate.py", "find_bytecode.py")
_OURS = (
    *("venv", "scratch", "bytecode", "kernels", *_FILES, *map(temporary_name, _FILES)),
    *(f"models/{shape}" for shape in EMBEDDED_MODEL_BYTES),
)
IMAGE_KNOB = "slm_benchmark_image"
IMAGE_PYTHON = "python3"
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", re.ASCII)
_LONGEST_IMAGE = 512
_PROGRAM = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,99}", re.ASCII)
_SCRIPT = re.compile(r"[a-z][a-z0-9_]*\.py", re.ASCII)


@dataclass(frozen=True)
class Environment:
    """The wanted environment. `python` names an existing interpreter that is used instead of our own.

    `image` names an image of the host's runtime in which `python` is used; `runtime` is its name, empty finds one.

    `requirements` is the lock's text, `pip_options` more options of pip (an index, say), `base_python` the Python to
    make the environment from; empty finds one.
    """

    home: str
    python: str = ""
    base_python: str = ""
    requirements: str = ""
    pip_options: tuple[str, ...] = ()
    image: str = ""
    runtime: str = ""

    @property
    def folder(self) -> str:
        return f"{self.home}/venv"

    @property
    def interpreter(self) -> str:
        """Return the Python that runs the loader and the builder."""
        return self.python or f"{self.folder}/bin/python"

    @property
    def scratch(self) -> str:
        return f"{self.home}/scratch"

    def stamp(self) -> dict[str, Any]:
        """Return the stamp of what the environment was made from; hashes, since an index may hold a password."""
        made_from = {
            "requirements": self.requirements,
            "pip_options": "\n".join(self.pip_options),
            "base_python": self.base_python,
        }
        return {f"{name}_sha256": hashlib.sha256(text.encode()).hexdigest() for name, text in made_from.items() if text}


def parse_environment(params: Mapping[str, Any]) -> Environment:
    """Parse a module's parameters to an environment; SettingError for an invalid path."""
    python, base_python = params["python"], params.get("base_python")
    image = parse_image_name(params.get("image"))
    if image and python:
        raise SettingError(
            IMAGE_KNOB,
            "an image, or a Python of the host",
            f"{IMAGE_KNOB} and slm_benchmark_python",
            "The loader runs either in the image or on the host.",
            "leave one of them empty; the Python in the image is slm_benchmark_image_python.",
        )
    own = str(params.get("image_python") or IMAGE_PYTHON)
    return Environment(
        home=absolute_path("slm_benchmark_home", params["home"]),
        python=parse_image_python(own) if image else absolute_path("slm_benchmark_python", python) if python else "",
        base_python=absolute_path("slm_benchmark_base_python", base_python) if base_python else "",
        requirements=params.get("requirements") or "",
        pip_options=tuple(params.get("pip_options") or ()),
        image=image,
        runtime=parse_runtime(params.get("runtime")) if image else "",
    )


def parse_image_name(value: object) -> str:
    """Return the name or digest of an image; empty for none. SettingError for what is no name."""
    name = str(value or "")
    if name and not (_IMAGE.fullmatch(name) and len(name) <= _LONGEST_IMAGE):
        raise SettingError(
            IMAGE_KNOB,
            "a name such as vllm/vllm-openai:v0.11.0, or a digest",
            repr(name)[:200],
            "It is looked up among the images that docker or podman have here.",
            f"correct {IMAGE_KNOB}.",
        )
    return name


def parse_runtime(value: object) -> str:
    """Return the name of a runtime; empty finds one."""
    name = str(value or "")
    if name not in ("", *RUNTIMES):
        raise SettingError(
            "slm_benchmark_runtime",
            " or ".join(RUNTIMES),
            repr(name)[:200],
            "No other runtime is supported.",
            "set it to one of them, or leave it empty.",
        )
    return name


def parse_image_python(value: str) -> str:
    """Return the Python of an image: a name that the image's PATH has, or an absolute path."""
    if not _PROGRAM.fullmatch(value):
        raise SettingError(
            "slm_benchmark_image_python",
            "a name such as python3, or an absolute path in the image, without spaces",
            repr(value)[:200],
            "The loader runs in it.",
            "correct slm_benchmark_image_python.",
        )
    return value


def absolute_path(knob: str, value: object) -> str:
    """Return a path on the host without `.` and `..`; SettingError, naming the knob, for anything else and for `/`."""
    text = str(value)
    if not text.startswith("/") or not text.isprintable() or os.path.normpath(text) in ("/", "//"):
        raise SettingError(knob, "an absolute path", repr(value), "It is a path on the host.", f"correct {knob}.")
    return os.path.normpath(text)


def is_built(host: Host, environment: Environment) -> bool:
    """Return whether our own environment exists and was made from exactly this; true where an existing Python is used.

    SettingError for a home that is not ours: an environment that others can write is not trusted.
    """
    if environment.python:
        return True
    require_home(host, environment.home)
    try:
        stamp = json.loads(host.read(f"{environment.folder}/{_STAMP}"))
    except (OSError, ValueError):
        return False
    return bool(stamp == environment.stamp() and host.exists(environment.interpreter))


def find_base_python(host: Host, environment: Environment, account: Account) -> str:
    """Find a Python from which the loader's user can run an environment in `home`; SettingError where there is none.

    A virtual environment's interpreter is a link to its base, so that user must be able to execute the base. Root runs
    it too, to make the environment, so only root may be able to write it.
    """
    above = environment.home
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if environment.base_python:
        require_trusted(host, environment.base_python, "slm_benchmark_base_python")
    tried = (environment.base_python,) if environment.base_python else _CANDIDATES
    for python in tried:
        if untrusted(host, python):
            continue
        try:
            clean = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
            answer = run_bounded([python, "-I", "-c", _PROBE, above], account, clean, _PROBE_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError):
            continue
        minor, _, reachable = plain_text(answer.output).partition(" ")
        if answer.returncode or not minor.isdecimal() or int(minor) < _FEWEST_MINOR:
            continue
        if reachable != "1":
            raise SettingError(
                "slm_benchmark_home",
                f"a folder that the user {account.name} can reach",
                environment.home,
                f"The user {account.name} may not enter {above}, and the loader runs as {account.name}.",
                "choose another folder, such as /opt/slm-baseline.",
            )
        return python
    raise SettingError(
        "slm_benchmark_base_python",
        f"Python 3.{_FEWEST_MINOR} or later with venv and ensurepip, executable by the user {account.name}",
        f"none at {environment.base_python}" if environment.base_python else "none in /usr/bin or /usr/local/bin",
        "The loader's environment is made from it.",
        "install one (Debian: python3-venv), or set slm_benchmark_python to one that has torch and transformers.",
    )


def build(host: Host, environment: Environment, account: Account) -> None:
    """Make the environment anew from its lock. Takes minutes. SettingError with the end of pip's output."""
    base = find_base_python(host, environment, account)
    make_home(host, environment.home)
    folder = host.path(environment.folder)
    remove_tree(folder)
    _run(host, [base, "-I", "-m", "venv", str(folder)], "venv")
    requirements = f"{environment.home}/requirements.txt"
    host.write_durably(requirements, environment.requirements.encode())
    # No cache: nothing may be written outside our folder.
    pip = [f"{folder}/bin/python", "-I", "-m", "pip", "install", "--no-input", "--no-cache-dir", "--quiet"]
    _run(host, [*pip, *environment.pip_options, "--requirement", str(host.path(requirements))], "pip")
    host.write_durably(f"{environment.folder}/{_STAMP}", json.dumps(environment.stamp()).encode())


def changed_scripts(host: Host, environment: Environment, scripts: Mapping[str, str]) -> list[str]:
    """Return the names of scripts in `home` that are missing or differ from these."""
    for name in scripts:
        if not _SCRIPT.fullmatch(name):
            raise SettingError(
                "scripts",
                "plain names such as slm_load.py",
                repr(name),
                "Each is a file in slm_benchmark_home.",
                "correct it.",
            )
    return [name for name, text in scripts.items() if host.read_or_none(f"{environment.home}/{name}") != text]


def install_scripts(host: Host, environment: Environment, scripts: Mapping[str, str]) -> None:
    """Write these scripts into `home`."""
    make_home(host, environment.home)
    for name, text in scripts.items():
        host.write_durably(f"{environment.home}/{name}", text.encode(), mode=0o755)


def fresh_scratch(host: Host, environment: Environment) -> str:
    """Make an empty folder for the loader's homes, removing what a killed run left."""
    make_home(host, environment.home)
    scratch = host.path(environment.scratch)
    remove_tree(scratch)
    # Others may pass through it but not list it; each home in it belongs to the loader's user.
    scratch.mkdir(mode=0o711)
    scratch.chmod(0o711)
    return str(scratch)


def installed_parts(host: Host, home: str) -> dict[str, list[str]]:
    """Return our parts on the host by home, recorded ones and this one. Samples of runs, and the note of
    their containers, have an empty name.

    A folder without our mark holds nothing of ours, whatever lies in it.
    """
    homes = {
        each: [path for name in _OURS if _is_there(host, path := f"{each}/{name}")] for each in homes_of(host, home)
    }
    of_runs = [path for path in (CONTAINERS_NOTE, RUNS) if _is_there(host, path)]
    return {**homes, **({"": of_runs} if of_runs else {})}


def remove_parts(host: Host, parts: Mapping[str, Sequence[str]]) -> None:
    """Remove what `installed_parts` found, and the folders made for it where they are empty."""
    for home in filter(None, parts):
        for path in parts[home]:
            remove_tree(host.path(path))
        remove_folder_if_empty(host.path(f"{home}/models"))
        remove_home(host, home)
    for path in parts.get("", ()):
        remove_tree(host.path(path))
    forget_homes(host, list(parts))
    remove_folder_if_empty(host.path(RUNS).parent)


def _is_there(host: Host, path: str) -> bool:
    return os.path.lexists(host.path(path))


def _run(host: Host, command: Sequence[str], what: str) -> None:
    """Run one step with umask 022, because another user has to read what it makes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = search_path(host)
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
            umask=0o022,
        )
        said = plain_text(answer.stdout[-2000:]) if answer.returncode else None
    except (OSError, subprocess.SubprocessError) as error:
        said = str(error)
    if said is not None:
        raise SettingError(
            "slm_benchmark environment",
            "torch, transformers and their dependencies from the lock",
            f"{what} failed: {' | '.join(said.splitlines()[-6:])}",
            "The loader cannot run without them.",
            "check the host's way to a package index (pip's own configuration, slm_benchmark_pip_options), or set "
            "slm_benchmark_python to a Python that has them.",
        )
