"""What of the opened files gets into a plan."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.install import notes_of
from ansible.module_utils.slm_baseline.first_token.plan import PlanFile
from ansible.module_utils.slm_baseline.first_token.recorder import fanotify
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import (
    Collector,
    Opened,
    Seen,
    descriptors_of,
    watched_mounts,
)
from ansible.module_utils.slm_baseline.first_token.recorder.record import plan_file, plan_of, record, with_touched
from ansible.module_utils.slm_baseline.first_token.recorder.touched import Touched
from ansible.module_utils.slm_baseline.host import mincore
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mountinfo import parse_mountinfo

SOON = Deadline.after(600)
EVENT = struct.Struct("=IBBHQii")


def seen(*paths: Path) -> Seen:
    return Seen({str(path): Opened(str(path), path.is_dir()) for path in paths})


def test_what_was_written_since_the_start_is_left_out(tmp_path: Path) -> None:
    library, log = tmp_path / "library.so", tmp_path / "log"
    for path in (library, log):
        path.write_bytes(b"x" * 5000)
    os.utime(library, ns=(1, 1))
    # Bytecode is written under another name first, which is gone when the plan is made.
    recording = plan_of(seen(library, log, tmp_path / "m.pyc.140", tmp_path), [], started_ns=2, deadline=SOON)
    assert [file.path for file in recording.plan.files] == [str(library)]
    assert recording.plan.folders == [str(tmp_path)]
    assert recording.written == 2


@pytest.fixture
def collector() -> Collector:
    return Collector(-1, lambda pid: True)


def note(collector: Collector, path: Path) -> None:
    """An event of that file, by a process that is not this one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        collector.note(descriptor, os.getppid())
    finally:
        os.close(descriptor)


