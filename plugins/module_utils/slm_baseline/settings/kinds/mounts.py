"""hugetlbfs mounts: through them programs use the pages of a pool as files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...host.errors import SettingError
from ...host.files import Host
from ...host.mountinfo import mounted_at, read_mountinfo
from ...host.sizes import format_size, is_number
from ...host.validate import Option
from ..boot.mount_units import is_enabled, our_units, parse_unit, plan_unit, unit_path, wants_path
from ..boot.tmpfiles import Line
from ..kernel.hugetlb import default_page_bytes, pool_sizes
from ..kernel.hugetlbfs import DEFAULT_MODE, MountSpec, found_mount, hugetlbfs_mounts, unreadable_mounts
from ..state.json_fields import MAX_ID, MAX_MODE, absolute, whole
from ..state.losses import NO_LIMITS, Limits
from ..state.ownership import NOTHING, Ours
from .kind import PriorState, Reading

if TYPE_CHECKING:  # An audit compiles no code of changes for a name of a type.
    from ..state.changes import Change

_MODE = re.compile(r"0?[01]?[0-7]{3}")


@dataclass(frozen=True)
class MountState:
    """The mount that was on a path; None for no mount."""

    path: str
    mount: MountSpec | None

    def values(self) -> dict[str, str]:
        return {f"hugetlbfs.{self.path}": self.mount.options if self.mount else "not mounted"}

    def to_json(self) -> dict[str, Any] | None:
        return asdict(self.mount) if self.mount else None

    def now(self, host: Host) -> MountState:
        return MountState(self.path, found_mount(host, self.path))

    def is_ours(self, ours: Ours) -> bool:
        """Return whether this is what we mounted, or left unmounted."""
        return all(ours.has(Mounts.key, name, value) for name, value in self.values().items())

    def rollback_target(self, found: MountState, ours: Ours) -> MountState | None:
        return self if found.is_ours(ours) or found == self else None

    def change(self, host: Host, limits: Limits = NO_LIMITS) -> Change | None:
        found = found_mount(host, self.path)
        if found == self.mount:
            return None
        from ..kernel.mount_change import ChangeMount

        change = ChangeMount(self.path, found, self.mount, limits.accept)
        change.refuse_losses(host)
        return change


@dataclass(frozen=True)
class Mounts:
    """The wanted mounts; `accept` names those that may be removed whoever relies on them."""

    mounts: Sequence[MountSpec] = ()
    accept: frozenset[str] = frozenset()
    key: ClassVar[str] = "mounts"

    @classmethod
    def parse(cls, host: Host, given: object) -> Mounts:
        return cls(parse_mounts(host, given))

    @classmethod
    def recorded(cls, key: str, value: Any) -> MountState:
        if value is None:
            return MountState(absolute(key), None)
        size = value["size_bytes"]
        mount = MountSpec(
            absolute(key),
            whole(value["page_size_bytes"]),
            None if size is None else whole(size),
            whole(value["mode"], MAX_MODE),
            whole(value["uid"], MAX_ID),
            whole(value["gid"], MAX_ID),
        )
        return MountState(mount.path, mount)

    @classmethod
    def knob_of(cls, target: str, default_page_bytes: int) -> str | None:
        return None

    @classmethod
    def boot_values(cls, words: Sequence[tuple[str, str]], default_page_bytes: int) -> dict[str, str]:
        return {}

    @classmethod
    def persisted(cls, host: Host, lines: Sequence[Line]) -> dict[str, tuple[str, str]]:
        default = default_page_bytes(host)
        values = {}
        for unit in our_units(host):
            text = host.read_or_none(unit) or ""
            mount = parse_unit(text, default)
            if mount and is_enabled(host, mount.path):
                numbered = enumerate(text.splitlines(), 1)
                number = next((number for number, line in numbered if line.startswith("Options=")), 1)
                values[mount.name] = (mount.options, f"{unit}:{number}")
        return values

    @classmethod
    def facts(cls, host: Host) -> dict[str, Any]:
        entries = read_mountinfo(host)
        return {
            "mounts": [
                {**asdict(mount), "options": mount.options, "stacked": len(mounted_at(entries, mount.path))}
                for mount in hugetlbfs_mounts(host)
            ],
            "unreadable_mounts": list(map(str, unreadable_mounts(host).values())),
        }

    def values(self) -> dict[str, str]:
        return {mount.name: mount.options for mount in self.mounts}

    def check(self, host: Host, prior: Mapping[str, MountState], ours: Ours = NOTHING) -> None:
        """Check that each changed path is ours: unmounted in the snapshot, or mounted by a unit of ours."""
        unmounted = [path for path, state in prior.items() if state.mount is None]
        check_mounts(host, self.mounts, [*unmounted, *our_mount_paths(host)])

    def plan(self, host: Host, prior: Mapping[str, MountState], ours: Ours = NOTHING) -> list[Change]:
        """Remove the mounts that are no longer wanted, then mount each wanted one and write its unit."""
        self.check(host, prior)
        limits = Limits(self.accept)
        changes: list[Change] = []
        for path in our_mount_paths(host):
            if path not in {mount.path for mount in self.mounts}:
                found = MountState(path, found_mount(host, path))
                goal = prior.get(path, MountState(path, None)).rollback_target(found, ours)
                back = goal.change(host, limits) if goal else None
                changes += [*([back] if back else []), *plan_unit(host, path, None)]
        for mount in self.mounts:
            change = MountState(mount.path, mount).change(host, limits)
            changes += [*([change] if change else []), *plan_unit(host, mount.path, mount)]
        return changes

    def read(self, host: Host) -> dict[str, Reading]:
        """Read every hugetlbfs mount, and for a wanted path also why it is none."""
        values: dict[str, Reading] = {mount.name: mount.options for mount in hugetlbfs_mounts(host)}
        values |= unreadable_mounts(host)
        for mount in self.mounts:
            try:
                found = found_mount(host, mount.path)
            except SettingError as error:
                values[mount.name] = error
            else:
                if found:
                    values[mount.name] = found.options
        return values

    def capture(self, host: Host, known: Container[str] = ()) -> dict[str, PriorState]:
        paths = [mount.path for mount in self.mounts if mount.path not in known]
        return {path: MountState(path, found_mount(host, path)) for path in paths}

    def places(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        paths = list(keys)
        return [file for path in paths for file in (unit_path(path), wants_path(path))], paths


def our_mount_paths(host: Host) -> list[str]:
    """Return the paths that units of ours mount."""
    units = (parse_unit(host.read_or_none(unit) or "", default_page_bytes(host)) for unit in our_units(host))
    return [unit.path for unit in units if unit]


def parse_mounts(host: Host, settings: object) -> list[MountSpec]:
    """Parse the user's list of mounts; owners are resolved by the host's own passwd and group."""
    entries = Option("hugetlbfs_mounts", settings).entries(("path", "page_size"), ("size", "mode", "owner", "group"))
    mounts = [_mount(host, entry) for entry in entries]
    for index, mount in enumerate(mounts):
        for other in mounts[:index]:
            if (
                mount.path == other.path
                or f"{mount.path}/".startswith(f"{other.path}/")
                or f"{other.path}/".startswith(f"{mount.path}/")
            ):
                raise SettingError(
                    mount.name,
                    mount.options,
                    f"{other.path} ({other.options}) in the same list",
                    "Two mounts on one path, or one under the other, hide each other.",
                    "keep one entry a path.",
                )
    return mounts


def _mount(host: Host, entry: Mapping[str, object]) -> MountSpec:
    path = _path(Option("hugetlbfs_mounts.path", entry["path"]))
    knob = f"hugetlbfs.{path}"
    page_size_bytes = Option(f"{knob} page_size", entry["page_size"]).size()
    return MountSpec(
        path=path,
        page_size_bytes=page_size_bytes,
        size_bytes=None
        if entry.get("size") is None
        else _limit(Option(f"{knob} size", entry["size"]), page_size_bytes),
        mode=_mode(Option(knob, entry.get("mode", f"{DEFAULT_MODE:04o}"))),
        uid=_id(host, Option(knob, entry.get("owner", "root")), "owner"),
        gid=_id(host, Option(knob, entry.get("group", "root")), "group"),
    )


def _path(given: Option) -> str:
    text = str(given.value)
    # A path with a trailing slash is the same folder.
    text = text.rstrip("/") or text
    plain = (
        isinstance(given.value, str) and text.startswith("/") and os.path.normpath(text) == text and text.isprintable()
    )
    if not plain or text == "/" or text.startswith("//") or not text.isascii() or set(text) & set("\\\"'%$,:# "):
        raise given.error(
            "an absolute path such as /mnt/huge",
            why="It must be absolute and plain: no `..`, no blanks, quotes or %, : , $ #.",
            next_step="correct the path.",
        )
    if text == "/dev/hugepages":
        raise SettingError(
            "hugetlbfs./dev/hugepages",
            "a mount of our own",
            "systemd's dev-hugepages.mount",
            "That path belongs to systemd.",
            "choose another path.",
        )
    return text


def _limit(given: Option, page_size_bytes: int) -> int:
    """Return the mount's size limit in bytes: whole pages, since the kernel silently rounds anything else down."""
    size_bytes = given.size()
    if size_bytes == 0 or page_size_bytes == 0 or size_bytes % page_size_bytes:
        raise given.error(
            f"a multiple of the page size, {format_size(page_size_bytes)}",
            why="The kernel counts the limit in whole pages.",
            next_step="correct the size, or leave it out for no limit.",
        )
    return size_bytes


