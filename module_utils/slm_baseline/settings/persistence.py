"""What makes the tuning survive a reboot: drop-ins of our own, and nothing else.

Sysfs knobs and pools are `w` lines of tmpfiles.d(5), a mount is a systemd.mount(5) unit with its enabling symlink. Both
are plain files, so they are written the same way whether systemd runs or not; where it does not, they wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..host.errors import SettingError
from ..host.files import Host
from .knobs import THP
from .mounts import MountSpec, parse_options
from .pools import HUGEPAGES, NODES, PoolSpec, pool_folder

TMPFILES = "/etc/tmpfiles.d"
UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/local-fs.target.wants"
THP_DROPIN = f"{TMPFILES}/slm-baseline-thp.conf"
POOLS_DROPIN = f"{TMPFILES}/slm-baseline-hugepages.conf"
MARK = "# Written by slm-baseline; its rollback removes this file."

_TMPFILES_FOLDERS = (TMPFILES, "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d")
"""In order of precedence: a name found earlier masks the same name later (tmpfiles.d(5))."""
_TUNED_PREFIXES = (f"{THP}/", f"{HUGEPAGES}/", f"{NODES}/", "/proc/sys/vm/nr_hugepages", "/proc/sys/vm/min_free_kbytes")


@dataclass(frozen=True)
class Line:
    """One persisted setting: the kernel file it writes, the value, and where it stands."""

    target: str
    value: str
    path: str
    number: int

    @property
    def source(self) -> str:
        return f"{self.path}:{self.number}"


def tmpfiles_text(values: Mapping[str, str]) -> str:
    """A drop-in that writes each value to its kernel file, or "" for no values."""
    lines = [f"w {path} - - - - {value}" for path, value in values.items()]
    return "\n".join([MARK, *lines, ""]) if lines else ""


def parse_tmpfiles(path: str, text: str) -> list[Line]:
    """The `w` lines that write a memory knob; every other line of tmpfiles.d(5) is somebody else's business."""
    lines = []
    for number, text_line in enumerate(text.splitlines(), 1):
        fields = text_line.split(None, 6)
        if len(fields) == 7 and fields[0].rstrip("+!-=~^$") == "w" and fields[1].startswith(_TUNED_PREFIXES):
            lines.append(Line(fields[1], fields[6].strip(), path, number))
    return lines


def tmpfiles_lines(host: Host) -> list[Line]:
    """Every line that writes a memory knob at boot, in the order in which systemd-tmpfiles runs them."""
    chosen: dict[str, str] = {}
    for folder in _TMPFILES_FOLDERS:
        for name in host.names(folder):
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{folder}/{name}")
    return [
        line for name in sorted(chosen) for line in parse_tmpfiles(chosen[name], host.read_or_none(chosen[name]) or "")
    ]


def thp_file(values: Mapping[str, str]) -> dict[str, str]:
    """The THP drop-in's content by path; `values` maps kernel files to values."""
    return {THP_DROPIN: tmpfiles_text(values)}


def pools_file(pools: Iterable[PoolSpec]) -> dict[str, str]:
    """The pools' drop-in's content by path."""
    return {
        POOLS_DROPIN: tmpfiles_text(
            {f"{pool_folder(pool.size_bytes, pool.node)}/nr_hugepages": str(pool.count) for pool in pools}
        )
    }


def unit_name(path: str) -> str:
    """The mount unit's name for a path, as systemd-escape --path spells it: /mnt/a-b -> `mnt-a\\x2db.mount`."""
    text = path.strip("/")
    escaped = "".join(
        "-"
        if char == "/"
        else char
        if (char.isascii() and (char.isalnum() or char in ":_.")) and not (char == "." and index == 0)
        else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for index, char in enumerate(text)
    )
    return f"{escaped}.mount"


def unit_path(path: str) -> str:
    return f"{UNITS}/{unit_name(path)}"


def wants_path(path: str) -> str:
    """The symlink that enables a mount's unit."""
    return f"{WANTS}/{unit_name(path)}"


def unit_text(mount: MountSpec) -> str:
    """A systemd.mount(5) unit for a hugetlbfs mount."""
    return (
        f"{MARK}\n[Unit]\nDescription=Huge pages at {mount.path}\nConditionPathExists={HUGEPAGES}\n\n"
        f"[Mount]\nWhat=hugetlbfs\nWhere={mount.path}\nType=hugetlbfs\nOptions={mount.options},nosuid,nodev\n\n"
        f"[Install]\nWantedBy=local-fs.target\n"
    )


