"""Setting a target up: how often it is started, what is kept, and what stays where it fails."""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.containers.remade import Written
from ansible.module_utils.slm_baseline.containers.runtime import Container, Mounted, Runtime
from ansible.module_utils.slm_baseline.first_token import install
from ansible.module_utils.slm_baseline.first_token import remove as removal
from ansible.module_utils.slm_baseline.first_token.audit import is_set_up, rows_of
from ansible.module_utils.slm_baseline.first_token.bytecode import Filled
from ansible.module_utils.slm_baseline.first_token.fit import parse_fit
from ansible.module_utils.slm_baseline.first_token.install import (
    Outcome,
    find_subject,
    notes_of,
    put_programs,
    set_up,
    stops_of,
)
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, parse_plan
from ansible.module_utils.slm_baseline.first_token.recorder.container import Started
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Opened, Seen
from ansible.module_utils.slm_baseline.first_token.recorder.placing import Placed
from ansible.module_utils.slm_baseline.first_token.recorder.record import Recording
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.remove import remove
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.first_token.unit_files import GIVEN_PROGRAMS, STARTER
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import FIRST_TOKEN

from tests.support.bytecode import command_lines
from tests.support.ourselves import Ourselves

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a unit's files to root")

FACTS = {"page_bytes": "4096", "spinning": "0"}
PROGRAMS = dict.fromkeys(GIVEN_PROGRAMS, b"program")
COMMAND = Target("app", command=("/bin/true",), user=getpass.getuser())
SERVICE = Target("app", unit="app.service", ready=Ready("port", "1"))
UNIT = Unit(
    *("app.service", "simple", "app", "", False, "active", "/system.slice/app.service", ("front.service",)),
    facts=(("ExecStartEx", command_lines("")),),
)


