"""Who else has a mount: copies in other namespaces, those that a umount takes along, and what stands on a folder."""

from __future__ import annotations

import os

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mount_namespaces import mounts_on_folder, mounts_that_stay, read_namespaces

from tests.support.fakes import put

ROOT = "27 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n"
HUGE = "40 27 0:40 / /mnt/huge rw shared:9 - hugetlbfs h rw,pagesize=2M\n"


def process(host: Host, pid: int, mounts: str, namespace: str, root: str = "/") -> None:
    put(host.root, f"/proc/{pid}/mountinfo", mounts)
    put(host.root, f"/proc/{pid}/comm", "server\n")
    for name, target in (("ns/mnt", f"mnt:[{namespace}]"), ("root", root)):
        link = host.path(f"/proc/{pid}/{name}")
        link.parent.mkdir(exist_ok=True)
        os.symlink(target, link)


@pytest.fixture
def host(fake_host: Host) -> Host:
    """This process's namespace has number 1, and the mount."""
    put(fake_host.root, "/proc/self/mountinfo", ROOT + HUGE)
    os.makedirs(fake_host.path("/proc/self/ns"))
    os.symlink("mnt:[1]", fake_host.path("/proc/self/ns/mnt"))
    os.symlink("/", fake_host.path("/proc/self/root"))
    return fake_host


def staying(host: Host) -> list[tuple[str, str]]:
    return [(space.process, entry.path) for space, entry in mounts_that_stay(read_namespaces(host), "/mnt/huge")]


def on_folder(host: Host, path: str = "/mnt/huge") -> list[tuple[str, str]]:
    return [(space.process, entry.fstype) for space, entry in mounts_on_folder(read_namespaces(host), path)]


@pytest.mark.parametrize(
    ("root", "stays"),
    [
        ("shared:1", False),
        ("master:1", False),
        ("shared:7 master:1", False),
        ("propagate_from:1", False),
        ("", True),
        ("shared:7", True),
        ("master:7", True),
    ],
)
def test_a_copy_goes_where_its_parent_receives_from_ours(host: Host, root: str, stays: bool) -> None:
    space = f" {root}" if root else ""
    process(host, 7, f"90 1 254:0 / / rw{space} - ext4 /dev/vda rw\n91 90 0:40 / /mnt/huge rw - hugetlbfs h rw\n", "2")
    assert staying(host) == ([("server (pid 7)", "/mnt/huge")] if stays else [])


def test_a_slave_of_a_slave_receives_too(host: Host) -> None:
    process(host, 7, "90 1 254:0 / / rw shared:5 master:1 - ext4 /dev/vda rw\n", "2")
    process(host, 8, "95 1 254:0 / / rw master:5 - ext4 /dev/vda rw\n96 95 0:40 / /mnt/huge rw - hugetlbfs h rw\n", "3")
    assert staying(host) == []


def test_a_copy_at_another_path_stays_though_its_parent_receives(host: Host) -> None:
    process(host, 7, "90 1 254:0 / / rw master:1 - ext4 /dev/vda rw\n91 90 0:40 / /dev/huge rw - hugetlbfs h rw\n", "2")
    assert staying(host) == [("server (pid 7)", "/dev/huge")]


def test_a_bind_mount_in_this_namespace_stays(host: Host) -> None:
    put(host.root, "/proc/self/mountinfo", f"{ROOT}{HUGE}41 27 0:40 /db /srv/db rw - hugetlbfs h rw\n")
    assert staying(host) == [("", "/srv/db")]


def test_a_process_with_a_root_of_its_own_is_read_apart(host: Host) -> None:
    """Its mountinfo has only what is below its root: another one of the namespace has the rest."""
    process(host, 7, "92 91 0:50 / / rw - overlay o rw\n", "2", "/srv/root")
    process(host, 8, "90 1 254:0 / / rw - ext4 /dev/vda rw\n91 90 0:40 / /mnt/huge rw - hugetlbfs h rw\n", "2")
    assert staying(host) == [("server (pid 8)", "/mnt/huge")]


def test_a_process_that_hides_its_namespace_is_told_by_its_mounts(host: Host) -> None:
    for pid, mounts in (
        (1, ROOT + HUGE),
        (8, "90 1 254:0 / / rw - ext4 d rw\n91 90 0:40 / /mnt/huge rw - hugetlbfs h rw\n"),
    ):
        put(host.root, f"/proc/{pid}/mountinfo", mounts)
        put(host.root, f"/proc/{pid}/comm", "hidden\n")
    assert staying(host) == [("hidden (pid 8)", "/mnt/huge")]
    assert len(read_namespaces(host)) == 2


def test_a_process_of_this_namespace_and_one_that_ends_are_nothing_new(host: Host) -> None:
    process(host, 7, ROOT + HUGE, "1", "/srv/jail")
    process(host, 8, "rubbish\n", "2")
    assert [space.process for space in read_namespaces(host)] == [""]


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("91 90 0:77 / /mnt/huge rw - tmpfs t rw\n", ["tmpfs"]),
        ("91 90 0:77 / /mnt/other rw - tmpfs t rw\n", []),
        # The same folder by another way: /mnt of the host is bound to /data there.
        ("91 90 254:0 /mnt /data rw - ext4 /dev/vda rw\n92 91 0:77 / /data/huge rw - tmpfs t rw\n", ["tmpfs"]),
        # The same path on a root of its own is another folder.
        ("95 90 0:60 / /jail rw - overlay o rw\n96 95 0:77 / /jail/mnt/huge rw - tmpfs t rw\n", []),
    ],
)
def test_what_stands_on_a_folder_by_whatever_path(host: Host, mounts: str, found: list[str]) -> None:
    put(host.root, "/proc/self/mountinfo", ROOT)
    process(host, 7, f"90 1 254:0 / / rw - ext4 /dev/vda rw\n{mounts}", "2")
    assert [fstype for _, fstype in on_folder(host)] == found
