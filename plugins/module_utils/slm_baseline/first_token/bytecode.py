"""A bytecode cache of ours: root stores what the target's own interpreter compiled as the target's own user."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..host.errors import SettingError
from ..host.subreaper import ProcessTree, subreaper
from .recorder.fanotify import Opened

NOBODY = 65534
"""User and group that own nothing: what they may read, everybody may."""
MAX_FILE_BYTES = 64 << 20
MAX_TOTAL_BYTES = 2 << 30
MAX_FILES = 200_000
_BYTECODE = re.compile(r"(?P<folder>.*?)(?P<beside>/__pycache__)?/(?P<name>[^/.]+)\.[a-z]+-\d+(\.opt-\d)?\.pyc")
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Filled:
    """What a cache got: modules compiled (CPU seconds), copied from beside their sources, and failed; bytes stored."""

    compiled: int
    copied: int
    failed: int
    compile_s: float
    bytes: int


def sources_of(opened: Iterable[Opened]) -> dict[str, list[str]]:
    """Sources of the modules that were imported, by the interpreter that did it, in the order of the first opening.

    A module with valid bytecode shows as its `.pyc` alone, one without as its `.py`.
    """
    sources: dict[str, dict[str, None]] = {}
    for one in opened:
        source = source_of(one.path)
        if source and not one.is_folder and _is_python(one.program):
            sources.setdefault(one.program, {})[source] = None
    return {program: list(paths) for program, paths in sources.items()}


def source_of(path: str, prefix: str = "") -> str | None:
    """The source that a module's opened file stands for; None for a file of no module.

    `prefix` is a bytecode cache, which repeats the path of each source below it; elsewhere bytecode is in __pycache__.
    """
    if path.endswith(".py"):
        return path
    cached = bool(prefix) and path.startswith(f"{prefix}/")
    found = _BYTECODE.fullmatch(path[len(prefix) :] if cached else path)
    if not found or cached == bool(found["beside"]):
        return None
    return f"{found['folder']}/{found['name']}.py"


def _is_python(program: str) -> bool:
    return os.path.basename(program).startswith(("python", "pypy"))


def make_cache(folder: Path, group: int) -> None:
    """Make the folder of a cache, for root and the target's group alone: bytecode holds what its source holds.

    A source may be closed to others by its own mode or by that of any folder above it, so the whole cache is. What
    nobody's group could read is open to all; a dynamic user, whose group has no number yet, reads that.
    """
    os.mkdir(folder, mode=0o700)
    os.chown(folder, -1, group)
    os.chmod(folder, 0o755 if group == NOBODY else 0o750)


def fill(command: list[str], sources: Iterable[str], prefix: str, identity: Mapping[str, Any]) -> Filled:
    """Have `command` (interpreter and slm_compile.py) compile the sources and store the bytes below `prefix`.

    `identity` are subprocess's `user`, `group` and `extra_groups`. `prefix` is a folder of root's alone. SettingError
    where the interpreter fails or sends anything but bytecode for a place below the prefix.
    """
    with subreaper() as family:
        return _filled([*command, prefix], b"\0".join(map(os.fsencode, sources)), prefix, identity, family)


def _filled(
    command: list[str], request: bytes, prefix: str, identity: Mapping[str, Any], family: ProcessTree
) -> Filled:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            start_new_session=True,
            **identity,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _failed(command[0], str(error)) from error
    totals: dict[str, Any] = {}
    files = stored = 0
    # It may be anybody's interpreter: one that reads nothing, or says nothing, is ended, and so is all that it started
    # and that may hold its pipes open.
    ending = threading.Timer(_TIMEOUT_S, family.end)
    ending.start()
    with process:
        assert process.stdin
        assert process.stdout
        try:
            # All of it is taken before the first answer comes, so neither side waits for the other.
            process.stdin.write(request)
            process.stdin.close()
            for path, data in frames(process.stdout):
                if not path:
                    totals = json.loads(data)
                    break
                files, stored = files + 1, stored + len(data)
                if stored > MAX_TOTAL_BYTES or files > MAX_FILES:
                    raise ValueError("more bytecode than any start imports")
                _store(prefix, path, data)
        except (OSError, ValueError, RecursionError) as error:
            raise _failed(command[0], str(error)) from error
        finally:
            ending.cancel()
            process.kill()
    try:
        return Filled(
            int(totals["compiled"]),
            int(totals["copied"]),
            int(totals["failed"]),
            float(totals["compile_s"]),
            stored,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _failed(command[0], f"it ended with {process.returncode} before it was done") from error


def frames(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """`path NUL length NUL bytes` again and again, as slm_compile.py writes them; ValueError for anything else."""
    while True:
        path = _until_nul(stream, 4096)
        if path is None:
            return
        length = _until_nul(stream, 12)
        if length is None or not length.isdigit() or int(length) > MAX_FILE_BYTES:
            raise ValueError("a frame without a sane length")
        data = stream.read(int(length))
        if len(data) != int(length):
            raise ValueError("a frame cut short")
        yield os.fsdecode(path), data


def _until_nul(stream: IO[bytes], limit: int) -> bytes | None:
    """Bytes up to a NUL; None at the end of the stream."""
    found = bytearray()
    while True:
        byte = stream.read(1)
        if not byte:
            if found:
                raise ValueError("a frame cut short")
            return None
        if byte == b"\0":
            return bytes(found)
        found += byte
        if len(found) > limit:
            raise ValueError("a name without an end")


def _store(prefix: str, path: str, data: bytes) -> None:
    """Write one file below the prefix, which root alone may write, so nothing on the way can be a link of others."""
    if os.path.normpath(path) != path or not path.startswith(f"{prefix}/") or not path.endswith(".pyc"):
        raise ValueError(f"bytecode for {path!r}, which is not below {prefix}")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _failed(program: str, found: str) -> SettingError:
    return SettingError(
        "first_token.bytecode",
        f"bytecode from {program}",
        found,
        "The target's own interpreter compiles its modules, as the target's user.",
        "run that interpreter by hand as that user; without bytecode, set `bytecode: false` for this target.",
    )