class Starts:
    """Stands in for cold starts: each recording has what it is told, and what was asked is kept."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.recordings: list[Recording | Exception] = []
        self.environments: list[dict[str, str]] = []
        self.promised: list[str] = []
        self.cached: dict[str, str] = {}
        self.compiles: dict[str, bytes] = {}
        for name in ("require_trusted", "reload_units", "make_good", "drop_host_caches"):
            monkeypatch.setattr(install, name, lambda *_: [])
        monkeypatch.setattr(install, "_record", self.record)
        monkeypatch.setattr(install, "find_unit", lambda target: UNIT)
        monkeypatch.setattr(install, "identity_of", lambda *_: Ourselves())
        monkeypatch.setattr(install, "promised", self.promise)
        monkeypatch.setattr(install, "LEAST_MODULES", 2)
        monkeypatch.setattr(install, "find_cached", lambda host, folder, opened: self.cached)

    def record(self, subject: Any, environment: dict[str, str] | None = None) -> Recording:
        self.environments.append(environment or {})
        found = self.recordings.pop(0)
        if environment:
            for name, content in self.compiles.items():
                self.host.path(f"{environment[name]}/kernel").write_bytes(content)
        if isinstance(found, Exception):
            raise found
        return found

    @contextlib.contextmanager
    def promise(self, host: Host, target: Target, unit: Unit) -> Iterator[None]:
        self.promised.append("made")
        try:
            yield
        finally:
            self.promised.append("kept")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    for folder in ("/proc/self", "/srv", "/etc/systemd/system"):
        os.makedirs(host.path(folder))
    host.path("/proc/self/mountinfo").write_text("")
    for name in ("a", "b", "c"):
        host.path(f"/srv/{name}.py").write_text("x = 1\n")
    return host


@pytest.fixture
def starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(host, monkeypatch)


def recording(number: int, *sources: str, written: int = 0) -> Recording:
    seen = Seen({path: Opened(path, False) for path in sources})
    files = [PlanFile(path, False, 1, 2, 3) for path in sources]
    return Recording(Plan(FACTS, [f"/start{number}"], files), seen, written)


def compiled(number: int) -> Recording:
    return recording(number, "/srv/a.py", "/srv/b.py", "/srv/c.py")


def keep(host: Host, starts: Starts, target: Target = COMMAND) -> None:
    """The next second start leaves bytecode of a and b."""
    starts.cached = {f"/srv/{name}.py": f"{target.pycache}/{name}.pyc" for name in "ab"}


@pytest.fixture
def kept_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "plan_file", lambda path, deadline: PlanFile(path, False, 9, 100, 9))


@pytest.mark.parametrize(("written", "starts_wanted"), [(10, 1), (11, 2)])
def test_a_start_that_wrote_what_later_ones_read_is_recorded_again(
    host: Host, starts: Starts, written: int, starts_wanted: int
) -> None:
    starts.recordings = [recording(1, written=written), recording(2, written=written)]
    outcome = set_up(host, replace(COMMAND, bytecode=False), PROGRAMS)
    assert outcome.starts == starts_wanted
    assert outcome.plan
    assert outcome.plan.folders == [f"/start{starts_wanted}"]
    assert any("one that reads them is recorded" in note for note in outcome.notes) == (starts_wanted == 2)


def test_modules_that_are_compiled_at_each_start_are_kept_by_a_second_one(
    host: Host, starts: Starts, kept_files: None
) -> None:
    keep(host, starts)
    starts.recordings = [compiled(1), compiled(2)]
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert starts.environments == [{}, {"PYTHONPYCACHEPREFIX": COMMAND.pycache, "PYTHONDONTWRITEBYTECODE": ""}]
    assert outcome.starts == 2
    assert outcome.bytecode == Filled(2, 0, 200)
    plan = parse_plan(host.read(COMMAND.plan))
    assert [file.path for file in plan.files] == [f"{COMMAND.pycache}/a.pyc", f"{COMMAND.pycache}/b.pyc", "/srv/c.py"]
    assert plan.folders == ["/start2"]
    found = host.path(COMMAND.pycache).stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o700, os.getuid())
    assert [row["knob"] for row in rows_of(host, "app")] == ["first_token.app.plan", "first_token.app.bytecode"]
    assert "2 modules were compiled at every start" in outcome.summary(COMMAND)
    assert outcome.to_json()["bytecode"] == {
        "compiled": 2,
        "copied": 0,
        "failed": 0,
        "compile_s": None,
        "bytes": 200,
    }


def test_where_nothing_is_compiled_there_is_one_start_and_no_cache(host: Host, starts: Starts) -> None:
    starts.recordings = [recording(1, "/srv/a.py")]
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert (outcome.starts, outcome.bytecode) == (1, None)
    assert any("nothing to gain" in note for note in outcome.notes)
    assert not host.exists(COMMAND.pycache)
    assert not host.exists(COMMAND.fit)


@pytest.mark.parametrize("why", ["out of reach", "the second start fails", "no times"])
def test_a_cache_that_is_not_to_be_had_leaves_the_first_starts_plan(host: Host, starts: Starts, why: str) -> None:
    starts.recordings = [compiled(1), compiled(2)]
    if why == "the second start fails":
        starts.recordings[1] = SettingError("first_token.app", "a start that gets ready", "exit status 3", "x", "y")
    if why == "no times":
        os.utime(host.path("/srv/a.py"), (1, 1))
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert outcome.bytecode is None
    assert outcome.plan
    assert outcome.plan.folders == ["/start1"]
    assert not host.exists(COMMAND.pycache)
    said = {"out of reach": "does not keep it in a cache", "the second start fails": "exit status 3"}
    assert any(said.get(why, "no times of their own") in note for note in outcome.notes)


@as_root
def test_a_unit_with_more_rights_has_no_cache_and_one_start(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = replace(UNIT, facts=(("ExecStartEx", command_lines("", "privileged")),))
    monkeypatch.setattr(install, "find_unit", lambda target: unit)
    starts.recordings = [compiled(1)]
    outcome = set_up(host, SERVICE, PROGRAMS)
    assert (outcome.starts, outcome.bytecode) == (1, None)
    assert any("more rights than its user's" in note for note in outcome.notes)


@as_root
def test_a_unit_is_stopped_only_within_the_promise_and_its_files_come_last(
    host: Host, starts: Starts, kept_files: None
) -> None:
    keep(host, starts, SERVICE)
    starts.recordings = [compiled(1), compiled(2)]
    outcome = set_up(host, SERVICE, PROGRAMS)
    assert starts.promised == ["made", "kept"]
    assert outcome.bytecode
    assert all(host.exists(path) for path in (SERVICE.drop_in, SERVICE.replay_unit, SERVICE.fit_unit))
    assert [row["knob"] for row in rows_of(host, "app")] == ["first_token.app.plan", "first_token.app.bytecode"]
    # The variable itself is in no file that survives: a look comes before each start.
    assert "PYTHONPYCACHEPREFIX" not in host.read(SERVICE.drop_in)


@as_root
def test_the_record_is_written_before_what_it_names(
    host: Host, starts: Starts, kept_files: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Host.write_durably

    def write(self: Host, path: str, *more: Any, **named: Any) -> None:
        written.append(path)
        real(self, path, *more, **named)

    monkeypatch.setattr(Host, "write_durably", write)
    keep(host, starts, SERVICE)
    starts.recordings = [compiled(1), compiled(2)]
    set_up(host, SERVICE, PROGRAMS)
    mine = [path for path in written if path not in PROGRAMS and path != STARTER and not path.startswith("/run/")]
    assert mine == [SERVICE.record, SERVICE.plan, SERVICE.fit, SERVICE.drop_in, SERVICE.replay_unit, SERVICE.fit_unit]


def test_a_first_try_that_fails_leaves_nothing(host: Host, starts: Starts) -> None:
    starts.recordings = [SettingError("first_token.app", "a start", "none", "x", "y")]
    with pytest.raises(SettingError, match="wanted a start"):
        set_up(host, SERVICE, PROGRAMS)
    assert starts.promised == ["made", "kept"]
    assert not host.exists(FIRST_TOKEN)
    assert not host.exists(SERVICE.drop_in)


@pytest.mark.parametrize("at", ["first start", "second start"])
def test_a_try_that_fails_leaves_the_former_plan_and_cache_in_force(
    host: Host, starts: Starts, kept_files: None, at: str
) -> None:
    keep(host, starts)
    starts.recordings = [compiled(1), compiled(2)]
    set_up(host, COMMAND, PROGRAMS)
    host.path(f"{COMMAND.pycache}/former").write_text("x")
    before = {path: host.read(path) for path in (COMMAND.plan, COMMAND.record, COMMAND.fit)}
    starts.recordings = [] if at == "first start" else [compiled(3)]
    starts.recordings.append(KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises((KeyboardInterrupt, AttributeError, TypeError)), contextlib.suppress(SettingError):
        set_up(host, COMMAND, PROGRAMS)
    assert {path: host.read(path) for path in before} == before
    assert host.exists(f"{COMMAND.pycache}/former")


@as_root
def test_a_target_that_is_recorded_anew_loses_what_it_has_no_more(host: Host, starts: Starts, kept_files: None) -> None:
    keep(host, starts, SERVICE)
    starts.recordings = [compiled(1), compiled(2)]
    set_up(host, SERVICE, PROGRAMS)
    starts.recordings = [recording(3)]
    without = replace(SERVICE, bytecode=False, replay="together")
    set_up(host, without, PROGRAMS)
    for path in (SERVICE.fit_unit, SERVICE.fit, SERVICE.pycache):
        assert not host.exists(path), path
    assert not os.path.lexists(host.path(SERVICE.boot_link))
    assert is_set_up(host, without)


def test_an_error_of_the_disk_is_one_error(host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/x")

    starts.recordings = [recording(1)]
    monkeypatch.setattr(install, "_put_in_place", full)
    with pytest.raises(SettingError, match="The disk is full"):
        set_up(host, COMMAND, PROGRAMS)
    assert not host.exists(FIRST_TOKEN)


def test_a_file_of_somebody_elses_in_our_place_is_refused_before_anything(host: Host, starts: Starts) -> None:
    host.path(SERVICE.drop_in).parent.mkdir(parents=True)
    host.path(SERVICE.drop_in).write_text("[Service]\n")
    with pytest.raises(SettingError, match=r"somebody else wrote.*nothing was stopped"):
        set_up(host, SERVICE, PROGRAMS)
    assert starts.promised == []
    assert not host.exists(FIRST_TOKEN)


@as_root
def test_a_unit_has_one_target(host: Host, starts: Starts) -> None:
    starts.recordings = [recording(1)]
    set_up(host, SERVICE, PROGRAMS)
    with pytest.raises(SettingError, match=r"one target a unit.*\{name: app, state: absent\}"):
        find_subject(host, replace(SERVICE, name="other"))
    assert find_subject(host, SERVICE).unit == UNIT
    assert find_subject(host, replace(COMMAND, name="other")).unit is None


def test_programs_are_given_once_and_brought_up_to_date(host: Host) -> None:
    with pytest.raises(SettingError, match=r"slm_replay\.py.*nothing was stopped"):
        put_programs(host, COMMAND, {})
    assert put_programs(host, COMMAND, PROGRAMS)
    assert not put_programs(host, COMMAND, PROGRAMS)
    assert not put_programs(host, COMMAND, {})
    assert put_programs(host, COMMAND, {**PROGRAMS, GIVEN_PROGRAMS[0]: b"newer"})
    assert host.path(STARTER).stat().st_mode & 0o777 == 0o755


def test_what_is_stopped_is_told_beforehand(host: Host, starts: Starts) -> None:
    (stops,) = stops_of(find_subject(host, SERVICE))
    assert stops == {
        "target": "app",
        "unit": "app.service",
        "runs": True,
        "times": 2,
        "with": ["front.service"],
    }
    assert stops_of(find_subject(host, COMMAND)) == []


def test_what_is_to_be_known_of_a_recording_is_told() -> None:
    opened = {f"/{number}": Opened(f"/{number}", False) for number in range(10)}
    file = PlanFile("/a", False, 1, 2, 3)

    def notes(seen: Seen, **facts: str) -> list[str]:
        return notes_of(Recording(Plan({**FACTS, **facts}, [], [file]), seen, 0))

    assert notes(Seen(opened)) == []
    assert notes(Seen(opened, unattributed=1, elsewhere=1)) == []
    assert len(notes(Seen(opened, unattributed=2, elsewhere=2))) == 2
    assert len(notes(Seen(opened, overflowed=True), spinning="1")) == 2


def test_a_summary_is_one_line() -> None:
    outcome = Outcome(True, Plan(FACTS, [], [PlanFile("/w", True, 1, 3_000_000, 3)]), None, 1, ["a note"])
    assert outcome.summary(COMMAND) == (
        "app: recorded 0 MB of imports and 3 MB of weights in 1 files;"
        f" to replay it, put {STARTER} app -- before the command; a note"
    )
    assert outcome.to_json()["bytecode"] is None
    assert outcome.to_json()["plan"] == {
        "files": 1,
        "folders": 0,
        "imports_bytes": 0,
        "resident_bytes": 0,
        "weights_bytes": 3_000_000,
    }


@as_root
def test_what_an_earlier_recording_left_stopped_runs_before_the_unit_is_looked_at(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found stopped, it would be left stopped."""
    asked: list[str] = []

    def find(target: Target) -> Unit:
        asked.append("unit")
        return UNIT

    monkeypatch.setattr(install, "make_good", lambda host: asked.append("made good"))
    monkeypatch.setattr(install, "find_unit", find)
    starts.recordings = [recording(1)]
    set_up(host, SERVICE, PROGRAMS)
    assert asked == ["made good", "unit"]


