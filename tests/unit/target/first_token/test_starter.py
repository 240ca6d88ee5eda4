"""slm-start itself, with its paths in a temporary folder: it tells a command of what fits, and starts it anyway."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.fit import Fit, fit_text
from ansible.module_utils.slm_baseline.first_token.recorder.interruption import PYTHON
from ansible.module_utils.slm_baseline.first_token.unit_files import FITTER, STARTER_TEXT
from ansible.module_utils.slm_baseline.host.paths import TARGETS

FILES = Path(__file__).parents[4] / "files"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The program, and a target `app` that keeps bytecode and kernels."""
    home = tmp_path / "targets/app"
    for name in ("pycache", "kernels"):
        (home / name).mkdir(parents=True, mode=0o700)
    fit = Fit(
        *(str(home / "pycache"), str(home / "pycache"), (home / "pycache").stat().st_ino, str(os.getuid()), (), (), ()),
        kernels=(str(home / "kernels"), (home / "kernels").stat().st_ino),
        variables=(("CUDA_CACHE_PATH", f"{home}/kernels/cuda"), ("TRITON_CACHE_DIR", f"{home}/kernels/triton")),
    )
    (home / "bytecode").write_text(fit_text(fit))
    (home / "bytecode").chmod(0o640)
    text = STARTER_TEXT.replace(FITTER, str(FILES / "slm_fit.py"))
    program = tmp_path / "slm-start"
    program.write_text(text.replace(PYTHON, sys.executable).replace(TARGETS, str(tmp_path / "targets")))
    program.chmod(0o755)
    return program


def start(script: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([str(script), *words], env=env, capture_output=True, text=True, check=False)


def told(script: Path, **environment: str) -> dict[str, str]:
    """The environment of a command that it starts."""
    done = start(script, "app", "--", sys.executable, "-c", "import os; print(dict(os.environ))", **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = ast.literal_eval(done.stdout)
    return {name: value for name, value in found.items() if name in ("PYTHONPYCACHEPREFIX", "A") or "CACHE_" in name}


def test_a_command_is_told_of_each_cache_that_fits(script: Path, tmp_path: Path) -> None:
    home = tmp_path / "targets/app"
    kernels = {"CUDA_CACHE_PATH": f"{home}/kernels/cuda", "TRITON_CACHE_DIR": f"{home}/kernels/triton"}
    bytecode = {"PYTHONPYCACHEPREFIX": f"{home}/pycache"}
    assert told(script, A="its own") == {"A": "its own", **bytecode, **kernels}
    assert told(script, CUDA_CACHE_PATH="/own") == bytecode | kernels | {"CUDA_CACHE_PATH": "/own"}
    shutil.rmtree(home / "pycache")
    assert told(script) == kernels
    (home / "kernels").chmod(0o777)
    assert told(script) == {}
    (home / "bytecode").unlink()
    assert told(script) == {}


def test_the_commands_words_and_status_are_its_own(script: Path) -> None:
    done = start(script, "app", "--", "/bin/sh", "-c", 'printf "%s|" "$@"; exit 3', "sh", "a b", "*", "")
    assert (done.returncode, done.stdout) == (3, "a b|*||")


@pytest.mark.parametrize(
    "words", [(), ("app",), ("app", "--"), ("../app", "--", "true"), ("", "--", "true"), (".x", "--", "true")]
)
def test_what_it_cannot_start_is_an_error(script: Path, words: tuple[str, ...]) -> None:
    done = start(script, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_name_that_nobody_recorded_is_an_error(script: Path) -> None:
    done = start(script, "other", "--", "true")
    assert done.returncode == 2
    assert "nothing is recorded as other" in done.stderr
