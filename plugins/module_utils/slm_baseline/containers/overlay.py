"""Which file of which layer a path in an overlay is (Documentation/filesystems/overlayfs.rst).

The page cache belongs to the layer's file, and every container of an image shares it. A name is looked up from the top
layer down; folders of several layers are merged, until one is opaque, and a whiteout hides what is below. `redirect`
renames what is looked up further down, and a `metacopy` file has its content in a lower one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from ..host.errors import ParseError
from ..host.files import Host
from ..host.link_free import LinkFree

_OCTAL = re.compile(r"\\([0-7]{3})")
_COLON = re.compile(r"(?<!\\)((?:\\\\)*):")
_MOST_REDIRECTS = 256
"""Layers that a redirect may pass; the kernel mounts no more than 500 layers, and a loop of redirects ends here."""


@dataclass(frozen=True)
class Overlay:
    """The layers of one mount, the topmost first. `upper` is empty for a read-only one.

    `data_only` are layers that hold nothing but the content of metacopy files. `prefix` is that of the attributes.
    """

    lower: tuple[str, ...]
    upper: str = ""
    data_only: tuple[str, ...] = ()
    prefix: str = "trusted.overlay."

    @property
    def all(self) -> tuple[str, ...]:
        return (*filter(None, [self.upper]), *self.lower)


def parse_overlay(super_options: str) -> Overlay:
    """Parse the file system's own options in mountinfo; ParseError where they name no layer.

    Since Linux 6.7 each layer may have an option of its own (`lowerdir+=`, `datadir+=`); `::` begins data-only layers.
    """
    lower: list[str] = []
    data: list[str] = []
    upper, prefix = "", "trusted.overlay."
    for option in super_options.split(","):
        name, _, value = option.partition("=")
        value = _OCTAL.sub(lambda found: chr(int(found[1], 8)), value)
        if name == "lowerdir":
            parts = _split(value)
            # An empty name: `lower::data`.
            end = parts.index("") if "" in parts else len(parts)
            lower += parts[:end]
            data += parts[end:]
        elif name == "lowerdir+":
            lower.append(value)
        elif name == "datadir+":
            data.append(value)
        elif name == "upperdir":
            upper = value
        elif name == "userxattr":
            prefix = "user.overlay."
    if not any(lower):
        raise ParseError("overlay", "options with lowerdir=", super_options)
    return Overlay(tuple(filter(None, lower)), upper, tuple(filter(None, data)), prefix)


def _split(value: str) -> list[str]:
    """Return the folders of a list, in which a colon or backslash of a name has a backslash before it."""
    parts = _COLON.sub(lambda found: f"{found[1]}\0", value).split("\0")
    return [re.sub(r"\\(.)", r"\1", part) for part in parts]


def with_real_layers(host: Host, overlay: Overlay, places: Sequence[str]) -> Overlay | None:
    """Return the overlay with the real path of each layer; None where one does not exist.

    A runtime with many layers names them relative to the folder in which it mounts (`l/SHORT`), since all options
    share one page. That is one of the folders above the upper layer, or above the mount: `places`.
    """
    bases = [above for path in (overlay.upper, *places) if path.startswith("/") for above in _above(path)]
    for base in dict.fromkeys(["/", *bases]):
        found = [_real(host, base, path) for path in (*overlay.lower, *overlay.data_only)]
        if None not in found:
            lower = tuple(path for path in found if path)
            upper = (_real(host, base, overlay.upper) or overlay.upper) if overlay.upper else ""
            count = len(overlay.lower)
            return replace(overlay, lower=lower[:count], data_only=lower[count:], upper=upper)
    return None


def _above(path: str) -> list[str]:
    found = []
    while path != "/":
        path = os.path.dirname(path)
        found.append(path)
    return found


def _real(host: Host, base: str, path: str) -> str | None:
    whole = path if path.startswith("/") else f"{base.rstrip('/')}/{path}"
    # Links of a runtime are relative, so that they lead to the same place within a test's tree.
    real, root = os.path.realpath(host.path(whole)), os.path.realpath(host.path("/"))
    if not os.path.isdir(real):
        return None
    return real if root == "/" else f"/{os.path.relpath(real, root)}"


Attribute = Callable[[str, str], Optional[bytes]]
"""Returns an extended attribute of a path itself, None where it has none."""


def read_attribute(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


@dataclass(frozen=True)
class LayerEntry:
    """One name in one layer: `number` counts layers from the top, `path` is the host's."""

    number: int
    path: str
    status: os.stat_result


