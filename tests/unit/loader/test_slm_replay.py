"""The replayer as a process of its own: what it reads, what it leaves alone, what it refuses."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, changed_files, to_text
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mincore import resident_ranges

from files import slm_replay
from tests.conftest import REPOSITORY

FACTS = {"page_bytes": str(os.sysconf("SC_PAGESIZE"))}
REPLAY = ["/usr/bin/python3", "-IS", str(REPOSITORY / "files" / "slm_replay.py")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REPLAY, *arguments], capture_output=True, text=True, check=False, timeout=60)


def planned(path: Path, is_weights: bool = False, ranges: tuple[tuple[int, int], ...] | None = None) -> PlanFile:
    found = os.lstat(path)
    return PlanFile(str(path), is_weights, found.st_ino, found.st_size, found.st_mtime_ns, ranges)


def stored(folder: Path, files: Sequence[PlanFile], folders: Sequence[str] = (), page: int | None = None) -> str:
    path = folder / "plan"
    page_bytes = str(page or os.sysconf("SC_PAGESIZE"))
    path.write_bytes(to_text(Plan({"page_bytes": page_bytes}, folders, files)).encode("utf-8", "surrogateescape"))
    path.chmod(0o644)
    return str(path)


def told(answer: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert answer.returncode == 0, answer.stderr
    return dict(word.split("=", 1) for word in answer.stdout.split())


def test_it_reads_the_ranges_of_small_and_large_files_and_names_with_odd_bytes(tmp_path: Path) -> None:
    small = tmp_path / "a\tb\n%\udcff.py"
    large, weights = tmp_path / "lib.so", tmp_path / "model.safetensors"
    small.write_bytes(b"x" * 5000)
    large.write_bytes(bytes(9 << 20))
    weights.write_bytes(bytes(6 << 20))
    for path in (large, weights):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    plan = stored(
        tmp_path, [planned(small), planned(large, ranges=((0, 1024),)), planned(weights, True)], [str(tmp_path)]
    )
    said = told(run(plan))
    assert (said["files"], said["stale"], said["unread"]) == ("3", "0", "0")
    assert int(said["bytes"]) == 5000 + 1024 * os.sysconf("SC_PAGESIZE") + (6 << 20)
    assert int(said["weights_bytes"]) == 6 << 20
    # What it read of imports is not among it; a file system in memory reads nothing.
    assert int(said["weights_read_bytes"]) <= 7 << 20
    assert float(said["ended_s"]) >= float(said["imports_s"]) >= float(said["first_request_s"]) > 0


def test_it_reads_what_the_start_reads_and_nothing_behind_it(tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    size = 40 << 20
    library.write_bytes(bytes(size))
    descriptor = os.open(library, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if resident_ranges(descriptor, size):
            pytest.skip("this file system keeps its files in memory")
        pages = size // os.sysconf("SC_PAGESIZE")
        ranges = ((0, 1500), (pages // 2, 70), (pages - 200, 200))
        told(run(stored(tmp_path, [planned(library, ranges=ranges)])))
        assert tuple(resident_ranges(descriptor, size)) == ranges
    finally:
        os.close(descriptor)


def test_a_file_that_is_another_by_now_is_left_alone(tmp_path: Path) -> None:
    names = ("grown", "gone", "link", "fifo", "another_hosts")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    files = [planned(tmp_path / name) for name in names]
    (tmp_path / "grown").write_bytes(b"xx")
    (tmp_path / "gone").unlink()
    (tmp_path / "link").rename(tmp_path / "behind")
    (tmp_path / "link").symlink_to(tmp_path / "behind")
    (tmp_path / "fifo").unlink()
    os.mkfifo(tmp_path / "fifo")
    # As on the host next to it: the same name, size and time, and another inode.
    shutil.copy2(tmp_path / "another_hosts", tmp_path / "copy")
    os.replace(tmp_path / "copy", tmp_path / "another_hosts")
    plan = stored(tmp_path, files)
    said = told(run(plan))
    assert (said["stale"], said["unread"]) == ("4", "1")
    assert said["read_bytes"] == "0"
    assert f"stale {tmp_path / 'grown'}" in run("--check", plan).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a device")
def test_a_device_in_the_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    said = told(run(stored(tmp_path, [planned(path, is_weights=True)])))
    assert (said["stale"], said["unread"], said["read_bytes"]) == ("1", "0", "0")


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o602])
def test_a_plan_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    plan = stored(tmp_path, [])
    os.chmod(plan, mode)
    answer = run(plan)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "others than root may write it" in answer.stderr


def test_a_plan_behind_a_link_of_another_page_size_or_damaged_is_refused(tmp_path: Path) -> None:
    plan = stored(tmp_path, [], page=16384)
    (tmp_path / "link").symlink_to(plan)
    (tmp_path / "damaged").write_text("slm-baseline first-token plan 1\nI\tx\nend\n")
    (tmp_path / "damaged").chmod(0o644)
    for path, word in ((plan, "pages of 16384"), (str(tmp_path / "link"), ""), (str(tmp_path / "damaged"), "damaged")):
        answer = run(path)
        assert answer.returncode == 2
        assert word in answer.stderr
        assert "Traceback" not in answer.stderr
    assert run().returncode == 2


@pytest.mark.parametrize("medium_folios", [False, True])
def test_folders_then_imports_are_in_memory_before_the_first_weights_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medium_folios: bool
) -> None:
    sizes = {f"small{number}": 100 for number in range(50)} | {"lib.so": 9 << 20, "model": 6 << 20}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    files = [planned(tmp_path / name, name == "model") for name in sizes]
    replay = slm_replay.Replay(slm_replay.Plan(to_text(Plan(FACTS, [str(tmp_path)], files))))
    replay.medium_folios = medium_folios
    done: list[tuple[str, str]] = []

    def traced(what: str, call: Callable[..., object], which: int) -> Callable[..., object]:
        def traced_call(*arguments: object, **named: object) -> object:
            subject = arguments[which]
            result = call(*arguments, **named)
            # A read is over when it returns; a request is only on its way.
            done.append((what, os.readlink(f"/proc/self/fd/{subject}") if isinstance(subject, int) else str(subject)))
            return result

        return traced_call

    for what, which in (("scandir", 0), ("posix_fadvise", 0), ("sendfile", 1)):
        monkeypatch.setattr(os, what, traced(what, getattr(os, what), which))
    said = replay.run()
    first_weights = next(index for index, (_, path) in enumerate(done) if path.endswith("/model"))
    read_before = {path for what, path in done[:first_weights] if what == "sendfile"}
    assert read_before == {str(tmp_path / name) for name in sizes if name != "model"}
    # The inodes of small files come with their folder; a large file does not wait for it.
    assert done.index(("scandir", str(tmp_path))) < next(n for n, (_, path) in enumerate(done) if "/small" in path)
    assert [what for what, _ in done].count("scandir") == 1
    assert "stale=0 unread=0" in said


def test_a_disk_that_has_to_seek_is_read_in_the_order_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.{'so' if number % 3 == 0 else 'py'}" for number in range(30)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(2 * slm_replay.SMALL_BYTES if name.endswith("so") else 100))
    files = [planned(tmp_path / name) for name in names]
    replay = slm_replay.Replay(slm_replay.Plan(to_text(Plan({**FACTS, "spinning": "1"}, [str(tmp_path)], files))))
    opened: list[str] = []
    readers: set[int] = set()
    really = os.open

    def traced_open(path: str, flags: int) -> int:
        opened.append(path)
        readers.add(threading.get_ident())
        return really(path, flags)

    monkeypatch.setattr(os, "open", traced_open)
    replay.medium_folios = False
    replay.read_imports(replay.plan.imports)
    assert [path for path in opened if path.startswith(str(tmp_path))] == [str(tmp_path / name) for name in names]
    assert len(readers) == 1


def test_each_inode_block_is_looked_at_once(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).write_bytes(b"")
    replay = slm_replay.Replay(slm_replay.Plan(to_text(Plan(FACTS, [str(tmp_path)], []))))
    replay.folders(iter([str(tmp_path)]))
    blocks = {(entry.inode() - 1) // slm_replay.INODES_A_BLOCK for entry in os.scandir(tmp_path)}
    assert replay.inode_blocks == {os.stat(tmp_path).st_dev: blocks}


def test_check_mode_and_the_audit_judge_files_alike(tmp_path: Path) -> None:
    names = ("same", "grown", "gone", "link", "fifo", "folder", "touched", "replaced")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    files = [planned(tmp_path / name) for name in names]
    (tmp_path / "grown").write_bytes(b"xx")
    for name in ("gone", "fifo", "folder"):
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").rename(tmp_path / "behind")
    (tmp_path / "link").symlink_to(tmp_path / "behind")
    os.utime(tmp_path / "touched", ns=(1, 1))
    (tmp_path / "new").write_bytes(b"x")
    (tmp_path / "new").rename(tmp_path / "replaced")
    lines = run("--check", stored(tmp_path, files)).stdout.splitlines()[:-1]
    audited = changed_files(Host(Path("/")), files)
    # The replayer cannot tell of a link what it leads to, only that it does not follow it.
    assert {line.split(" ", 1)[1] for line in lines} == set(audited)
    assert len(audited) == len(names) - 1


@pytest.mark.parametrize(
    ("spare", "said", "read"), [(1 << 30, "", 6), (3 << 20, "imports only", 2), (1, "too little", 0)]
)
def test_with_too_little_memory_it_reads_the_imports_only_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int, said: str, read: int
) -> None:
    for name, mib in (("lib.so", 2), ("model", 4)):
        (tmp_path / name).write_bytes(bytes(mib << 20))
    files = [planned(tmp_path / name, name == "model") for name in ("lib.so", "model")]
    monkeypatch.setattr(slm_replay, "available_bytes", lambda: spare)
    words = slm_replay.Replay(slm_replay.Plan(to_text(Plan(FACTS, [], files)))).run()
    assert f"read_bytes={read << 20} " in words
    assert words.partition("memory=")[2] == said
