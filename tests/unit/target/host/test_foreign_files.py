"""Root opens a file of another user's: looked at first, never for longer than its time, and never a user's mount."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host import foreign_files
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.foreign_files import open_foreign
from ansible.module_utils.slm_baseline.host.mountinfo import MountEntry, is_of_a_user


def test_a_plain_file_is_read_through_links_or_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        descriptor = open_foreign(tmp_path / name)
        assert os.read(descriptor, 10) == b"text"
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    with pytest.raises(OSError, match="No plain file"):
        open_foreign(tmp_path / "link", os.O_NOFOLLOW)


@pytest.mark.parametrize("what", ["fifo", "folder", "device"])
def test_what_is_no_plain_file_is_not_opened(tmp_path: Path, what: str) -> None:
    """A model's link to a device was opened: some devices act when they are."""
    path = tmp_path / what
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = os.open

        def note(name: str, flags: int, *more: int) -> int:
            if not flags & os.O_PATH and str(name).startswith("/proc/self/fd/"):
                opened.append(str(name))
            return real(name, flags, *more)

        patch.setattr(os, "open", note)
        with pytest.raises(OSError, match="No plain file") as refused:
            open_foreign(path)
    assert refused.value.errno == errno.EINVAL
    assert refused.value.filename == str(path)
    assert opened == []


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_foreign(tmp_path / "gone")


def test_a_file_system_that_does_not_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("text")
    held = threading.Event()
    real, answers = foreign_files._open, []

    def hang(path: str, flags: int) -> int:
        held.wait(60)
        answers.append(real(path, flags))
        return answers[-1]

    monkeypatch.setattr(foreign_files, "_open", hang)
    with pytest.raises(OSError, match="does not answer") as late:
        open_foreign(tmp_path / "file", patience_s=0.05)
    assert late.value.errno == errno.ETIMEDOUT
    monkeypatch.setattr(foreign_files, "_open", real)
    # The next one is not behind it, and what it opens in the end is closed.
    os.close(open_foreign(tmp_path / "file"))
    held.set()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.fstat(answers[0])
        except IndexError:
            time.sleep(0.01)
        except OSError:
            break
        else:
            time.sleep(0.01)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(answers[0])


def test_a_forked_process_has_a_thread_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    os.close(open_foreign(tmp_path / "file"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if os.read(open_foreign(tmp_path / "file"), 4) == b"text" else 1
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("fstype", "options", "foreign"),
    [
        ("fuse.sshfs", "rw,user_id=1000,group_id=1000", True),
        ("fuse", "rw,user_id=1000", True),
        ("fuseblk", "rw,user_id=0,group_id=0,allow_other", False),
        ("fuse.s3fs", "rw", False),
        ("ext4", "rw,user_id=1000", False),
    ],
)
def test_a_mount_is_a_users_where_his_program_answers_for_it(fstype: str, options: str, foreign: bool) -> None:
    assert is_of_a_user(MountEntry(1, "/x", fstype, "s", "rw", options)) is foreign


def test_a_file_on_a_users_mount_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("text")
    monkeypatch.setattr(os, "major", lambda device: 0)
    os.close(open_foreign(tmp_path / "file"))
    with (tmp_path / "file").open() as file:
        text = Path(f"/proc/self/fdinfo/{file.fileno()}").read_text()
    number = int(text.partition("mnt_id:")[2].split()[0])
    mount = MountEntry(number, "/x", "fuse.sshfs", "s", "rw", "user_id=1000")
    monkeypatch.setattr(foreign_files, "read_mountinfo", lambda host: [mount])
    with pytest.raises(PermissionError, match="another user's program"):
        open_foreign(tmp_path / "file")


def test_a_deadline_leaves_what_is_left_and_never_less_than_nothing() -> None:
    soon = Deadline.after(100)
    assert 90 < soon.left_s() <= 100
    assert soon.left_s(5) == 5
    assert not soon.is_over
    over = Deadline.after(-1)
    assert over.is_over
    assert over.left_s() == over.left_s(5) == 0