def test_a_file_at_its_path_is_noted_once(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    note(collector, tmp_path / "file")
    note(collector, tmp_path / "file")
    note(collector, tmp_path)
    assert [opened.is_folder for opened in collector.seen.opened.values()] == [False, True]
    assert collector.seen.elsewhere == 0


def test_a_file_that_is_deleted_by_then_is_nobodys(collector: Collector, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("temporary")
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()
    # The path of a file that is gone ends in " (deleted)", which may be another one's.
    (tmp_path / "file (deleted)").write_text("another")
    collector.note(descriptor, os.getppid())
    os.close(descriptor)
    assert collector.seen == Seen()


def test_a_file_that_gets_its_name_meanwhile_is_noted_by_that(tmp_path: Path) -> None:
    """A start that compiled 1,716 modules was said to have 1,064 files where only the unit sees them."""
    path = tmp_path / "module.pyc.140"
    path.write_text("bytecode")

    def belongs(pid: int) -> bool:
        path.rename(tmp_path / "module.pyc")
        return True

    collector = Collector(-1, belongs)
    note(collector, path)
    assert list(collector.seen.opened) == [str(tmp_path / "module.pyc")]
    assert collector.seen.elsewhere == 0


def test_a_file_that_the_host_has_not_at_that_path_is_placed_later(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("a unit's own")
    monkeypatch.setattr(collector, "_is_at", lambda path, found: False)
    note(collector, path)
    (opened,) = collector.seen.opened.values()
    assert opened.place is not None
    assert opened.place.path == str(path)


class NoFanotify:
    """A C library of a kernel that refuses, or of a system that has none."""

    @staticmethod
    def fanotify_init(flags: int, event_flags: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1


@pytest.mark.parametrize(
    ("libc", "found"), [(NoFanotify(), "Operation not permitted"), (object(), "this C library has no fanotify")]
)
def test_without_fanotify_nothing_is_started_and_one_error_says_why(
    libc: object, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanotify, "_libc", lambda: libc)
    done: list[str] = []
    with pytest.raises(SettingError, match="CAP_SYS_ADMIN") as caught:
        record(Host(), lambda pid: True, lambda: done.append("stopped"), lambda look: done.append("started"), SOON)
    assert caught.value.found == found
    assert "nothing was stopped" in caught.value.next_step
    assert done == []


def test_a_start_that_leaves_nothing_in_the_page_cache_is_recorded_as_nothing_to_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"x" * 5000)
    os.utime(model, ns=(1, 1))
    # As after a loader that reads with O_DIRECT.
    monkeypatch.setattr(
        "ansible.module_utils.slm_baseline.first_token.recorder.record.resident_ranges", lambda *asked: []
    )
    recording = plan_of(seen(model), [], started_ns=2, deadline=SOON)
    assert recording.plan.files == []
    assert [note for note in notes_of(recording) if "nothing to replay" in note]


class Marks:
    """A C library whose kernel refuses the marks of some paths with an error."""

    def __init__(self, **refused: int) -> None:
        self.refused = {f"/{name}": number for name, number in refused.items()}
        self.marked: list[str] = []

    def fanotify_mark(self, descriptor: int, flags: int, mask: int, at: int, path: bytes) -> int:
        self.marked.append(os.fsdecode(path))
        ctypes.set_errno(self.refused.get(os.fsdecode(path), 0))
        return -1 if os.fsdecode(path) in self.refused else 0


MOUNTS = parse_mountinfo(
    "20 1 8:1 / / rw - ext4 /dev/vda rw\n"
    "21 20 0:40 / /gone rw - nfs4 server:/ rw\n"
    "22 20 0:41 / /home/u/x rw - fuse.sshfs u rw,user_id=1000,group_id=1000\n"
    "23 20 0:42 / /s3 rw - fuse.s3fs s3fs rw,user_id=0,group_id=0\n"
    "24 20 0:43 / /proc rw - proc proc rw\n"
    "25 20 8:1 / /again rw - ext4 /dev/vda rw\n"
)


def test_a_mount_that_cannot_be_watched_is_a_note_and_another_users_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One user's FUSE mount made every recording fail, after the unit was stopped."""
    libc = Marks(gone=errno.ENOENT)
    monkeypatch.setattr(fanotify, "_libc", lambda: libc)
    unwatched = fanotify._mark_all(3, watched_mounts(MOUNTS))
    assert libc.marked == ["/", "/gone", "/s3"]
    assert unwatched == [
        "/gone (nfs4): No such file or directory",
        "/home/u/x (fuse.sshfs): another user's program answers for it",
    ]
    notes = notes_of(plan_of(Seen(unwatched=unwatched), [], 1, SOON))
    assert [note for note in notes if note.startswith("plan: not watched: /gone (nfs4)")]


def test_a_kernel_that_lets_nothing_be_watched_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanotify, "_libc", lambda: Marks(gone=errno.EINVAL))
    with pytest.raises(SettingError, match="/gone"):
        fanotify._mark_all(3, [mount for mount in MOUNTS if mount.path == "/gone"])
    assert fanotify._mark_all(3, []) == []


def events(*pairs: tuple[int, int], mask: int = 0x20) -> bytes:
    return b"".join(EVENT.pack(EVENT.size, 3, 0, EVENT.size, mask, file, pid) for file, pid in pairs)


def test_events_are_taken_and_their_descriptors_closed(collector: Collector, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text("x")
    files = [os.open(path, os.O_RDONLY) for path in paths]
    data = events(*((file, os.getppid()) for file in files))
    assert descriptors_of(data) == files
    collector.take(data + events((-1, 0), mask=0x4000))
    assert list(collector.seen.opened) == list(map(str, paths))
    assert collector.seen.overflowed
    for file in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)


def test_who_is_nobodys_is_counted_and_strangers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    descriptor = os.open(path, os.O_RDONLY)
    for answer, unattributed in ((None, 1), (False, 0)):
        collector = Collector(-1, lambda pid, answer=answer: answer)  # type: ignore[misc]
        collector.note(descriptor, os.getppid())
        assert (collector.seen.opened, collector.seen.unattributed) == ({}, unattributed)
    # Our own, and one of another process namespace, which has no id here.
    everybody = Collector(-1, lambda pid: True)
    everybody.note(descriptor, os.getpid())
    everybody.note(descriptor, 0)
    os.close(descriptor)
    assert everybody.seen == Seen()


class Busy:
    """A queue of events that never ends, as a process that opens files in a loop makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.write(self.writing, events(*((-1, 1) for _ in range(10))))
        real = os.read
        monkeypatch.setattr(os, "read", lambda file, count: self.read(real, file, count))

    def read(self, real: object, file: int, count: int) -> bytes:
        return events((-1, 1)) if file == self.reading else real(file, count)  # type: ignore[operator]


def test_a_queue_that_never_ends_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Busy(monkeypatch)
    collector = Collector(busy.reading, lambda pid: True)
    collector.start()
    monkeypatch.setattr(fanotify, "_BEGIN_S", 0.05)
    collector.begin()
    assert collector.stop(0.2).overflowed
    collector.join(30)
    assert not collector.is_alive()


def test_what_was_opened_before_the_beginning_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("x")
    (tmp_path / "after").write_text("x")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    collector = Collector(reading, lambda pid: True)

    def queue(name: str) -> None:
        os.write(writing, events((os.open(tmp_path / name, os.O_RDONLY), os.getppid())))

    queue("before")
    collector.begin()
    queue("after")
    collector.start()
    seen = collector.stop(30)
    assert list(seen.opened) == [str(tmp_path / "after")]
    assert not seen.overflowed
    os.close(reading)
    os.close(writing)


def test_a_sparse_file_is_no_weights_and_holds_nobody_up(tmp_path: Path) -> None:
    """1 TiB of hole took 14 s, and counted as weights."""
    sparse, weights = tmp_path / "sparse", tmp_path / "weights"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
        file.write(b"x" * 5000)
    weights.write_bytes(b"w" * (33 << 20))
    for path in (sparse, weights):
        os.utime(path, ns=(1, 1))
    windows: list[int] = []
    real = mincore._window

    def window(descriptor: int, offset: int, length: int) -> bytes:
        windows.append(offset)
        return real(descriptor, offset, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mincore, "_window", window)
        recording = plan_of(seen(sparse, weights), [], 2, SOON)
    assert [(file.path, file.is_weights) for file in recording.plan.files] == [
        (str(sparse), False),
        (str(weights), True),
    ]
    assert windows == [0, 0]


def test_what_there_is_no_time_for_is_counted_and_a_pipe_is_nothing(tmp_path: Path) -> None:
    library, pipe = tmp_path / "library", tmp_path / "pipe"
    library.write_bytes(b"x" * 5000)
    os.mkfifo(pipe)
    os.utime(library, ns=(1, 1))
    late = plan_of(seen(library), [], 2, Deadline.after(0))
    assert (late.plan.files, late.unasked) == ([], 1)
    assert [note for note in notes_of(late) if note.startswith("plan: 1 files did not answer")]
    recording = plan_of(seen(pipe), [], 2, SOON)
    assert (recording.plan.files, recording.written, recording.unasked) == ([], 0, 0)


def test_a_program_is_no_weights_however_large(tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"\x7fELF" + b"x" * (32 << 20))
    os.utime(library, ns=(1, 1))
    (file,) = plan_of(seen(library), [], 2, SOON).plan.files
    assert not file.is_weights
    assert file.ranges is None


PAGE = mmap.PAGESIZE
GAP = (64 << 10) // PAGE


def pages(*runs: tuple[int, int]) -> bytes:
    """One byte a page up to the last run: (first, count) of those that are in memory."""
    found = bytearray(max(first + count for first, count in runs))
    for first, count in runs:
        found[first : first + count] = b"\1" * count
    return bytes(found)


@pytest.mark.parametrize(
    ("resident", "ranges"),
    [
        # 64 KiB between two ranges are read, too, and a page more is not.
        ([(0, 1), (1 + GAP, 1), (3 + 2 * GAP, 2)], ((0, 2 + GAP), (3 + 2 * GAP, 2))),
        # All but the first page is no whole file, and neither is all but the last.
        ([(1, 99)], ((1, 99),)),
        ([(0, 99)], ((0, 99),)),
        ([(0, 100)], None),
        ([(GAP, 100 - GAP)], ((GAP, 100 - GAP),)),
    ],
)
def test_what_is_in_memory_is_read_in_few_requests(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resident: list[tuple[int, int]],
    ranges: tuple[tuple[int, int], ...] | None,
) -> None:
    (tmp_path / "file").write_bytes(b"x" * (100 * PAGE - 7))
    monkeypatch.setattr(mincore, "_window", lambda *asked: pages(*resident))
    file = plan_file(str(tmp_path / "file"), SOON)
    assert file
    assert file.ranges == ranges
    found = (tmp_path / "file").stat()
    assert (file.inode, file.size_bytes, file.mtime_ns, file.device) == (
        *(found.st_ino, found.st_size, found.st_mtime_ns, found.st_dev),
    )


@pytest.mark.parametrize(
    ("touched", "ranges"),
    [
        ([(50, 2)], ((0, 1), (50, 2))),
        ([(1 + GAP, 1), (3 + 2 * GAP, 1)], ((0, 2 + GAP), (3 + 2 * GAP, 1))),
        ([(0, 200)], None),
        ([(1, 98)], ((0, 99),)),
    ],
)
def test_of_a_library_the_touched_pages_and_its_first_are_read_in_few_requests(
    touched: list[tuple[int, int]], ranges: tuple[tuple[int, int], ...] | None
) -> None:
    seen = Touched({(0, 0, 7): touched})
    library = PlanFile("/lib.so", False, 7, 100 * PAGE, 1, ((0, 3),))
    assert with_touched(library, seen).ranges == ranges
    # What nobody has mapped, and weights, stay as they were in memory.
    for other in (replace(library, inode=8), replace(library, is_weights=True)):
        assert with_touched(other, seen) == other


@pytest.mark.parametrize(("size", "is_weights"), [((32 << 20) - PAGE, False), (32 << 20, True)])
def test_a_file_of_32_mib_and_more_is_weights(tmp_path: Path, size: int, is_weights: bool) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    found = plan_file(str(tmp_path / "file"), SOON)
    assert found
    assert found.is_weights is is_weights


def test_an_empty_file_and_one_of_which_nothing_was_read_are_in_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "unread").write_bytes(b"x")
    monkeypatch.setattr(mincore, "_window", lambda *asked: b"\0")
    assert plan_file(str(tmp_path / "empty"), SOON) is None
    assert plan_file(str(tmp_path / "unread"), SOON) is None
