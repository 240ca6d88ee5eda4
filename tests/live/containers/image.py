"""The root of an image: an interpreter with its standard library and bytecode, and the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PYTHON = os.path.realpath("/usr/bin/python3")
LIBRARY = Path("/usr/lib") / os.path.basename(PYTHON)
ENGINE = "/opt/engine.py"


def make_root(root: Path, compiles: bool = True) -> None:
    """Make the root below an empty folder; the library is compiled, or not."""
    extensions = sorted(str(path) for path in (LIBRARY / "lib-dynload").glob("*.so"))
    # A health check is a shell's command.
    _copy(os.path.realpath("/bin/sh"), root, "/bin/sh")
    told = subprocess.run(["ldd", PYTHON, "/bin/sh", *extensions], capture_output=True, text=True, check=True).stdout
    for path in {PYTHON, *(word for word in told.split() if word.startswith("/") and not word.endswith(":"))}:
        _copy(path, root)
    ignored = shutil.ignore_patterns("test", "idlelib", "tkinter", "config-*", "__pycache__")
    shutil.copytree(LIBRARY, root / str(LIBRARY).lstrip("/"), symlinks=False, ignore=ignored, dirs_exist_ok=True)
    if compiles:
        subprocess.run([PYTHON, "-m", "compileall", "-q", "-j", "1", root / str(LIBRARY).lstrip("/")], check=False)
    _copy(Path(__file__).with_name("engine.py"), root, ENGINE)
    for name in ("tmp", "run", "root", "models", "out"):
        (root / name).mkdir(exist_ok=True)


def _copy(source: str | Path, root: Path, place: str = "") -> None:
    target = root / (place or str(source)).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
