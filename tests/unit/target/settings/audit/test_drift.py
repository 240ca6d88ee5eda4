"""Rows: runtime, persisted and boot state against what is wanted, each drift in one sentence."""

from __future__ import annotations

import os

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.audit.drift import Row, drift_rows
from ansible.module_utils.slm_baseline.settings.audit.survey import conflicts_of
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path, unit_text, wants_path
from ansible.module_utils.slm_baseline.settings.boot.tmpfiles import DROPIN_MARK, tmpfiles_text
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.mounts import Mounts
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN, Pools
from ansible.module_utils.slm_baseline.settings.kinds.registry import Wanted, persisted_values, runtime_values
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, THP_DROPIN, Thp

from tests.support.fakes import MOUNTINFO, put

MIB2 = 2 << 20
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
SPEC = MountSpec("/mnt/huge", MIB2, None, 0o770)
WANTED: Wanted = [Thp({"thp.enabled": "madvise"}), Pools([PoolSpec(MIB2, 8)]), Mounts([SPEC])]
MOUNTED = f"9 27 0:9 / /mnt/huge rw - hugetlbfs h rw,{SPEC.options}\n"


@pytest.fixture
def tuned(fake_host: Host) -> Host:
    """A host on which all of WANTED is in force and persisted."""
    put(fake_host.root, POOL, "8\n")
    put(fake_host.root, "/proc/self/mountinfo", MOUNTINFO + MOUNTED)
    put(fake_host.root, THP_DROPIN, tmpfiles_text({f"{THP}/enabled": "madvise"}))
    put(fake_host.root, POOLS_DROPIN, f"{DROPIN_MARK}\nw! {POOL} - - - - 8\n")
    put(fake_host.root, unit_path("/mnt/huge"), unit_text(SPEC))
    link = fake_host.path(wants_path("/mnt/huge"))
    link.parent.mkdir()
    os.symlink(unit_path("/mnt/huge"), link)
    return fake_host


def rows(host: Host, wanted: Wanted = WANTED) -> dict[str, Row]:
    return {row.knob: row for row in drift_rows(host, wanted, conflicts_of(host, wanted))}


def drift(host: Host, wanted: Wanted = WANTED) -> dict[str, str]:
    return {knob: row.detail for knob, row in rows(host, wanted).items() if row.verdict == "drift"}


def test_a_tuned_host_is_clean_and_says_where_each_value_is_kept(tuned: Host) -> None:
    assert drift(tuned) == {}
    assert {knob: row.source for knob, row in rows(tuned).items()} == {
        "thp.enabled": f"{THP_DROPIN}:2",
        "hugepages.2M": f"{POOLS_DROPIN}:2",
        "hugetlbfs./mnt/huge": f"{unit_path('/mnt/huge')}:10",
    }
    row = rows(tuned)["hugetlbfs./mnt/huge"]
    assert row.desired == row.runtime == row.persisted == "pagesize=2M,mode=0770,uid=0,gid=0"


def test_the_source_of_a_unit_is_its_options_line(tuned: Host) -> None:
    path, _, line = rows(tuned)["hugetlbfs./mnt/huge"].source.rpartition(":")  # type: ignore[union-attr]
    assert tuned.read(path).splitlines()[int(line) - 1].startswith("Options=")


def test_another_runtime_value_is_drift(tuned: Host) -> None:
    put(tuned.root, f"{THP}/enabled", "[always] madvise never\n")
    put(tuned.root, POOL, "7\n")
    put(tuned.root, "/proc/self/mountinfo", MOUNTINFO)
    assert drift(tuned) == {
        "thp.enabled": "thp.enabled is always, should be madvise",
        "hugepages.2M": "hugepages.2M is 7, should be 8",
        "hugetlbfs./mnt/huge": "hugetlbfs./mnt/huge is absent, should be pagesize=2M,mode=0770,uid=0,gid=0",
    }


def test_surplus_pages_do_not_count_for_the_pool(tuned: Host) -> None:
    put(tuned.root, POOL.replace("nr_", "surplus_"), "3\n")
    assert drift(tuned)["hugepages.2M"] == "hugepages.2M is 5, should be 8"


def test_a_deleted_drop_in_is_drift_though_runtime_is_right(tuned: Host) -> None:
    tuned.path(THP_DROPIN).unlink()
    tuned.path(wants_path("/mnt/huge")).unlink()
    details = drift(tuned)
    assert details["thp.enabled"] == "thp.enabled is not persisted: the next boot will not set it"
    assert "not persisted" in details["hugetlbfs./mnt/huge"]


def test_a_file_that_systemd_reads_before_ours_is_what_the_next_boot_sets(tuned: Host) -> None:
    put(tuned.root, "/etc/tmpfiles.d/a.conf", f"w {THP}/enabled - - - - always\n")
    put(tuned.root, "/etc/tmpfiles.d/z.conf", f"w {POOL} - - - - 1\n")
    persisted = persisted_values(tuned)
    assert persisted["thp.enabled"] == ("always", "/etc/tmpfiles.d/a.conf:1")
    assert persisted["hugepages.2M"] == ("8", f"{POOLS_DROPIN}:2")
    assert "persisted as always in /etc/tmpfiles.d/a.conf:1" in drift(tuned)["thp.enabled"]
    assert "tmpfiles.d sets hugepages.2M to 1 at /etc/tmpfiles.d/z.conf:1" in drift(tuned)["hugepages.2M"]


def test_what_a_drop_in_of_ours_still_sets_though_nobody_wants_it_is_drift(tuned: Host) -> None:
    details = drift(tuned, [])
    assert details["thp.enabled"] == f"{THP_DROPIN}:2 still sets thp.enabled to madvise"
    assert set(details) == {"thp.enabled", "hugepages.2M", "hugetlbfs./mnt/huge"}
    put(tuned.root, "/etc/tmpfiles.d/theirs.conf", f"w {THP}/defrag - - - - never\n")
    assert set(drift(tuned, [])) == set(details)


def test_a_stacked_mount_is_told_not_thrown(tuned: Host) -> None:
    put(tuned.root, "/proc/self/mountinfo", MOUNTINFO + MOUNTED + MOUNTED)
    assert "Something else is mounted there" in drift(tuned)["hugetlbfs./mnt/huge"]


def test_a_unit_of_ours_that_lost_its_options_is_drift_not_a_crash(tuned: Host) -> None:
    unit = unit_path("/mnt/huge")
    put(tuned.root, unit, "\n".join(x for x in tuned.read(unit).splitlines() if not x.startswith("Options")))
    assert "is persisted as pagesize=2M,mode=0755" in drift(tuned)["hugetlbfs./mnt/huge"]


def test_boot_values_stand_in_their_own_column(tuned: Host) -> None:
    put(tuned.root, "/proc/cmdline", "transparent_hugepage=madvise hugepages=8\n")
    assert {knob: row.boot for knob, row in rows(tuned).items()} == {
        "thp.enabled": "madvise",
        "hugepages.2M": "8",
        "hugetlbfs./mnt/huge": None,
    }
    assert drift(tuned) == {}


def test_runtime_values_of_every_knob(fake_host: Host) -> None:
    values = runtime_values(fake_host)
    assert values["thp.sizes.64kB.enabled"] == "never"
    assert values["hugepages.node0.1G"] == "0"


def test_a_knob_the_host_lacks_is_absent(fake_host: Host) -> None:
    assert "hugepages.16M is absent, should be 1" in drift(fake_host, [Pools([PoolSpec(16 << 20, 1)])])["hugepages.16M"]