def parse_unit(text: str, default_page_bytes: int) -> MountSpec | None:
    """The hugetlbfs mount a unit describes, or None where it describes something else."""
    fields = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line and not line.startswith("#"))
    if fields.get("Type") != "hugetlbfs" or not fields.get("Where"):
        return None
    return parse_options(fields["Where"], fields.get("Options", ""), default_page_bytes)


def is_ours(host: Host, path: str) -> bool:
    """Whether a file carries our mark."""
    return (host.read_or_none(path) or "").startswith(MARK)


def our_units(host: Host) -> list[str]:
    """Paths of the mount units that this project wrote."""
    return [
        f"{UNITS}/{name}" for name in host.names(UNITS) if name.endswith(".mount") and is_ours(host, f"{UNITS}/{name}")
    ]


def our_files(host: Host) -> list[str]:
    """Every file of ours that is on the host, whatever its content."""
    dropins = [path for path in (THP_DROPIN, POOLS_DROPIN) if host.exists(path)]
    units = our_units(host)
    links = [f"{WANTS}/{os.path.basename(unit)}" for unit in units]
    return dropins + units + [link for link in links if os.path.lexists(host.path(link))]


@dataclass(frozen=True)
class WriteFile:
    """Make a file of ours hold `new` ("" means: be absent). `old` is None where there was none."""

    path: str
    old: bytes | None
    new: bytes

    @property
    def name(self) -> str:
        return self.path

    @property
    def before(self) -> str:
        return "absent" if self.old is None else self.old.decode(errors="replace")

    @property
    def after(self) -> str:
        return self.new.decode() or "absent"

    def apply(self, host: Host) -> None:
        self._put(host, self.new or None)

    def undo(self, host: Host) -> None:
        self._put(host, self.old)

    def _put(self, host: Host, content: bytes | None) -> None:
        if content is None:
            host.remove_durably(self.path)
        else:
            os.makedirs(host.path(self.path).parent, mode=0o755, exist_ok=True)
            host.write_durably(self.path, content)


@dataclass(frozen=True)
class EnableUnit:
    """Make or remove the symlink that enables a mount's unit, as `systemctl enable` would, but also with no systemd."""

    path: str
    enabled: bool

    @property
    def name(self) -> str:
        return wants_path(self.path)

    @property
    def before(self) -> str:
        return "absent" if self.enabled else f"-> {unit_path(self.path)}"

    @property
    def after(self) -> str:
        return f"-> {unit_path(self.path)}" if self.enabled else "absent"

    def apply(self, host: Host) -> None:
        self._put(host, self.enabled)

    def undo(self, host: Host) -> None:
        self._put(host, not self.enabled)

    def _put(self, host: Host, enabled: bool) -> None:
        if not enabled:
            host.remove_durably(self.name)
            return
        link = host.path(self.name)
        if not is_enabled(host, self.path):
            link.parent.mkdir(mode=0o755, exist_ok=True)
            os.symlink(unit_path(self.path), link)
            host.sync_folder(link.parent)


def is_enabled(host: Host, path: str) -> bool:
    """Whether the mount's unit is enabled by our symlink."""
    return os.path.islink(host.path(wants_path(path)))


def plan_files(host: Host, wanted: Mapping[str, str]) -> list[WriteFile]:
    """The files that differ from what is wanted; "" wants a file gone."""
    changes = []
    for path, text in wanted.items():
        target = host.path(path)
        old = target.read_bytes() if target.is_file() else None
        if (old or b"") != text.encode():
            changes.append(WriteFile(path, old, text.encode()))
    return changes


def plan_unit(host: Host, path: str, mount: MountSpec | None) -> Sequence[WriteFile | EnableUnit]:
    """What the unit of one mount path needs: its file first when it comes, its symlink first when it goes.

    SettingError where somebody else's unit has the name: it is neither overwritten nor removed.
    """
    unit = unit_path(path)
    if os.path.lexists(host.path(unit)) and not is_ours(host, unit):
        raise SettingError(
            f"hugetlbfs.{path}",
            f"a unit of our own at {unit}",
            "one that this project did not write",
            "systemd knows the unit of a path by that name alone, and files of others are left as they are.",
            f"remove it (systemctl disable --now '{unit_name(path)}' first), or choose another path.",
        )
    files: list[WriteFile | EnableUnit] = [*plan_files(host, {unit: unit_text(mount) if mount else ""})]
    if is_enabled(host, path) == (mount is not None):
        return files
    link = EnableUnit(path, enabled=mount is not None)
    return [*files, link] if mount else [link, *files]