GPU = ("/usr/lib/libcuda.so.1", "/venv/triton/knobs.py")
CUDA_AND_TRITON = {
    "CUDA_CACHE_PATH": f"{COMMAND.kernel_folder}/cuda",
    "TRITON_CACHE_DIR": f"{COMMAND.kernel_folder}/triton",
}


def on_gpu(number: int, *sources: str) -> Recording:
    found = recording(number, *GPU, *sources)
    index = PlanFile(f"{COMMAND.kernel_folder}/cuda/index", False, 1, 2, 3)
    return replace(found, plan=replace(found.plan, files=[*found.plan.files, index]))


def test_kernels_that_do_not_last_are_kept_by_a_second_start(host: Host, starts: Starts) -> None:
    starts.recordings = [on_gpu(1), on_gpu(2)]
    starts.compiles = {"CUDA_CACHE_PATH": b"12345"}
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert starts.environments == [{}, CUDA_AND_TRITON]
    assert (outcome.starts, outcome.bytecode) == (2, None)
    assert outcome.to_json()["kernels"] == {"caches": ["cuda", "triton"], "files": 1, "bytes": 5}
    assert "kernels that it compiles are kept now (cuda, triton)" in outcome.summary(COMMAND)
    assert not any("kernels:" in note for note in outcome.notes)
    plan = parse_plan(host.read(COMMAND.plan))
    assert (plan.folders, [file.path for file in plan.files]) == (["/start2"], list(GPU))
    for path in (COMMAND.kernel_folder, f"{COMMAND.kernel_folder}/triton"):
        assert host.path(path).stat().st_mode & 0o777 == 0o700
    fit = parse_fit(host.read(COMMAND.fit))
    assert (fit.prefix, dict(fit.variables)) == ("", CUDA_AND_TRITON)
    assert [row["knob"] for row in rows_of(host, "app")] == ["first_token.app.plan", "first_token.app.kernels"]
    assert rows_of(host, "app")[1]["verdict"] == "clean"


