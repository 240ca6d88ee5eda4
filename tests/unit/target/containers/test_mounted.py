"""Files of containers on the host: bind mounts, volumes, layers, and what is none since it is not what was opened."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.containers.mounted import HostFile, HostPaths, MountTables, Place
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mountinfo import MountEntry, parse_mountinfo

HOST_MOUNTS = parse_mountinfo(
    "27 1 8:1 / / rw - ext4 /dev/vda rw\n"
    "42 27 8:2 / /srv rw - ext4 /dev/vdb rw\n"
    "43 27 8:3 /@data /data rw - btrfs /dev/vdc rw,subvol=/@data\n"
    "46 27 0:39 / /home/docker/cc/merged rw - overlay overlay rw,lowerdir=l/B:l/A,upperdir=cc/diff,workdir=cc/work\n"
)
OVERLAY = HOST_MOUNTS[3]


def mounted(line: str) -> MountEntry:
    (entry,) = parse_mountinfo(f"{line}\n")
    return entry


def place(root: Path, real: str, mount: MountEntry, inside: str, **changed: int) -> Place:
    """The place of a file that is at `real` in the tree."""
    found = os.lstat(root / real.lstrip("/"))
    values = {"inode": found.st_ino, "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns, **changed}
    return Place(mount, inside, **values)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("srv/models/phi/weights", "data/models/w", "var/lib/docker/volumes/m/_data/w"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    for name, short in (("aa", "A"), ("bb", "B"), ("cc", "C")):
        (tmp_path / "home/docker" / name / "diff/lib").mkdir(parents=True)
        (tmp_path / "home/docker/l").mkdir(exist_ok=True)
        (tmp_path / "home/docker/l" / short).symlink_to(f"../{name}/diff")
    (tmp_path / "home/docker/aa/diff/lib/low.py").write_text("low")
    (tmp_path / "home/docker/bb/diff/lib/mid.py").write_text("middle")
    (tmp_path / "home/docker/cc/diff/lib/own.py").write_text("the container's own")
    return tmp_path


def test_a_mount_of_another_kind_with_an_overlays_options_has_no_layers(root: Path) -> None:
    paths = HostPaths(Host(root), HOST_MOUNTS)
    assert paths.stack_of(replace(OVERLAY, fstype="fuse.other")) is None
    assert paths.stack_of(OVERLAY) is not None


def test_bind_mounts_and_volumes_lead_to_the_host_by_device_and_root(root: Path) -> None:
    paths = HostPaths(Host(root), HOST_MOUNTS)
    bind = mounted("89 72 8:2 /models /m ro - ext4 /dev/vdb rw")
    assert paths.find_file(place(root, "/srv/models/phi/weights", bind, "/m/phi/weights")) == HostFile(
        "/srv/models/phi/weights"
    )
    volume = mounted("90 72 8:1 /var/lib/docker/volumes/m/_data /v rw - ext4 /dev/vda rw")
    assert paths.find_file(place(root, "/var/lib/docker/volumes/m/_data/w", volume, "/v/w")) == HostFile(
        "/var/lib/docker/volumes/m/_data/w"
    )
    subvolume = mounted("91 72 8:3 /@data/models /b rw - btrfs /dev/vdc rw")
    assert paths.find_file(place(root, "/data/models/w", subvolume, "/b/w")) == HostFile("/data/models/w")
    single = mounted("92 72 8:2 /models/phi/weights /w ro - ext4 /dev/vdb rw")
    assert paths.find_file(place(root, "/srv/models/phi/weights", single, "/w")) == HostFile("/srv/models/phi/weights")


def test_another_file_at_that_path_of_the_host_is_none(root: Path) -> None:
    paths = HostPaths(Host(root), HOST_MOUNTS)
    bind = mounted("89 72 8:2 /models /m ro - ext4 /dev/vdb rw")
    for changed in ({"inode": 1}, {"size_bytes": 1}, {"mtime_ns": 1}):
        assert paths.find_file(place(root, "/srv/models/phi/weights", bind, "/m/phi/weights", **changed)) is None
    unmounted = mounted("89 72 8:9 / /m ro - ext4 /dev/loop0 rw")
    assert paths.find_file(place(root, "/srv/models/phi/weights", unmounted, "/m/phi/weights")) is None
    # A link at that path is not followed.
    (root / "srv/models/link").symlink_to("phi/weights")
    assert paths.find_file(place(root, "/srv/models/phi/weights", bind, "/m/link")) is None


def test_files_of_an_overlay_lie_in_its_layers(root: Path) -> None:
    paths = HostPaths(Host(root), HOST_MOUNTS)
    inside = mounted(f"72 48 0:39 / / rw - overlay overlay {OVERLAY.super_options}")
    assert paths.find_file(place(root, "/home/docker/aa/diff/lib/low.py", inside, "/lib/low.py")) == HostFile(
        "/home/docker/aa/diff/lib/low.py", 2
    )
    assert paths.find_file(place(root, "/home/docker/cc/diff/lib/own.py", inside, "/lib/own.py")) == HostFile(
        "/home/docker/cc/diff/lib/own.py", 0
    )
    folders = paths.find_folders(place(root, "/home/docker/cc/diff/lib", inside, "/lib"))
    assert [folder.path for folder in folders] == [f"/home/docker/{name}/diff/lib" for name in ("cc", "bb", "aa")]
    # Bits above an inode's own say which layer (xino).
    low = place(root, "/home/docker/aa/diff/lib/low.py", inside, "/lib/low.py")
    high = place(root, "/home/docker/aa/diff/lib/low.py", inside, "/lib/low.py", inode=low.inode | 1 << 40)
    assert paths.find_file(high) == paths.find_file(low)
    assert paths.find_file(place(root, "/home/docker/aa/diff/lib/low.py", inside, "/lib/mid.py")) is None


def test_a_list_of_layers_that_was_cut_is_taken_from_the_runtime(root: Path) -> None:
    lower = ("/home/docker/bb/diff", "/home/docker/aa/diff")
    cut = mounted("72 48 0:39 / / rw - overlay overlay rw,lowerdir=/home/docker/bb/diff:/home/dock")
    low = place(root, "/home/docker/aa/diff/lib/low.py", cut, "/lib/low.py")
    mounts = [*HOST_MOUNTS, replace(cut, path="/home/docker/cc/merged")]
    assert HostPaths(Host(root), mounts).find_file(low) is None
    assert HostPaths(Host(root), mounts, lower).find_file(low) == HostFile("/home/docker/aa/diff/lib/low.py", 1)


def test_one_device_and_one_id_may_be_two_overlays(root: Path) -> None:
    """docker mounts `ID-init` first, and the container's overlay gets the same device number and mount id."""
    first = mounted("72 48 0:39 / / rw - overlay overlay rw,lowerdir=/home/docker/l/A,upperdir=/home/docker/bb/diff")
    second = mounted("72 48 0:39 / / rw - overlay overlay rw,lowerdir=/home/docker/l/B:/home/docker/l/A")
    paths = HostPaths(Host(root), [*HOST_MOUNTS, first, second])
    low = "/home/docker/aa/diff/lib/low.py"
    assert paths.find_file(place(root, low, first, "/lib/low.py")) == HostFile(low, 1)
    assert paths.find_file(place(root, "/home/docker/bb/diff/lib/mid.py", second, "/lib/mid.py")) == HostFile(
        "/home/docker/bb/diff/lib/mid.py", 0
    )


