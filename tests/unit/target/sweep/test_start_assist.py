"""What a sweep records for arms of the first token: no more than they need, and nothing of it after its end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.first_token.audit import rows
from ansible.module_utils.slm_baseline.first_token.bytecode import fit_of
from ansible.module_utils.slm_baseline.first_token.cache import Cache
from ansible.module_utils.slm_baseline.first_token.fit import Fit, fit_text
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, to_text
from ansible.module_utils.slm_baseline.first_token.remove import remove
from ansible.module_utils.slm_baseline.first_token.target import Target, parse_target, recorded_targets
from ansible.module_utils.slm_baseline.first_token.unit_files import GIVEN_PROGRAMS, REPLAYER
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import FIRST_TOKEN
from ansible.module_utils.slm_baseline.host.paths import PROGRAMS as PROGRAMS_FOLDER
from ansible.module_utils.slm_baseline.measuring.loader.replay import Replay
from ansible.module_utils.slm_baseline.sweep import run, start_assist
from ansible.module_utils.slm_baseline.sweep.design import Arm, parse_arms
from ansible.module_utils.slm_baseline.sweep.plan import load_plan
from ansible.module_utils.slm_baseline.sweep.start_assist import (
    AS_FOUND,
    WITH_BYTECODE,
    WITH_KERNELS,
    Recorder,
    Starts,
)

from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import build_host
from tests.unit.target.sweep.test_run import GIVEN, REQUEST, Loads

PROGRAMS = dict.fromkeys(GIVEN_PROGRAMS, b"program")
RECORDER = Recorder(
    Target(AS_FOUND, command=("/opt/python", "slm_load.py"), user="nobody", replay="none"), PROGRAMS, True
)
BYTECODE, TOGETHER, AHEAD, BOTH = (
    Arm("bytecode", bytecode=True),
    Arm("replay-together", replay="together"),
    Arm("replay-ahead", replay="ahead"),
    Arm("bytecode+ahead", bytecode=True, replay="ahead"),
)
EVERY = [BYTECODE, TOGETHER, AHEAD, BOTH]
KERNELS, ALL = Arm("kernels", kernels=True), Arm("all", bytecode=True, kernels=True, replay="together")


@pytest.fixture
def host(tmp_path: Path) -> FakeKernel:
    return FakeKernel(build_host(tmp_path))


class Recording:
    """Stands in for the cold starts: it leaves what a set-up leaves, and remembers whose."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gain = True
        self.compiles = True
        self.names: list[str] = []
        monkeypatch.setattr(start_assist, "set_up", self.set_up)

    def set_up(self, host: Host, target: Target, programs: Mapping[str, bytes]) -> None:
        self.names.append(target.name)
        assert set(programs) == set(PROGRAMS)
        remove(host, target.name)
        os.makedirs(host.path(target.folder))
        host.path(PROGRAMS_FOLDER).mkdir(exist_ok=True)
        for path, content in programs.items():
            host.path(path).write_bytes(content)
        library = host.path("/srv/lib.so")
        library.parent.mkdir(exist_ok=True)
        if not library.exists():
            library.write_bytes(b"x")
        found = os.lstat(library)
        file = PlanFile("/srv/lib.so", False, found.st_ino, found.st_size, found.st_mtime_ns)
        host.path(target.plan).write_text(to_text(Plan({"page_bytes": "4096"}, [], [file])))
        if target.bytecode and self.gain:
            os.makedirs(host.path(target.pycache), mode=0o700)
            cache = Cache(target.pycache, target.pycache)
            host.path(target.fit).write_text(fit_text(fit_of(host, target, None, os.getuid(), cache, [])))
        if target.kernels and self.compiles:
            os.makedirs(host.path(target.kernel_folder), mode=0o700)
            inode = os.lstat(host.path(target.kernel_folder)).st_ino
            variables = (("CUDA_CACHE_PATH", f"{target.kernel_folder}/cuda"),)
            fit = Fit("", "", 0, str(os.getuid()), (), (), (), (target.kernel_folder, inode), variables)
            host.path(target.fit).write_text(fit_text(fit))
        host.path(target.record).write_text(json.dumps({"target": target.to_json(), "files": {}}))


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    return Recording(monkeypatch)


