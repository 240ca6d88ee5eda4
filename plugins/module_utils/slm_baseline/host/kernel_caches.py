"""Caches of compiled GPU kernels that one start fills and the next one uses.

A GPU's driver compiles kernels that a library carries as PTX alone, and frameworks compile their own; both keep the
result in a folder below the user's home or the temporary one. Where that folder does not last, every start compiles
again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .files import Host

MAX_FILES = 100_000
"""Counting stops here in a folder that another user fills."""
MAX_BYTES = 8 << 30
"""The largest size of a cache: compiled graphs of a large engine take hundreds of megabytes."""
_MOST_DEPTH = 500
"""Each folder on the way to the deepest one is open, and a process may have 1,024 open files."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE_AT_BOOT = frozenset({"tmpfs", "ramfs", "overlay", "aufs", "fuse.fuse-overlayfs"})
"""File systems whose content does not survive a reboot, or the restart of their container."""


@dataclass(frozen=True)
class KernelCache:
    """One cache. `variable` names its folder. `default` is its place without the variable: `~` is the home, `$XDG` the
    user's cache folder, `$TMP` the temporary one, `$USER` the user's name. `uses` are parts of the paths that a start
    opens when it fills the cache; `source` documents both.
    """

    name: str
    variable: str
    default: str
    uses: tuple[str, ...]
    source: str


CACHES = (
    KernelCache(
        "cuda",
        "CUDA_CACHE_PATH",
        "~/.nv/ComputeCache",
        ("/libcuda.so",),
        "CUDA C++ Programming Guide, CUDA environment variables; the driver bounds it by CUDA_CACHE_MAXSIZE",
    ),
    KernelCache("triton", "TRITON_CACHE_DIR", "~/.triton/cache", ("/triton/",), "triton/knobs.py, cache_knobs"),
    KernelCache(
        "inductor",
        "TORCHINDUCTOR_CACHE_DIR",
        "$TMP/torchinductor_$USER",
        ("/torch/_inductor/",),
        "torch/_inductor/runtime/cache_dir_utils.py",
    ),
    KernelCache(
        "torch",
        "PYTORCH_KERNEL_CACHE_PATH",
        "$XDG/torch/kernels",
        ("/libtorch_cuda.so",),
        "aten/src/ATen/native/cuda/jit_utils.cpp",
    ),
    KernelCache("vllm", "VLLM_CACHE_ROOT", "$XDG/vllm", ("/vllm/",), "vllm/envs.py"),
    KernelCache(
        "flashinfer",
        "FLASHINFER_WORKSPACE_BASE",
        "~/.cache/flashinfer",
        ("/flashinfer/",),
        "flashinfer/jit/env.py, which adds .cache/flashinfer",
    ),
    KernelCache("numba", "NUMBA_CACHE_DIR", "$XDG/numba", ("/numba/",), "numba/core/config.py, CACHE_DIR"),
)


@dataclass(frozen=True)
class Owner:
    """The owner of a cache: the target's user, and its home as the target sees it, empty where it has none."""

    uid: int
    name: str
    home: str


def caches_in_use(opened: Iterable[str]) -> list[KernelCache]:
    """Return the caches that a start fills, judged by the files that it opened."""
    left = list(CACHES)
    found = []
    for path in opened:
        for cache in [cache for cache in left if any(part in path for part in cache.uses)]:
            left.remove(cache)
            found.append(cache)
        if not left:
            break
    return [cache for cache in CACHES if cache in found]


def default_place(cache: KernelCache, owner: Owner, environment: Mapping[str, str]) -> str | None:
    """Return where this user's cache is by default; None where the user has no home."""
    place = environment.get(cache.variable)
    if place:
        return place
    home = environment.get("HOME", owner.home)
    words = {
        "~": home,
        "$XDG": environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else ""),
        "$TMP": environment.get("TMPDIR") or "/tmp",
    }
    begin, _, rest = cache.default.partition("/")
    if not words[begin].startswith("/"):
        return None
    return f"{words[begin].rstrip('/')}/{rest.replace('$USER', owner.name)}"


