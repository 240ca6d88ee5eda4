"""One run at a time on a host: who is refused, who takes over, and that damage frees the host."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host import lease
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.lease import held, release
from ansible.module_utils.slm_baseline.host.paths import LEASE, LOCK, TAKEN_OVER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fakes import put


def run(name: str, pid: int = 1, controller: str = "c1", alive: list[list[float]] | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "controller": {"name": f"host-{controller}", "id": controller, "pid": pid, "started": 5.0},
        "alive": [[pid, 5.0]] if alive is None else alive,
    }


FIRST = run("first", pid=11)
OTHER = run("second", controller="c2", alive=[])


@pytest.fixture(autouse=True)
def short_of_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is listened for is there before the listening begins, or never comes."""
    monkeypatch.setattr(lease, "LISTEN_S", 0.3)
    monkeypatch.setattr(lease, "_POLL_S", 0.01)


def process(host: Host, pid: int, name: str, parent: int, started: int) -> None:
    fields = ["S", str(parent), *["0"] * 17, str(started), *["0"] * 20]
    put(host.root, f"/proc/{pid}/stat", f"{pid} ({name}) {' '.join(fields)}\n")


@pytest.fixture
def over_ssh(fake_host: Host) -> Host:
    """A host to which this process has come by ssh: sshd, its session, a shell, sudo and we."""
    for pid, name, parent, started in (
        (500, "sshd", 1, 100),
        (600, "sshd", 500, 200),
        (601, "sshd", 600, 201),
        (602, "sh", 601, 202),
        (603, "sudo", 602, 203),
        (os.getpid(), "a (name) of 7 words", 603, 204),
    ):
        process(fake_host, pid, name, parent, started)
    enter(fake_host, FIRST)
    return fake_host


def enter(host: Host, who: dict[str, Any]) -> None:
    with held(host, who):
        pass


@pytest.fixture
def leased(fake_host: Host) -> Host:
    """A host that the first run has worked on and will come back to."""
    enter(fake_host, FIRST)
    return fake_host


def test_a_run_comes_back_to_its_own_host(leased: Host) -> None:
    enter(leased, FIRST)
    assert json.loads(leased.read(LEASE))["run_id"] == "first"


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr("time.clock_gettime", lambda which: now + seconds)


