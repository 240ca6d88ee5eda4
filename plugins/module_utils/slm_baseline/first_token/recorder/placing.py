"""Finding what a start opened in a mount namespace of its own: layers of an image, bind mounts, volumes.

A container is made anew between recording and replay. So a plan has files of layers and of the host alone; what lies
in the container's own layer, or in a folder that the runtime makes for this container, is gone with it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...containers.mounted import HostFile, HostPaths
from ...containers.remade import Written, find_remade
from ...containers.runtime import Container
from ...host.files import Host
from ...host.kernel_caches import Held, held_in
from ...host.link_free import LinkFree
from .fanotify import Opened, Seen

_OVERLAY = "overlay"
_FUSE = "fuse."


@dataclass
class Placed:
    """How many of the opened files were found where.

    `from_image` counts files that were opened on the container's overlay and are not its own, `in_layers` those of
    them whose layer was found. `own` are paths in the container of files that are gone with it. `drivers` are file
    systems of another kind on which an image lies. `caches` are the known caches among `own`, each with whether the
    image itself has something in there, and `written` says what the start wrote in each.
    """

    from_image: int = 0
    in_layers: int = 0
    own: list[str] = field(default_factory=list)
    drivers: list[str] = field(default_factory=list)
    caches: dict[str, bool] = field(default_factory=dict)
    written: dict[str, Written] = field(default_factory=dict)


Keeps = Callable[[int], bool]
"""Returns whether a process that was seen is the target's."""


def place(
    host: Host,
    seen: Seen,
    container: Container | None = None,
    keeps: Keeps = lambda pid: True,
    started_ns: int = 0,
) -> Placed:
    """Give every opened file and folder its path on the host, in `seen`; what cannot be found counts as elsewhere.

    `started_ns` is the time (of the clock of files) at which the start began.
    """
    ready_ns = time.time_ns()
    paths = HostPaths(host, seen.mounts, container.lower if container else ())
    placed = Placed()
    opened: dict[str, Opened] = {}
    for each in seen.opened.values():
        if not keeps(each.pid):
            continue
        if each.place is None:
            if container is None or not _is_the_runtimes(each, container):
                opened.setdefault(each.path, each)
            continue
        fstype = each.place.mount.fstype
        if fstype.startswith(_FUSE) and each.place.mount.path == "/" and fstype not in placed.drivers:
            placed.drivers.append(fstype)
        found = _find(paths, each)
        lasting = [file for file in found if not _is_own(paths, each, file, container)]
        for file in lasting:
            opened.setdefault(file.path, replace(each, path=file.path, place=None))
        if each.is_folder:
            continue
        own = _find_written(paths, each) if not found else "" if lasting else found[0].path
        if own:
            placed.own.append(each.inside)
            for folder in find_remade([each.inside]):
                if folder not in placed.caches:
                    placed.caches[folder] = _is_shipped(paths, each, folder)
                    placed.written[folder] = _written_in(host, _above(own, each.inside, folder), started_ns, ready_ns)
        elif fstype == _OVERLAY:
            placed.from_image += 1
            placed.in_layers += bool(lasting)
        seen.elsewhere += not (found or own)
    seen.opened = opened
    return placed


def _find_written(paths: HostPaths, each: Opened) -> str:
    """Return the path of a file of the container's own that was written on after it was seen; empty for any other.

    Its size and time are others now, so it is not known as the same file. Nothing of it is read.
    """
    assert each.place
    stack = paths.stack_of(each.place.mount)
    entries = stack.file(each.place.within) if stack else []
    return entries[0].path if entries and entries[0].number == 0 and stack and stack.overlay.upper else ""


def _is_shipped(paths: HostPaths, each: Opened, folder: str) -> bool:
    """Return whether the image itself has something in this cache."""
    assert each.place
    stack = paths.stack_of(each.place.mount)
    lower = [entry.path for entry in stack.folders(folder) if entry.number > 0] if stack else []
    return any(paths.host.names(path) for path in lower)


def _above(path: str, inside: str, folder: str) -> str:
    """Return where the host has a folder of the container's, from a file in it; empty where the names differ."""
    below = inside[len(folder) :]
    return path[: -len(below)] if path.endswith(below) else ""


def _written_in(host: Host, folder: str, started_ns: int, ready_ns: int) -> Written:
    held = Held(0, 0)
    # The container may have swapped a folder on the way for a link, or removed it.
    with contextlib.suppress(OSError), LinkFree(host).folder(folder) as descriptor:
        held = held_in(f"/proc/self/fd/{descriptor}/.", started_ns, ready_ns)
    if not held.files:
        return Written(0)
    return Written(held.files, (held.first_ns - started_ns) / 1e9, (held.last_ns - started_ns) / 1e9)


def _is_the_runtimes(each: Opened, container: Container) -> bool:
    """Return whether this was opened to make the container, not by what runs in it.

    Before it enters the container, runc opens folders of the host, `/` among them, and lists none; its own program is
    what the next start reads, too. What runs in the container has a folder of the host by a bind mount alone.
    """
    if each.is_folder:
        return not any(_is_below(each.path, mount.source) for mount in container.mounts)
    # Podman's client in a unit reads and writes its storage's own state (containers.json), which is another one at the
    # next start. What runs in the container has its layers by a mount of its own.
    storage = container.folder.rpartition("/")[0].rpartition("/")[0]
    is_mounted = any(_is_below(each.path, mount.source) for mount in container.mounts)
    return f"/{container.id}/" in each.path or (_is_below(each.path, storage) and not is_mounted)


def _is_below(path: str, folder: str) -> bool:
    return bool(folder) and f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _find(paths: HostPaths, each: Opened) -> Sequence[HostFile]:
    assert each.place
    if each.is_folder:
        return paths.find_folders(each.place)
    file = paths.find_file(each.place)
    return [file] if file else []


def _is_own(paths: HostPaths, each: Opened, file: HostFile, container: Container | None) -> bool:
    """Return whether a file is gone when the container is made anew."""
    assert each.place
    if each.place.mount.fstype == _OVERLAY:
        stack = paths.stack_of(each.place.mount)
        upper = stack.overlay.upper if stack else ""
        # docker has a layer of its own below the upper one, `ID-init/diff`.
        first = f"{upper.rpartition('/')[0]}-init/"
        return bool(upper) and (file.layer == 0 or file.path.startswith(first))
    # systemd makes these folders for one start (PrivateTmp=).
    if container is None:
        return "/systemd-private-" in file.path
    anonymous = (mount.source for mount in container.mounts if mount.is_anonymous)
    return f"/{container.id}/" in f"{file.path}/" or any(_is_below(file.path, source) for source in anonymous)
