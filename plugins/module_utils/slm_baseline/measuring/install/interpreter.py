"""A Python on the host as the loader's user sees it: whether it runs, which packages it has, where its files lie.

Packages are looked up by their metadata (importlib.metadata), since importing torch would take seconds.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...containers.overlay import LayerStack
from ...host.accounts import Account
from ...host.errors import SettingError
from ..loader.process import BARE, Launcher, Loader, plain_text

PACKAGES = ("torch", "transformers", "accelerate", "psutil", "safetensors")
OLDEST = {"torch": (2, 5), "transformers": (4, 56), "accelerate": (0, 26)}
"""The first versions with what the loader uses: a device's `uuid`, `dtype=`, and what transformers 4.56 requires."""
_VERSION = re.compile(r"(?P<major>[0-9]{1,9})\.(?P<minor>[0-9]{1,9})", re.ASCII)
_PROBE_TIMEOUT_S = 60.0
PYTHON_KNOB = "slm_benchmark_python"
_NOT_A_PYTHONS = ("//", "/proc/", "/sys/", "/dev/")
_MOST_FILES = 1_000_000
_MOST_BYTES = 128 << 30
"""Far more than any environment: one with CUDA builds of torch has some 50,000 files and 10 GB."""
_PROBE = f"""
import json, os, sys, sysconfig
from importlib import metadata
found = {{}}
for name in {PACKAGES!r}:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found[name] = None
paths = sysconfig.get_paths()
print(json.dumps({{
    "version": list(sys.version_info[:3]),
    "packages": found,
    "library": [paths["purelib"], paths["platlib"]],
    "standard": [paths["stdlib"], paths["platstdlib"]],
    "executable": sys.executable,
    "real": {{path: os.path.realpath(path) for path in (*paths.values(), sys.executable)}},
}}))
"""


_IS_PROBE = b"sysconfig.get_paths"


@dataclass(frozen=True)
class Interpreter:
    """A Python's description of itself. `packages` has None for each that is missing.

    `layers` are those of the image that it lies in, None for one of the host; `real` has the paths without links.
    """

    version: tuple[int, int, int]
    packages: dict[str, str | None]
    library_folders: tuple[str, ...]
    standard_folders: tuple[str, ...]
    executable: str
    real: Mapping[str, str] = field(default_factory=dict)
    layers: LayerStack | None = None

    def library_files(self) -> Iterator[str]:
        """Yield every file of the installed packages, as the host has it."""
        return self._files(self.library_folders)

    def all_files(self) -> Iterator[str]:
        """Yield the interpreter, its standard library and the installed packages, as the host has them."""
        yield from self._on_host(self.executable)
        folders = dict.fromkeys((*self.library_folders, *self.standard_folders))
        # In a virtual environment the packages lie within the standard library's folder.
        yield from self._files(
            [folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders)]
        )

    def _files(self, folders: Sequence[str]) -> Iterator[str]:
        if self.layers is None:
            return _files(folders)
        # A layer's link leads to a place of the image, not of the host, and what it leads to is listed there.
        inside = [entry.path for folder in folders for entry in self.layers.folders(self.real.get(folder, folder))]
        return _files(inside, with_links=False)

    def _on_host(self, path: str) -> list[str]:
        if self.layers is None:
            return [path]
        return [entry.path for entry in self.layers.file(self.real.get(path, path))]


