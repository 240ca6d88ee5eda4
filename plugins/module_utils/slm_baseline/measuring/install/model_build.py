"""The build of an embedded model on the host, with the builder that `slm_environment` installed.

The builder runs as the loader's user, since any user may own its interpreter. The model's folder belongs to that user
while it is built, and to root afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...host.accounts import Account
from ...host.errors import SettingError
from ...host.files import Host
from ...host.rmtree import remove_tree
from ..loader.process import BARE, Launcher, Loader, plain_text
from ..model.files import ModelPlace
from .install_dir import make_home

BUILDER = "build_model.py"
_LOCK = ".lock"
"""The builder's own lock in the model's folder; removed after the build, since the next one may be another user's."""
_BUILD_TIMEOUT_S = 3600.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def build_model(
    host: Host, python: str, place: ModelPlace, account: Account | None, launcher: Launcher = BARE
) -> dict[str, Any]:
    """Build what is missing of the embedded model; return the builder's `changed`, `built` and `bytes`.

    SettingError with the builder's last line where it fails. An interrupted build continues where it stopped. `account`
    None keeps the current user, as in tests.
    """
    path = place.embedded_path
    builder = host.path(f"{place.home}/{BUILDER}")
    output = str(host.path(path))
    loader = Loader(python, "", (), account, _BUILD_TIMEOUT_S, writable=(output,), launcher=launcher)
    make_home(host, place.home)
    for folder in (os.path.dirname(path), path):
        with contextlib.suppress(FileExistsError):
            host.path(folder).mkdir()
            host.path(folder).chmod(0o755)
    try:
        with _lent(str(host.path(path)), account):
            answer = loader.run(["-B", str(builder), "--shape", place.model, "--output", output], _BUILD_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise _failed(place, str(error)) from error
    if answer.returncode:
        raise _failed(place, (plain_text(answer.errors[-1000:]).splitlines() or ["no output"])[-1])
    try:
        result: dict[str, Any] = json.loads(answer.output.splitlines()[-1])
        return {"changed": bool(result["changed"]), "built": list(result["built"]), "bytes": int(result["bytes"])}
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _failed(place, f"the builder ended with {plain_text(answer.output[-200:])!r}") from error


@contextlib.contextmanager
def _lent(path: str, account: Account | None) -> Iterator[None]:
    """Give the folder to this user while the caller works; then take it back, with all in it."""
    if account is None:
        yield
        return
    folder = os.open(path, _FOLDER)
    try:
        os.fchown(folder, account.uid, account.gid)
        try:
            yield
        finally:
            os.fchown(folder, os.geteuid(), os.getegid())
            os.fchmod(folder, 0o755)
            for name in os.listdir(folder):
                _take_back(folder, f"{path}/{name}")
    finally:
        os.close(folder)


def _take_back(folder: int, path: str) -> None:
    """Take over one file of the builder; remove what a builder never makes: links, pipes, folders, its own lock.

    Remove a file with a second name too: it may lie in another user's folder, who would lose it to root.
    """
    name = os.path.basename(path)
    is_plain = stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    if not is_plain or name == _LOCK:
        remove_tree(Path(path))
        return
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.unlink(name, dir_fd=folder)
            return
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o644)
    finally:
        os.close(descriptor)


def _failed(place: ModelPlace, found: str) -> SettingError:
    return SettingError(
        "slm_benchmark_model",
        f"the embedded model {place.model} in {place.embedded_path}",
        found,
        "It is built on the host, because no network is assumed.",
        "correct what the message names and run again; finished files are kept.",
    )
