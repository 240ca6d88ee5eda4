"""Whether compiled GPU kernels last from one start of a target to the next; where not, what would keep them."""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Mapping

from ..host.files import Host
from ..host.kernel_caches import KernelCache, Owner, caches_in_use, not_kept, variables
from ..host.mountinfo import read_mountinfo
from .recorder.start import Identity
from .recorder.unit import Unit
from .target import Target

_CUDA = "cuda"
_HIDDEN = {"ProtectHome": ("yes", "tmpfs"), "PrivateTmp": ("yes", "disconnected")}
"""Settings that give a unit empty folders of its own (systemd.exec(5))."""
_HOMES = ("/home", "/root", "/run/user")


def find_unkept(
    host: Host, opened: Iterable[str], target: Target, unit: Unit | None, identity: Identity | None
) -> list[KernelCache]:
    """Return the kernel caches that a GPU start fills and the next one does not find; none without a GPU."""
    caches = caches_in_use(opened)
    if all(cache.name != _CUDA for cache in caches):
        return []
    owner = _owner(unit, identity)
    environment = _environment(target, unit)
    mounts = [(mount.path, mount.fstype) for mount in read_mountinfo(host)]
    return not_kept(host, caches, owner, environment, mounts, _lost(unit))


def kernel_note(caches: Iterable[KernelCache], target: Target, unit: Unit | None) -> str:
    """Return what would keep these caches, as one sentence; empty for none."""
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