def _mode(given: Option) -> int:
    if isinstance(given.value, str) and _MODE.fullmatch(given.value):
        return int(given.value, 8)
    yaml = "YAML reads an unquoted 0770 as the number 504."
    dropped = "hugetlbfs takes permissions and the sticky bit, and drops any other."
    raise given.error(
        'a mode such as "0770"',
        why=yaml if isinstance(given.value, int) else dropped,
        next_step="write four octal digits in quotes.",
    )


def _id(host: Host, given: Option, what: str) -> int:
    """Return a uid (`owner`) or gid (`group`) from a name on the host, or a number."""
    with contextlib.suppress(SettingError):
        return given.integer(MAX_ID)
    known = id_of(host, what, given.value) if isinstance(given.value, str) else None
    if known is None:
        raise given.error(
            f"{what} {given.value!r}",
            "no such name on this host",
            why=f"The {what} is resolved on the host, when it is mounted and at boot.",
            next_step=f"create the {what} first, or use a number.",
        )
    return known


def id_of(host: Host, what: str, name: str) -> int | None:
    """Return a name's uid (`owner`) or gid (`group`) on the host, or None."""
    if host.is_live:
        # Directory services count too, and many of them resolve a name without listing all they know.
        import grp
        import pwd

        try:
            return pwd.getpwnam(name).pw_uid if what == "owner" else grp.getgrnam(name).gr_gid
        except (KeyError, ValueError):
            return None
    file = "/etc/passwd" if what == "owner" else "/etc/group"
    rows = (line.split(":") for line in (host.read_or_none(file) or "").splitlines())
    return next((int(row[2]) for row in rows if len(row) > 2 and row[0] == name and is_number(row[2])), None)


