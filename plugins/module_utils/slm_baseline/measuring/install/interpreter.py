"""A Python on the host as the loader's user sees it: whether it runs, which packages it has, where its files lie.

Packages are looked up by their metadata (importlib.metadata), since importing torch would take seconds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...host.accounts import Account
from ...host.errors import SettingError
from ...host.subprocesses import run_bounded
from ..loader.process import Loader, clean_environment, plain_text

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
import json, sys, sysconfig
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
}}))
"""


_IS_PROBE = b"sysconfig.get_paths"


@dataclass(frozen=True)
class Interpreter:
    """A Python's description of itself. `packages` has None for each that is missing."""

    version: tuple[int, int, int]
    packages: dict[str, str | None]
    library_folders: tuple[str, ...]
    standard_folders: tuple[str, ...]
    executable: str

    def library_files(self) -> Iterator[str]:
        """Yield every file of the installed packages."""
        return _files(self.library_folders)

    def all_files(self) -> Iterator[str]:
        """Yield the interpreter, its standard library and the installed packages."""
        yield self.executable
        folders = dict.fromkeys((*self.library_folders, *self.standard_folders))
        # In a virtual environment the packages lie within the standard library's folder.
        yield from _files(folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders))


def probe(python: str, account: Account | None) -> Interpreter:
    """Query a Python as the loader's user; SettingError where that user cannot run it or its answer is invalid."""
    environment = clean_environment(Loader(python, "", (), account, _PROBE_TIMEOUT_S), "/nonexistent")
    try:
        answer = run_bounded([python, "-c", _PROBE], account, environment, _PROBE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise _unusable(python, account, f"running it failed: {error}") from error
    if _IS_PROBE in answer.output or _IS_PROBE in answer.errors:
        # Another program's error message about its arguments, or an echo of them.
        raise _unusable(python, account, f"it is no Python: it ended with exit code {answer.returncode}")
    if answer.returncode:
        last = plain_text(answer.errors[-1000:]).splitlines()[-1:] or [f"exit code {answer.returncode}"]
        raise _unusable(python, account, last[0])
    try:
        said = json.loads(answer.output)
        major, minor, micro = (int(part) for part in said["version"])
        return Interpreter(
            (major, minor, micro),
            {name: said["packages"][name] for name in PACKAGES},
            _folders(said["library"]),
            _folders(said["standard"]),
            str(said["executable"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unusable(
            python, account, f"it does not answer as Python does: {plain_text(answer.output[:200])}"
        ) from error


def require_packages(python: str, account: Account | None) -> Interpreter:
    """Return the interpreter if it has all that the loader needs; SettingError naming what is missing or too old."""
    interpreter = probe(python, account)
    packages = interpreter.packages.items()
    missing = [name for name, version in packages if version is None]
    old = [f"{name} {version}" for name, version in packages if version is not None and is_too_old(name, version)]
    if missing or old or interpreter.version < (3, 10, 0):
        found = "Python " + ".".join(map(str, interpreter.version))
        oldest = [name + (" >= {}.{}".format(*OLDEST[name]) if name in OLDEST else "") for name in PACKAGES]
        raise SettingError(
            PYTHON_KNOB,
            f"Python 3.10 or later with {', '.join(oldest)}",
            f"{python}, {found}"
            + (f", without {', '.join(missing)}" if missing else "")
            + (f", with {', '.join(old)}" if old else ""),
            "The loader imports these packages.",
            "install them there, name another interpreter, or leave slm_benchmark_python empty for an environment of "
            "our own.",
        )
    return interpreter


def is_too_old(name: str, version: str) -> bool:
    """Return whether a version is below the oldest that works; a version of another form than `4.56...` never is."""
    match = _VERSION.match(version)
    return match is not None and (int(match["major"]), int(match["minor"])) < OLDEST.get(name, (0, 0))


def _unusable(python: str, account: Account | None, found: str) -> SettingError:
    user = f"the user {account.name}" if account else "this user"
    return SettingError(
        PYTHON_KNOB,
        f"a Python that {user} can run",
        f"{python}: {found}",
        f"The loader runs as {user}, without privileges.",
        f"check that it exists and that {user} may read and execute it and every folder above it.",
    )


def _folders(said: object) -> tuple[str, ...]:
    """Parse the paths that a Python reported; ValueError for anything else, since root reads them."""
    if not isinstance(said, list) or not all(isinstance(path, str) and path.startswith("/") for path in said):
        raise ValueError("folders that are no absolute paths")
    return tuple(dict.fromkeys(said))


def _files(folders: Iterable[str]) -> Iterator[str]:
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
                if os.path.isfile(path):
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
