"""Whose a container is, as the host sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import owner
from ansible.module_utils.slm_baseline.first_token.recorder.owner import find_owner
from ansible.module_utils.slm_baseline.first_token.recorder.start import Identity

NONE = "         0          0 4294967295\n"


def process(proc: Path, pid: int, ids: tuple[int, int], users: str = NONE) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    uid, gid = ids
    (folder / "status").write_text(f"Name:\tx\nUid:\t1\t{uid}\t2\t3\nGid:\t1\t{gid}\t2\t3\n")
    (folder / "uid_map").write_text(users)
    (folder / "gid_map").write_text(NONE)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(owner, "read_container", lambda pid: "c" if pid < 100 else "other")
    process(tmp_path, 100, (7, 7))
    (tmp_path / "self").mkdir()
    return tmp_path


def test_the_user_of_all_processes_is_the_containers(proc: Path) -> None:
    process(proc, 1, (1000, 1001))
    process(proc, 2, (1000, 1001))
    (proc / "3").mkdir()
    assert find_owner("c", str(proc)) == Identity(1000, 1001)


def test_where_nobody_can_say_it_is_told_in_words(proc: Path) -> None:
    assert "none of its processes" in str(find_owner("c", str(proc)))
    process(proc, 1, (0, 0))
    process(proc, 2, (1000, 1000))
    assert "several users (0:0, 1000:1000)" in str(find_owner("c", str(proc)))
    process(proc, 3, (100000, 100000), "0 100000 65536\n")
    assert "user namespace" in str(find_owner("c", str(proc)))
