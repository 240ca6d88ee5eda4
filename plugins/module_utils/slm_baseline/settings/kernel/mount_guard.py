"""What relies on a hugetlbfs mount: files on it, other namespaces and bind mounts that have it, units that need it."""

from __future__ import annotations

from collections.abc import Container

from ...host.files import Host
from ...host.mount_namespaces import mounts_on_folder, mounts_that_stay, read_namespaces
from ...host.processes import holders
from ...host.unit_users import is_active, users_of_mount
from ..state.losses import refuse_loss, tell_some


def refuse_lost_mount(host: Host, path: str, wanted: str | None, accept: Container[str] = ()) -> None:
    """Raise LossError where removing a mount would cost somebody something; `wanted` is the mount that replaces it.

    A replaced mount still serves those who only need some mount there; the files on the old one are lost all the same.
    """
    name = f"hugetlbfs.{path}"
    if name in accept:
        return
    found = [*_files(host, path), *_others(host, path), *_units(host, path, wanted is None)]
    if found:
        refuse_loss(
            name,
            wanted or "not mounted",
            "; ".join(found),
            "hugetlbfs changes its options only by unmounting, and its files, which are memory, go with the mount. "
            "Whoever still has it elsewhere keeps one that nobody else sees.",
            "move the files, or stop what relies on the mount",
        )


def _files(host: Host, path: str) -> list[str]:
    names = host.names(path)
    if not names:
        return []
    users = holders(host, path)
    return [
        tell_some([f"{path}/{name}" for name in names], "files on it: "),
        *([f"in use by {', '.join(users)}"] if users else []),
    ]


def _others(host: Host, path: str) -> list[str]:
    namespaces = read_namespaces(host)
    return [
        f"{space.process} has it in a mount namespace of its own, at {entry.path}"
        if space.process
        else f"the same file system at {entry.path}"
        for space, entry in mounts_that_stay(namespaces, path)
    ]


def _units(host: Host, path: str, goes_for_good: bool) -> list[str]:
    """Return the units that stop with the mount, or, where it is not replaced, those that could not start again."""
    users = users_of_mount(host, path)
    if goes_for_good:
        return [f"{user} could not start again" for user in users]
    return [f"{user} would be stopped" for user in users if user.is_bound and is_active(host, user.name)]


def users_of_folder(host: Host, path: str) -> list[str]:
    """Return what any namespace has mounted on a folder, with its process: removing the folder would detach it."""
    return [
        f"{space.process or 'this namespace'} has {entry.fstype} mounted on it"
        for space, entry in mounts_on_folder(read_namespaces(host), path)
    ]
