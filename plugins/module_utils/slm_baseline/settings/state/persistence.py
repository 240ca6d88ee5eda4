"""Whether what we store on a host outlives a reboot: on an image that is booted anew from memory it does not."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from ...host.files import Host
from ...host.paths import STATE
from ...host.systemd import UNITS
from ...host.volatile import volatile_reason
from .losses import OPTION, LossError

_PLACES = (
    ("/etc", ("/etc/tmpfiles.d", UNITS), "what is persisted there"),
    ("/var/lib", (STATE,), "the snapshot there"),
)
"""A folder, where in it our files lie (which may be a mount of its own), and what is lost with it."""


@dataclass(frozen=True)
class TemporaryFolder:
    """A folder of ours that does not outlive a reboot: the name under which that is accepted, and why it does not."""

    name: str
    folder: str
    why: str
    lost: str

    def __str__(self) -> str:
        return f"{self.folder} is on {self.why}: {self.lost} is gone after a reboot"


def find_temporary(host: Host) -> list[TemporaryFolder]:
    """Return the folders of ours that do not outlive a reboot."""
    found = []
    for folder, places, lost in _PLACES:
        why = next(filter(None, (volatile_reason(host, place) for place in places)), "")
        if why:
            found.append(TemporaryFolder(f"persistence.{folder}", folder, why, lost))
    return found


def accepting(names: Sequence[str]) -> str:
    """Return the option that accepts the losses with these names."""
    return f"{OPTION}: [{', '.join(names)}]"


def refuse_temporary(host: Host, accept: Container[str] = ()) -> None:
    """Raise LossError for folders of ours that do not outlive a reboot and that the user has not accepted by name.

    Only for a tuning: to restore what an earlier one set needs nothing that lasts.
    """
    temporary = [folder for folder in find_temporary(host) if folder.name not in accept]
    if temporary:
        raise LossError(
            temporary[0].name,
            "a folder that outlives a reboot",
            "; ".join(map(str, temporary)),
            "A tuning is set now and for the next boot, and its rollback needs the snapshot.",
            f"put it on a disk, or accept the loss: {accepting([folder.name for folder in temporary])}.",
        )