@pytest.mark.parametrize(
    ("arms", "gain", "recorded"),
    [
        ([], True, []),
        ([Arm("always", thp={"thp.enabled": "always"})], True, []),
        (EVERY, True, [WITH_BYTECODE, AS_FOUND]),
        (EVERY, False, [WITH_BYTECODE]),
        ([TOGETHER, AHEAD], True, [AS_FOUND]),
        ([BYTECODE, BOTH], True, [WITH_BYTECODE]),
        ([KERNELS], True, [WITH_KERNELS]),
        ([KERNELS, AHEAD], True, [WITH_KERNELS, AS_FOUND]),
        ([ALL], True, [WITH_BYTECODE, WITH_KERNELS]),
    ],
)
def test_each_start_is_recorded_once_where_an_arm_needs_it(
    host: Host, recording: Recording, arms: list[Arm], gain: bool, recorded: list[str]
) -> None:
    recording.gain = gain
    found = start_assist.record_starts(host, arms, RECORDER)
    assert recording.names == recorded
    assert start_assist.record_starts(host, arms, RECORDER) == found
    assert recording.names == recorded, "what is clean was recorded again"
    # A sweep without such arms keeps nothing of an earlier one.
    start_assist.record_starts(host, [], RECORDER)
    assert recorded_targets(host) == {}
    assert not host.exists(FIRST_TOKEN)


def test_an_arm_gives_the_loader_what_it_says_and_no_other(host: Host, recording: Recording) -> None:
    found = start_assist.record_starts(host, EVERY, RECORDER)
    plain, other = f"{FIRST_TOKEN}/targets/slm_sweep", f"{FIRST_TOKEN}/targets/slm_sweep-bytecode"
    env = {"PYTHONPYCACHEPREFIX": f"{other}/pycache"}

    def replay(folder: str, when: str) -> Replay:
        return Replay(("/usr/bin/python3", "-IS", REPLAYER, f"{folder}/plan"), when)

    told = [(aid.env, aid.replay) for aid in map(found.aid, [Arm("stock"), *EVERY])]
    assert told == [
        ({}, None),
        (env, None),
        ({}, replay(plain, "together")),
        ({}, replay(plain, "ahead")),
        (env, replay(other, "ahead")),
    ]


def test_an_arm_of_kernels_gets_them_and_no_other_has_them(host: Host, recording: Recording) -> None:
    found = start_assist.record_starts(host, [*EVERY, KERNELS, ALL], RECORDER)
    kernels = {"CUDA_CACHE_PATH": f"{FIRST_TOKEN}/targets/slm_sweep-kernels/kernels/cuda"}
    assert (found.aid(KERNELS).env, found.aid(KERNELS).replay) == (kernels, None)
    assert found.aid(ALL).env == {**kernels, **found.aid(BYTECODE).env}
    assert "CUDA_CACHE_PATH" not in found.aid(BOTH).env
    assert start_assist.require_recorded(host, [KERNELS, ALL]) == found


@pytest.mark.parametrize(("has_gpu", "compiles"), [(False, True), (True, False)], ids=["no GPU", "kept already"])
def test_where_no_kernels_are_compiled_the_arm_is_left_out(
    host: Host, recording: Recording, has_gpu: bool, compiles: bool
) -> None:
    recording.compiles = compiles
    found = start_assist.record_starts(host, [KERNELS, ALL, BYTECODE], replace(RECORDER, has_gpu=has_gpu))
    assert (WITH_KERNELS in recording.names) is has_gpu
    kept, left_out = start_assist.without_gain([KERNELS, ALL, BYTECODE], found)
    assert kept == [BYTECODE]
    assert [each["why"] for each in left_out] == [
        "The loader compiles no GPU kernels here, or they are kept already: it is stock.",
        "The loader compiles no GPU kernels here, or they are kept already: it is an arm with less.",
    ]
    with pytest.raises(SettingError, match="what it compiles is kept by now"):
        found.aid(KERNELS)


def test_an_arm_whose_bytecode_is_there_already_is_left_out(host: Host, recording: Recording) -> None:
    recording.gain = False
    found = start_assist.record_starts(host, EVERY, RECORDER)
    kept, left_out = start_assist.without_gain(EVERY, found)
    assert kept == [TOGETHER, AHEAD]
    assert [each["arm"] for each in left_out] == ["bytecode", "bytecode+ahead"]
    assert "have bytecode already: it is stock" in left_out[0]["why"]
    assert "it is a replay ahead without it" in left_out[1]["why"]
    with pytest.raises(SettingError, match="sweep_new=true"):
        found.aid(BYTECODE)