class LayerStack:
    """Lookups in the layers of one overlay. No link is followed: a path that a process opened has none in it."""

    def __init__(self, host: Host, overlay: Overlay, attribute: Attribute = read_attribute) -> None:
        self._host = host
        self._overlay = overlay
        self._attribute = attribute
        self._folders: dict[str, list[LayerEntry]] = {}
        self._paths = LinkFree(host)

    @property
    def overlay(self) -> Overlay:
        return self._overlay

    def folders(self, inner: str) -> list[LayerEntry]:
        """Return the folders that are merged to one in the overlay, the topmost first; none where it is no folder."""
        inner = _normal(inner)
        if inner not in self._folders:
            self._folders[inner] = self._find_folders(inner)
        return self._folders[inner]

    def file(self, inner: str) -> list[LayerEntry]:
        """Return the file of the topmost layer that has it, then those in which its content lies; none for no file."""
        found: list[LayerEntry] = []
        inner = _normal(inner)
        number = -1
        for _ in range(_MOST_REDIRECTS):
            entry = self._topmost(inner, number)
            if entry is None:
                entry = self._in_data_layers(inner) if found else None
            if entry is None or not stat.S_ISREG(entry.status.st_mode):
                return []
            found.append(entry)
            if self._has(entry, "metacopy") is None:
                return found
            inner, number = _normal(self._redirected(entry, inner)), entry.number
        return []

    def _find_folders(self, inner: str) -> list[LayerEntry]:
        if inner == "/":
            found = [self._entry(number, path) for number, path in enumerate(self._overlay.all)]
            return [entry for entry in found if entry]
        result: list[LayerEntry] = []
        names, number = inner, -1
        for _ in range(_MOST_REDIRECTS):
            entry = self._topmost(names, number)
            if entry is None or not stat.S_ISDIR(entry.status.st_mode):
                break
            result.append(entry)
            if self._has(entry, "opaque") == b"y":
                break
            names, number = _normal(self._redirected(entry, names)), entry.number
        return result

    def _topmost(self, inner: str, above: int) -> LayerEntry | None:
        """Return the first entry of that name below a layer; None where there is none, or a whiteout hides it."""
        if inner == "/":
            return next((entry for entry in self.folders("/") if entry.number > above), None)
        parent, name = os.path.split(inner)
        for folder in self.folders(parent):
            if folder.number <= above:
                continue
            entry = self._entry(folder.number, f"{folder.path.rstrip('/')}/{name}")
            if entry:
                return None if self._is_whiteout(entry) else entry
        return None

    def _in_data_layers(self, inner: str) -> LayerEntry | None:
        for number, layer in enumerate(self._overlay.data_only, len(self._overlay.all)):
            entry = self._entry(number, f"{layer}{inner}")
            if entry:
                return entry
        return None

    def _redirected(self, entry: LayerEntry, inner: str) -> str:
        redirect = self._has(entry, "redirect")
        if not redirect:
            return inner
        # Absolute from the overlay's root, or another name in the same folder.
        return os.path.join(os.path.dirname(inner), os.fsdecode(redirect))

    def _entry(self, number: int, path: str) -> LayerEntry | None:
        try:
            return LayerEntry(number, path, self._paths.lstat(path))
        except OSError:
            return None

    def _is_whiteout(self, entry: LayerEntry) -> bool:
        status = entry.status
        if stat.S_ISCHR(status.st_mode):
            return status.st_rdev == 0
        # Where a layer is itself in an overlay (Linux 6.7): an empty file with an attribute.
        return stat.S_ISREG(status.st_mode) and not status.st_size and self._has(entry, "whiteout") is not None

    def _has(self, entry: LayerEntry, name: str) -> bytes | None:
        return self._attribute(self._host.name(entry.path), f"{self._overlay.prefix}{name}")


def _normal(inner: str) -> str:
    return os.path.normpath(f"/{inner.lstrip('/')}")
