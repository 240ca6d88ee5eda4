"""An image with torch: the root of image.py, and the packages of a Python of this machine beside it, without a copy."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from tests.live.containers.daemon import Daemon
from tests.live.containers.image import make_root

HOME = "/opt/venv"
PYTHON = f"{HOME}/bin/python"
_LEFT_OUT = ("/torch/include/", "/torch/test/", "/tests/", "/pip/", "/setuptools/")


def import_torch_image(daemon: Daemon, name: str, venv: Path, folder: Path) -> str:
    """Import an image with this virtual environment at HOME; `folder` is an empty one to make the root in."""
    (packages,) = venv.glob("lib/python3*/site-packages")
    make_root(folder)
    inside = f"{HOME}/{packages.relative_to(venv)}"
    archive = daemon.folder / "torch.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".")
        base = _base_python(venv)
        for each in (PYTHON, f"{PYTHON}3"):
            _add_link(tar, f".{each}", base)
        tar.add(venv / "pyvenv.cfg", arcname=f".{HOME}/pyvenv.cfg")
        tar.add(packages, arcname=f".{inside}", filter=_without_the_rest)
        for library in sorted(_libraries(packages, folder)):
            tar.add(Path(library).resolve(), arcname=f".{library}")
    try:
        path = f"ENV PATH={HOME}/bin:/usr/local/bin:/usr/bin:/bin"
        return daemon.docker("import", "--change", path, str(archive), name)
    finally:
        archive.unlink()


def _without_the_rest(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if any(part in f"{member.name}/" for part in _LEFT_OUT) else member


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname, link.mode = tarfile.SYMTYPE, target, 0o777
    tar.addfile(link)


def _base_python(venv: Path) -> str:
    """Return the interpreter that the environment was made from, which the root has, too."""
    told = subprocess.run(
        [venv / "bin" / "python", "-c", "import os, sys; print(os.path.realpath(sys._base_executable))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()


def _libraries(packages: Path, root: Path) -> set[str]:
    """Return the system's libraries that the packages need and the root has not."""
    built = [str(path) for path in packages.rglob("*.so*")]
    told = subprocess.run(["ldd", *built], capture_output=True, text=True, check=False).stdout
    found = {line.split()[2] for line in told.splitlines() if " => /" in line}
    outside = {path for path in found if not path.startswith(f"{packages}/")}
    return {path for path in outside if not (root / path.lstrip("/")).exists()}
