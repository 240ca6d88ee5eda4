"""A whole rollback: what others rely on, attempts that stay incomplete, and what an earlier one left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import ARCHIVE, SNAPSHOT
from ansible.module_utils.slm_baseline.settings.apply.transaction import carry_out
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.kind import Kind
from ansible.module_utils.slm_baseline.settings.kinds.mounts import Mounts
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN, Pools
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, THP_DROPIN, Thp, thp_knobs
from ansible.module_utils.slm_baseline.settings.rollback import rollback as module
from ansible.module_utils.slm_baseline.settings.rollback.restore import FindWriters
from ansible.module_utils.slm_baseline.settings.rollback.rollback import Rollback, RollbackOutcome, roll_back
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import ensure, load, plan_kind
from ansible.module_utils.slm_baseline.settings.state.losses import LossError

from tests.support.fake_kernel import FakeKernel, add_node
from tests.support.fakes import put
from tests.support.killed_sweep import leave_arm

MIB2 = 2 << 20
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"


@dataclass(frozen=True)
class Line:
    """A line of somebody's file that sets a knob."""

    path: str
    knob: str
    value: str | None

    def __str__(self) -> str:
        return f"{self.path} wants {self.value}"


def writers(*lines: Line) -> FindWriters:
    def find(host: Host, before: Mapping[str, str], default_page_bytes: int) -> Sequence[Line]:
        assert default_page_bytes == MIB2
        return [line for line in lines if line.knob in before]

    return find


