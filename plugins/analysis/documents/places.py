"""Folders on the control node as a user names them, and checks that documents can be written there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from analysis.documents.errors import DocumentError

_ROOM_BYTES = 4 << 20
"""A result of a few blocks with its page and pictures takes less than one MiB; its folders some more."""


def place(folder: str, variable: str = "the folder") -> str:
    """Return the absolute path of a folder's name.

    `~` is the user's home, and a relative path begins in the folder where Ansible was started. Raises DocumentError,
    naming the variable, for a name that is empty or of an unknown user's home.
    """
    path = os.path.expanduser(str(folder).strip())
    if not path or path.startswith("~"):
        raise DocumentError(
            variable,
            wanted="the path of a folder on the control node",
            found=repr(str(folder)),
            why="Documents are stored there." if not path else "There is no such user.",
            next_step=f"correct {variable}, or leave it out.",
        )
    return os.path.abspath(path)


def try_folder(folder: Path, variable: str) -> None:
    """Make a folder and write into it, so that it fails now and not after a measurement; raise DocumentError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".try-", suffix=".tmp") as file:
            file.write(bytes(_ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DocumentError(
            variable,
            wanted=f"a folder on the control node with room for {_ROOM_BYTES >> 20} MiB",
            found=f"{folder}: {error.strerror}",
            why="What is measured is stored there, and nothing was measured yet.",
            next_step=f"make it writable, make room, or name another folder in {variable}.",
        ) from None


def sync(path: Path) -> None:
    """Write a file or folder through to the disk; do nothing if its file system does not support that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
