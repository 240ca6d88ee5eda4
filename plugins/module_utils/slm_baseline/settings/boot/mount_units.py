"""Mount units of our own: they make a hugetlbfs mount persistent, in the form of systemd.mount(5).

They are plain files and symlinks, written the same way with and without systemd; without it they have no effect yet.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...host.errors import SettingError
from ...host.files import Host
from ...host.systemd import UNITS, mount_unit
from ..kernel.hugetlb import HUGEPAGES
from ..kernel.hugetlbfs import MountSpec, parse_options
from ..state.files import ChangeFile, file_state, our_link
from .tmpfiles import DROPIN_MARK, is_ours, plan_file

WANTS = f"{UNITS}/local-fs.target.wants"


def unit_path(path: str) -> str:
    return f"{UNITS}/{mount_unit(path)}"


def wants_path(path: str) -> str:
    """Return the symlink that enables a mount's unit."""
    return f"{WANTS}/{mount_unit(path)}"


def wants_of(unit: str) -> str:
    """Return the symlink that enables a unit at a path."""
    return f"{WANTS}/{os.path.basename(unit)}"


def unit_text(mount: MountSpec) -> str:
    """Return a systemd.mount(5) unit for a hugetlbfs mount."""
    return (
        f"{DROPIN_MARK}\n[Unit]\nDescription=Huge pages at {mount.path}\nConditionPathExists={HUGEPAGES}\n\n"
        f"[Mount]\nWhat=hugetlbfs\nWhere={mount.path}\nType=hugetlbfs\nOptions={mount.data},nosuid,nodev\n\n"
        f"[Install]\nWantedBy=local-fs.target\n"
    )


def parse_unit(text: str, default_page_bytes: int) -> MountSpec | None:
    """Return the hugetlbfs mount that a unit describes, or None where it describes something else."""
    fields = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line and not line.startswith("#"))
    if fields.get("Type") != "hugetlbfs" or not fields.get("Where"):
        return None
    return parse_options(fields["Where"], fields.get("Options", ""), default_page_bytes)


def our_units(host: Host) -> list[str]:
    """Return the paths of the mount units that this project wrote."""
    return [
        f"{UNITS}/{name}" for name in host.names(UNITS) if name.endswith(".mount") and is_ours(host, f"{UNITS}/{name}")
    ]


def is_enabled(host: Host, path: str) -> bool:
    """Return whether our symlink enables the mount's unit."""
    return os.path.islink(host.path(wants_path(path)))


def plan_unit(host: Host, path: str, mount: MountSpec | None) -> Sequence[ChangeFile]:
    """Return the changes for the unit of one mount path: its file first when added, its symlink first when removed.

    SettingError where somebody else's unit has the name: it is neither overwritten nor removed.
    """
    unit = unit_path(path)
    if os.path.lexists(host.path(unit)) and not is_ours(host, unit):
        raise SettingError(
            f"hugetlbfs.{path}",
            f"a unit of our own at {unit}",
            "one that this project did not write",
            "systemd has one unit name for each path, and files of others are never overwritten.",
            f"remove it (systemctl disable --now '{mount_unit(path)}' first), or choose another path.",
        )
    files = plan_file(host, unit, unit_text(mount) if mount else "")
    if is_enabled(host, path) == (mount is not None):
        return files
    wants = wants_path(path)
    link = ChangeFile(wants, file_state(host, wants), our_link(unit) if mount else None)
    return [*files, link] if mount else [link, *files]
