"""Compiled GPU kernels: whether they last from one start of a target to the next, and a folder where they do.

A GPU's driver and some frameworks compile kernels at a start, and keep them in the user's home or in /tmp. Where that
place does not last, the target is told of a folder of its own user in our place (cache.py): its next start fills it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..host.files import Host
from ..host.kernel_caches import CACHES, Held, KernelCache, Owner, caches_in_use, held_in, not_kept, variables
from ..host.mountinfo import read_mountinfo
from .cache import Cache, cache_at
from .fit import SANDBOX, Fit
from .plan import Plan
from .recorder.start import Identity
from .recorder.unit import Unit
from .target import Target

_CUDA = "cuda"
_CUDA_OFF = "CUDA_CACHE_DISABLE"
"""With 1 the driver keeps nothing (CUDA C++ Programming Guide, CUDA environment variables)."""
PLACES = frozenset({cache.variable for cache in CACHES} | {"HOME", "XDG_CACHE_HOME", "TMPDIR", _CUDA_OFF})
"""The environment variables that say where a target's caches are."""
_ENVIRON_BYTES = 1 << 20
"""How much of a process's environment is read: it is that process's to write."""
_HIDDEN = {"ProtectHome": ("yes", "tmpfs"), "PrivateTmp": ("yes", "disconnected")}
"""Settings that give a unit empty folders of its own (systemd.exec(5))."""
_HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class Kernels:
    """Caches of kernels in a folder of ours, and what the start that was given them left in there."""

    cache: Cache
    names: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    held: Held = field(default_factory=lambda: Held(0, 0))

    def with_held(self, host: Host) -> Kernels:
        """Return the same with what is in the folder now."""
        return replace(self, held=held_in(str(host.path(self.cache.folder))))

    def added_to(self, host: Host, fit: Fit, unit: Unit | None) -> Fit:
        """Return the description of a target's caches with these; OSError where the folder is gone."""
        inode = os.lstat(host.path(self.cache.folder)).st_ino
        sandbox = tuple((name, unit.fact(name)) for name in SANDBOX) if unit else ()
        return replace(fit, kernels=(self.cache.folder, inode), variables=self.environment, sandbox=sandbox)

    def left_out_of(self, plan: Plan) -> Plan:
        """Return the plan without files in the folder: each start may write them anew, and so make the plan stale."""
        places = (f"{self.cache.path}/", f"{self.cache.folder}/")
        folders = [path for path in plan.folders if not f"{path}/".startswith(places)]
        return replace(plan, folders=folders, files=[file for file in plan.files if not file.path.startswith(places)])

    @property
    def note(self) -> str:
        """Return what should be known of them, as one sentence; empty for nothing."""
        if self.held.is_too_large:
            return "kernels: the start left more in its cache than is kept, so there is none; each start compiles anew."
        if not self.held.files:
            return "kernels: nothing was compiled until it was ready, so later starts fill the cache."
        return ""


def kernel_cache(target: Target, unit: Unit | None, names: Sequence[str] = ()) -> Cache:
    """Return the folder of a target's caches of kernels, with one folder below it for each."""
    return cache_at(unit, target.kernel_folder, f"slm-kernels-{target.name}", names)


def kernels_of(target: Target, unit: Unit | None, caches: Sequence[KernelCache]) -> Kernels:
    """Return these caches as they are in our folder, still empty."""
    names = tuple(cache.name for cache in caches)
    cache = kernel_cache(target, unit, names)
    return Kernels(cache, names, tuple(variables(caches, cache.path).items()))


def find_unkept(
    host: Host,
    opened: Iterable[str],
    target: Target,
    unit: Unit | None,
    identity: Identity | None,
    seen: Mapping[str, str] | None = None,
) -> list[KernelCache]:
    """Return the kernel caches that a GPU start fills and the next one does not find; none without a GPU.

    `seen` is what the target's processes had in their environment: it includes environment files, which are not asked.
    """
    caches = caches_in_use(opened)
    if all(cache.name != _CUDA for cache in caches):
        return []
    environment = {**_environment(target, unit), **(seen or {})}
    if environment.get(_CUDA_OFF) == "1":
        caches = [cache for cache in caches if cache.name != _CUDA]
    mounts = [(mount.path, mount.fstype) for mount in read_mountinfo(host)]
    return not_kept(host, caches, _owner(unit, identity), environment, mounts, _lost(unit))


def places_of(processes: Iterable[int], proc: str = "/proc") -> dict[str, str]:
    """Return the variables in PLACES that these processes were started with; the first of them decides.

    A process that ends meanwhile, or that may not be asked, tells nothing.
    """
    found: dict[str, str] = {}
    for pid in sorted(processes):
        try:
            with open(f"{proc}/{pid}/environ", "rb") as file:
                words = file.read(_ENVIRON_BYTES).decode("utf-8", "surrogateescape").split("\0")
        except OSError:
            continue
        for name, _, value in (word.partition("=") for word in words):
            if name in PLACES:
                found.setdefault(name, value)
    return found


def kernel_note(caches: Iterable[KernelCache], target: Target, unit: Unit | None, objection: str = "") -> str:
    """Return what would keep these caches, as one sentence; empty for none. `objection` is why we do not keep them."""
    names = list(variables(caches, ""))
    if not names:
        return ""
    where = (
        f"CacheDirectory=NAME in {unit.name}, with each in a folder of its own below /var/cache/NAME"
        if unit
        else f"the environment of {target.name}, each a folder of its own that lasts and belongs to its user"
    )
    return (
        f"kernels: this user has no place that lasts for {', '.join(names)}, so each start compiles GPU kernels anew;"
        f" set {'it' if len(names) == 1 else 'them'} by {where}."
        + (f" They are not kept by us, since {objection}" if objection else "")
    )


def _owner(unit: Unit | None, identity: Identity | None) -> Owner:
    """Return the target's user. A dynamic one has no home, and a command has no HOME but its own environment's."""
    if identity is None:
        return Owner(-1, "", "")
    try:
        entry = pwd.getpwuid(identity.uid)
    except KeyError:
        return Owner(identity.uid, str(identity.uid), "")
    return Owner(identity.uid, entry.pw_name, entry.pw_dir if unit else "")


def _environment(target: Target, unit: Unit | None) -> Mapping[str, str]:
    if unit is None:
        return dict(target.environment)
    words = unit.fact("Environment").split()
    return {name: value.strip('"') for name, is_set, value in (word.partition("=") for word in words) if is_set}


def _lost(unit: Unit | None) -> list[str]:
    if unit is None:
        return []
    lost = [*_HOMES] if unit.fact("ProtectHome") in _HIDDEN["ProtectHome"] else []
    return lost + (["/tmp", "/var/tmp"] if unit.fact("PrivateTmp") in _HIDDEN["PrivateTmp"] else [])