def lasts(host: Host, place: str | None, owner: Owner, mounts: Sequence[tuple[str, str]], lost: Sequence[str]) -> bool:
    """Return whether what this user writes there is still there at the next start, also after a reboot.

    `mounts` are (mount point, type of file system); `lost` are folders of which the target sees a private or an empty
    one (PrivateTmp=, ProtectHome=). /tmp is emptied at boot by systemd (tmpfiles.d/tmp.conf), so nothing in it lasts.
    """
    if place is None or not place.startswith("/") or _is_below(place, ("/tmp", "/run", "/dev", *lost)):
        return False
    point = max((point for point, _ in mounts if _is_below(place, (point,))), key=len, default="/")
    if dict(mounts).get(point) in _GONE_AT_BOOT:
        return False
    folder = place
    while folder != "/" and not os.path.lexists(host.path(folder)):
        folder = os.path.dirname(folder)
    try:
        found = os.stat(host.path(folder))
    except OSError:
        return False
    own = found.st_uid == owner.uid and bool(found.st_mode & stat.S_IWUSR)
    return stat.S_ISDIR(found.st_mode) and (own or bool(found.st_mode & stat.S_IWOTH))


def not_kept(
    host: Host,
    caches: Iterable[KernelCache],
    owner: Owner,
    environment: Mapping[str, str],
    mounts: Sequence[tuple[str, str]],
    lost: Sequence[str] = (),
) -> list[KernelCache]:
    """Return the caches whose default place does not last. One whose place the target names itself is left out."""
    return [
        cache
        for cache in caches
        if cache.variable not in environment
        and not lasts(host, default_place(cache, owner, environment), owner, mounts, lost)
    ]


def variables(caches: Iterable[KernelCache], folder: str) -> dict[str, str]:
    """Return the environment that puts these caches below that folder, each in a folder of its own."""
    return {cache.variable: f"{folder}/{cache.name}" for cache in caches}


@dataclass(frozen=True)
class Held:
    """The content of a folder: plain files, and their bytes; `is_whole` is False where counting stopped early.

    `first_ns` and `last_ns` are the earliest and the latest time at which one of them was last written; 0 for no file.
    """

    files: int
    bytes: int
    is_whole: bool = True
    first_ns: int = field(default=0, compare=False)
    last_ns: int = field(default=0, compare=False)

    @property
    def is_too_large(self) -> bool:
        return not self.is_whole or self.bytes > MAX_BYTES


def held_in(folder: str, since_ns: int = 0, until_ns: int | None = None) -> Held:
    """Return the content of a folder that another user fills. Follows no link; skips what disappears meanwhile.

    Only files that were last written between `since_ns` and `until_ns` count: whoever owns a file sets its time.

    os.fwalk opens what a link leads to before it looks whether it was one, which may be a file system that never
    answers; it also recurses, however deep the folders are.
    """
    files = size = looked_at = first_ns = last_ns = 0
    ways: list[tuple[int, list[str]]] = []
    is_whole = True
    try:
        with contextlib.suppress(OSError):
            ways.append((os.open(folder, _OPEN), [""]))
        while ways and is_whole:
            above, names = ways[-1]
            if not names:
                os.close(ways.pop()[0])
                continue
            name = names.pop()
            try:
                inner = os.open(name or ".", _OPEN, dir_fd=above)
            except OSError:
                continue
            ways.append((inner, []))
            with contextlib.suppress(OSError), os.scandir(inner) as entries:
                for entry in entries:
                    looked_at += 1
                    if entry.is_dir(follow_symlinks=False):
                        ways[-1][1].append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(OSError):
                            found = entry.stat(follow_symlinks=False)
                            written_ns = found.st_mtime_ns
                            if written_ns >= since_ns and (until_ns is None or written_ns <= until_ns):
                                size += found.st_size
                                first_ns = min(first_ns, written_ns) if files else written_ns
                                last_ns = max(last_ns, written_ns) if files else written_ns
                                files += 1
                    if looked_at > MAX_FILES:
                        break
            is_whole = looked_at <= MAX_FILES and len(ways) <= _MOST_DEPTH
    finally:
        for descriptor, _ in ways:
            os.close(descriptor)
    return Held(files, size, is_whole, first_ns, last_ns)


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in folders)
