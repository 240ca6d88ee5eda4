"""Files of one host, under a root that is `/` in production and a temporary tree in tests."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """Access to a host's files. Its methods take absolute host paths, such as `/proc/meminfo`."""

    root: Path = Path("/")

    def path(self, path: str | Path) -> Path:
        """Return the real path of a host path."""
        return self.root / str(path).lstrip("/")

    def name(self, path: str | Path) -> str:
        """Return the real path as text. An audit opens thousands of files, and pathlib takes longer than the kernel."""
        return f"{str(self.root).rstrip('/')}/{str(path).lstrip('/')}"

    @property
    def is_live(self) -> bool:
        """Return True on a running machine, False on a test's tree, where mounting and systemctl make no sense."""
        return self.root == Path("/")

    def exists(self, path: str | Path) -> bool:
        return os.path.exists(self.name(path))

    def read(self, path: str | Path) -> str:
        """Return the file's text, with undecodable bytes as surrogates; OSError as the kernel raised it.

        EINVAL for anything but a plain file: others may have put a pipe or a device there, which has no end.
        """
        with open(open_plain(self.name(path)), "rb") as stream:
            # Read as bytes: text mode would turn a carriage return in a path of mountinfo into a line end.
            return stream.read().decode("utf-8", errors="surrogateescape")

    def read_or_none(self, path: str | Path) -> str | None:
        """Return the file's text, or None where it is missing or this user cannot read it."""
        try:
            return self.read(path)
        except OSError:
            return None

    def names(self, path: str | Path) -> list[str]:
        """Return the sorted names in a folder; an empty list where there is no such folder."""
        try:
            return sorted(os.listdir(self.name(path)))
        except OSError:
            return []

    def write_kernel(self, path: str | Path, value: str) -> None:
        """Write `value` by one write(2) to an existing sysfs or procfs file; OSError as the kernel raised it.

        Unbuffered and without O_CREAT or O_TRUNC: a kernel file that is missing must not become a plain file.
        """
        descriptor = os.open(self.path(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def write_durably(self, path: str | Path, content: bytes, mode: int = 0o644, uid: int = -1, gid: int = -1) -> None:
        """Replace a file so that a crash leaves the old or the new one whole: temporary file, fsync, rename, fsync.

        The temporary name is fixed (`NAME.slm-baseline.tmp`), so that the next run can remove a leftover.
        The folder must exist. Owner and group are the writer's where uid or gid is -1.
        """
        target = self.path(path)
        temporary = self.path(temporary_name(path))
        with_owner = uid != -1 or gid != -1
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            if with_owner:
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        os.close(descriptor)
        try:
            os.rename(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.sync_folder(target.parent)

    def remove_durably(self, path: str | Path) -> None:
        """Remove a file or symlink if it exists, and make the removal durable."""
        target = self.path(path)
        try:
            target.unlink()
        except FileNotFoundError:
            return
        self.sync_folder(target.parent)

    @staticmethod
    def sync_folder(folder: Path) -> None:
        """Fsync a folder, so that a rename or unlink in it survives a power loss."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def is_symlink_free(self, path: str | Path) -> bool:
        """Return whether no existing component of the path is a symbolic link."""
        walked = self.root
        for part in Path(str(path).lstrip("/")).parts:
            walked = walked / part
            try:
                if stat.S_ISLNK(os.lstat(walked).st_mode):
                    return False
            except OSError:
                return True
        return True


def open_plain(path: str | os.PathLike[str]) -> int:
    """Return a descriptor for reading a plain file; OSError, EINVAL for anything else that others may have put there.

    Opening a pipe would wait for its other end, and a device may have no end at all.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "No plain file", str(path))
    return descriptor


def temporary_name(path: str | Path) -> str:
    """Return the path of the temporary file that `write_durably` uses for a path."""
    return f"{path}.slm-baseline.tmp"


def missing_folders(host: Host, path: str) -> list[str]:
    """Return the folders of a path that do not exist yet, outermost first: mounting would create them."""
    missing = []
    while path != "/" and not os.path.lexists(host.path(path)):
        missing.append(path)
        path = os.path.dirname(path)
    return missing[::-1]
