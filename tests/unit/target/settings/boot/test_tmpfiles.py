"""Drop-ins and units of our own: what they say, how they are named, and that only our files are ours."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from ansible.module_utils.slm_baseline.host import systemd
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.systemd import UNITS, mount_unit, reload_units, systemd_runs
from ansible.module_utils.slm_baseline.settings.boot.mount_units import (
    is_enabled,
    our_units,
    parse_unit,
    plan_unit,
    unit_path,
    unit_text,
    wants_path,
)
from ansible.module_utils.slm_baseline.settings.boot.tmpfiles import (
    DROPIN_MARK,
    Line,
    parse_tmpfiles,
    plan_file,
    tmpfiles_lines,
    tmpfiles_text,
)
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import PoolSpec
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.pools import Pools
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP_DROPIN
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import our_files
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_kernel import add_node
from tests.support.fakes import put

MIB2, GIB = 2 << 20, 1 << 30
ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
SPEC = MountSpec("/mnt/huge", MIB2, 64 << 20, 0o770, 990, 980)

# From systemd-escape --path --suffix=mount of systemd 252.
UNIT_NAMES = [
    ("/mnt/huge", "mnt-huge.mount"),
    ("/mnt/a-b", r"mnt-a\x2db.mount"),
    ("/.x", r"\x2ex.mount"),
    ("/mnt/.y", "mnt-.y.mount"),
    ("/a_b/c:d", "a_b-c:d.mount"),
    ("/mnt/a@b", r"mnt-a\x40b.mount"),
    ("/mnt/a+b=c~d", r"mnt-a\x2bb\x3dc\x7ed.mount"),
    ("/mnt/ü", r"mnt-\xc3\xbc.mount"),
]


@pytest.mark.parametrize(("path", "name"), UNIT_NAMES)
def test_unit_names_are_those_of_systemd(path: str, name: str) -> None:
    assert mount_unit(path) == name


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="systemd-escape is not installed")
def test_unit_names_against_the_real_systemd_escape() -> None:
    paths = [path for path, _ in UNIT_NAMES] + ["/mnt/'q'", "/a/b/c/d", "/0", "/mnt/(x)[y]{z}", "/..x"]
    command = ["systemd-escape", "--path", "--suffix=mount", "--", *paths]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert [mount_unit(path) for path in paths] == said


def test_a_drop_in_writes_each_value_and_reads_back_with_its_lines() -> None:
    text = tmpfiles_text({ENABLED: "madvise", POOL: "1024"})
    assert text == f"{DROPIN_MARK}\nw! {ENABLED} - - - - madvise\nw! {POOL} - - - - 1024\n"
    assert parse_tmpfiles("/f", text) == [
        Line(ENABLED, "madvise", "/f", 2, at_boot=True),
        Line(POOL, "1024", "/f", 3, at_boot=True),
    ]
    assert tmpfiles_text({}) == ""


def test_pools_by_node_go_to_the_nodes_files(fake_host: Host) -> None:
    add_node(fake_host.root)
    text = Pools([PoolSpec(GIB, 2, 1)]).plan(fake_host, {})[-1].after
    assert "w! /sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages - - - - 2\n" in text


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f"w {ENABLED} - - - - never", "never"),
        (f"w+ {ENABLED} - - - - never", "never"),
        (f"w! {ENABLED} - - - - never", "never"),
        (f"w-\t{ENABLED}  0644 root root 10d never  ", "never"),
        (f"f {ENABLED} - - - - never", None),
        (f"# w {ENABLED} - - - - never", None),
        (f"w {ENABLED} - - - -", None),
        ("w /etc/motd - - - - 1", None),
        ("w /proc/sys/vm/nr_hugepages - - - - 7", "7"),
    ],
)
def test_lines_of_tmpfiles_d(line: str, value: str | None) -> None:
    assert [found.value for found in parse_tmpfiles("/f", line)] == ([value] if value else [])


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert all(line.number >= 1 for line in parse_tmpfiles("/f", text))


def test_a_name_found_earlier_masks_the_same_name_and_files_run_in_order_of_name(fake_host: Host) -> None:
    def write(path: str, value: str) -> None:
        put(fake_host.root, path, f"w {ENABLED} - - - - {value}\n")

    write("/usr/lib/tmpfiles.d/b.conf", "masked")
    write("/etc/tmpfiles.d/b.conf", "second")
    write("/run/tmpfiles.d/a.conf", "first")
    write("/etc/tmpfiles.d/c.conf.bak", "ignored")
    assert [line.value for line in tmpfiles_lines(fake_host)] == ["first", "second"]


def test_a_unit_reads_back_as_the_mount_it_makes() -> None:
    text = unit_text(SPEC)
    assert "Options=pagesize=2M,mode=0770,uid=990,gid=980,size=67108864,nosuid,nodev\n" in text
    assert parse_unit(text, GIB) == SPEC


@pytest.mark.parametrize(
    "text", ["", "[Mount]\nType=ext4\nWhere=/mnt/huge\n", "[Mount]\nType=hugetlbfs\n", "Type=hugetlbfs\nWhere=\n"]
)
def test_a_unit_of_another_kind_is_none_of_ours(text: str) -> None:
    assert parse_unit(text, MIB2) is None


def test_a_unit_with_options_from_nowhere_is_a_parse_error() -> None:
    with pytest.raises(ParseError):
        parse_unit("Type=hugetlbfs\nWhere=/m\nOptions=mode=rwx\n", MIB2)


def apply(host: Host, path: str, mount: MountSpec | None) -> list[str]:
    changes = plan_unit(host, path, mount)
    for change in changes:
        change.apply(host)
    return [change.name for change in changes]


def test_a_unit_comes_before_its_symlink_and_goes_after_it(fake_host: Host) -> None:
    unit, link = unit_path("/mnt/huge"), wants_path("/mnt/huge")
    assert apply(fake_host, "/mnt/huge", SPEC) == [unit, link]
    assert os.readlink(fake_host.path(link)) == unit
    assert (our_units(fake_host), our_files(fake_host)) == ([unit], [unit, link])
    assert apply(fake_host, "/mnt/huge", SPEC) == []
    assert apply(fake_host, "/mnt/huge", None) == [link, unit]
    assert our_files(fake_host) == []


def test_files_of_others_are_not_ours(fake_host: Host) -> None:
    put(fake_host.root, f"{UNITS}/mnt-huge.mount", unit_text(SPEC).replace(DROPIN_MARK, "# by hand"))
    put(fake_host.root, f"{UNITS}/mnt-huge.service", unit_text(SPEC))
    assert our_units(fake_host) == our_files(fake_host) == []


@pytest.mark.parametrize("wanted", [SPEC, None])
@pytest.mark.parametrize("link", [None, "/dev/null", "gone.mount"])
def test_a_unit_of_others_is_neither_overwritten_nor_removed(
    fake_host: Host, wanted: MountSpec | None, link: str | None
) -> None:
    unit = unit_path("/mnt/huge")
    if link:
        os.symlink(link, fake_host.path(unit))
    else:
        put(fake_host.root, unit, unit_text(SPEC).replace(DROPIN_MARK, "# by hand"))
    with pytest.raises(SettingError, match="a unit of our own at /etc/systemd"):
        plan_unit(fake_host, "/mnt/huge", wanted)


def test_each_change_undoes_itself(fake_host: Host) -> None:
    put(fake_host.root, THP_DROPIN, "before\n")
    for change in [*plan_file(fake_host, THP_DROPIN, "after\n"), *plan_unit(fake_host, "/mnt/huge", SPEC)]:
        change.apply(fake_host)
        change.reverse().apply(fake_host)
    assert fake_host.read(THP_DROPIN) == "before\n"
    assert our_units(fake_host) == []
    assert not is_enabled(fake_host, "/mnt/huge")


def test_an_empty_text_wants_the_file_gone(fake_host: Host) -> None:
    assert plan_file(fake_host, THP_DROPIN, "") == []
    put(fake_host.root, THP_DROPIN, "old\n")
    (change,) = plan_file(fake_host, THP_DROPIN, "")
    assert (change.before, change.after) == ("old\n", "absent")
    change.apply(fake_host)
    assert not fake_host.exists(THP_DROPIN)


def test_systemd_is_known_by_its_folder(fake_host: Host) -> None:
    assert not systemd_runs(fake_host)
    fake_host.path("/run/systemd/system").mkdir(parents=True)
    assert systemd_runs(fake_host)


def test_a_fake_host_has_no_systemd_to_tell(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host.path("/run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("ran"))
    assert reload_units(fake_host) is None


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (subprocess.CompletedProcess([], 0, "", "a remark"), None),
        (subprocess.CompletedProcess([], 1, "", "Access denied\n"), "(Access denied)"),
        (subprocess.CompletedProcess([], 4, "", ""), "(exit code 4)"),
        (subprocess.TimeoutExpired("systemctl", 60), "timed out after 60 seconds"),
        (FileNotFoundError(2, "No such file or directory", "systemctl"), "No such file"),
    ],
)
def test_a_systemd_that_does_not_read_the_units_again_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, answer: object, told: str | None
) -> None:
    def run(*_: object, **__: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(systemd, "systemd_runs", lambda host: True)
    warning = reload_units(Host())
    assert (warning is None) == (told is None)
    assert (told or "") in (warning or "")
