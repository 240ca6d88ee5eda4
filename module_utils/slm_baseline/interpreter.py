"""A Python on the host as the loader's user sees it: whether it runs, which packages it has, where its files lie.

Packages are looked up by their metadata (importlib.metadata): importing torch would take seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import SettingError
from .loader_process import Account, Loader, clean_environment, printable, run_as

PACKAGES = ("torch", "transformers", "accelerate", "psutil", "safetensors")
_PROBE_TIMEOUT_S = 60.0
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


@dataclass(frozen=True)
class Interpreter:
    """What a Python says of itself. `packages` has None for each that is missing."""

    version: tuple[int, int, int]
    packages: dict[str, str | None]
    library_folders: tuple[str, ...]
    standard_folders: tuple[str, ...]
    executable: str

    def library_files(self) -> Iterator[str]:
        """Every file of the installed packages."""
        return _files(self.library_folders)

    def all_files(self) -> Iterator[str]:
        """The interpreter, its standard library and the installed packages."""
        yield self.executable
        folders = dict.fromkeys((*self.library_folders, *self.standard_folders))
        # In a virtual environment the packages lie inside the standard library's folder.
        yield from _files(folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders))


def probe(python: str, account: Account | None) -> Interpreter:
    """Ask a Python, run by the loader's user; SettingError where that user cannot run it or it makes no sense."""
    environment = clean_environment(Loader(python, "", (), account, _PROBE_TIMEOUT_S), "/nonexistent")
    try:
        answer = subprocess.run(
            [python, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            **run_as(account),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _unusable(python, account, f"running it failed: {error}") from error
    if answer.returncode:
        last = printable(answer.stderr[-1000:]).splitlines()[-1:] or [f"exit code {answer.returncode}"]
        raise _unusable(python, account, last[0])
    try:
        said = json.loads(answer.stdout)
        major, minor, micro = (int(part) for part in said["version"])
        return Interpreter(
            (major, minor, micro),
            {name: said["packages"][name] for name in PACKAGES},
            tuple(dict.fromkeys(said["library"])),
            tuple(dict.fromkeys(said["standard"])),
            str(said["executable"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(python, account, f"its answer is not Python's: {printable(answer.stdout[:200])}") from error


def require_packages(python: str, account: Account | None) -> Interpreter:
    """The interpreter, if it has all that the loader needs; SettingError naming what is missing."""
    interpreter = probe(python, account)
    missing = [name for name, version in interpreter.packages.items() if version is None]
    if missing or interpreter.version < (3, 10, 0):
        found = "Python " + ".".join(map(str, interpreter.version))
        raise SettingError(
            "slm_benchmark_python",
            f"Python 3.10 or later with {', '.join(PACKAGES)}",
            f"{python}, {found}" + (f", without {', '.join(missing)}" if missing else ""),
            "The loader imports these packages.",
            "install them there, name another interpreter, or leave slm_benchmark_python empty for an environment of "
            "our own.",
        )
    return interpreter


def _unusable(python: str, account: Account | None, found: str) -> SettingError:
    user = account.name if account else "this user"
    return SettingError(
        "slm_benchmark_python",
        f"a Python that {user} can run",
        f"{python}: {found}",
        f"The loader runs as {user}, without privileges.",
        f"check that it exists and that {user} may read and execute it and every folder above it.",
    )


def _files(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = f"{parent}/{name}"
                if os.path.isfile(path):
                    yield path
