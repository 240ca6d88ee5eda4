"""What of the opened files gets into a plan."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import fanotify
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Opened, Seen, _Collector, in_unit
from ansible.module_utils.slm_baseline.first_token.recorder.record import plan_of, record
from ansible.module_utils.slm_baseline.first_token.setup import notes_of
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host


def seen(*paths: Path) -> Seen:
    return Seen({str(path): Opened(str(path), path.is_dir(), "") for path in paths})


def test_what_was_written_since_the_start_is_left_out(tmp_path: Path) -> None:
    library, log = tmp_path / "library.so", tmp_path / "log"
    for path in (library, log):
        path.write_bytes(b"x" * 5000)
    os.utime(library, ns=(1, 1))
    # Bytecode is written under another name first, which is gone when the plan is made.
    recording = plan_of(seen(library, log, tmp_path / "m.pyc.140", tmp_path), [], started_ns=2)
    assert [file.path for file in recording.plan.files] == [str(library)]
    assert recording.plan.folders == [str(tmp_path)]
    assert recording.written == 2


@pytest.fixture
def collector() -> _Collector:
    return _Collector(-1, lambda pid: True)


def note(collector: _Collector, path: Path) -> None:
    """An event of that file, by a process that is not this one."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        collector.note(descriptor, os.getppid())
    finally:
        os.close(descriptor)


def test_a_file_at_its_path_is_noted_once(collector: _Collector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    note(collector, tmp_path / "file")
    note(collector, tmp_path / "file")
    note(collector, tmp_path)
    assert [opened.is_folder for opened in collector.seen.opened.values()] == [False, True]
    assert collector.seen.elsewhere == 0


def test_a_file_that_the_host_has_not_at_that_path_is_counted_alone(collector: _Collector, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a unit's own")
    descriptor = os.open(path, os.O_RDONLY)
    path.unlink()
    # The path of a file that is gone ends in " (deleted)": as in a mount namespace, another one may be found there.
    (tmp_path / "file (deleted)").write_text("the host's")
    collector.note(descriptor, os.getppid())
    os.close(descriptor)
    assert collector.seen.opened == {}
    assert collector.seen.elsewhere == 1


def test_a_process_of_a_unit_is_known_after_its_end() -> None:
    group = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition("/")[2]
    belongs = in_unit(group)
    process = subprocess.Popen(["sleep", "60"])
    assert belongs(process.pid) is True
    process.kill()
    process.wait()
    assert belongs(process.pid) is True
    assert in_unit(group)(process.pid) is None


def test_the_program_of_a_process_that_has_ended_is_the_last_that_was_seen(
    collector: _Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early").write_text("x")
    (tmp_path / "late").write_text("x")
    note(collector, tmp_path / "early")
    monkeypatch.setattr(fanotify, "program_of", lambda pid: "")
    note(collector, tmp_path / "late")
    early, late = collector.seen.opened.values()
    assert early.program == late.program != ""


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
    started: list[bool] = []
    with pytest.raises(SettingError, match="CAP_SYS_ADMIN") as caught:
        record(Host(Path("/")), lambda pid: True, lambda: started.append(True))
    assert caught.value.found == found
    assert started == []


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
    recording = plan_of(seen(model), [], started_ns=2)
    assert recording.plan.files == []
    assert [note for note in notes_of(recording) if "nothing to replay" in note]