def probe(python: str, account: Account | None, launcher: Launcher = BARE) -> Interpreter:
    """Query a Python as the loader's user; SettingError where that user cannot run it or its answer is invalid."""
    unusable = functools.partial(_unusable, python, account, launcher)
    try:
        loader = Loader(python, "", (), account, _PROBE_TIMEOUT_S, launcher=launcher)
        answer = loader.run(["-c", _PROBE], _PROBE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise unusable(f"running it failed: {error}") from error
    if _IS_PROBE in answer.output or _IS_PROBE in answer.errors:
        # Another program's error message about its arguments, or an echo of them.
        raise unusable(f"it is no Python: it ended with exit code {answer.returncode}")
    if answer.returncode:
        last = plain_text(answer.errors[-1000:]).splitlines()[-1:] or [f"exit code {answer.returncode}"]
        raise unusable(last[0])
    try:
        said = json.loads(answer.output)
        major, minor, micro = (int(part) for part in said["version"])
        return Interpreter(
            (major, minor, micro),
            {name: said["packages"][name] for name in PACKAGES},
            _folders(said["library"]),
            _folders(said["standard"]),
            str(said["executable"]),
            {path: real for path, real in said["real"].items() if _folders([path, real])},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise unusable(f"it does not answer as Python does: {plain_text(answer.output[:200])}") from error


def require_packages(python: str, account: Account | None, launcher: Launcher = BARE) -> Interpreter:
    """Return the interpreter if it has all that the loader needs; SettingError naming what is missing or too old."""
    interpreter = probe(python, account, launcher)
    packages = interpreter.packages.items()
    missing = [name for name, version in packages if version is None]
    old = [f"{name} {version}" for name, version in packages if version is not None and is_too_old(name, version)]
    if missing or old or interpreter.version < (3, 10, 0):
        found = "Python " + ".".join(map(str, interpreter.version))
        oldest = [name + (" >= {}.{}".format(*OLDEST[name]) if name in OLDEST else "") for name in PACKAGES]
        raise SettingError(
            launcher.knob,
            f"Python 3.10 or later with {', '.join(oldest)}",
            f"{python}, {found}"
            + (f", without {', '.join(missing)}" if missing else "")
            + (f", with {', '.join(old)}" if old else ""),
            "The loader imports these packages.",
            f"install them there, or {launcher.remedy}",
        )
    return interpreter


def is_too_old(name: str, version: str) -> bool:
    """Return whether a version is below the oldest that works; a version of another form than `4.56...` never is."""
    match = _VERSION.match(version)
    return match is not None and (int(match["major"]), int(match["minor"])) < OLDEST.get(name, (0, 0))


def _unusable(python: str, account: Account | None, launcher: Launcher, found: str) -> SettingError:
    user = f"the user {account.name}" if account else "this user"
    return SettingError(
        launcher.knob,
        f"a Python that {user} can run",
        f"{python}: {found}",
        f"The loader runs as {user}, without privileges.",
        f"check that it exists and that {user} may read and execute it and every folder above it, or {launcher.remedy}",
    )


def _folders(said: object) -> tuple[str, ...]:
    """Parse the paths that a Python reported; ValueError for anything else, since root reads them."""
    if not isinstance(said, list) or not all(isinstance(path, str) and path.startswith("/") for path in said):
        raise ValueError("folders that are no absolute paths")
    return tuple(dict.fromkeys(said))


def _files(folders: Iterable[str], with_links: bool = True) -> Iterator[str]:
    """Yield every plain file in these folders; SettingError where they cannot be a Python's own.

    Root reads and evicts them, and a Python of any user may name any folder: a kernel's file system, or a disk.
    """
    files = size = 0
    for folder in folders:
        real = os.path.realpath(folder)
        if f"{real}/".startswith(_NOT_A_PYTHONS):
            raise _not_its_own(f"{folder}, which is {real}")
        for parent, _, names in os.walk(folder):
            for name in names:
                path = f"{parent}/{name}"
                if os.path.isfile(path) and (with_links or not os.path.islink(path)):
                    files += 1
                    size += os.stat(path).st_size
                    if files > _MOST_FILES or size > _MOST_BYTES:
                        raise _not_its_own(f"{folder}, with more than {_MOST_FILES} files or {_MOST_BYTES >> 30} GiB")
                    yield path


def _not_its_own(found: str) -> SettingError:
    return SettingError(
        PYTHON_KNOB,
        "a Python that names its own folders as its library",
        found,
        "Root evicts these files and reads them in.",
        "name another interpreter, or leave slm_benchmark_python empty for an environment of our own.",
    )