def test_an_overlay_that_only_its_own_namespace_has_is_not_looked_for(root: Path) -> None:
    """Whoever mounts it chooses the names of its layers: they need not be the host's."""
    own = mounted("72 48 0:50 / / rw - overlay overlay rw,lowerdir=/home/docker/bb/diff:/home/docker/aa/diff")
    low = place(root, "/home/docker/aa/diff/lib/low.py", own, "/lib/low.py")
    assert HostPaths(Host(root), HOST_MOUNTS).find_file(low) is None
    assert HostPaths(Host(root), [*HOST_MOUNTS, own]).find_file(low)


def test_a_folder_that_was_swapped_for_a_link_leads_nowhere(root: Path) -> None:
    bind = mounted("89 72 8:2 /models /m ro - ext4 /dev/vdb rw")
    opened = place(root, "/srv/models/phi/weights", bind, "/m/phi/weights")
    folder = Place(bind, "/m/phi", (root / "srv/models/phi").stat().st_ino, 0, 0)
    paths = HostPaths(Host(root), HOST_MOUNTS)
    assert paths.find_folders(folder)
    assert paths.find_file(opened)
    paths = HostPaths(Host(root), HOST_MOUNTS)
    (root / "srv/models/phi").rename(root / "srv/elsewhere")
    (root / "srv/models/phi").symlink_to("../elsewhere")
    # The folder's own inode is still behind the link, so is the file's.
    assert paths.find_folders(folder) == []
    assert paths.find_file(opened) is None


def test_the_mount_of_a_path_is_read_anew_when_its_id_is_another_mounts(tmp_path: Path) -> None:
    (tmp_path / "proc/7/ns").mkdir(parents=True)
    (tmp_path / "proc/7/ns/mnt").symlink_to("mnt:[4026532177]")
    mountinfo = tmp_path / "proc/7/mountinfo"
    mountinfo.write_text("72 48 8:1 /old /old rw - ext4 /dev/vda rw\n")
    tables = MountTables(Host(tmp_path))
    first = tables.find(7, 72, "/old/file")
    assert first
    assert first.root == "/old"
    mountinfo.write_text("72 48 8:1 /new /new rw - ext4 /dev/vda rw\n")
    assert tables.find(7, 72, "/old/file") == first
    second = tables.find(7, 72, "/new/file")
    assert second
    assert second.root == "/new"
    mountinfo.unlink()
    # The process has ended: what is known of its namespace still counts.
    assert tables.find(7, 72, "/new/other") == second
    assert tables.find(7, 73, "/new/other") is None
    assert tables.find(8, 72, "/new/other") is None


def test_an_id_that_a_copy_of_the_root_had_is_the_bind_mounts(tmp_path: Path) -> None:
    """As crun makes a container: it copies the host's mounts, leaves them, and their ids are used again."""
    (tmp_path / "proc/7").mkdir(parents=True)
    mountinfo = tmp_path / "proc/7/mountinfo"
    mountinfo.write_text("146 1 254:0 / / rw - ext4 /dev/vda rw\n")
    tables = MountTables(Host(tmp_path))
    assert tables.find(7, 146, "/usr/bin/crun")
    mountinfo.write_text("146 144 254:0 /srv/models /models ro - ext4 /dev/vda rw\n")
    found = tables.find(7, 146, "/models/weights")
    assert found
    assert found.root == "/srv/models"
