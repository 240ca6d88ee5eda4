"""Looking at recorded paths: links on the way and users' mounts are not entered."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.foreign_files import open_foreign
from ansible.module_utils.slm_baseline.host.link_free import LinkFree


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name in ("srv/a/file", "srv/b/file", "home/mnt/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "srv/link").symlink_to("a")
    (tmp_path / "srv/a/link").symlink_to("file")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "30 1 0:50 / /home/mnt rw - fuse.sshfs mallory rw,user_id=4242\n"
        "31 1 0:51 / /srv/a rw - fuse.x root rw,user_id=0\n"
    )
    return Host(tmp_path)


def error_number(paths: LinkFree, path: str) -> int | None:
    try:
        paths.lstat(path)
    except OSError as error:
        return error.errno
    return None


def test_a_path_without_links_is_as_lstat_has_it(host: Host) -> None:
    paths = LinkFree(host)
    for name in ("/srv/a/file", "/srv/b/file", "/srv/a/link", "/srv", "/"):
        assert os.path.samestat(paths.lstat(name), os.lstat(host.name(name)))
    with paths.folder("/srv") as descriptor:
        assert sorted(os.listdir(descriptor)) == ["a", "b", "link"]


def test_a_link_on_the_way_and_a_users_mount_are_not_entered(host: Host) -> None:
    paths = LinkFree(host)
    assert error_number(paths, "/srv/link/file") == errno.ENOTDIR
    assert error_number(paths, "/srv/a/gone") == errno.ENOENT
    assert error_number(paths, "/home/mnt/file") == error_number(paths, "/home/mnt") == errno.EACCES
    for path in ("/srv/link", "/srv/a/file", "/home/mnt"):
        with pytest.raises(OSError, match=r"."), paths.folder(path):
            pass


def test_nothing_stays_open(host: Host) -> None:
    before = len(os.listdir("/proc/self/fd"))
    paths = LinkFree(host)
    for name in ("/srv/a/file", "/srv/b/file", "/srv/a/file"):
        paths.lstat(name)
    assert error_number(paths, "/srv/link/file") == errno.ENOTDIR
    del paths
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_behind_a_link_is_not_opened_where_no_link_is_followed(host: Host) -> None:
    os.close(open_foreign(host.path("/srv/link/file")))
    os.close(open_foreign(host.path("/srv/a/file"), os.O_NOFOLLOW))
    with pytest.raises(OSError, match="directory"):
        open_foreign(host.path("/srv/link/file"), os.O_NOFOLLOW)