def test_a_living_run_of_the_same_controller_holds_its_host_however_long_it_is_silent(
    leased: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_time(monkeypatch, 10 * lease.TASK_LEASE_S)
    with pytest.raises(SettingError) as caught:
        enter(leased, run("second", pid=12, alive=[[11, 5.0], [12, 5.0]]))
    assert caught.value.found == "run first, started from host-c1 (pid 11)"
    assert "it is still running" in caught.value.why
    assert json.loads(leased.read(LEASE))["run_id"] == "first"


def test_a_run_of_the_same_controller_that_died_is_no_obstacle(leased: Host) -> None:
    enter(leased, run("second", pid=12, alive=[[12, 5.0]]))
    assert json.loads(leased.read(LEASE))["run_id"] == "second"


def test_a_pid_that_another_run_has_by_now_is_not_the_run_that_died(leased: Host) -> None:
    enter(leased, run("second", pid=11, alive=[[11, 99.0]]))


def test_a_session_is_the_nearest_server_above_a_task(over_ssh: Host) -> None:
    assert lease.session(over_ssh) == [601, 201]
    assert lease.session(over_ssh, 500) == [500, 100]
    assert lease.session(over_ssh, 1) is None
    process(over_ssh, 1, "systemd", 0, 1)
    process(over_ssh, 700, "sshd-session", 1, 9)
    process(over_ssh, 701, "python3", 700, 10)
    assert lease.session(over_ssh, 701) == [700, 9]
    process(over_ssh, 702, "cron", 1, 9)
    assert lease.session(over_ssh, 702) is None


@pytest.mark.parametrize("text", ["", "1", "1 (x", "1 (x) S", "1 (x) S one " + "0 " * 40, "1 x S 1" + " 0" * 40])
def test_a_process_that_cannot_be_read_is_no_session(over_ssh: Host, text: str) -> None:
    put(over_ssh.root, "/proc/603/stat", text)
    assert lease.session(over_ssh) is None


def test_an_open_connection_holds_the_host_for_another_controllers_run(over_ssh: Host) -> None:
    with pytest.raises(SettingError, match=r"run first, started from host-c1 .* its connection to this host is open"):
        enter(over_ssh, OTHER)
    assert json.loads(over_ssh.read(LEASE))["run_id"] == "first"


def test_an_open_connection_alone_holds_no_longer_than_the_longest_task(
    over_ssh: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_time(monkeypatch, lease.TASK_LEASE_S + 60)
    enter(over_ssh, OTHER)


@pytest.mark.parametrize("now", [None, 999], ids=["gone", "another process"])
def test_a_run_whose_connection_is_gone_is_no_obstacle(over_ssh: Host, now: int | None) -> None:
    """As when its container was killed: nothing was released."""
    over_ssh.path("/proc/601/stat").unlink()
    if now:
        process(over_ssh, 601, "sshd", 600, now)
    enter(over_ssh, OTHER)
    assert json.loads(over_ssh.read(LEASE))["run_id"] == "second"


def test_a_run_that_lives_all_the_same_is_told_who_took_its_host_over(leased: Host) -> None:
    enter(leased, OTHER)
    # Also once the other run has gone: what it did is done.
    release(leased, "second")
    with pytest.raises(SettingError, match="run second, started from host-c2, which took this host over"):
        enter(leased, FIRST)
    enter(leased, run("third"))


def test_a_run_that_was_seen_to_be_dead_took_part_in_no_takeover(leased: Host) -> None:
    enter(leased, run("second", pid=12, alive=[[12, 5.0]]))
    assert not leased.exists(TAKEN_OVER)


def test_as_many_takeovers_are_remembered_as_can_matter(fake_host: Host) -> None:
    for number in range(lease._REMEMBERED + 2):
        lease._note_taken_over(fake_host, f"run-{number}", OTHER) if number else enter(fake_host, FIRST)
    assert next(iter(lease._outrun(fake_host))) == "run-2"


def meanwhile(host: Host, text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run's task comes while the newcomer listens, however long: it writes its lease, or removes it."""
    path = host.path(LEASE)

    def come(seconds: float) -> None:
        path.unlink(missing_ok=True) if text is None else path.write_text(text)

    monkeypatch.setattr(lease, "LISTEN_S", 600.0)
    monkeypatch.setattr(time, "sleep", come)


def test_a_run_that_is_heard_keeps_its_host(leased: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(leased, json.dumps({**json.loads(leased.read(LEASE)), "expires": 10**9}), monkeypatch)
    with pytest.raises(SettingError, match="it went on working on this host"):
        enter(leased, OTHER)
    assert not leased.exists(TAKEN_OVER)


def test_a_run_that_releases_while_it_is_listened_for_is_no_loser(
    leased: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(leased, None, monkeypatch)
    enter(leased, OTHER)
    assert not leased.exists(TAKEN_OVER)


@pytest.mark.parametrize("text", ["", "[]", "null", "7", "{", "[" * 10_000, '{"first": null}'])
def test_a_damaged_note_of_takeovers_stops_nobody(fake_host: Host, text: str) -> None:
    enter(fake_host, run("other"))
    put(fake_host.root, TAKEN_OVER, text)
    enter(fake_host, run("other"))


@pytest.mark.parametrize(
    ("theirs", "ours"), [(None, None), ({}, {}), ({"id": ""}, {"id": ""}), ({"id": "c1"}, None), (None, {"id": "c1"})]
)
def test_a_controller_that_cannot_be_told_apart_is_another_one(
    fake_host: Host, theirs: dict[str, str] | None, ours: dict[str, str] | None
) -> None:
    enter(fake_host, {"id": "first", "controller": theirs, "alive": []})
    enter(fake_host, {"id": "second", "controller": ours, "alive": []})
    # Taken over, and not free at once as after a run that is known to be dead.
    assert "first" in json.loads(fake_host.read(TAKEN_OVER))


def test_a_lease_taken_while_this_run_came_to_the_lock_counts(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(fake_host, FIRST)
    text = fake_host.read(LEASE)
    release(fake_host, "first")
    flock = fcntl.flock

    def overtaken(descriptor: int, operation: int) -> None:
        put(fake_host.root, LEASE, text)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with pytest.raises(SettingError, match="run first"):
        enter(fake_host, run("second", pid=12, alive=[[11, 5.0], [12, 5.0]]))


def test_a_lease_never_outlives_a_boot(leased: Host) -> None:
    put(leased.root, "/proc/sys/kernel/random/boot_id", "another\n")
    enter(leased, run("second", controller="c2", alive=[]))


def test_a_run_given_back_lets_the_next_one_in(leased: Host) -> None:
    assert not release(leased, "second")
    assert release(leased, "first")
    assert not release(leased, "first")
    enter(leased, run("second", controller="c2"))


def test_a_task_at_work_refuses_even_a_run_whose_lease_has_ended(leased: Host) -> None:
    descriptor = os.open(leased.path(LOCK), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(SettingError, match="at this moment"):
            enter(leased, run("second", pid=12, alive=[]))
    finally:
        os.close(descriptor)
    enter(leased, FIRST)


def test_one_machine_under_two_names_is_one_run_that_takes_turns(fake_host: Host) -> None:
    turns = []

    def second() -> None:
        with held(fake_host, FIRST):
            turns.append("second")

    other = threading.Thread(target=second)
    with held(fake_host, FIRST):
        other.start()
        # Longer than another run is waited for.
        other.join(3 * lease.LISTEN_S)
        assert other.is_alive()
        turns.append("first")
    other.join()
    assert turns == ["first", "second"]


def test_a_task_of_the_same_run_that_never_ends_is_given_up(leased: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TASK_LEASE_S", 0.0)
    with held(leased, FIRST), pytest.raises(SettingError, match="at this moment"):
        enter(leased, FIRST)


def fail(host: Host, failure: type[BaseException]) -> None:
    with held(host, FIRST):
        assert host.exists(LEASE)
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_failed_task_gives_the_host_back(fake_host: Host, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        fail(fake_host, failure)
    assert not fake_host.exists(LEASE)
    enter(fake_host, run("second", controller="c2"))


def test_what_a_task_failed_of_is_told_also_where_the_lease_cannot_be_removed(
    fake_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def stuck(path: Path, missing_ok: bool = False) -> None:
        if path == fake_host.path(LEASE):
            raise OSError(errno.EIO, "Input/output error", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stuck)
    with pytest.raises(RuntimeError):
        fail(fake_host, RuntimeError)
    assert fake_host.exists(LEASE)


def test_a_refused_task_leaves_the_others_lease(leased: Host) -> None:
    with pytest.raises(SettingError):
        enter(leased, run("second", pid=12, alive=[[11, 5.0], [12, 5.0]]))
    assert json.loads(leased.read(LEASE))["run_id"] == "first"


def test_a_killed_task_keeps_the_lease_and_frees_the_lock(fake_host: Host) -> None:
    child = os.fork()
    if child == 0:
        with held(fake_host, FIRST):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert json.loads(fake_host.read(LEASE))["run_id"] == "first"
    enter(fake_host, FIRST)


DAMAGE = [
    "",
    "{",
    "[]",
    "7",
    "null",
    "{}",
    '{"run_id": "x", "controller": [], "boot_id": "b", "expires": 1}',
    '{"run_id": "x", "controller": {}, "boot_id": "b", "expires": NaN}',
    '{"run_id": "x", "controller": {}, "boot_id": "b", "expires": Infinity}',
    '{"run_id": "x", "controller": {}, "boot_id": "b", "expires": "soon"}',
    f'{{"run_id": "x", "controller": {{}}, "boot_id": "b", "expires": 1{"0" * 400}}}',
    "[" * 10_000,
]


@pytest.mark.parametrize("text", DAMAGE)
def test_damage_frees_the_host(leased: Host, text: str) -> None:
    put(leased.root, LEASE, text.replace('"b"', f'"{lease.boot_id(leased)}"'))
    enter(leased, run("second", controller="c2"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.dictionaries(
            st.sampled_from(["run_id", "controller", "boot_id", "expires", "session"]), inner
        ),
        max_leaves=6,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_lease_lets_in_or_refuses_with_one_typed_error(fake_host: Host, document: object) -> None:
    put(fake_host.root, "/run/slm-baseline/x", "")
    lease.LISTEN_S = 0.0
    put(fake_host.root, LEASE, json.dumps(document))
    with contextlib.suppress(SettingError):
        enter(fake_host, run("second", controller="c2"))


def test_a_run_folder_that_cannot_be_made_is_a_typed_error(fake_host: Host) -> None:
    fake_host.path("/run").rmdir()
    put(fake_host.root, "/run", "a file")
    with pytest.raises(SettingError, match="run lock"):
        enter(fake_host, FIRST)
