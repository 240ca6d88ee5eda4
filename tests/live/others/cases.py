"""The neighbours: what each has, what of ours happens beside it, and what becomes of it. A case is one function.

A case fails where its neighbour has lost something, or where what we say of it is untrue.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.paths import SWEEP_PRIOR
from ansible.module_utils.slm_baseline.host.rmtree import remove_tree
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kinds.memory_guard import Guard
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP_DROPIN
from ansible.module_utils.slm_baseline.sweep.design import Arm, feasible_arms

from tests.live.others.world import MIB2, MOUNT, UNIT, World, fine, left, refused, run
from tests.support.killed_sweep import leave_arm

KNOB = f"hugetlbfs.{MOUNT}"
PAGES = "hugepages.2M"
FILE = f"{MOUNT}/weights"
MIN_FREE = Path("/proc/sys/vm/min_free_kbytes")
SHMEM = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")

LEFT, REFUSED, NAMED, ACCEPTED = "left as it is", "refused", "named", "taken, accepted by name"


@dataclass(frozen=True)
class Case:
    """`neighbour` has something, `beside` happens, and `becomes` of it; `decides` says whose word counts."""

    name: str
    neighbour: str
    beside: str
    becomes: str
    decides: str
    play: Callable[[World], None]


CASES: list[Case] = []


def case(neighbour: str, beside: str, becomes: str, decides: str) -> Callable[[Callable[[World], None]], None]:
    """Enter a function into the table."""

    def enter(play: Callable[[World], None]) -> None:
        CASES.append(Case(play.__name__, neighbour, beside, becomes, decides, play))

    return enter


_NAMED = "whoever names it in `slm_accept_loss`"
_THEM = "they do"
_FORCE = "`rollback_force`"


# --- Mounts ----------------------------------------------------------------------------------------------------------


def _mounted(world: World) -> None:
    fine(world.pool(8))
    fine(world.mount())


@case("a file on the mount, open in nobody", "a change of the mount's mode", REFUSED, _NAMED)
def file_beside_new_mode(world: World) -> None:
    _mounted(world)
    world.write(FILE, "")
    refused(world.mount("0700"), KNOB, FILE)
    assert os.path.exists(FILE)
    assert "mode=770" in world.options()[0]


@case("a file on the mount, mapped by a program", "a change of the mount's mode", REFUSED, _NAMED)
def mapped_file_beside_new_mode(world: World) -> None:
    _mounted(world)
    pid = world.maps_file(FILE)
    refused(world.mount("0700"), KNOB, FILE, f"(pid {pid})")
    assert os.path.exists(FILE)


@case("a file on the mount", "a change of the mount's mode, predicted (--check)", REFUSED, _NAMED)
def file_beside_check_mode(world: World) -> None:
    _mounted(world)
    world.write(FILE, "")
    mounts = [{"path": MOUNT, "page_size": "2M", "mode": "0700"}]
    refused(world.run("hugetlbfs", mounts=mounts, _ansible_check_mode=True), KNOB, FILE)
    refused(world.run("memory_info", mounts=mounts, preflight=True), KNOB, FILE)


@case("a file on the mount", "the mount is given up", REFUSED, _NAMED)
def file_beside_mount_given_up(world: World) -> None:
    _mounted(world)
    world.write(FILE, "")
    refused(world.mount(None), KNOB, FILE)
    assert os.path.exists(FILE)
    assert os.path.exists(UNIT)


@case("a file on the mount", "rollback", REFUSED, _NAMED)
def file_beside_rollback(world: World) -> None:
    _mounted(world)
    world.write(FILE, "")
    refused(world.rollback(), KNOB, FILE)
    # The mount whole, with its unit for the next boot, and the way back is kept.
    assert os.path.exists(FILE)
    assert os.path.exists(UNIT)
    assert world.has_snapshot()
    os.unlink(FILE)
    fine(world.rollback())
    assert not os.path.exists(MOUNT)


@case("a file on the mount", "rollback with `rollback_force`", REFUSED, _NAMED)
def file_beside_forced_rollback(world: World) -> None:
    _mounted(world)
    world.write(FILE, "")
    refused(world.rollback(force=True), KNOB, FILE)
    assert os.path.exists(FILE)


@case("a file on the mount", f"a change of mode with slm_accept_loss: [{KNOB}]", ACCEPTED, _NAMED)
def file_beside_accepted_mode(world: World) -> None:
    _mounted(world)
    world.write(FILE, "")
    fine(world.mount("0700", accept_loss=[KNOB]))
    assert "mode=700" in world.options()[0]


@case("nobody on the mount", "a change of mode, then rollback", "changed, and gone", "we do")
def nobody_on_the_mount(world: World) -> None:
    _mounted(world)
    fine(world.mount("0700"))
    assert fine(world.rollback())["left"] == []
    assert not os.path.exists(MOUNT)
    assert world.pages() == 0


def _container_with_file(world: World) -> tuple[int, Path]:
    _mounted(world)
    pid = world.container(setup=f"touch {FILE}.tmp && rm {FILE}.tmp")
    return pid, Path(f"/proc/{pid}/root{MOUNT}")


@case("a container with the mount in a namespace of its own", "a change of the mount's mode", REFUSED, _NAMED)
def container_beside_new_mode(world: World) -> None:
    pid, _ = _container_with_file(world)
    refused(world.mount("0700"), KNOB, f"(pid {pid})", "namespace")
    assert "mode=770" in world.options()[0]


@case("a container with the mount in a namespace of its own", "rollback", REFUSED, _NAMED)
def container_beside_rollback(world: World) -> None:
    pid, inside = _container_with_file(world)
    refused(world.rollback(), KNOB, f"(pid {pid})")
    assert os.path.ismount(inside)
    world.leaves()
    fine(world.rollback())


@case("a container with the mount", f"a change of mode with slm_accept_loss: [{KNOB}]", "it keeps the old one", _NAMED)
def container_beside_accepted_mode(world: World) -> None:
    _, inside = _container_with_file(world)
    fine(world.mount("0700", accept_loss=[KNOB]))
    assert os.path.ismount(inside)
    assert inside.stat().st_mode & 0o777 == 0o770
    assert "mode=700" in world.options()[0]


@case("a container with its own file system on our folder", "rollback", LEFT, _NAMED)
def container_with_its_own_mount_on_our_folder(world: World) -> None:
    _mounted(world)
    pid = world.container(setup=f"umount {MOUNT} && mount -t tmpfs theirs {MOUNT} && touch {MOUNT}/theirs")
    result = fine(world.rollback())
    assert f"(pid {pid})" in left(result, MOUNT)[MOUNT]
    assert os.path.exists(f"/proc/{pid}/root{MOUNT}/theirs")
    assert world.options() == []


@case("a service that systemd shows the host's mounts (a slave namespace)", "a change of mode", "it follows", "we do")
def sandboxed_service_beside_new_mode(world: World) -> None:
    run("mount", "--make-shared", "/mnt")
    _mounted(world)
    pid = world.container("slave")
    fine(world.mount("0700"))
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    (inside,) = [line for line in lines if line.split(" ")[4] == MOUNT]
    assert "mode=700" in inside


@case("an administrator's bind mount of our mount", "a change of the mount's mode", REFUSED, _NAMED)
def bind_mount_beside_new_mode(world: World) -> None:
    _mounted(world)
    os.mkdir("/mnt/db")
    run("mount", "--bind", MOUNT, "/mnt/db")
    refused(world.mount("0700"), KNOB, "/mnt/db")
    assert "mode=770" in world.options("/mnt/db")[0]


def _mount_otherwise() -> None:
    run("umount", MOUNT)
    run("mount", "-t", "hugetlbfs", "-o", "pagesize=2M,mode=0700,uid=33", "dba", MOUNT)


@case("a DBA's own mount in place of ours", "the mount is given up", LEFT, _THEM)
def own_remount_beside_mount_given_up(world: World) -> None:
    _mounted(world)
    _mount_otherwise()
    fine(world.mount(None))
    assert "uid=33" in world.options()[0]


@case("a DBA's own mount in place of ours", "rollback", LEFT, _FORCE)
def own_remount_beside_rollback(world: World) -> None:
    _mounted(world)
    _mount_otherwise()
    left(fine(world.rollback()), KNOB)
    assert "uid=33" in world.options()[0]


@case("a DBA's line in /etc/fstab for our path", "rollback", LEFT, _FORCE)
def fstab_line_beside_rollback(world: World) -> None:
    _mounted(world)
    world.write("/etc/fstab", f"# theirs\nhuge {MOUNT} hugetlbfs pagesize=2M,mode=0770 0 0\n")
    assert "/etc/fstab:2" in left(fine(world.rollback()), KNOB)[KNOB]
    assert world.options()


def _service(world: World, line: str, path: str = "/etc/systemd/system/db.service") -> None:
    world.write(path, f"[Unit]\n{line}\n[Service]\nExecStart=/bin/true\n")


@case("a service with RequiresMountsFor= of our mount", "rollback", REFUSED, _NAMED)
def requiring_service_beside_rollback(world: World) -> None:
    _mounted(world)
    _service(world, f"RequiresMountsFor={MOUNT}/db")
    refused(world.rollback(), KNOB, "db.service", "/etc/systemd/system/db.service:2")
    assert world.options()
    assert os.path.exists(UNIT)


@case("a service with BindsTo= of our mount's unit", "the mount is given up", REFUSED, _NAMED)
def bound_service_beside_mount_given_up(world: World) -> None:
    _mounted(world)
    _service(world, "BindsTo=mnt-huge.mount")
    refused(world.mount(None), KNOB, "db.service (BindsTo=")
    assert world.options()


@case("a service with Requires= of our mount's unit in a drop-in", "rollback", REFUSED, _NAMED)
def dropin_of_a_service_beside_rollback(world: World) -> None:
    _mounted(world)
    _service(world, "Requires=mnt-huge.mount", "/etc/systemd/system/db.service.d/huge.conf")
    refused(world.rollback(), KNOB, "db.service", "db.service.d/huge.conf:2")


@case("an administrator's lines in our mount's unit", "a change of the mount's mode", REFUSED, _NAMED)
def lines_in_our_unit_beside_new_mode(world: World) -> None:
    _mounted(world)
    text = Path(UNIT).read_text().replace("[Mount]\n", "After=db-setup.service\n\n[Mount]\n")
    Path(UNIT).write_text(text)
    refused(world.mount("0700"), UNIT, "After=db-setup.service", f"{UNIT}:")
    assert Path(UNIT).read_text() == text


@case("an administrator's file beside our mount's folder", "rollback", LEFT, _THEM)
def file_beside_our_folder(world: World) -> None:
    fine(world.pool(8))
    fine(world.run("hugetlbfs", mounts=[{"path": "/mnt/models/huge", "page_size": "2M"}]))
    world.write("/mnt/models/theirs", "theirs")
    fine(world.rollback())
    assert os.listdir("/mnt/models") == ["theirs"]


# --- Pools -----------------------------------------------------------------------------------------------------------


@case("a pool of 12 pages that we never set", "a first run that wants 8", LEFT, _NAMED)
def larger_pool_beside_first_run(world: World) -> None:
    world.sets_pool(12)
    result = fine(world.pool(8))
    assert (result["changed"], world.pages(), world.dropin()) == (False, 12, "")
    assert "12 of which are not ours" in result["left"][0]
    verdict, detail = world.audit(pools=[{"size": "2M", "count": 8}])[PAGES]
    assert (verdict, "not ours" in detail) == ("clean", True)
    assert fine(world.pool(8))["changed"] is False


@case("a pool of 12 pages that we never set", f"a first run with slm_accept_loss: [{PAGES}]", ACCEPTED, _NAMED)
def larger_pool_beside_accepted_run(world: World) -> None:
    world.sets_pool(12)
    fine(world.pool(8, accept_loss=[PAGES]))
    assert world.pages() == 8
    fine(world.rollback())
    assert world.pages() == 12


@case("a DBA's pool of 12 pages, set by a sysctl.d file", "a first run that wants 8", LEFT, _NAMED)
def dba_with_a_sysctl_file_beside_first_run(world: World) -> None:
    world.sets_pool(12)
    world.write("/etc/sysctl.d/30-db.conf", "vm.nr_hugepages = 12\n")
    wanted = [{"size": "2M", "count": 8}]
    assert fine(world.run("memory_info", pools=wanted, preflight=True))["competitors"] == []
    fine(world.pool(8))
    assert world.pages() == 12


@case("4 pages that were there before our 12", "a change to 2 pages", "the 4 stay", _NAMED)
def prior_pages_beside_smaller_pool(world: World) -> None:
    world.sets_pool(4)
    fine(world.pool(12))
    assert fine(world.pool(2))["left"]
    assert (world.pages(), world.dropin()) == (4, "")
    assert fine(world.pool(2))["changed"] is False


@case("an administrator who raised our pool from 8 to 16", "the pool is given up", LEFT, _THEM)
def raised_pool_beside_pool_given_up(world: World) -> None:
    fine(world.pool(8))
    world.sets_pool(16)
    fine(world.pool(None))
    assert world.pages() == 16


@case("an administrator who raised our pool from 8 to 16", "a second run that wants 8", LEFT, _NAMED)
def raised_pool_beside_second_run(world: World) -> None:
    fine(world.pool(8))
    world.sets_pool(16)
    assert fine(world.pool(8))["left"]
    assert world.pages() == 16


@case("an administrator who raised our pool from 8 to 16", "rollback", LEFT, _FORCE)
def raised_pool_beside_rollback(world: World) -> None:
    fine(world.pool(8))
    world.sets_pool(16)
    left(fine(world.rollback()), PAGES)
    assert world.pages() == 16


@case("a program with 5 pages in use", "a change from 8 pages to 4", REFUSED, _NAMED)
def used_pages_beside_smaller_pool(world: World) -> None:
    fine(world.pool(8))
    pid = world.takes_pages(5)
    refused(world.pool(4), PAGES, "5 in use", f"(pid {pid})")
    assert (world.pages(), world.pages("surplus"), world.pages("free")) == (8, 0, 3)


@case("a program with 5 pages reserved and none touched", "a change from 8 pages to 4", REFUSED, _NAMED)
def reserved_pages_beside_smaller_pool(world: World) -> None:
    fine(world.pool(8))
    world.takes_pages(5, touched=False)
    refused(world.pool(4), PAGES, "5 more reserved")
    assert (world.pages(), world.pages("surplus")) == (8, 0)


@case("a program with 5 pages in use", "a change from 8 pages to 6", "it keeps them", "we do")
def used_pages_beside_a_pool_that_holds_them(world: World) -> None:
    fine(world.pool(8))
    world.takes_pages(5)
    fine(world.pool(6))
    assert (world.pages(), world.pages("surplus"), world.pages("free")) == (6, 0, 1)


@case("a program with 5 pages in use", "the pool is given up", REFUSED, _NAMED)
def used_pages_beside_pool_given_up(world: World) -> None:
    fine(world.pool(8))
    world.takes_pages(5)
    text = world.pool(None).output
    assert "5 in use" in text
    assert (world.pages(), world.pages("surplus")) == (8, 0)


@case("a program with 5 pages in use", "rollback", REFUSED, _NAMED)
def used_pages_beside_rollback(world: World) -> None:
    fine(world.pool(8))
    pid = world.takes_pages(5)
    ended = world.rollback()
    assert f"(pid {pid})" in ended.result["problems"][0]["why"]
    assert (world.pages(), world.pages("surplus"), bool(world.dropin())) == (8, 0, True)
    assert world.has_snapshot()
    world.leaves()
    fine(world.rollback())
    assert (world.pages(), world.dropin()) == (0, "")


@case("a libvirt guest's file of 1 page on the mount", "a change from 8 pages to 0", REFUSED, _NAMED)
def guest_on_the_mount_beside_smaller_pool(world: World) -> None:
    _mounted(world)
    pid = world.maps_file(FILE)
    refused(world.pool(0), PAGES, "1 in use", f"files on {MOUNT}")
    assert world.pages() == 8
    assert os.path.exists(f"/proc/{pid}")


@case("a program with 5 pages in use", f"a change to 4 pages with slm_accept_loss: [{PAGES}]", ACCEPTED, _NAMED)
def used_pages_beside_accepted_shrinking(world: World) -> None:
    fine(world.pool(8))
    world.takes_pages(5)
    fine(world.pool(4, accept_loss=[PAGES]))
    assert world.pages() - world.pages("surplus") == 4


@case("a database whose sysctl.d file sets the value that we set", "rollback", LEFT, _FORCE)
def dba_on_our_value_beside_rollback(world: World) -> None:
    fine(world.pool(8))
    world.write("/etc/sysctl.d/30-db.conf", "# the database\nvm.nr_hugepages=8\n")
    assert "/etc/sysctl.d/30-db.conf:2" in left(fine(world.rollback()), PAGES)[PAGES]
    assert world.pages() == 8


@case("a kubelet that runs", "a change of the pool", NAMED, "it reads the pools at its start alone")
def kubelet_beside_a_larger_pool(world: World) -> None:
    pid = world.named("kubelet")
    ended = world.pool(8)
    assert f"kubelet (pid {pid}) reads the pools when it starts" in ended.output
    assert fine(ended)["changed"]


@case("programs that took the memory of a pool", "rollback to a larger pool", REFUSED, "`hugepages_margin`")
def memory_beside_a_rollback_that_grows(world: World) -> None:
    world.sets_pool(8)
    fine(world.pool(0, accept_loss=[PAGES]))
    ended = world.rollback(margin="64T")
    assert "available" in ended.result["problems"][0]["found"]
    assert (world.pages(), world.has_snapshot()) == (0, True)
    fine(world.rollback())
    assert world.pages() == 8


# --- Files and boots -------------------------------------------------------------------------------------------------


@case("a pool that others let grow", "the upgrade of a package (systemd-tmpfiles --create)", LEFT, "our lines are `w!`")
def tmpfiles_beside_a_grown_pool(world: World) -> None:
    fine(world.pool(8))
    lines = [line for line in world.dropin().splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["w!"]


@case("a pool that others let grow, and a drop-in of an older version of ours", "audit, and a run", "migrated", "we do")
def old_dropin_beside_a_run(world: World) -> None:
    fine(world.pool(8))
    Path(POOLS_DROPIN).write_text(world.dropin().replace("w! ", "w "))
    verdict, detail = world.audit(pools=[{"size": "2M", "count": 8}])[PAGES]
    assert (verdict, "systemd-tmpfiles" in detail) == ("drift", True)
    fine(world.pool(8))
    assert "w! " in world.dropin()


@case("an administrator's line in our drop-in", "a second run", REFUSED, _NAMED)
def line_in_our_dropin_beside_a_run(world: World) -> None:
    fine(world.run("thp", defrag="never"))
    shmem = SHMEM.read_text()
    text = Path(THP_DROPIN).read_text() + f"w! {SHMEM} - - - - advise\n"
    Path(THP_DROPIN).write_text(text)
    SHMEM.write_text("advise")
    refused(world.run("thp", defrag="never"), THP_DROPIN, f"{THP_DROPIN}:3", "advise")
    assert Path(THP_DROPIN).read_text() == text
    assert SHMEM.read_text() != shmem or "[advise]" in shmem


@case("an administrator's line in our drop-in", "rollback", LEFT, _FORCE)
def line_in_our_dropin_beside_rollback(world: World) -> None:
    fine(world.run("thp", defrag="never"))
    text = Path(THP_DROPIN).read_text() + f"w! {SHMEM} - - - - advise\n"
    Path(THP_DROPIN).write_text(text)
    left(fine(world.rollback()), THP_DROPIN)
    assert Path(THP_DROPIN).read_text() == text


@case("an administrator's own THP setting", "a run, and rollback", LEFT, _FORCE)
def own_knob_beside_rollback(world: World) -> None:
    fine(world.run("thp", defrag="never"))
    SHMEM.write_text("advise")
    fine(world.run("thp", defrag="never"))
    left(fine(world.rollback()), "thp.shmem_enabled")
    assert "[advise]" in SHMEM.read_text()


@case("an administrator's min_free_kbytes since the reboot", "rollback", LEFT, _FORCE)
def own_min_free_after_a_reboot(world: World) -> None:
    ENABLED.write_text("never")
    fine(world.run("thp", enabled="always"))
    world.reboots()
    value = str(int(MIN_FREE.read_text()) + 1024)
    MIN_FREE.write_text(value)
    left(fine(world.rollback()), "vm.min_free_kbytes")
    assert MIN_FREE.read_text().strip() == value


@case("an administrator who lowered the pool since the reboot", "rollback", LEFT, _FORCE)
def lowered_pool_after_a_reboot(world: World) -> None:
    fine(world.pool(12))
    world.reboots()
    world.sets_pool(6)
    left(fine(world.rollback()), PAGES)
    assert world.pages() == 6


@case("a clone of a tuned host, with pages of its own owner", "rollback", REFUSED, _FORCE)
def clone_beside_rollback(world: World) -> None:
    fine(world.pool(8))
    world.is_cloned()
    ended = world.rollback()
    assert "another machine" in ended.result["problem"]["found"]
    assert "rollback_force" in ended.result["problem"]["next_step"]
    assert world.pages() == 8
    fine(world.rollback(force=True))
    assert world.pages() == 0


@case("whoever believes that /etc lasts, on a tmpfs", "audit", NAMED, "`slm_accept_loss: [persistence./etc]`")
def etc_in_memory_beside_audit(world: World) -> None:
    verdict, detail = world.audit(thp={})["persistence./etc"]
    assert (verdict, "gone after a reboot" in detail) == ("drift", True)
    assert world.audit(thp={}, accept_loss=["persistence./etc"])["persistence./etc"][0] == "clean"


@case("whoever believes that /etc lasts, on a tmpfs", "tuning", REFUSED, "`slm_accept_loss: [persistence./etc]`")
def etc_in_memory_beside_tuning(world: World) -> None:
    for check in (True, False):
        told = world.run("thp", enabled="never", accept_loss=None, _ansible_check_mode=check)
        assert told.result["problem"]["knob"] == "persistence./etc", told.output
        assert "slm_accept_loss: [persistence./etc, persistence./var/lib]" in told.result["msg"]
        assert not world.has_snapshot()


@case("an administrator's folder, bound into one that we remove", "the removal of a tree of ours", LEFT, _THEM)
def bound_folder_beside_a_removal(world: World) -> None:
    world.write("/mnt/theirs/file", "theirs")
    os.mkdir("/mnt/db")
    run("mount", "--bind", "/mnt/theirs", "/mnt/db")
    with pytest.raises(OSError, match="Something is mounted there"):
        remove_tree(Path("/mnt/db"))
    assert os.listdir("/mnt/theirs") == ["file"]


# --- Sweeps ----------------------------------------------------------------------------------------------------------


@case("a pool of 12 pages", "a sweep whose arm has 8", "the arm is left out", "no arm makes a pool smaller")
def larger_pool_beside_a_sweep(world: World) -> None:
    world.sets_pool(12)
    arms = [Arm("stock"), Arm("pool", pools=[PoolSpec(MIB2, 8)]), Arm("more", pools=[PoolSpec(MIB2, 14)])]
    possible, left_out = feasible_arms(world.host, arms, Guard(0, 1.0))
    assert [arm.name for arm in possible] == ["stock", "more"]
    assert "12 pages" in left_out[0]["why"]


@case("an administrator who raised the pool after a sweep was killed", "the next run", LEFT, _THEM)
def raised_pool_after_a_killed_sweep(world: World) -> None:
    leave_arm(world.host, {"thp.enabled": "always"}, [PoolSpec(MIB2, 8)])
    world.sets_pool(16)
    fine(world.run("thp"))
    assert world.pages() == 16
    assert not os.path.exists(SWEEP_PRIOR)


@case("an administrator who set THP after a sweep was killed", "rollback", LEFT, _FORCE)
def own_knob_after_a_killed_sweep(world: World) -> None:
    leave_arm(world.host, {"thp.enabled": "always"}, [PoolSpec(MIB2, 8)])
    ENABLED.write_text("never")
    left(fine(world.rollback()), "thp.enabled")
    assert "[never]" in ENABLED.read_text()
    assert world.pages() == 0


@case("a program with pages of a killed sweep's arm", "the next run", REFUSED, "it gives them back first")
def used_pages_after_a_killed_sweep(world: World) -> None:
    leave_arm(world.host, None, [PoolSpec(MIB2, 8)])
    pid = world.takes_pages(5)
    ended = world.run("thp")
    assert f"(pid {pid})" in ended.result["problem"]["why"]
    assert (world.pages(), world.pages("surplus")) == (8, 0)
    world.leaves()
    fine(world.run("thp"))
    assert world.pages() == 0


@case("whoever believes an audit while a killed sweep's arm is in force", "audit", NAMED, "a row of its own")
def audit_after_a_killed_sweep(world: World) -> None:
    leave_arm(world.host, {"thp.enabled": "always"})
    verdict, detail = world.audit(thp={"enabled": "always"})["sweep"]
    assert (verdict, SWEEP_PRIOR in detail) == ("drift", True)
    fine(world.run("thp"))
    assert "sweep" not in world.audit(thp={"enabled": "always"})