@pytest.fixture
def kernel(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    add_node(fake_host.root)
    return FakeKernel(fake_host.root)


def tune(kernel: FakeKernel, *wanted: Kind) -> None:
    for kind in wanted:
        carry_out(kernel, [kind], plan_kind(kernel, kind, load(kernel)), "t", "run-1")


def told(done: RollbackOutcome) -> list[tuple[str, str, str, str]]:
    return [(entry["knob"], entry["found"], entry["before"], entry["why"]) for entry in done.left]


def value(kernel: FakeKernel, name: str) -> str:
    return thp_knobs(kernel)[name].value


NEVER = Thp({"thp.enabled": "never", "thp.defrag": "never"})


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_value_that_somebody_s_file_wants_as_it_is_stays(kernel: FakeKernel, dry_run: bool) -> None:
    tune(kernel, NEVER)
    theirs = Line("/etc/sysctl.d/9.conf", "thp.enabled", "never")
    done = roll_back(kernel, dry_run, asked=Rollback(find_writers=writers(theirs)))
    assert told(done) == [("thp.enabled", "never", "madvise", "/etc/sysctl.d/9.conf wants never")]
    assert (done.status, "thp.enabled" in {each["knob"] for each in done.changes}) == ("restored", False)
    assert (value(kernel, "thp.enabled"), value(kernel, "thp.defrag")) == (
        "never",
        "never" if dry_run else "madvise",
    )


@pytest.mark.parametrize(
    "line",
    [
        Line("/etc/sysctl.d/9.conf", "thp.enabled", "always"),
        Line("/etc/sysctl.d/9.conf", "thp.shmem_enabled", "never"),
        # A drop-in of our own unit.
        Line(f"{THP_DROPIN}.d/own.conf", "thp.enabled", "never"),
    ],
)
def test_who_wants_another_value_or_another_knob_keeps_nothing(kernel: FakeKernel, line: Line) -> None:
    tune(kernel, NEVER)
    done = roll_back(kernel, asked=Rollback(find_writers=writers(line)))
    assert told(done) == []
    assert value(kernel, "thp.enabled") == "madvise"


def test_of_others_only_what_would_move_is_asked(kernel: FakeKernel) -> None:
    asked: list[set[str]] = []

    def find(host: Host, before: Mapping[str, str], default_page_bytes: int) -> Sequence[Line]:
        asked.append(set(before))
        return []

    tune(kernel, NEVER)
    kernel.write_kernel(f"{THP}/defrag", "madvise")
    roll_back(kernel, asked=Rollback(find_writers=find))
    assert asked == [{"thp.enabled"}]
    tune(kernel, NEVER)
    for name in ("enabled", "defrag"):
        kernel.write_kernel(f"{THP}/{name}", "madvise")
    roll_back(kernel, asked=Rollback(find_writers=find))
    assert len(asked) == 1


def test_force_asks_nobody(kernel: FakeKernel) -> None:
    tune(kernel, NEVER)
    theirs = writers(Line("/etc/sysctl.d/9.conf", "thp.enabled", "never"))
    assert roll_back(kernel, force=True, asked=Rollback(find_writers=theirs)).left == []
    assert value(kernel, "thp.enabled") == "madvise"


def test_an_incomplete_rollback_is_noted_with_its_run_until_one_completes(kernel: FakeKernel) -> None:
    tune(kernel, NEVER, Pools([PoolSpec(MIB2, 8)]))
    kernel.stuck.update(NODE.format(node) for node in (0, 1))
    for number in (1, 2):
        done = roll_back(kernel, asked=Rollback(run_id=f"run-{number}", began_at=f"at {number}"))
        assert (done.status, done.archive, len(done.attempts)) == ("incomplete", None, number - 1)
        stored = load(kernel)
        assert stored
        assert [attempt["run_id"] for attempt in stored.attempts] == [f"run-{each + 1}" for each in range(number)]
        assert "still in use" in stored.attempts[0]["problems"][0]
        assert {change["knob"] for change in stored.attempts[0]["changes"]} >= {"thp.enabled", "hugepages.2M"}
    # A dry run notes nothing.
    before = kernel.read(SNAPSHOT)
    assert roll_back(kernel, dry_run=True).archive is None
    assert kernel.read(SNAPSHOT) == before
    kernel.stuck.clear()
    done = roll_back(kernel)
    assert (done.status, [each["began_at"] for each in done.attempts]) == ("restored", ["at 1", "at 2"])
    assert done.archive is not None
    assert not kernel.exists(SNAPSHOT)


def test_what_an_earlier_rollback_left_is_told_and_restored_by_force_alone(kernel: FakeKernel) -> None:
    tune(kernel, NEVER)
    kernel.write_kernel(f"{THP}/defrag", "always")
    first = roll_back(kernel)
    assert [entry["knob"] for entry in first.left] == ["thp.defrag"]
    # What it restored is the host's own since then.
    kernel.write_kernel(f"{THP}/enabled", "always")
    again = roll_back(kernel)
    assert (again.status, again.changes) == ("nothing", [])
    assert "left what others had changed (thp.defrag)" in again.note
    assert "rollback_force=true" in again.note
    predicted = roll_back(kernel, dry_run=True, force=True)
    assert value(kernel, "thp.defrag") == "always"
    forced = roll_back(kernel, force=True)
    assert (forced.status, forced.archive) == ("restored", first.archive)
    assert forced.changes == predicted.changes == [{"knob": "thp.defrag", "before": "always", "after": "madvise"}]
    assert (value(kernel, "thp.defrag"), value(kernel, "thp.enabled")) == ("madvise", "always")
    assert "has restored all of" in roll_back(kernel, force=True).note


def test_a_forced_rollback_of_what_was_left_that_fails_is_incomplete(kernel: FakeKernel) -> None:
    tune(kernel, NEVER)
    kernel.write_kernel(f"{THP}/defrag", "always")
    roll_back(kernel)
    kernel.stuck.add(f"{THP}/defrag")
    done = roll_back(kernel, force=True)
    assert (done.status, done.archive, [problem.knob for problem in done.problems]) == (
        *("incomplete", None),
        ["thp.defrag"],
    )
    kernel.stuck.clear()
    assert roll_back(kernel, force=True).status == "restored"


def test_a_host_that_was_never_tuned_has_nothing_and_files_without_a_snapshot_are_an_error(kernel: FakeKernel) -> None:
    assert roll_back(kernel).note == "nothing to restore: this host has no snapshot, so nothing was ever set here"
    tune(kernel, Pools([PoolSpec(MIB2, 8)]))
    kernel.path(SNAPSHOT).unlink()
    with pytest.raises(SettingError, match="Without the snapshot"):
        roll_back(kernel)
    assert kernel.exists(POOLS_DROPIN)


def test_a_file_that_others_changed_is_told_by_its_size_or_its_target(kernel: FakeKernel) -> None:
    tune(kernel, NEVER, Pools([PoolSpec(MIB2, 8)]))
    put(kernel.root, THP_DROPIN, "12345")
    kernel.path(POOLS_DROPIN).unlink()
    kernel.path(POOLS_DROPIN).symlink_to("/dev/null")
    done = roll_back(kernel)
    assert told(done) == [
        (THP_DROPIN, "a file of 5 bytes", "absent", "changed by others since"),
        (POOLS_DROPIN, "-> /dev/null", "absent", "changed by others since"),
    ]
    assert done.archive == f"{ARCHIVE}/snapshot-t.json"


def test_systemd_reads_its_units_again_only_where_one_changed(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloads: list[Host] = []

    def reload(host: Host) -> str:
        reloads.append(host)
        return "not read"

    monkeypatch.setattr(module, "reload_units", reload)
    ensure(kernel, [Mounts([MountSpec("/mnt/huge", MIB2)])], "t", "run-1")
    kernel.write_kernel(f"{THP}/enabled", "never")
    put(kernel.root, unit_path("/mnt/huge"), "ours\n")
    assert (roll_back(kernel, dry_run=True, force=True).warning, reloads) == (None, [])
    assert (roll_back(kernel, force=True).warning, reloads) == ("not read", [kernel])
    tune(kernel, NEVER)
    assert (roll_back(kernel).warning, len(reloads)) == (None, 1)


def test_pages_that_others_would_lose_stay_and_are_no_longer_ours_to_take(kernel: FakeKernel) -> None:
    tune(kernel, NEVER, Pools([PoolSpec(MIB2, 8)]))
    free = NODE.format(0).replace("nr_", "free_")
    put(kernel.root, free, "1\n")
    done = roll_back(kernel)
    assert (done.status, [type(problem) for problem in done.problems]) == ("incomplete", [LossError])
    stored = load(kernel)
    assert stored
    assert "hugepages.2M" not in stored.ours.pending
    # What sets it at the next boot stays with it.
    assert (kernel.exists(POOLS_DROPIN), kernel.exists(THP_DROPIN)) == (True, False)
    # Somebody sets another count meanwhile.
    kernel.write_kernel(NODE.format(0), "20")
    put(kernel.root, free, "20\n")
    assert {entry["knob"] for entry in roll_back(kernel).left} == {"hugepages.2M", "hugepages.node0.2M"}


def test_what_was_before_includes_what_a_sweep_found_on_a_newer_kernel(kernel: FakeKernel) -> None:
    # A sweep knows nothing of mounts.
    ensure(kernel, [Mounts([MountSpec("/mnt/huge", MIB2)])], "t", "run-1")
    tune(kernel, NEVER)
    put(kernel.root, f"{THP}/hugepages-16kB/enabled", "always inherit madvise [never]\n")
    leave_arm(kernel, {"thp.sizes.16kB.enabled": "always"})
    before = roll_back(kernel, dry_run=True).before
    assert (before["thp.sizes.16kB.enabled"], before["thp.enabled"]) == ("never", "madvise")