def check_mounts(host: Host, wanted: Sequence[MountSpec], ours: Sequence[str]) -> None:
    """Raise SettingError, before anything changes, for a mount that this host cannot or should not have.

    `ours` are the paths that this project mounted earlier: only these may change their options.
    """
    sizes = pool_sizes(host)
    for spec in wanted:
        if spec.page_size_bytes not in sizes:
            raise SettingError(
                spec.name,
                f"pages of {format_size(spec.page_size_bytes)}",
                f"a kernel with {', '.join(map(format_size, sizes)) or 'no hugetlb at all'}",
                "hugetlbfs mounts have the page size of a pool.",
                "choose one of these sizes, or set hugetlbfs_mounts: [].",
            )
        if not host.is_symlink_free(spec.path):
            raise SettingError(
                spec.name,
                "a folder",
                "a symbolic link on the way",
                "The mount would be somewhere else, and a link can be changed after the check.",
                "give the path that the link leads to.",
            )
        found = found_mount(host, spec.path)
        if found is None:
            _check_mount_point(host, spec)
        elif found != spec and spec.path not in ours:
            raise SettingError(
                spec.name,
                spec.options,
                found.options,
                "That hugetlbfs was mounted by somebody else.",
                f"unmount {spec.path} by hand, or choose another path.",
            )


def _check_mount_point(host: Host, spec: MountSpec) -> None:
    folder = host.path(spec.path)
    if folder.is_dir():
        if host.names(spec.path):
            raise SettingError(
                spec.name,
                "an empty folder",
                f"{len(host.names(spec.path))} entries in {spec.path}",
                "Mounting would hide them.",
                "empty the folder, or choose another path.",
            )
    elif os.path.lexists(folder):
        raise SettingError(
            spec.name,
            "a folder",
            "a file",
            "hugetlbfs is mounted on a folder.",
            "remove the file, or choose another path.",
        )