def test_one_second_start_fills_both_caches(host: Host, starts: Starts, kept_files: None) -> None:
    keep(host, starts)
    sources = [f"/srv/{name}.py" for name in "abc"]
    starts.recordings = [on_gpu(1, *sources), on_gpu(2, *sources)]
    outcome = set_up(host, COMMAND, PROGRAMS)
    bytecode = {"PYTHONPYCACHEPREFIX": COMMAND.pycache, "PYTHONDONTWRITEBYTECODE": ""}
    assert starts.environments == [{}, bytecode | CUDA_AND_TRITON]
    assert outcome.bytecode == Filled(2, 0, 200)
    assert outcome.kernels
    assert any("later starts fill the cache" in note for note in outcome.notes)
    assert [row["knob"].split(".")[-1] for row in rows_of(host, "app")] == ["plan", "bytecode", "kernels"]


def test_kernels_stay_where_bytecode_is_out_of_reach(host: Host, starts: Starts) -> None:
    sources = [f"/srv/{name}.py" for name in "abc"]
    starts.recordings = [on_gpu(1, *sources), on_gpu(2, *sources)]
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert outcome.bytecode is None
    assert outcome.kernels
    assert any("does not keep it in a cache" in note for note in outcome.notes)
    assert not host.exists(COMMAND.pycache)
    assert parse_fit(host.read(COMMAND.fit)).prefix == ""


