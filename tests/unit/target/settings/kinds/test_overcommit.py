"""Overcommit: limits of surplus pages, set, kept, recorded, restored, and refused where the kernel refuses."""

from __future__ import annotations

import errno
import json
import time

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import SNAPSHOT
from ansible.module_utils.slm_baseline.settings.apply.transaction import carry_out
from ansible.module_utils.slm_baseline.settings.audit.conflicts.find import find_conflicts
from ansible.module_utils.slm_baseline.settings.audit.drift import drift_rows
from ansible.module_utils.slm_baseline.settings.kinds.overcommit import OVERCOMMIT_DROPIN, Overcommit, parse_overcommit
from ansible.module_utils.slm_baseline.settings.rollback.rollback import roll_back
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import load, plan_kind
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.support.fake_kernel import FakeKernel
from tests.support.fakes import put

MIB2, GIB = 2 << 20, 1 << 30
FILE = "/sys/kernel/mm/hugepages/hugepages-{}kB/nr_overcommit_hugepages"
KNOB = "hugepages_overcommit.2M"


@pytest.fixture
def kernel(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """A host whose owner allows 7 surplus pages of 2 MiB."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    put(fake_host.root, FILE.format(2048), "7\n")
    return FakeKernel(fake_host.root)


def tune(kernel: FakeKernel, wanted: dict[int, int]) -> list[str]:
    kind = Overcommit(wanted)
    changes = plan_kind(kernel, kind, load(kernel))
    carry_out(kernel, [kind], changes, "t", "run-1")
    return [change.name for change in changes]


def test_a_limit_is_set_and_kept_and_a_second_plan_is_empty(kernel: FakeKernel) -> None:
    assert tune(kernel, {MIB2: 512}) == [KNOB, OVERCOMMIT_DROPIN]
    assert kernel.read(FILE.format(2048)) == "512\n"
    assert kernel.read(OVERCOMMIT_DROPIN).splitlines()[1:] == [f"w! {FILE.format(2048)} - - - - 512"]
    assert tune(kernel, {MIB2: 512}) == []


def test_a_limit_no_longer_wanted_returns_to_the_owners(kernel: FakeKernel) -> None:
    tune(kernel, {MIB2: 512})
    assert tune(kernel, {}) == [KNOB, OVERCOMMIT_DROPIN]
    assert kernel.read(FILE.format(2048)) == "7\n"
    assert not kernel.exists(OVERCOMMIT_DROPIN)


def test_a_rollback_restores_the_owners_limit(kernel: FakeKernel) -> None:
    tune(kernel, {MIB2: 512})
    done = roll_back(kernel)
    assert (done.status, done.before[KNOB]) == ("restored", "7")
    assert kernel.read(FILE.format(2048)) == "7\n"
    assert not kernel.exists(OVERCOMMIT_DROPIN)


def test_its_row_tells_drift_and_where_it_is_kept(kernel: FakeKernel) -> None:
    tune(kernel, {MIB2: 512})
    row = next(row for row in drift_rows(kernel, [Overcommit({MIB2: 512})], ()))
    assert (row.knob, row.desired, row.runtime, row.source, row.verdict) == (
        KNOB,
        "512",
        "512",
        f"{OVERCOMMIT_DROPIN}:2",
        "clean",
    )
    kernel.write_kernel(FILE.format(2048), "3")
    assert drift_rows(kernel, [Overcommit({MIB2: 512})], ())[0].detail == f"{KNOB} is 3, should be 512"
    assert drift_rows(kernel, [], ())[0].detail == f"{OVERCOMMIT_DROPIN}:2 still sets {KNOB} to 512"


def test_the_sysctl_of_the_default_size_competes(kernel: FakeKernel) -> None:
    put(kernel.root, "/etc/sysctl.d/9.conf", "vm.nr_overcommit_hugepages = 1\nvm.nr_hugepages = 5\n")
    writers = find_conflicts(kernel, {KNOB: "512"}, MIB2)
    assert [str(writer) for writer in writers] == [f"sysctl sets {KNOB} to 1 at /etc/sysctl.d/9.conf:1"]


def test_a_size_whose_limit_the_kernel_refuses_is_one_typed_error_and_nothing_stays(kernel: FakeKernel) -> None:
    kernel.failing[FILE.format(1048576)] = errno.EINVAL
    with pytest.raises(SettingError, match=r"hugepages_overcommit\.1G: wanted 2 pages; .* gigantic size"):
        tune(kernel, {MIB2: 512, GIB: 2})
    assert kernel.read(FILE.format(2048)) == "7\n"
    assert not kernel.exists(OVERCOMMIT_DROPIN)
    assert tune(kernel, {GIB: 0}) == [OVERCOMMIT_DROPIN]


def test_a_snapshot_from_before_this_kind_learns_its_values(kernel: FakeKernel) -> None:
    put(kernel.root, SNAPSHOT, (REPOSITORY / "tests/golden/snapshot-1.json").read_text(encoding="utf-8"))
    snapshot = load(kernel)
    assert snapshot
    assert snapshot.of(Overcommit.key) == {}
    tune(kernel, {MIB2: 512})
    assert json.loads(kernel.read(SNAPSHOT))["kinds"]["overcommit"][KNOB] == "7"


def test_a_size_that_the_kernel_no_longer_has_is_nothing_to_restore(kernel: FakeKernel) -> None:
    recorded = Overcommit.recorded("hugepages_overcommit.16M", "0")
    assert recorded.change(kernel) is None
    with pytest.raises(ValueError, match="no knob"):
        Overcommit.recorded("hugepages.2M", "0")


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        ([], "hugepages_overcommit"),
        ({"2Q": 1}, "hugepages_overcommit"),
        ({"2M": 1, "2048K": 2}, "hugepages_overcommit"),
        ({"2M": -1}, KNOB),
        ({"2M": True}, KNOB),
        ({"2M": 2**31}, KNOB),
        ({"2M": "nan"}, KNOB),
    ],
)
def test_bad_settings_are_refused_by_name(settings: object, knob: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_overcommit(settings)
    assert caught.value.knob == knob


def test_a_size_that_the_host_lacks_is_refused(kernel: FakeKernel) -> None:
    with pytest.raises(SettingError, match="a kernel with 2M, 1G"):
        Overcommit({16 << 20: 1}).check(kernel, {})


@given(st.dictionaries(st.sampled_from(["2M", "1G", "x", "64K"]), st.integers(-2, 2**33) | st.text(max_size=4)))
def test_any_setting_gives_pages_by_size_or_one_typed_error(settings: dict[str, object]) -> None:
    try:
        wanted = parse_overcommit(settings)
    except SettingError:
        return
    assert all(0 <= count < 2**31 for count in wanted.values())
