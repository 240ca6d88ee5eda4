"""Whether root may trust a path: whoever can write what root reads or runs is in effect root.

A path is trusted where only root can change what it leads to: every folder on the way, every link, and the end. Links
are followed component by component, since each of them, and each folder on its own way, decides where the path leads.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .errors import SettingError
from .files import Host

_MOST_LINKS = 40
"""The kernel's own limit (path_resolution(7))."""
_SHARED = stat.S_IWGRP | stat.S_IWOTH
_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True)
class Step:
    """One component on the way to a path: its real path, and `st_mode` and `st_uid` from lstat(2)."""

    path: str
    mode: int
    uid: int


@dataclass(frozen=True)
class PathWalk:
    """Every component on the way to a path, from `/` on. `missing` is the first one that does not exist, if any."""

    steps: tuple[Step, ...]
    missing: str | None = None


def walk_path(host: Host, path: str) -> PathWalk:
    """Return the way to an absolute path. OSError for a loop of links, or a folder that this process may not pass."""
    steps = {"/": _step(host, "/")}
    at, ahead, links = "/", _parts(path), 0
    while ahead:
        name = ahead.pop(0)
        if name == "..":
            at = os.path.dirname(at)
            continue
        following = f"{at.rstrip('/')}/{name}"
        try:
            step = _step(host, following)
        except (FileNotFoundError, NotADirectoryError):
            return PathWalk(tuple(steps.values()), following)
        steps[following] = step
        if not stat.S_ISLNK(step.mode):
            at = following
            continue
        links += 1
        target = os.readlink(host.path(following))
        if links > _MOST_LINKS:
            raise SettingError(
                "path", "a path", path, "Its symbolic links form a loop.", "correct the links on the host."
            )
        at = "/" if target.startswith("/") else at
        ahead = _parts(target) + ahead
    return PathWalk(tuple(steps.values()))


def weakness(way: PathWalk, owners: Sequence[int] = (0,)) -> str | None:
    """Return how users other than these owners could change where a way leads or what is there; None for a trusted one.

    In a sticky folder nobody may rename or remove what belongs to another user (unlink(2)), so an owner's folder there
    is safe. A file or link is not: others may have moved one of root's in from a folder of their own. A missing folder
    is made by root with mkdir(2), which fails where somebody was faster, so it may be missing from a sticky folder.
    """
    modes = {step.path: step.mode for step in way.steps}
    for number, step in enumerate(way.steps):
        if step.uid not in owners:
            return f"{step.path} belongs to user id {step.uid}"
        parent = modes[os.path.dirname(step.path)] if step.path != "/" else 0
        if parent & _SHARED and not stat.S_ISDIR(step.mode):
            return f"{step.path} lies in a folder that others can write"
        if stat.S_ISLNK(step.mode) or not step.mode & _SHARED:
            continue
        is_passed = number + 1 < len(way.steps) or way.missing is not None
        if not (is_passed and stat.S_ISDIR(step.mode) and step.mode & stat.S_ISVTX):
            return f"{step.path} has mode {stat.S_IMODE(step.mode):04o}, so others can write it"
    return None


def untrusted(host: Host, path: str, must_exist: bool = False) -> str | None:
    """Return why root must not read or run a path of this host, in words; None where it may.

    A trusted path that exists stays what it is. Of one with a missing component that is not known: in a sticky folder
    anybody may make it next.
    """
    # A test's tree belongs to the user who runs the test.
    owners = (0,) if host.is_live else (0, os.geteuid())
    try:
        way = walk_path(host, path)
        return f"{way.missing} does not exist" if must_exist and way.missing else weakness(way, owners)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"


def require_trusted(host: Host, path: str, knob: str, must_exist: bool = False) -> None:
    """Raise SettingError, naming the knob and the weak component, unless only root can change what a path leads to."""
    weak = untrusted(host, path, must_exist)
    if weak:
        raise SettingError(
            knob,
            "a path that only root can write",
            f"{path}: {weak}",
            "Root uses what lies there, so whoever can write it could act as root.",
            "choose a place such as /opt/slm-baseline, or give every folder on the way to root alone "
            "(chown root:root, chmod go-w).",
        )


def find_program(host: Host, name: str, also: Sequence[str] = ()) -> str | None:
    """Return a program's path for root to run, from the folders of PATH, then the usual ones; None where there is none.

    A folder of PATH that is empty, relative, or that others can write is skipped, and so is such a program.
    """
    for folder in (*os.environ.get("PATH", "").split(":"), *_FOLDERS, *also):
        path = f"{folder}/{name}"
        if folder.startswith("/") and os.access(host.path(path), os.X_OK) and untrusted(host, path) is None:
            return path
    return None


def search_path(host: Host) -> str:
    """Return a PATH for programs that root runs: the usual folders, without those that others can write."""
    return ":".join(folder for folder in _FOLDERS if host.exists(folder) and untrusted(host, folder) is None)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Use files with another user's rights, without supplementary groups; a process that is not root changes nothing.

    Only the effective ids change (credentials(7)): the user can neither signal nor trace this process meanwhile.
    """
    if os.geteuid() != 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        os.setgroups([])
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _step(host: Host, path: str) -> Step:
    status = os.lstat(host.path(path))
    return Step(path, status.st_mode, status.st_uid)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def run_trusted(
    command: Sequence[str], env: Mapping[str, str], timeout_s: float, late: str
) -> subprocess.CompletedProcess[str]:
    """Run a program that `find_program` found once, without input, and return its result.

    A timeout, told as `late`, or a program that cannot run gives a status other than 0, with the reason on stderr.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=env,
        )
    except subprocess.TimeoutExpired:
        reason = late
    except OSError as error:
        reason = str(error)
    return subprocess.CompletedProcess(list(command), 1, "", reason)