def test_kernels_that_are_not_wanted_are_named(host: Host, starts: Starts) -> None:
    starts.recordings = [on_gpu(1)]
    outcome = set_up(host, replace(COMMAND, kernels=False), PROGRAMS)
    assert (outcome.starts, outcome.kernels) == (1, None)
    assert any("CUDA_CACHE_PATH, TRITON_CACHE_DIR, so each start" in note for note in outcome.notes)
    assert not host.exists(COMMAND.kernel_folder)


@as_root
def test_kernels_of_a_unit_with_more_rights_are_named_and_not_kept(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = replace(UNIT, facts=(("ExecStartEx", command_lines("privileged")), ("ProtectHome", "yes")))
    monkeypatch.setattr(install, "find_unit", lambda target: unit)
    monkeypatch.setattr(install, "identity_of", lambda *_: Ourselves())
    starts.recordings = [on_gpu(1)]
    outcome = set_up(host, SERVICE, PROGRAMS)
    assert (outcome.starts, outcome.kernels) == (1, None)
    assert any("each start compiles" in note and "more rights than its user's" in note for note in outcome.notes)


@pytest.mark.parametrize("why", ["the start fails", "the disk is full", "too much"])
def test_kernels_that_are_not_to_be_had_are_one_note_and_the_first_plan(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    starts.recordings = [on_gpu(1), on_gpu(2)]
    if why == "the start fails":
        starts.recordings[1] = SettingError("first_token.app", "a start that gets ready", "exit status 3", "x", "y")
    elif why == "the disk is full":
        starts.recordings[1] = OSError(errno.ENOSPC, "No space left on device", "/x")
    else:
        starts.compiles = {"CUDA_CACHE_PATH": b"12345"}
        monkeypatch.setattr("ansible.module_utils.slm_baseline.host.kernel_caches.MAX_BYTES", 4)
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert outcome.kernels is None
    assert outcome.plan
    assert outcome.plan.folders == ["/start1"]
    said = {"the start fails": "exit status 3", "the disk is full": "No space left", "too much": "more in its cache"}
    assert [said[why] in note for note in outcome.notes if note.startswith("kernels:")] == [True]
    assert not host.exists(COMMAND.kernel_folder)
    assert not host.exists(COMMAND.fit)


def test_a_recorded_start_is_told_of_no_former_cache(host: Host, starts: Starts) -> None:
    """With the former cache it compiled nothing, so the next recording found nothing to gain."""
    left = host.path(COMMAND.fit_environment)
    left.parent.mkdir(parents=True)
    left.write_text("PYTHONPYCACHEPREFIX=/former\n")
    starts.recordings = [recording(1)]
    set_up(host, COMMAND, PROGRAMS)
    assert not left.exists()


def test_where_processes_keep_kernels_themselves_nothing_is_kept(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts.recordings = [on_gpu(1)]
    subject = install.Subject(host, COMMAND, None, None, places=dict.fromkeys(CUDA_AND_TRITON, "/theirs"))
    monkeypatch.setattr(install, "find_subject", lambda host, target: subject)
    outcome = set_up(host, COMMAND, PROGRAMS)
    assert (outcome.starts, outcome.kernels) == (1, None)


def test_the_environment_of_the_first_start_is_looked_at_and_of_the_second_not(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def start(target: Target, environment: dict[str, str], look: Any) -> None:
        look()

    def record(host: Host, belongs: Any, prepare: Any, start: Any, *more: Any) -> Recording:
        start(lambda: looks.append("pages"))
        return recording(1)

    monkeypatch.setattr(install, "start_command", start)
    monkeypatch.setattr(install, "record", record)
    monkeypatch.setattr(install, "places_of", lambda processes: {"HOME": "/own"})
    subject = install.Subject(host, COMMAND, None, None)
    install._record(subject, {"CUDA_CACHE_PATH": "/ours"})
    assert (looks, subject.places) == (["pages"], {})
    install._record(subject)
    assert (looks, subject.places) == (["pages"] * 2, {"HOME": "/own"})


class InContainer:
    """A container's start: what it is asked, and a second container of the same name."""

    def __init__(self) -> None:
        self.started = Started(Runtime("docker", "/usr/bin/docker"), Container("1", "llm", "i", "d", "running"))

        self.name, self.runtime = "llm", self.started.runtime
        self.owners: list[Any] = [Ourselves()]

    def users(self) -> list[int]:
        return []

    def may_listen(self, pid: int) -> bool:
        return True

    def notes(self, target: Target, recording: Recording, compiled: int, given: list[str]) -> list[str]:
        return given or [f"container: {compiled} modules"]


def test_a_containers_start_is_recorded_once_and_gets_no_cache_of_ours(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "find_guest", lambda *_: InContainer())
    starts.recordings = [compiled(1)]
    target = Target("llm", container="llm", ready=Ready("health"))
    outcome = set_up(host, target, PROGRAMS)
    assert (outcome.starts, outcome.bytecode) == (1, None)
    assert starts.promised == ["made", "kept"]
    assert "container: 3 modules" in outcome.notes
    assert "slm-start llm -- docker start llm" in outcome.summary(target)
    assert host.exists(target.replay_unit)
    subject = find_subject(host, target)
    assert stops_of(subject) == [{"target": "llm", "unit": "container llm", "runs": True, "times": 2, "with": []}]
    with pytest.raises(SettingError, match="llm, which has llm too"):
        find_subject(host, replace(target, name="other"))


QUADLET = "/etc/containers/systemd/llm.container.d/slm-first-token.conf"
CONTAINED = Target("llm", container="llm", ready=Ready("health"))
FOLDER = CONTAINED.given
MADE = Container("1", "llm", "i", "d", "running")


def in_container(number: int, container: Container = MADE, **caches: bool) -> Recording:
    folders = {f"/root/.cache/{name}": shipped for name, shipped in caches.items()}
    placed = Placed(caches=folders, written={folder: Written(number, 1.5, 2.5) for folder in folders})
    return replace(recording(number), container=container, placed=placed)


class Systemd:
    """Podman's generator: each reload gives the unit the volumes of the drop-in, or not."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch, reads_drop_ins: bool = True) -> None:
        self.host, self.reads_drop_ins, self.seen = host, reads_drop_ins, [""]
        facts = (("SourcePath", "/etc/containers/systemd/llm.container"),)
        unit = replace(UNIT, name="llm.service", user="", facts=facts)
        monkeypatch.setattr(install, "find_unit", lambda target: unit)
        monkeypatch.setattr(install, "find_guest", lambda *_: InContainer())
        monkeypatch.setattr(install, "reload_units", lambda host: self.seen.append(host.read_or_none(QUADLET) or ""))
        monkeypatch.setattr(install, "show", self.show)
        self.target = Target("llm", unit="llm.service", ready=Ready("port", "1"))

    def show(self, names: list[str], properties: list[str]) -> dict[str, dict[str, str]]:
        text = self.seen[-1].replace("Volume=", "-v ") if self.reads_drop_ins else ""
        return {names[0]: {"ExecStartEx": text}}


def test_a_quadlet_is_given_its_caches_by_a_drop_in(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(host, monkeypatch)
    starts.recordings = [in_container(1, vllm=False, huggingface=True), in_container(2)]
    outcome = set_up(host, systemd.target, PROGRAMS)
    text = host.read(QUADLET)
    assert f"Volume={FOLDER}/vllm:/root/.cache/vllm:Z" in text
    assert "huggingface" not in text
    assert (outcome.starts, outcome.plan and outcome.plan.folders) == (2, ["/start2"])
    # Of the first start, which had no cache of ours.
    assert outcome.remade == {
        "caches": {
            f"/root/.cache/{name}": {"files": 1, "first_written_s": 1.5, "last_written_s": 2.5}
            for name in ("vllm", "huggingface")
        },
        "bytecode": None,
    }
    assert outcome.given
    assert outcome.given.to_json()["file"] == QUADLET
    assert outcome.to_json()["given"]["how"] == "quadlet"
    assert host.path(f"{FOLDER}/vllm").stat().st_mode & 0o777 == 0o700
    assert [row["knob"] for row in rows_of(host, "llm")] == ["first_token.llm.plan", "first_token.llm.given"]
    assert all(row["verdict"] == "clean" for row in rows_of(host, "llm"))
    # Recorded again with other options: the start that is recorded first has no cache of ours, and nothing is lost.
    starts.recordings = [in_container(3, vllm=False), in_container(4)]
    systemd.seen = [text]
    set_up(host, replace(systemd.target, replay="ahead"), PROGRAMS)
    assert systemd.seen[1] == ""
    assert host.read(QUADLET) == text
    remove(host, "llm")
    assert not host.exists(os.path.dirname(QUADLET))
    assert not host.exists(FIRST_TOKEN)


def test_a_quadlet_of_an_older_podman_gets_nothing(host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(host, monkeypatch, reads_drop_ins=False)
    starts.recordings = [in_container(1, vllm=False)]
    outcome = set_up(host, systemd.target, PROGRAMS)
    assert outcome.given is None
    assert [note for note in outcome.notes if "does not read the drop-in" in note]
    assert not host.exists(os.path.dirname(QUADLET))
    assert not host.exists(FOLDER)


def test_a_recording_that_fails_leaves_what_a_quadlet_was_given(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(host, monkeypatch)
    starts.recordings = [in_container(1, vllm=False), in_container(2)]
    set_up(host, systemd.target, PROGRAMS)
    text = host.read(QUADLET)
    starts.recordings = [SettingError("k", "w", "never ready", "y", "n")]
    with pytest.raises(SettingError):
        set_up(host, replace(systemd.target, replay="ahead"), PROGRAMS)
    assert host.read(QUADLET) == systemd.seen[-1] == text
    # The second start alone fails: the plan of the first one counts, without a cache.
    starts.recordings = [in_container(3, vllm=False), SettingError("k", "w", "never ready", "y", "n")]
    outcome = set_up(host, replace(systemd.target, replay="ahead"), PROGRAMS)
    assert (outcome.given, outcome.plan and outcome.plan.folders) == (None, ["/start3"])
    assert not host.exists(QUADLET)


def test_somebody_elses_drop_in_in_our_place_is_refused(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Systemd(host, monkeypatch)
    os.makedirs(host.path(QUADLET).parent)
    host.path(QUADLET).write_text("[Container]\n")
    with pytest.raises(SettingError, match="somebody else wrote"):
        set_up(host, systemd.target, PROGRAMS)


def test_a_container_by_its_name_is_given_options_and_keeps_what_it_has(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "find_guest", lambda *_: InContainer())
    starts.recordings = [in_container(1, vllm=False)]
    outcome = set_up(host, CONTAINED, PROGRAMS)
    assert outcome.given
    assert outcome.given.use == f"--volume {FOLDER}/vllm:/root/.cache/vllm:Z"
    assert outcome.starts == 1
    # It was made anew with them, and is recorded with other options.
    host.path(f"{FOLDER}/vllm/graph").write_text("compiled")
    mounted = replace(MADE, mounts=(Mounted("bind", f"{FOLDER}/vllm", "/root/.cache/vllm"),))
    starts.recordings = [in_container(2, mounted)]
    outcome = set_up(host, replace(CONTAINED, replay="ahead"), PROGRAMS)
    assert outcome.given
    assert outcome.given.how == "mounted"
    assert host.read(f"{FOLDER}/vllm/graph") == "compiled"
    # A rollback leaves what a container has mounted, and takes it once that is gone.
    users = [["llm"]]
    monkeypatch.setattr(removal, "find_containers_with", lambda host, facts, folders: users[0])
    assert remove(host, "llm")[1] == [FOLDER]
    assert host.exists(f"{FOLDER}/vllm/graph")
    users[0] = []
    assert remove(host, "llm")[1] == []
    assert not host.exists(FIRST_TOKEN)


def test_a_container_of_compose_is_given_an_override_file(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "find_guest", lambda *_: InContainer())
    labels = (("com.docker.compose.service", "engine"), ("com.docker.compose.project.config_files", "/srv/c.yaml"))
    starts.recordings = [in_container(1, replace(MADE, labels=labels), vllm=False)]
    outcome = set_up(host, CONTAINED, PROGRAMS)
    assert outcome.given
    assert outcome.given.use == f"docker compose --file /srv/c.yaml --file {CONTAINED.override} up --detach"
    assert '"engine":' in host.read(CONTAINED.override)
    assert [row["verdict"] for row in rows_of(host, "llm")] == ["clean", "clean"]
    remove(host, "llm")
    assert not host.exists(FIRST_TOKEN)


def test_a_container_whose_user_nobody_knows_is_given_nothing(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = InContainer()
    guest.owners = ["its processes run as several users"]
    monkeypatch.setattr(install, "find_guest", lambda *_: guest)
    starts.recordings = [in_container(1, vllm=False)]
    outcome = set_up(host, CONTAINED, PROGRAMS)
    assert outcome.given is None
    assert "container: no cache is given to llm, since its processes run as several users." in outcome.notes
    assert not host.exists(FOLDER)


def test_the_audit_tells_of_a_given_folder_that_is_another(
    host: Host, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "find_guest", lambda *_: InContainer())
    starts.recordings = [in_container(1, vllm=False)]
    set_up(host, CONTAINED, PROGRAMS)
    host.path(FOLDER).rename(host.path(f"{FOLDER}.away"))
    assert rows_of(host, "llm")[1]["runtime"] == "missing"
    host.path(FOLDER).mkdir()
    assert rows_of(host, "llm")[1]["runtime"] == "stale"
