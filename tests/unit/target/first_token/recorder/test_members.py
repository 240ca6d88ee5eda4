"""Who belongs to a target: a whole control group's path, and a process by its id and its start together."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import members
from ansible.module_utils.slm_baseline.first_token.recorder.members import (
    identity,
    in_control_group,
    in_tree,
    is_alive,
    is_below,
    own_identity,
    systemd_groups,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("group", "belongs"),
    [
        ("/system.slice/vllm.service", True),
        ("/system.slice/vllm.service/worker", True),
        ("/system.slice/vllm.service2", False),
        # systemd-run --user --unit=vllm.service gives any user such a group.
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vllm.service", False),
        ("/system.slice", False),
        ("/", False),
    ],
)
def test_a_unit_is_its_whole_control_group(group: str, belongs: bool) -> None:
    assert is_below("/system.slice/vllm.service", group) is belongs


def test_the_root_group_is_nobodys() -> None:
    assert not is_below("/", "/")
    assert not is_below("", "")


def test_groups_are_those_that_systemd_keeps() -> None:
    lines = ["12:pids:/vllm.service\n", "1:name=systemd:/a/b:c\n", "0::/d\n", "broken\n"]
    assert systemd_groups(lines) == ["/a/b:c", "/d"]


def as_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Path:
    """Every process is in the groups of that text."""
    file = tmp_path / "cgroup"
    file.write_text(text)

    def opened(path: str, *more: str, **named: str) -> object:
        return open(file if path.endswith("cgroup") else path, *more, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(members, "open", opened, raising=False)
    return file


def test_a_member_that_moves_stays_one_and_an_id_that_is_used_again_is_another(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = as_group(monkeypatch, tmp_path, "0::/system.slice/app.service\n")
    belongs = in_control_group("/system.slice/app.service")
    assert belongs(sleeper.pid) is True
    file.write_text("0::/elsewhere\n")
    assert belongs(sleeper.pid) is True
    # The same id, started at another time: somebody else's.
    real = members.identity
    monkeypatch.setattr(members, "identity", lambda pid: (1, 7) if pid == sleeper.pid else real(pid))
    assert belongs(sleeper.pid) is False
    monkeypatch.setattr(members, "identity", lambda pid: None)
    assert belongs(sleeper.pid) is None


def test_a_process_that_ends_while_it_is_asked_cannot_be_asked(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_group(monkeypatch, tmp_path, "0::/system.slice/app.service\n")
    answers = iter([(1, 5), (1, 6)])
    monkeypatch.setattr(members, "identity", lambda pid: next(answers))
    assert in_control_group("/system.slice/app.service")(sleeper.pid) is None


def test_what_descends_from_a_process_belongs_to_it_and_nothing_else(sleeper: subprocess.Popen[bytes]) -> None:
    belongs = in_tree(os.getpid())
    assert belongs(sleeper.pid) is True
    assert belongs(os.getpid()) is True
    assert belongs(os.getppid()) is False
    assert belongs(1) is False
    sleeper.kill()
    sleeper.wait()
    assert belongs(sleeper.pid) is None


def test_an_id_that_is_used_again_is_not_taken_for_the_former_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {10: (5, 1), 5: (1, 1), 20: (10, 2)}
    monkeypatch.setattr(members, "identity", table.get)
    belongs = in_tree(10)
    assert [belongs(20), belongs(5)] == [True, False]
    table[20] = (5, 3)
    assert belongs(20) is False


def test_a_process_lives_as_itself_alone(sleeper: subprocess.Popen[bytes]) -> None:
    found = identity(sleeper.pid)
    assert found is not None
    assert found[0] == os.getpid()
    assert is_alive(sleeper.pid, found[1])
    assert not is_alive(sleeper.pid, found[1] + 1)
    assert own_identity() == (os.getpid(), identity(os.getpid())[1])  # type: ignore[index]
    assert identity(-1) is None
    sleeper.kill()
    sleeper.wait()
    assert not is_alive(sleeper.pid, found[1])
