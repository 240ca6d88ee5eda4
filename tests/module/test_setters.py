"""The setter modules through their real entry points, against a fake host whose kernel files behave.

Checked here: check mode predicts exactly what the real run changes, a second run changes nothing, and every error is
one sentence with its five parts.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline import module as modules
from ansible.module_utils.slm_baseline import setter
from ansible.module_utils.slm_baseline.first_token.places import MARK
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import ARCHIVE, LEASE, SNAPSHOT, STATE, TARGETS, VOLATILE
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path, unit_text
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, THP_DROPIN, thp_knobs
from ansible.module_utils.slm_baseline.settings.rollback import rollback
from ansible.module_utils.testing import patch_module_args

from lookup.slm_run import describe
from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import MOUNTINFO, put
from tests.support.killed_sweep import leave_arm

LIBRARY = Path(__file__).parents[2] / "library"
MIB2 = 2 << 20
RUN = {"id": "run-1", "controller": {"name": "c", "id": "b", "pid": 7, "started": 1.0}, "alive": [[7, 1.0]]}
OTHER_RUN = {"id": "run-2", "controller": {"name": "d", "id": "x", "pid": 8, "started": 1.0}, "alive": []}
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def kernel(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    kernel = FakeKernel(fake_host.root)
    monkeypatch.setattr(modules, "Host", lambda root: kernel)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return kernel


@pytest.fixture
def run(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module of the library by name; its result. Every error `has_parts` but Ansible's own."""

    def call(name: str, check: bool = False, has_parts: bool = True, **arguments: Any) -> dict[str, Any]:
        spec = importlib.util.spec_from_file_location(f"slm_module_{name}", LIBRARY / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        special = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": str(kernel.root)}
        with patch_module_args({"root": str(kernel.root), **arguments, **special}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        if result.get("failed"):
            assert "Traceback" not in json.dumps(result)
            if has_parts and "problems" not in result:
                assert all(result["problem"][part] for part in ("knob", "wanted", "found", "why", "next_step"))
                assert result["problem"]["wanted"] in result["msg"]
        return result

    return call


def tree(kernel: FakeKernel) -> dict[str, str]:
    return {
        str(path.relative_to(kernel.root)): path.read_text()
        for path in sorted(kernel.root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


SETTERS: list[tuple[str, dict[str, Any]]] = [
    (
        "thp",
        {"enabled": "always", "defrag": "never", "khugepaged": {"defrag": 0}, "sizes": {"64K": "always"}},
    ),
    ("thp", {"enabled": "madvise"}),
    ("thp", {}),
    ("hugepages", {"pools": [{"size": "2M", "count": 64}, {"size": "1G", "count": 1, "node": 0}]}),
    ("hugepages", {"pools": []}),
    ("hugepages", {"pools": [{"size": "2M", "count": 8}], "overcommit": {"2M": 512}}),
]


@pytest.mark.parametrize(("name", "arguments"), SETTERS)
def test_check_mode_predicts_the_real_run_and_changes_nothing(
    kernel: FakeKernel, run: Run, name: str, arguments: dict[str, Any]
) -> None:
    before = tree(kernel)
    predicted = run(name, check=True, run=RUN, **arguments)
    assert tree(kernel) == before
    real = run(name, run=RUN, **arguments)
    for part in ("changed", "changes", "diff"):
        assert predicted[part] == real[part]
    assert (predicted.get("verified"), real["verified"]) == (None, True)


@pytest.mark.parametrize(("name", "arguments"), SETTERS)
def test_a_second_run_changes_nothing(kernel: FakeKernel, run: Run, name: str, arguments: dict[str, Any]) -> None:
    run(name, run=RUN, **arguments)
    before = {path: text for path, text in tree(kernel).items() if f"/{path}" != LEASE}
    for check in (True, False):
        again = run(name, check=check, run=RUN, **arguments)
        assert (again["changed"], again["changes"], again["diff"]) == (False, [], {"before": "", "after": ""})
    assert {path: text for path, text in tree(kernel).items() if f"/{path}" != LEASE} == before


def test_the_snapshot_is_there_before_the_first_change(
    kernel: FakeKernel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    write = FakeKernel.write_kernel

    def watched(self: FakeKernel, path: str | Path, value: str) -> None:
        seen.append(self.exists(SNAPSHOT))
        write(self, path, value)

    monkeypatch.setattr(FakeKernel, "write_kernel", watched)
    run("thp", enabled="always", run=RUN)
    assert seen == [True]
    assert json.loads(kernel.read(SNAPSHOT))["kinds"]["thp"]["thp.enabled"] == "madvise"


def test_where_no_snapshot_can_be_kept_nothing_is_changed(
    kernel: FakeKernel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FakeKernel.write_durably

    def full(self: FakeKernel, path: str | Path, *more: Any, **named: Any) -> None:
        if str(path) == SNAPSHOT:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(self, path, *more, **named)

    monkeypatch.setattr(FakeKernel, "write_durably", full)
    result = run("thp", enabled="always", run=RUN)
    assert result["problem"]["wanted"] == "a durable snapshot before the first change"
    assert kernel.writes == []


def test_left_out_later_returns_to_the_prior_value(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="always", defrag="never", run=RUN)
    predicted = run("thp", check=True, enabled="always", run=RUN)
    real = run("thp", enabled="always", run=RUN)
    assert predicted["changes"] == real["changes"]
    assert thp_knobs(kernel)["thp.defrag"].value == "madvise"


@pytest.mark.parametrize(
    ("name", "arguments", "knob"),
    [
        ("thp", {"enabled": "sometimes"}, "thp.enabled"),
        ("thp", {"enabled": True}, "thp_enabled"),
        ("thp", {"enabled": 1.5}, "thp_enabled"),
        ("thp", {"sizes": {"3K": "never"}}, "thp.sizes.3kB.enabled"),
        ("thp", {"khugepaged": ["defrag"]}, "thp_khugepaged"),
        ("hugepages", {"pools": [{"size": "16M", "count": 1}]}, "hugepages.16M"),
        ("hugepages", {"pools": [{"size": "2M", "count": True}]}, "hugepages.2M count"),
        ("hugepages", {"pools": [{"size": "2M", "count": -1}]}, "hugepages.2M count"),
        ("hugepages", {"pools": [{"size": "2M", "count": 1.5}]}, "hugepages.2M count"),
        ("hugepages", {"pools": [{"size": "2M", "count": 1, "node": 9}]}, "hugepages.node9.2M"),
        ("hugepages", {"pools": "2M"}, "hugepages_pools"),
        ("hugepages", {"pools": [], "overcommit": ["2M"]}, "hugepages_overcommit"),
        ("hugepages", {"pools": [], "overcommit": {"16M": 1}}, "hugepages_overcommit.16M"),
        ("hugepages", {"pools": [{"size": "2M", "count": 4096}]}, "hugepages_pools"),
        ("hugepages", {"pools": [{"size": "2M", "count": 1}], "max_share": 0.0001}, "hugepages_pools"),
        ("hugepages", {"pools": [{"size": "2M", "count": 1}], "margin": "14G"}, "hugepages_pools"),
        ("hugepages", {"pools": [], "margin": "lots"}, "hugepages_margin"),
        ("hugepages", {"pools": [], "max_share": "half"}, "hugepages_max_share"),
        ("hugetlbfs", {"mounts": [{"path": "mnt", "page_size": "2M"}]}, "hugetlbfs_mounts.path"),
        ("hugetlbfs", {"mounts": [{"path": "/mnt/h", "page_size": "2M", "mode": 504}]}, "hugetlbfs./mnt/h"),
        ("hugetlbfs", {"mounts": [{"path": "/mnt/h", "page_size": "2M", "owner": "x"}]}, "hugetlbfs./mnt/h"),
        ("hugetlbfs", {"mounts": [{"path": "/proc", "page_size": "2M"}]}, "hugetlbfs./proc"),
        ("memory_info", {"thp": {"enabled": "x"}, "preflight": True}, "thp.enabled"),
        ("memory_info", {"pools": [{"size": "2M", "count": 7000}], "preflight": True}, "hugepages_pools"),
        ("memory_info", {"margin": "lots", "preflight": True}, "hugepages_margin"),
        (
            "memory_info",
            {"pools": [{"size": "2M", "count": 1}], "max_share": 7.0, "preflight": True},
            "hugepages_max_share",
        ),
    ],
)
def test_bad_input_is_one_error_with_five_parts_before_any_change(
    kernel: FakeKernel, run: Run, name: str, arguments: dict[str, Any], knob: str
) -> None:
    before = tree(kernel)
    for check in (True, False):
        result = run(name, check=check, **arguments)
        assert result["failed"]
        assert result["problem"]["knob"] == knob
    assert {path for path in tree(kernel) if path not in before} <= {"run/slm-baseline/lock"}
    assert kernel.writes == []


def test_a_short_pool_says_asked_and_got_and_leaves_the_host_as_it_was(kernel: FakeKernel, run: Run) -> None:
    kernel.room[MIB2, 0] = 7
    result = run("hugepages", pools=[{"size": "2M", "count": 64}], run=RUN)
    assert "asked 64, got 7" in result["msg"]
    assert kernel.pages(MIB2) == {0: 0}
    assert not kernel.exists(POOLS_DROPIN)


def test_gigabyte_pages_that_are_short_ask_for_a_reboot_with_these_arguments(kernel: FakeKernel, run: Run) -> None:
    kernel.room[1 << 30, 0] = 1
    result = run("hugepages", pools=[{"size": "1G", "count": 4}], run=RUN)
    assert (result["reboot_required"], result["boot_arguments"]) == (True, "hugepagesz=1G hugepages=4")
    assert result["boot_arguments"] in result["problem"]["next_step"]
    kernel.room[MIB2, 0] = 1
    assert "reboot_required" not in run("hugepages", pools=[{"size": "2M", "count": 4}], run=RUN)


@pytest.mark.parametrize(("name", "arguments"), [SETTERS[0], SETTERS[3]])
def test_a_read_only_sys_changes_nothing(kernel: FakeKernel, run: Run, name: str, arguments: dict[str, Any]) -> None:
    kernel.failing["/sys"] = errno.EROFS
    result = run(name, run=RUN, **arguments)
    assert "read-only" in result["problem"]["why"]
    assert not kernel.exists(THP_DROPIN)
    assert not kernel.exists(POOLS_DROPIN)


def test_a_host_without_thp_or_hugetlb_says_so(kernel: FakeKernel, run: Run) -> None:
    shutil.rmtree(kernel.path(THP))
    shutil.rmtree(kernel.path("/sys/kernel/mm/hugepages"))
    assert "built without transparent huge pages" in run("thp", enabled="never")["msg"]
    assert "built without hugetlb" in run("hugepages", pools=[{"size": "2M", "count": 1}])["msg"]
    assert "no hugetlb at all" in run("hugetlbfs", mounts=[{"path": "/mnt/h", "page_size": "2M"}])["msg"]
    info = run("memory_info")
    assert (info["memory"]["thp"]["supported"], info["memory"]["pools"]) == (False, [])


def test_hugetlbfs_in_check_mode_predicts_mount_and_unit(kernel: FakeKernel, run: Run) -> None:
    before = tree(kernel)
    result = run("hugetlbfs", check=True, mounts=[{"path": "/mnt/huge", "page_size": "2M", "mode": "0770"}])
    assert [change["knob"] for change in result["changes"]] == [
        "hugetlbfs./mnt/huge",
        "/etc/systemd/system/mnt-huge.mount",
        "/etc/systemd/system/local-fs.target.wants/mnt-huge.mount",
    ]
    assert "Options=pagesize=2M,mode=0770,uid=0,gid=0,nosuid,nodev" in result["diff"]["after"]
    assert tree(kernel) == before


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({}, "missing required arguments: id"),
        ({"id": "run-1", "controller": "c"}, "controller"),
        ({"id": "run-1", "alive": {"pid": 7}}, "alive"),
        ({"id": "run-1", "colour": "red"}, "colour"),
        ("run-1", "dictionary requested"),
    ],
)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("thp", {}),
        ("hugepages", {"pools": []}),
        ("hugetlbfs", {"mounts": []}),
        ("memory_snapshot", {}),
        ("run_lease", {}),
    ],
)
def test_an_odd_run_is_one_clear_error(
    kernel: FakeKernel, run: Run, name: str, arguments: dict[str, Any], odd: object, told: str
) -> None:
    before = tree(kernel)
    result = run(name, has_parts=False, run=odd, **arguments)
    assert result["failed"]
    assert told in result["msg"]
    assert tree(kernel) == before


def test_everything_that_the_lookup_tells_of_a_run_is_taken(kernel: FakeKernel, run: Run) -> None:
    assert not run("thp", run=describe()).get("failed")


def test_a_hardened_umask_locks_nobody_out_of_the_folders_and_lets_nobody_into_the_secrets(
    kernel: FakeKernel, run: Run
) -> None:
    kernel.path("/etc/tmpfiles.d").rmdir()
    before = os.umask(0o077)
    try:
        run("thp", enabled="always", run=RUN)
        run("memory_snapshot", state="restored", run=RUN)
        run("thp", enabled="always", run=RUN)
    finally:
        os.umask(before)
    modes = {
        path: stat.S_IMODE(kernel.path(path).stat().st_mode)
        for path in ("/etc/tmpfiles.d", THP_DROPIN, STATE, ARCHIVE, SNAPSHOT, VOLATILE, LEASE)
    }
    assert modes == {
        "/etc/tmpfiles.d": 0o755,
        THP_DROPIN: 0o644,
        STATE: 0o755,
        ARCHIVE: 0o700,
        SNAPSHOT: 0o600,
        VOLATILE: 0o755,
        LEASE: 0o600,
    }


def test_units_that_systemd_did_not_read_again_are_a_warning(
    kernel: FakeKernel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.warn", lambda module, warning: told.append(warning))
    for module in (setter, rollback):
        monkeypatch.setattr(module, "reload_units", lambda host: "systemd did not answer")
    run("memory_snapshot", mounts=[{"path": "/mnt/huge", "page_size": "2M"}], run=RUN)
    unit = unit_text(MountSpec("/mnt/huge", MIB2))
    put(kernel.root, unit_path("/mnt/huge"), unit)
    assert run("hugetlbfs", mounts=[], run=RUN)["changed"]
    assert told == ["systemd did not answer"]
    put(kernel.root, unit_path("/mnt/huge"), unit)
    assert run("memory_snapshot", state="restored", force=True, run=RUN)["status"] == "restored"
    assert told == ["systemd did not answer"] * 2


def test_a_second_run_of_the_project_is_refused_by_name(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="always", run=RUN)
    # Of the same controller, which sees that the first one lives.
    controller = {"name": "c", "id": "b", "pid": 8, "started": 1.0}
    other = {"id": "run-2", "controller": controller, "alive": [[7, 1.0], [8, 1.0]]}
    for name, arguments in (("thp", {"enabled": "never"}), ("memory_snapshot", {"state": "restored"})):
        result = run(name, run=other, **arguments)
        assert result["problem"]["found"] == "run run-1, started from c (pid 7)"
    assert run("run_lease", run=OTHER_RUN)["released"] is False
    assert run("run_lease", check=True, run=RUN)["released"] is False
    assert run("run_lease", run=RUN)["released"] is True
    assert run("thp", enabled="never", run=OTHER_RUN)["changed"]


def test_a_run_that_fails_releases_its_host_whichever_task_failed(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="always", run=RUN)
    # Reads only, so it holds no lease of its own.
    assert run("memory_info", check=True, pools=[{"size": "2M"}], run=RUN)["failed"]
    assert run("memory_info", thp={"enabled": "never"}, pools=[{"size": "2M"}], run=OTHER_RUN)["failed"]
    assert kernel.exists(LEASE)
    assert run("memory_info", thp={"enabled": "never"}, pools=[{"size": "2M"}], run=RUN)["failed"]
    assert not kernel.exists(LEASE)


@pytest.mark.parametrize("room", [0, 64])
def test_a_module_on_its_own_gives_the_host_back_also_when_it_fails(kernel: FakeKernel, run: Run, room: int) -> None:
    kernel.room[MIB2, 0] = room
    run("hugepages", pools=[{"size": "2M", "count": 64}])
    assert not kernel.exists(LEASE)
    run("memory_snapshot")
    assert not kernel.exists(LEASE)


def test_the_snapshot_is_recorded_once_and_restored_exactly(kernel: FakeKernel, run: Run) -> None:
    before = tree(kernel)
    mounts = [{"path": "/mnt/huge", "page_size": "2M"}]
    assert run("memory_snapshot", check=True, mounts=mounts)["status"] == "recorded"
    assert tree(kernel) == before
    first = run("memory_snapshot", mounts=mounts, run=RUN)
    assert (first["status"], first["changed"], first["before"]["thp.enabled"]) == ("recorded", True, "madvise")
    assert run("memory_snapshot", mounts=mounts, run=RUN)["status"] == "kept"
    run("thp", enabled="always", run=RUN)
    run("hugepages", pools=[{"size": "2M", "count": 5}], run=RUN)
    predicted = run("memory_snapshot", check=True, state="restored", run=RUN)
    real = run("memory_snapshot", state="restored", run=RUN)
    assert (predicted["changes"], predicted["diff"]) == (real["changes"], real["diff"])
    assert real["status"] == "restored"
    ours = ("var/lib/slm-baseline/", "run/slm-baseline/")
    assert {path: text for path, text in tree(kernel).items() if not path.startswith(ours)} == before
    assert not kernel.exists(LEASE)
    for check in (True, False):
        again = run("memory_snapshot", check=check, state="restored", run=RUN)
        assert (again["status"], again["changed"]) == ("nothing", False)


def test_a_rollback_of_one_task_removes_what_shortens_starts_too(kernel: FakeKernel, run: Run) -> None:
    before = tree(kernel)
    drop_in = "/etc/systemd/system/vllm.service.d/slm-first-token.conf"
    put(kernel.root, f"{TARGETS}/vllm/plan.jsonl", "cut short before its record was written")
    put(kernel.root, drop_in, f"[Service]\nEnvironment=PYTHONPYCACHEPREFIX={TARGETS}/vllm/bytecode\n{MARK}\n")
    run("thp", enabled="always", run=RUN)
    assert run("memory_snapshot", check=True, state="restored", run=RUN)["first_token"] == {"removed": [], "left": []}
    predicted = run("memory_snapshot", check=True, state="restored", first_token=True, run=RUN)
    assert kernel.exists(f"{TARGETS}/vllm/plan.jsonl")
    real = run("memory_snapshot", state="restored", first_token=True, run=RUN)
    assert (predicted["first_token"], predicted["diff"]) == (real["first_token"], real["diff"])
    assert (real["status"], real["first_token"]["left"]) == ("restored", [drop_in])
    assert f"{TARGETS}/vllm: there\n" in real["diff"]["before"]
    assert "thp.enabled: always\n" in real["diff"]["before"]
    again = run("memory_snapshot", state="restored", first_token=True, run=RUN)
    assert (again["status"], again["changed"]) == ("nothing", False)
    kernel.path(drop_in).unlink()
    kernel.path(drop_in).parent.rmdir()
    ours = ("var/lib/slm-baseline/", "run/slm-baseline/")
    assert {path: text for path, text in tree(kernel).items() if not path.startswith(ours)} == before


def test_the_last_look_of_a_run_releases_its_host_and_only_its_own(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="always", run=RUN)
    run("memory_info", run=RUN)
    run("memory_info", release=True, run=OTHER_RUN)
    run("memory_info", check=True, release=True, run=RUN)
    assert kernel.exists(LEASE)
    run("memory_info", release=True, run=RUN)
    assert not kernel.exists(LEASE)


@pytest.mark.parametrize("name", ["thp", "memory_snapshot"])
def test_what_an_interrupted_sweep_left_is_undone_first_and_told(kernel: FakeKernel, run: Run, name: str) -> None:
    run("memory_snapshot", run=RUN)
    leave_arm(kernel, {"thp.enabled": "always"})
    before = tree(kernel)
    foretold = run(name, check=True, run=RUN)
    assert foretold["problem"]["knob"] == "sweep"
    assert "restores the host first" in foretold["msg"]
    assert tree(kernel) == before
    real = run(name, run=RUN)
    assert (real["changed"], real["undone"]) == (
        True,
        [{"knob": "thp.enabled", "before": "always", "after": "madvise"}],
    )
    again = run(name, run=RUN)
    assert (again["changed"], again["undone"]) == (False, [])


def test_files_of_ours_without_a_snapshot_are_refused_in_check_mode_too(kernel: FakeKernel, run: Run) -> None:
    put(kernel.root, THP_DROPIN, f"w {THP}/enabled - - - - never\n")
    for name, arguments in (("memory_snapshot", {}), ("thp", {"enabled": "always"})):
        for check in (True, False):
            result = run(name, check=check, run=RUN, **arguments)
            assert (result["problem"]["knob"], result["problem"]["found"][:11]) == (SNAPSHOT, "no snapshot")
    assert kernel.writes == []


def test_a_corrupt_snapshot_stops_every_module_and_stays(kernel: FakeKernel, run: Run) -> None:
    put(kernel.root, SNAPSHOT, '{"schema_version": 99}')
    for name, arguments in (
        ("thp", {"enabled": "always"}),
        ("hugepages", {"pools": []}),
        ("hugetlbfs", {"mounts": []}),
        ("memory_snapshot", {"state": "present"}),
        ("memory_snapshot", {"state": "restored"}),
        ("memory_info", {"preflight": True}),
    ):
        for check in (True, False):
            assert run(name, check=check, **arguments)["problem"]["knob"] == SNAPSHOT
        assert not kernel.exists(LEASE)
    assert kernel.read(SNAPSHOT) == '{"schema_version": 99}'
    assert kernel.writes == []


def test_a_run_that_wants_nothing_is_refused_before_it_takes_anything_back(kernel: FakeKernel, run: Run) -> None:
    problem = run("memory_info", preflight=True, pools=[], mounts=[], thp={"enabled": None})["problem"]
    assert (problem["knob"], problem["found"]) == ("tuning", "none")
    assert "inventory/group_vars" in problem["next_step"]
    assert "problem" not in run("memory_info", pools=[], mounts=[])
    assert "problem" not in run("memory_info", preflight=True, thp={"enabled": "madvise"})


def test_held_pages_make_the_rollback_incomplete_until_they_are_let_go(kernel: FakeKernel, run: Run) -> None:
    run("hugepages", pools=[{"size": "2M", "count": 8}], run=RUN)
    kernel.used[MIB2, 0] = 2
    for _ in range(2):
        result = run("memory_snapshot", state="restored", run=RUN)
        assert result["msg"].startswith("rollback incomplete: hugepages.2M: wanted 0 pages; found 0 pages and 2")
        assert result["problems"][0]["knob"] == "hugepages.2M"
    kernel.let_go(MIB2)
    assert run("memory_snapshot", state="restored", run=RUN)["status"] == "restored"


def test_the_page_of_a_later_rollback_can_tell_of_the_incomplete_ones(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="always", run=RUN)
    run("hugepages", pools=[{"size": "2M", "count": 8}], run=RUN)
    kernel.used[MIB2, 0] = 2
    first = run("memory_snapshot", state="restored", run=RUN)
    assert "thp.enabled" in [change["knob"] for change in first["changes"]]
    assert first["attempts"] == []
    kernel.let_go(MIB2)
    second = run("memory_snapshot", state="restored", run=RUN)
    (attempt,) = second["attempts"]
    assert (attempt["run_id"], attempt["changes"]) == ("run-1", first["changes"])
    assert attempt["problems"][0].startswith("hugepages.2M: wanted 0 pages")


def test_force_after_a_rollback_restores_what_that_one_left_and_nothing_else(kernel: FakeKernel, run: Run) -> None:
    never = run("memory_snapshot", state="restored", run=RUN)
    assert never["note"] == "nothing to restore: this host has no snapshot, so nothing was ever set here"
    run("thp", enabled="always", defrag="never", run=RUN)
    # Somebody else wants defrag otherwise by now, and after the rollback also enabled.
    kernel.write_kernel(f"{THP}/defrag", "defer")
    left = run("memory_snapshot", state="restored", run=RUN)["left"]
    assert [entry["knob"] for entry in left] == ["thp.defrag"]
    kernel.write_kernel(f"{THP}/enabled", "never")
    plain = run("memory_snapshot", state="restored", run=RUN)
    assert (plain["status"], plain["changed"]) == ("nothing", False)
    assert "left what others had changed (thp.defrag). Next: -e rollback_force=true" in plain["note"]
    for check in (True, False):
        forced = run("memory_snapshot", check=check, state="restored", force=True, run=RUN)
        assert [change["knob"] for change in forced["changes"]] == ["thp.defrag"]
    values = {name: knob.value for name, knob in thp_knobs(kernel).items()}
    assert (values["thp.defrag"], values["thp.enabled"]) == ("madvise", "never")
    kernel.write_kernel(f"{THP}/defrag", "defer")
    again = run("memory_snapshot", state="restored", force=True, run=RUN)
    assert (again["status"], again["changed"]) == ("nothing", False)
    assert "has restored all of" in again["note"]


def test_what_is_no_longer_asked_for_is_announced_before_it_is_restored(
    kernel: FakeKernel, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    def note(module: object, warning: str) -> None:
        told.append((warning, thp_knobs(kernel)["thp.defrag"].value))

    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.warn", note)
    run("hugepages", pools=[{"size": "2M", "count": 8}], run=RUN)
    run("thp", enabled="always", defrag="never", run=RUN)
    assert told == []
    looked = run("memory_info", preflight=True, thp={"enabled": "always"}, run=RUN)
    dropped = [(one["knob"], one["before"], one["after"]) for one in looked["dropped"]]
    assert dropped == [("thp.defrag", "never", "madvise"), ("hugepages.2M", "8", "0")]
    assert told.pop() == (
        "no longer asked for, will be restored to what the host had before: thp.defrag (never -> madvise), "
        "hugepages.2M (8 -> 0). Next: ask for it again where it is to stay.",
        "never",
    )
    for check, when in ((True, "will be"), (False, "are")):
        done = run("thp", check=check, enabled="always", run=RUN)
        assert [one["knob"] for one in done["dropped"]] == ["thp.defrag"]
        assert "thp.defrag: madvise    (no longer asked for)\n" in done["diff"]["after"]
        warning, value_then = told.pop()
        assert (f"no longer asked for, {when} restored" in warning, value_then) == (True, "never")
    assert run("thp", enabled="always", run=RUN)["dropped"] == told == []


def test_memory_info_tells_all_and_judges(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="always", run=RUN)
    put(kernel.root, "/etc/sysctl.d/9.conf", "vm.nr_hugepages=5\n")
    put(kernel.root, "/proc/self/mountinfo", f"{MOUNTINFO}9 27 0:9 / /mnt/h rw - hugetlbfs h rw,pagesize=2M\n")
    result = run("memory_info", thp={"enabled": "always"}, pools=[{"size": "2M", "count": 8}])
    verdicts = {row["knob"]: row["verdict"] for row in result["rows"]}
    assert verdicts == {"thp.enabled": "clean", "hugepages.2M": "drift"}
    assert result["competitors"][0]["path"] == "/etc/sysctl.d/9.conf"
    assert result["memory"]["numa"] == [{"node": 0, "total_bytes": 16384000 * 1024, "free_bytes": 12000000 * 1024}]
    assert result["memory"]["values"]["hugetlbfs./mnt/h"] == "pagesize=2M,mode=0755,uid=0,gid=0"
    assert result["memory"]["snapshot"] is True
    assert result["memory"]["persisted"]["thp.enabled"]["source"] == f"{THP_DROPIN}:2"


def test_what_a_script_may_write_is_a_note_and_refuses_nothing(kernel: FakeKernel, run: Run) -> None:
    put(kernel.root, "/etc/rc.local", "#!/bin/sh\necho $N > /proc/sys/vm/nr_hugepages\n", 0o755)
    wanted = {"pools": [{"size": "2M", "count": 8}]}
    looked = run("memory_info", preflight=True, **wanted)
    assert not looked.get("failed")
    assert run("hugepages", **wanted)["changed"]
    result = run("memory_info", **wanted)
    assert [row["verdict"] for row in result["rows"]] == ["clean"]
    assert result["competitors"] == []
    assert [(one["path"], one["line"], one["value"]) for one in result["possible_writers"]] == [
        ("/etc/rc.local", 2, None)
    ]


def test_a_writer_of_the_whole_pool_is_drift_of_a_nodes_row(kernel: FakeKernel, run: Run) -> None:
    wanted = {"pools": [{"size": "2M", "count": 8, "node": 0}]}
    assert run("hugepages", **wanted)["changed"]
    put(kernel.root, "/etc/sysctl.d/9.conf", "vm.nr_hugepages=5\n")
    (row,) = run("memory_info", **wanted)["rows"]
    assert (row["knob"], row["verdict"]) == ("hugepages.node0.2M", "drift")
    assert "sysctl sets hugepages.2M to 5 at /etc/sysctl.d/9.conf:1" in row["detail"]


def test_preflight_names_the_competitor_unless_it_is_tolerated(kernel: FakeKernel, run: Run) -> None:
    put(kernel.root, "/etc/sysctl.d/9.conf", "vm.nr_hugepages=5\n")
    arguments = {"pools": [{"size": "2M", "count": 8}], "preflight": True}
    result = run("memory_info", **arguments)
    assert result["problem"]["found"] == "sysctl sets hugepages.2M to 5 at /etc/sysctl.d/9.conf:1"
    assert not run("memory_info", tolerate_competitors=True, **arguments).get("failed")
    assert run("hugepages", pools=arguments["pools"])["changed"]
    tolerated = run("memory_info", tolerate_competitors=True, **arguments)
    assert [row["verdict"] for row in tolerated["rows"]] == ["clean"]
    assert len(tolerated["competitors"]) == 1
    assert [row["verdict"] for row in run("memory_info", pools=arguments["pools"])["rows"]] == ["drift"]


ON_TMPFS = f"{MOUNTINFO}40 27 0:40 / /etc rw - tmpfs t rw\n41 27 0:41 / /var/lib rw - tmpfs t rw\n"
BOTH = ["persistence./etc", "persistence./var/lib"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("thp", {"enabled": "never"}),
        ("hugepages", {"pools": [{"size": "2M", "count": 8}]}),
        ("hugepages", {"pools": [], "overcommit": {"2M": 8}}),
        ("memory_info", {"thp": {"enabled": "never"}, "preflight": True}),
    ],
)
def test_a_folder_that_does_not_outlive_a_reboot_is_refused_before_the_first_change(
    kernel: FakeKernel, run: Run, name: str, arguments: dict[str, Any]
) -> None:
    put(kernel.root, "/proc/self/mountinfo", ON_TMPFS)
    before = tree(kernel)
    for check in (True, False):
        refused = run(name, check=check, run=RUN, **arguments)
        assert refused["failed"]
        assert refused["problem"]["knob"] == "persistence./etc"
        assert "slm_accept_loss: [persistence./etc, persistence./var/lib]" in refused["msg"]
        half = run(name, check=check, run=RUN, accept_loss=BOTH[:1], **arguments)
        assert half["problem"]["knob"] == "persistence./var/lib"
        assert "slm_accept_loss: [persistence./var/lib]" in half["msg"]
    assert kernel.writes == []
    assert {path for path in tree(kernel) if path not in before} <= {"run/slm-baseline/lock", LEASE[1:]}
    assert not run(name, run=RUN, accept_loss=BOTH, **arguments).get("failed")


def test_what_is_given_up_there_is_restored_all_the_same(kernel: FakeKernel, run: Run) -> None:
    run("thp", enabled="never", run=RUN)
    put(kernel.root, "/proc/self/mountinfo", ON_TMPFS)
    assert run("thp", run=RUN)["changed"]
    assert thp_knobs(kernel)["thp.enabled"].value == "madvise"
