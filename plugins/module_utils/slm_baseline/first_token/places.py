"""Names of what this package has on a host. Separate from target.py: an audit without targets needs no more."""

from __future__ import annotations

from ..host.files import Host
from ..host.paths import FIRST_TOKEN, TARGETS
from ..host.systemd import UNITS

REPLAY_UNITS = "slm-first-token-"
FIT_UNITS = "slm-bytecode-"
DROP_IN = "slm-first-token.conf"
QUADLETS = "/etc/containers/systemd"
"""Where an administrator has Quadlets and their drop-ins (podman-systemd.unit(5))."""
RUN_UNITS = "/run/systemd/system"
MARK = "# Made by slm-baseline (first_token.yml); rollback.yml removes it."


def target_names(host: Host) -> list[str]:
    """Return the names of all targets that have a folder or a unit of ours on this host."""
    found = set(host.names(TARGETS))
    for name in host.names(UNITS):
        for begin in (REPLAY_UNITS, FIT_UNITS):
            if name.startswith(begin) and name.endswith(".service"):
                found.add(name[len(begin) : -len(".service")])
    for folder in host.names(UNITS):
        if folder.endswith(".service.d"):
            found |= set(names_in(host.read_or_none(f"{UNITS}/{folder}/{DROP_IN}") or ""))
    for path in quadlet_drop_ins(host):
        found |= set(names_in(host.read_or_none(path) or ""))
    return sorted(found)


def quadlet_drop_ins(host: Host) -> list[str]:
    """Return the paths of drop-ins of our name for Quadlets, whether there is one or not."""
    return [f"{QUADLETS}/{folder}/{DROP_IN}" for folder in host.names(QUADLETS) if folder.endswith(".container.d")]


def has_anything(host: Host) -> bool:
    """Return whether this package has anything on the host."""
    return host.exists(FIRST_TOKEN) or bool(target_names(host))


def names_in(text: str) -> list[str]:
    """Return the targets that a drop-in of ours is for."""
    if not text.startswith(MARK):
        return []
    return [line.partition(": ")[2] for line in text.splitlines() if line.startswith("# Target: ")]