def test_what_a_sweep_records_is_no_row_of_the_audit_and_no_name_for_others(host: Host, recording: Recording) -> None:
    start_assist.record_starts(host, EVERY, RECORDER)
    assert rows(host) == []
    with pytest.raises(SettingError, match="does not begin with slm_sweep"):
        parse_target({"name": "slm_sweep", "command": ["/bin/true"], "user": "nobody"})


def test_a_start_that_changed_stops_the_block_and_is_recorded_anew(host: FakeKernel, recording: Recording) -> None:
    start_assist.record_starts(host, EVERY, RECORDER)
    assert start_assist.require_recorded(host, EVERY) == Starts.on(host)
    host.path("/srv/lib.so").write_bytes(b"newer")
    with pytest.raises(SettingError, match=r"/srv/lib\.so.* changed"):
        start_assist.require_recorded(host, EVERY)
    assert start_assist.require_recorded(host, [Arm("stock")]), "an arm that uses nothing needs nothing"
    start_assist.record_starts(host, EVERY, RECORDER)
    assert recording.names == [WITH_BYTECODE, AS_FOUND] * 2
    start_assist.require_recorded(host, EVERY)


def test_another_replay_than_the_recorded_one_is_another_arm(host: Host, recording: Recording) -> None:
    start_assist.record_starts(host, [AHEAD], RECORDER)
    start_assist.record_starts(host, [AHEAD], replace(RECORDER, programs={**PROGRAMS, REPLAYER: b"newer"}))
    assert recording.names == [AS_FOUND] * 2
    assert host.read(REPLAYER) == "newer"


def test_what_another_sweep_recorded_is_not_taken_for_this_ones(host: Host, recording: Recording) -> None:
    recording.gain = False
    start_assist.record_starts(host, EVERY, RECORDER)
    start_assist.record_starts(host, [AHEAD], RECORDER)
    assert list(recorded_targets(host)) == [AS_FOUND]


def test_without_the_programs_nothing_is_recorded(host: Host, recording: Recording) -> None:
    with pytest.raises(SettingError, match=r"slm_replay\.py"):
        start_assist.record_starts(host, EVERY, replace(RECORDER, programs={}))


def request(**more: Any) -> run.SweepRequest:
    replay = {"name": "replay", "first_token": {"replay": "ahead"}}
    bytecode = {"name": "bytecode", "first_token": {"bytecode": True}}
    return replace(REQUEST, arms=parse_arms([*STOCK, replay, bytecode]), recorder=RECORDER, **more)


STOCK: list[dict[str, Any]] = [{"name": "stock"}, {"name": "stock-again"}]


def test_a_sweep_of_these_arms_survives_an_interruption_and_leaves_nothing(
    host: FakeKernel, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = Loads(monkeypatch)
    recording.gain = False
    planned = run.plan_sweep(host, request())
    assert [arm["name"] for arm in planned["plan"]["arms"]] == ["stock", "stock-again", "replay"]
    assert planned["plan"]["left_out"][0]["arm"] == "bytecode"
    assert not planned["is_resumed"]
    loads.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        loads.block(host)
    loads.fail_at = None
    again = run.plan_sweep(host, request(run_id="20260102T000000Z"))
    assert again["is_resumed"]
    assert recording.names == [WITH_BYTECODE]
    loads.block(host)
    samples = run.finish_sweep(host)["samples"]
    assert {sample["arm"] for sample in samples} == {"stock", "stock-again", "replay"}
    assert run.close_sweep(host)
    assert not host.exists(FIRST_TOKEN)
    stored = load_plan(host)
    assert stored is not None
    assert stored.is_finished


def test_arms_of_the_whole_start_need_a_whole_cold_start() -> None:
    given = {**GIVEN, "arms": [*STOCK, {"name": "replay", "first_token": {"replay": "ahead"}}]}
    assert run.parse_sweep({**given, "scope": "host"}, 0).arms[2].is_first_token
    with pytest.raises(SettingError, match="slm_benchmark_cold_scope"):
        run.parse_sweep({**given, "scope": "weights"}, 0)
