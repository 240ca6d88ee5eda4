"""The prior state: round trip, what is never trusted, and an exact restore on a kernel that behaves."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host, temporary_name
from ansible.module_utils.slm_baseline.host.paths import ARCHIVE, SNAPSHOT, STATE, SWEEP_PRIOR
from ansible.module_utils.slm_baseline.host.systemd import UNITS
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path, wants_path
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import read_pool
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kernel.knobs import KnobState
from ansible.module_utils.slm_baseline.settings.kinds.kind import PriorState
from ansible.module_utils.slm_baseline.settings.kinds.mounts import Mounts, MountState
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN, PoolLayout
from ansible.module_utils.slm_baseline.settings.kinds.registry import Wanted
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP, THP_DROPIN, knob_path, thp_knobs
from ansible.module_utils.slm_baseline.settings.rollback.restore import RollbackPlan, undo_sweep
from ansible.module_utils.slm_baseline.settings.rollback.rollback import roll_back
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import (
    Snapshot,
    ensure,
    extended,
    load,
    parse_snapshot,
    save,
    sealed,
    take,
)
from ansible.module_utils.slm_baseline.settings.state.files import FileState
from ansible.module_utils.slm_baseline.settings.state.ownership import Ours
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.support.fake_kernel import MIN_FREE, FakeKernel, add_node
from tests.support.fakes import POOL_FILES, build_host, put
from tests.support.killed_sweep import leave_arm

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file its former owner")

MIB2, GIB = 2 << 20, 1 << 30
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
NODE_POOLS = [f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages" for node in (0, 1)]


@pytest.fixture
def kernel(fake_host: Host) -> FakeKernel:
    add_node(fake_host.root)
    return FakeKernel(fake_host.root)


def state(host: Host) -> dict[str, tuple[int, str]]:
    """Everything on the host but our own state folder: mode and content, or target, by path."""
    found = {}
    for folder, names, files in os.walk(host.root):
        for name in names + files:
            path = Path(folder) / name
            inside = str(path.relative_to(host.root))
            if not f"/{inside}".startswith((STATE, "/run/slm-baseline")):
                status = path.lstat()
                link = stat.S_ISLNK(status.st_mode)
                content = os.readlink(path) if link else path.read_bytes().hex() if path.is_file() else "folder"
                found[inside] = (status.st_mode, content)
    return found


def tune(kernel: FakeKernel) -> None:
    """What a run of ours does to the fake host, mounts apart."""
    kernel.write_kernel(f"{THP}/enabled", "never")
    kernel.write_kernel(f"{THP}/enabled", "always")
    kernel.write_kernel(f"{THP}/khugepaged/scan_sleep_millisecs", "1")
    kernel.write_kernel(f"{THP}/hugepages-64kB/enabled", "inherit")
    kernel.write_kernel(POOL, "9")
    put(kernel.root, THP_DROPIN, "ours\n")
    put(kernel.root, POOLS_DROPIN, "ours\n")
    put(kernel.root, unit_path("/mnt/huge"), "ours\n")
    link = kernel.path(wants_path("/mnt/huge"))
    link.parent.mkdir()
    os.symlink(unit_path("/mnt/huge"), link)
    kernel.path("/mnt/huge").mkdir()


def mounts(*paths: str) -> Wanted:
    return [Mounts([MountSpec(path, MIB2) for path in paths])]


def take_now(host: Host) -> Snapshot:
    return take(host, mounts("/mnt/huge"), "2031-01-02T03:04:05Z", "run-1")


# --- The document ----------------------------------------------------------------------------------------------------

IDS = st.integers(0, 2**32 - 2)
PATHS = st.from_regex(r"/[a-z]{1,9}(/[a-z.]{1,9}x){0,2}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
MOUNTS = st.builds(
    MountSpec, st.just(""), st.integers(1, 2**40), st.none() | st.integers(0, 2**50), st.integers(0, 0o7777), IDS, IDS
)
FILES = st.builds(FileState, st.integers(0, 0o7777), IDS, IDS, st.binary(), st.none() | TEXTS)
KNOBS = st.dictionaries(
    st.from_regex(r"thp\.[a-z_]{1,9}", fullmatch=True), st.from_regex(r"[a-z0-9+]{1,9}", fullmatch=True)
)
POOLS = st.builds(
    PoolLayout, st.just(0), st.integers(0, 2**40), st.dictionaries(st.integers(0, 99), st.integers(0, 2**40))
)


@given(
    TEXTS,
    KNOBS,
    st.dictionaries(st.integers(1, 2**40), POOLS),
    st.dictionaries(PATHS, st.none() | MOUNTS),
    st.dictionaries(PATHS, st.none() | FILES),
    st.lists(PATHS),
    st.builds(Ours, st.dictionaries(TEXTS, TEXTS), st.frozensets(TEXTS), st.dictionaries(TEXTS, TEXTS)),
)
def test_a_snapshot_reads_back_from_its_json(
    word: str,
    knobs: dict[str, str],
    pools: dict[int, PoolLayout],
    mounts: dict[str, MountSpec | None],
    files: dict[str, FileState | None],
    folders: list[str],
    ours: Ours,
) -> None:
    kinds: dict[str, dict[str, PriorState]] = {
        "thp": {name: KnobState(name, knob_path(name), value, "thp") for name, value in knobs.items()},
        "pools": {str(size): PoolLayout(size, pool.persistent, pool.nodes) for size, pool in pools.items()},
        "mounts": {
            path: MountState(path, spec and MountSpec(path, spec.page_size_bytes, spec.size_bytes, spec.mode))
            for path, spec in mounts.items()
        },
    }
    snapshot = Snapshot(word, word, kinds, {f"{UNITS}{path}": file for path, file in files.items()}, folders, ours)
    assert parse_snapshot("s", snapshot.to_json()) == snapshot


@pytest.fixture
def document(kernel: FakeKernel) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(take_now(kernel).to_json())
    del loaded["checksum"]
    return loaded


def set_in(*keys: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return change


HOSTILE = [
    set_in("schema_version", to=4),
    set_in("schema_version", to=True),
    set_in("schema_version", to=None),
    set_in("kinds", "thp", to=[]),
    set_in("kinds", to=[]),
    set_in("kinds", "colours", to={"red": "1"}),
    set_in("kinds", "thp", "thp.enabled", to=7),
    set_in("kinds", "thp", "thp.enabled", to=""),
    set_in("kinds", "thp", "thp.enabled", to="never\0"),
    set_in("kinds", "thp", "thp.enabled", to="\ud800"),
    set_in("kinds", "thp", to={"/etc/passwd": "never"}),
    set_in("kinds", "thp", to={"thp.../../../../etc/passwd": "never"}),
    set_in("kinds", "thp", to={"thp.sizes.../enabled": "never"}),
    set_in("files", to={"/etc/passwd": None}),
    set_in("files", to={f"{UNITS}/../../passwd": None}),
    set_in("files", THP_DROPIN, to={"mode": 0o644, "uid": 0, "gid": 0, "content": "not base64!", "link": None}),
    set_in("files", THP_DROPIN, to={"mode": 10**30, "uid": 0, "gid": 0, "content": "", "link": None}),
    set_in("files", THP_DROPIN, to={"mode": 0o644, "uid": -1, "gid": 0, "content": "", "link": None}),
    set_in("files", THP_DROPIN, to={"mode": 0o644, "uid": 2**32 - 1, "gid": 0, "content": "", "link": None}),
    set_in("files", THP_DROPIN, to={"mode": 0o644, "uid": 0, "gid": 0, "content": "", "link": "a\0b"}),
    set_in("files", THP_DROPIN, to={"mode": 1.5, "uid": 0, "gid": 0, "content": "", "link": None}),
    set_in("files", THP_DROPIN, to="text"),
    set_in("kinds", "mounts", to={"mnt/huge": None}),
    set_in("kinds", "mounts", "/mnt/huge", to={"path": "/mnt/huge", "page_size_bytes": "2M"}),
    set_in("kinds", "mounts", "/mnt/huge", to=[]),
    set_in("kinds", "pools", to={"2M": {"persistent": 0, "nodes": {}}}),
    set_in("kinds", "pools", to={"-1": {"persistent": 0, "nodes": {}}}),
    set_in("kinds", "pools", "2097152", to={"persistent": -1, "nodes": {}}),
    set_in("kinds", "pools", "2097152", to={"persistent": 0, "nodes": {"²": 1}}),
    set_in("kinds", "pools", "2097152", to=None),
    set_in("missing_folders", to=["relative"]),
    set_in("missing_folders", to=7),
    set_in("run_id", to=None),
    set_in("ours", to=[]),
    set_in("ours", "values", to={"thp.enabled": 1}),
    set_in("ours", "unsettled", to=[7]),
    lambda document: document.pop("ours"),
    lambda document: document.pop("files"),
    lambda document: document.pop("missing_folders"),
]


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_damaged_or_newer_document_is_one_error_and_stays_as_it_is(
    kernel: FakeKernel, document: dict[str, Any], damage: Callable[[dict[str, Any]], None]
) -> None:
    damage(document)
    put(kernel.root, SNAPSHOT, sealed(document).decode())
    tune(kernel)
    before = state(kernel)
    for use in (
        lambda: load(kernel),
        lambda: roll_back(kernel, force=True),
        lambda: ensure(kernel, mounts("/mnt/new"), "now", "run-2"),
    ):
        with pytest.raises(SettingError) as caught:
            use()
        assert caught.value.knob == SNAPSHOT
    assert kernel.read(SNAPSHOT) == sealed(document).decode()
    assert state(kernel) == before


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"schema_version": 1}'])
def test_what_is_no_snapshot_is_one_error(text: bytes) -> None:
    with pytest.raises(SettingError):
        parse_snapshot("s", text)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_byte_turned_gives_a_snapshot_or_one_typed_error(document: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(sealed({**document, "schema_version": data.draw(st.sampled_from([2, 3]))}))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SettingError):
        assert isinstance(parse_snapshot("s", bytes(text)), Snapshot)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_no_turned_byte_parses(document: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(sealed(document))
    assert parse_snapshot("s", bytes(text))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    with pytest.raises(SettingError):
        parse_snapshot("s", bytes(text))


@as_root
@pytest.mark.parametrize("version", [1, 2])
def test_a_snapshot_of_an_older_version_restores_as_it_did(kernel: FakeKernel, version: int) -> None:
    """Hosts keep it for years; see tests/golden/snapshot-*.json for how that version recorded the fake host.

    Nothing in it tells what is ours: all that differs counts as it.
    """
    kernel.write_kernel(NODE_POOLS[1], "3")
    put(kernel.root, POOLS_DROPIN, "# of an earlier administrator\n", 0o640)
    before = state(kernel)
    put(kernel.root, SNAPSHOT, (REPOSITORY / f"tests/golden/snapshot-{version}.json").read_text())
    snapshot = load(kernel)
    assert snapshot
    later = {f"hugepages_overcommit.{size}": "0" for size in ("2M", "1G")}
    assert {**snapshot.values(), **later} == take_now(kernel).values()
    kernel.write_kernel(NODE_POOLS[1], "0")
    tune(kernel)
    done = roll_back(kernel)
    assert (done.problems, done.left) == ([], [])
    assert {name: mode for name, mode in state(kernel).items() if mode != before.get(name)} == {}


# --- Taking it -------------------------------------------------------------------------------------------------------


def test_it_holds_every_knob_pool_mount_and_file(kernel: FakeKernel) -> None:
    kernel.write_kernel("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "3")
    values = take_now(kernel).values()
    assert values["thp.enabled"] == "madvise"
    assert values["thp.sizes.2048kB.enabled"] == "inherit"
    assert values["vm.min_free_kbytes"] == "67584"
    assert (values["hugepages.2M"], values["hugepages.node0.2M"], values["hugepages.node1.2M"]) == ("3", "0", "3")
    assert values["hugetlbfs./mnt/huge"] == "not mounted"


def test_it_is_roots_alone_and_durable(kernel: FakeKernel) -> None:
    _, written = ensure(kernel, [], "2031-01-02T03:04:05Z", "run-1")
    assert written
    assert stat.S_IMODE(kernel.path(SNAPSHOT).stat().st_mode) == 0o600
    assert kernel.names(STATE) == ["snapshot.json"]


def test_it_is_taken_once_and_only_grows_by_new_mount_paths(kernel: FakeKernel) -> None:
    first, _ = ensure(kernel, mounts("/mnt/huge"), "t1", "run-1")
    tune(kernel)
    again, written = ensure(kernel, mounts("/mnt/huge"), "t2", "run-2")
    assert (again, written) == (first, False)
    grown, written = ensure(kernel, mounts("/mnt/huge", "/mnt/other/deep"), "t3", "run-3")
    assert written
    assert set(grown.of("mounts")) == {"/mnt/huge", "/mnt/other/deep"}
    assert (grown.of("thp"), grown.of("pools"), grown.taken_at) == (first.of("thp"), first.of("pools"), "t1")
    assert "/mnt/other" in grown.missing_folders
    assert extended(kernel, grown, mounts("/mnt/other/deep")) is grown


def upgrade(kernel: FakeKernel) -> None:
    """A newer kernel: one more size of mTHP, and one more of pools."""
    put(kernel.root, f"{THP}/hugepages-16kB/enabled", "always inherit madvise [never]\n")
    for name, text in POOL_FILES.items():
        put(kernel.root, f"/sys/kernel/mm/hugepages/hugepages-64kB/{name}", text)
        for node in (0, 1):
            put(kernel.root, f"/sys/devices/system/node/node{node}/hugepages/hugepages-64kB/{name}", text)


def test_what_a_newer_kernel_brought_comes_back_before_min_free(kernel: FakeKernel) -> None:
    ensure(kernel, [], "t1", "run-1")
    upgrade(kernel)
    grown, _ = ensure(kernel, [], "t2", "run-2")
    assert list(grown.of("thp"))[-1] == "vm.min_free_kbytes"


NEW_KNOB, NEW_POOL = f"{THP}/hugepages-16kB/enabled", "/sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages"


def test_it_grows_by_what_a_newer_kernel_brought_before_that_is_changed(kernel: FakeKernel) -> None:
    first, _ = ensure(kernel, [], "t1", "run-1")
    upgrade(kernel)
    before = state(kernel)
    grown, written = ensure(kernel, [], "t2", "run-2")
    assert written
    assert set(grown.values()) - set(first.values()) == {
        "thp.sizes.16kB.enabled",
        "hugepages.64K",
        "hugepages.node0.64K",
        "hugepages.node1.64K",
        "hugepages_overcommit.64K",
    }
    assert ensure(kernel, [], "t3", "run-3") == (grown, False)
    kernel.write_kernel(NEW_KNOB, "always")
    kernel.write_kernel(NEW_POOL, "8")
    assert roll_back(kernel, force=True).status == "restored"
    assert state(kernel) == before


def test_values_of_our_own_are_never_taken_for_prior_state(kernel: FakeKernel) -> None:
    tune(kernel)
    with pytest.raises(SettingError, match="files of ours"):
        ensure(kernel, [], "t", "run-1")
    with pytest.raises(SettingError, match="files of ours"):
        roll_back(kernel, force=True)
    assert not kernel.exists(SNAPSHOT)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_does_not_take_it_is_one_error(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SettingError, match="durable snapshot before the first change"):
        ensure(kernel, [], "t", "run-1")
    assert not kernel.exists(SNAPSHOT)


# --- Restoring it ----------------------------------------------------------------------------------------------------


def test_everything_comes_back_exactly_and_is_archived(kernel: FakeKernel) -> None:
    kernel.write_kernel("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "3")
    before = state(kernel)
    ensure(kernel, mounts("/mnt/huge"), "2031-01-02T03:04:05Z", "run-1")
    tune(kernel)
    assert state(kernel) != before
    done = roll_back(kernel, force=True)
    assert (done.status, done.problems) == ("restored", [])
    assert state(kernel) == before
    assert done.archive == f"{ARCHIVE}/snapshot-2031-01-02T03-04-05Z.json"
    assert kernel.names(STATE) == ["archive"]
    assert roll_back(kernel, force=True).status == "nothing"


def test_a_dry_run_predicts_each_change_and_makes_none(kernel: FakeKernel) -> None:
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    tune(kernel)
    before = state(kernel)
    predicted = roll_back(kernel, dry_run=True, force=True).changes
    assert state(kernel) == before
    assert roll_back(kernel, force=True).changes == predicted


def test_switching_thp_on_and_back_leaves_min_free_as_it_was(kernel: FakeKernel) -> None:
    kernel.write_kernel(f"{THP}/enabled", "never")
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(f"{THP}/enabled", "always")
    assert kernel.read(MIN_FREE) == "112640\n"
    roll_back(kernel, force=True)
    assert kernel.read(MIN_FREE) == "67584\n"


def test_min_free_comes_back_also_where_the_restore_itself_starts_khugepaged(kernel: FakeKernel) -> None:
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(f"{THP}/enabled", "never")
    roll_back(kernel, force=True)
    assert kernel.read(MIN_FREE) == "67584\n"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_was_there_comes_back_with_its_bytes_and_mode(kernel: FakeKernel, mode: int) -> None:
    put(kernel.root, unit_path("/mnt/huge"), "# by hand\n", mode)
    before = state(kernel)
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    kernel.path(unit_path("/mnt/huge")).unlink()
    put(kernel.root, unit_path("/mnt/huge"), "ours\n")
    roll_back(kernel, force=True)
    assert state(kernel) == before


def test_a_symlink_that_was_there_comes_back_also_when_its_folder_is_gone(kernel: FakeKernel) -> None:
    link = kernel.path(wants_path("/mnt/huge"))
    link.parent.mkdir()
    os.symlink("../elsewhere.mount", link)
    before = state(kernel)
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    link.unlink()
    link.parent.rmdir()
    assert roll_back(kernel, force=True).status == "restored"
    assert state(kernel) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_come_back_of_files_and_of_symlinks(kernel: FakeKernel) -> None:
    unit, link = kernel.path(unit_path("/mnt/huge")), kernel.path(wants_path("/mnt/huge"))
    link.parent.mkdir()
    for _ in range(2):
        put(kernel.root, unit_path("/mnt/huge"), "theirs\n")
        os.symlink("x", link)
        if not kernel.exists(SNAPSHOT):
            os.chown(unit, 7, 8)
            os.lchown(link, 9, 10)
            ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
            unit.unlink()
            link.unlink()
    assert roll_back(kernel, force=True).status == "restored"
    assert [(path.lstat().st_uid, path.lstat().st_gid) for path in (unit, link)] == [(7, 8), (9, 10)]


def test_folders_that_mounting_made_go_the_innermost_first(kernel: FakeKernel) -> None:
    before = state(kernel)
    ensure(kernel, mounts("/mnt/a/b/c"), "t", "run-1")
    kernel.path("/mnt/a/b/c").mkdir(parents=True)
    assert roll_back(kernel, force=True).status == "restored"
    assert state(kernel) == before


def test_a_folder_that_somebody_else_uses_by_now_stays(kernel: FakeKernel) -> None:
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    tune(kernel)
    put(kernel.root, "/mnt/huge/theirs", "")
    predicted = roll_back(kernel, dry_run=True, force=True).changes
    done = roll_back(kernel, force=True)
    assert done.changes == predicted
    assert (done.status, kernel.names("/mnt/huge")) == ("restored", ["theirs"])


def test_an_interrupted_writes_temporary_file_goes(kernel: FakeKernel) -> None:
    before = state(kernel)
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    put(kernel.root, temporary_name(THP_DROPIN), "half")
    put(kernel.root, temporary_name(unit_path("/mnt/huge")), "half")
    assert roll_back(kernel, force=True).status == "restored"
    assert state(kernel) == before


def test_pages_in_use_are_named_until_they_are_let_go_however_often_it_is_tried(kernel: FakeKernel) -> None:
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(POOL, "8")
    kernel.used[MIB2, 0] = 3
    put(kernel.root, "/proc/77/status", "Name:\tllama-server\nHugetlbPages:\t    6144 kB\n")
    for _ in range(3):
        done = roll_back(kernel, force=True)
        assert done.status == "incomplete"
        assert done.problems[0].found == "0 pages and 3 surplus pages still in use"
        assert "llama-server (pid 77)" in done.problems[0].why
        assert kernel.exists(SNAPSHOT)
    kernel.let_go(MIB2)
    assert roll_back(kernel, force=True).status == "restored"
    assert read_pool(kernel, MIB2).total == 0


def test_surplus_pages_that_the_hosts_own_overcommit_allows_are_its_business(kernel: FakeKernel) -> None:
    put(kernel.root, POOL.replace("nr_", "nr_overcommit_"), "4\n")
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(POOL, "8")
    kernel.used[MIB2, 0] = 3
    assert roll_back(kernel, force=True).status == "restored"


def test_pages_that_cannot_be_had_back_are_an_incomplete_restore(kernel: FakeKernel) -> None:
    kernel.write_kernel(POOL, "8")
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(POOL, "0")
    kernel.room.update({(MIB2, 0): 1, (MIB2, 1): 4})
    done = roll_back(kernel, force=True)
    assert done.status == "incomplete"
    (problem,) = done.problems
    assert (problem.wanted, problem.found) == ("8 pages", "5 pages (hugepages.node0.2M has 1 of 4)")
    assert "could not find enough contiguous memory" in problem.why
    assert "Held by" not in str(problem)
    kernel.room.clear()
    assert roll_back(kernel, force=True).status == "restored"
    assert kernel.pages(MIB2) == {0: 4, 1: 4}


def test_surplus_below_the_hosts_overcommit_is_never_told_as_a_negative_count(kernel: FakeKernel) -> None:
    put(kernel.root, POOL.replace("nr_", "nr_overcommit_"), "4\n")
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(POOL, "8")
    for path in (POOL, *NODE_POOLS):
        kernel.stuck.add(path)
    (problem,) = roll_back(kernel, force=True).problems
    assert problem.found == "8 pages and 0 surplus pages still in use"


def test_pages_that_are_back_on_another_node_are_an_incomplete_restore(kernel: FakeKernel) -> None:
    kernel.write_kernel(NODE_POOLS[0], "8")
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(NODE_POOLS[0], "5")
    kernel.write_kernel(NODE_POOLS[1], "3")
    kernel.stuck.update(NODE_POOLS)
    (problem,) = roll_back(kernel, force=True).problems
    assert problem.found == "8 pages (hugepages.node0.2M has 5 of 8, hugepages.node1.2M has 3 of 0)"
    kernel.stuck.clear()
    assert roll_back(kernel, force=True).status == "restored"
    assert kernel.pages(MIB2) == {0: 8, 1: 0}


def test_one_item_that_fails_does_not_keep_the_others(kernel: FakeKernel) -> None:
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    tune(kernel)
    kernel.stuck.add(f"{THP}/enabled")
    kernel.failing[f"{THP}/hugepages-64kB"] = errno.EIO
    done = roll_back(kernel, force=True)
    assert done.status == "incomplete"
    assert [problem.knob for problem in done.problems] == ["thp.enabled", "thp.sizes.64kB.enabled"]
    assert thp_knobs(kernel)["thp.khugepaged.scan_sleep_millisecs"].value == "10000"
    assert read_pool(kernel, MIB2).persistent == 0
    assert not kernel.exists(THP_DROPIN)
    kernel.stuck.clear()
    kernel.failing.clear()
    assert roll_back(kernel, force=True).status == "restored"


def test_a_knob_or_size_that_a_newer_kernel_lacks_does_not_stop_the_rest(kernel: FakeKernel) -> None:
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(f"{THP}/defrag", "always")
    kernel.path(f"{THP}/use_zero_page").unlink()
    roll_back(kernel, force=True)
    assert thp_knobs(kernel)["thp.defrag"].value == "madvise"


@given(st.lists(st.sampled_from(["tune", "enabled", "pool", "node", "file", "rollback", "ensure"]), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_whatever_happens_in_between_the_first_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    kernel = FakeKernel(build_host(tmp_path_factory.mktemp("walk")))
    before = state(kernel)
    ensure(kernel, mounts("/mnt/huge"), "t", "run-1")
    for step in steps:
        if step == "tune" and not kernel.exists("/mnt/huge"):
            tune(kernel)
        elif step == "enabled":
            kernel.write_kernel(f"{THP}/enabled", "always")
        elif step == "pool":
            kernel.write_kernel(POOL, "5")
        elif step == "node":
            kernel.write_kernel("/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "2")
        elif step == "file":
            put(kernel.root, POOLS_DROPIN, "changed by hand\n")
        elif step == "rollback":
            roll_back(kernel, force=True)
            assert state(kernel) == before
            ensure(kernel, mounts("/mnt/huge"), "t", "run-2")
        else:
            ensure(kernel, mounts("/mnt/huge"), "t", "run-3")
    roll_back(kernel, force=True)
    assert state(kernel) == before


# --- Sweeps ----------------------------------------------------------------------------------------------------------


def test_no_snapshot_is_taken_of_an_unfinished_sweep(kernel: FakeKernel) -> None:
    leave_arm(kernel, {"thp.enabled": "always"})
    with pytest.raises(SettingError, match="a sweep that was cut short"):
        ensure(kernel, [], "t", "run-1")
    assert undo_sweep(kernel) == [{"knob": "thp.enabled", "before": "always", "after": "madvise"}]
    snapshot, _ = ensure(kernel, [], "t", "run-1")
    assert snapshot.values()["thp.enabled"] == "madvise"
    assert not kernel.exists(SWEEP_PRIOR)


def test_a_sweeps_prior_state_is_roots_alone_and_goes_with_the_run_time_values_of_its_arms(kernel: FakeKernel) -> None:
    save(kernel, take_now(kernel), SWEEP_PRIOR)
    assert stat.S_IMODE(kernel.path(SWEEP_PRIOR).stat().st_mode) == 0o600
    # A reboot, after which somebody else sets a value.
    shutil.rmtree(kernel.path("/run"))
    kernel.path("/run").mkdir()
    kernel.write_kernel(f"{THP}/enabled", "always")
    assert ensure(kernel, [], "t", "run-1")[0].values()["thp.enabled"] == "always"


def test_a_sweep_on_a_host_never_tuned_is_rolled_back(kernel: FakeKernel) -> None:
    before = state(kernel)
    save(kernel, take_now(kernel), SWEEP_PRIOR)
    tune(kernel)
    assert roll_back(kernel, force=True).status == "restored"
    assert (state(kernel), kernel.exists(SWEEP_PRIOR)) == (before, False)


def test_the_older_snapshot_counts_where_a_sweep_left_its_own(kernel: FakeKernel) -> None:
    ensure(kernel, [], "t", "run-1")
    kernel.write_kernel(f"{THP}/enabled", "always")
    save(kernel, take_now(kernel), SWEEP_PRIOR)
    assert roll_back(kernel, force=True).status == "restored"
    assert thp_knobs(kernel)["thp.enabled"].value == "madvise"
    assert not kernel.exists(SWEEP_PRIOR)


def test_a_sweep_on_a_kernel_newer_than_the_snapshot_is_restored_too(kernel: FakeKernel) -> None:
    ensure(kernel, [], "t", "run-1")
    upgrade(kernel)
    before = state(kernel)
    kernel.write_kernel(f"{THP}/enabled", "always")
    save(kernel, take_now(kernel), SWEEP_PRIOR)
    kernel.write_kernel(NEW_KNOB, "always")
    kernel.write_kernel(NEW_POOL, "8")
    predicted = roll_back(kernel, dry_run=True, force=True).changes
    done = roll_back(kernel, force=True)
    assert (done.status, done.changes) == ("restored", predicted)
    assert state(kernel) == before
    assert not kernel.exists(SWEEP_PRIOR)


def test_restoring_twice_changes_nothing_the_second_time(kernel: FakeKernel) -> None:
    snapshot = take_now(kernel)
    tune(kernel)
    assert RollbackPlan(snapshot).carry_out(kernel).changes
    assert RollbackPlan(snapshot).carry_out(kernel).changes == []
