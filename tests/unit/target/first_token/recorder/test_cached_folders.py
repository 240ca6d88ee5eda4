"""Folders that a start looked into: told by what listing them reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import cached_folders
from ansible.module_utils.slm_baseline.first_token.recorder.cached_folders import find_cached_folders
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.link_free import LinkFree

SOON = Deadline.after(600)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """listed/{warm/deep,cold/warm,mounted,file}: what is called cold is read from disk when it is listed."""
    for path in ("listed/warm/deep", "listed/cold/warm", "listed/mounted"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "listed/file").touch()
    real, read = cached_folders._subfolders, [0]

    def subfolders(paths: LinkFree, path: str) -> list[str]:
        read[0] += 4096 * path.endswith("cold")
        return real(paths, path)

    monkeypatch.setattr(cached_folders, "_subfolders", subfolders)
    monkeypatch.setattr(cached_folders, "_read_bytes", lambda counters: read[0])
    return tmp_path


def host_with_mount_on(tree: Path, path: Path) -> Host:
    root = tree / "root"
    for folder in ("proc/self", "proc/thread-self"):
        (root / folder).mkdir(parents=True)
    (root / "proc/thread-self/io").touch()
    (root / "proc/self/mountinfo").write_text(f"30 1 8:1 / {path} rw shared:1 - ext4 /dev/vdb rw\n")
    return Host(root)


def test_a_folder_whose_names_are_in_memory_was_looked_into(tree: Path) -> None:
    listed = tree / "listed"
    host = host_with_mount_on(tree, listed / "mounted")
    assert find_cached_folders(host, [str(listed)], SOON) == [f"{listed}/warm", f"{listed}/warm/deep"]


def test_below_a_listed_folder_it_looks_whether_that_is_still_in_memory_or_not(tree: Path) -> None:
    cold = tree / "listed/cold"
    host = host_with_mount_on(tree, tree / "elsewhere")
    assert find_cached_folders(host, [str(tree / "gone"), str(cold)], SOON) == [f"{cold}/warm"]


def test_the_search_has_a_bound(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tree / "listed"
    host = host_with_mount_on(tree, listed / "mounted")
    monkeypatch.setattr(cached_folders, "MOST_FOLDERS", 2)
    assert len(find_cached_folders(host, [str(listed)], SOON)) < 2
    monkeypatch.setattr(cached_folders, "LONGEST_S", -1.0)
    assert find_cached_folders(host, [str(listed)], SOON) == []


def test_without_counters_of_what_a_thread_reads_nothing_is_found(tree: Path) -> None:
    host = host_with_mount_on(tree, tree / "elsewhere")
    host.path("/proc/thread-self/io").unlink()
    assert find_cached_folders(host, [str(tree / "listed")], SOON) == []


def test_listing_a_folder_in_memory_reads_nothing(tmp_path: Path) -> None:
    """The kernel's own file, on this machine: no listing of a folder in memory changes it."""
    list(tmp_path.iterdir())
    with open("/proc/thread-self/io", "rb", buffering=0) as counters:
        before = cached_folders._read_bytes(counters.fileno())
        list(tmp_path.iterdir())
        assert cached_folders._read_bytes(counters.fileno()) == before >= 0


def test_a_mount_of_another_user_is_not_looked_into(tree: Path) -> None:
    """Whoever answers for it may take as long as he likes."""
    listed = tree / "listed"
    host = host_with_mount_on(tree, listed / "mounted")
    line = f"31 30 0:44 / {listed}/warm rw - fuse.sshfs someone rw,user_id=1000,group_id=1000"
    with host.path("/proc/self/mountinfo").open("a") as file:
        file.write(f"{line}\n")
    assert find_cached_folders(host, [f"{listed}/warm"], SOON) == []
    assert find_cached_folders(host, [str(listed)], Deadline.after(0)) == []
