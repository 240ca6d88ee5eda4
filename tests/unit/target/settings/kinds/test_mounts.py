"""hugetlbfs mounts: mountinfo, options however they are spelled, and what is refused before anything is done."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host, missing_folders
from ansible.module_utils.slm_baseline.host.mountinfo import parse_mountinfo
from ansible.module_utils.slm_baseline.host.processes import holders
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path, unit_text, wants_path
from ansible.module_utils.slm_baseline.settings.kernel import mount_change as subject
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import default_page_bytes
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import (
    MountSpec,
    found_mount,
    hugetlbfs_mounts,
    parse_options,
)
from ansible.module_utils.slm_baseline.settings.kernel.mount_change import ChangeMount
from ansible.module_utils.slm_baseline.settings.kinds.mounts import (
    Mounts,
    MountState,
    check_mounts,
    our_mount_paths,
    parse_mounts,
)
from ansible.module_utils.slm_baseline.settings.kinds.registry import runtime_values
from ansible.module_utils.slm_baseline.settings.state.changes import apply_all
from ansible.module_utils.slm_baseline.settings.state.ownership import Ours
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.support.fakes import MOUNTINFO, put

MIB2, GIB = 2 << 20, 1 << 30
GOLDEN = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 propagate_from:3 unbindable - ext4 /dev/vda rw,discard
36 35 0:36 /sub\040dir /mnt/with\040blank\011tab\012newline\134slash\043hash rw - tmpfs a\040-\040b rw,size=1k
"""
HUGE = "40 27 0:40 / /mnt/huge rw,nosuid,nodev,relatime shared:9 - hugetlbfs /mnt/huge rw,pagesize=2M,mode=770\n"


def test_golden_mountinfo() -> None:
    proc, root, odd = parse_mountinfo(GOLDEN)
    assert (proc.mount_id, proc.path, proc.fstype, proc.source, proc.options, proc.super_options) == (
        22,
        "/proc",
        "proc",
        "proc",
        "rw,relatime",
        "rw",
    )
    assert (root.path, root.fstype, root.super_options) == ("/", "ext4", "rw,discard")
    assert (proc.device, root.device) == ("0:21", "254:0")
    assert (odd.path, odd.source) == ("/mnt/with blank\ttab\nnewline\\slash#hash", "a - b")


@pytest.mark.parametrize(
    "line", ["rubbish", "22 27 0:21 / /proc rw", "a 27 0:21 / /p rw - proc proc rw", "² 27 0:21 / /p rw - proc proc rw"]
)
def test_another_form_is_a_parse_error(line: str) -> None:
    with pytest.raises(ParseError):
        parse_mountinfo(line)


def escape(text: str) -> str:
    """As mangle_path() of the kernel escapes."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in text)


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), max_size=5),
    st.lists(st.sampled_from(["shared:1", "master:2", "unbindable"]), max_size=3),
)
def test_any_path_the_kernel_can_print_is_read_back(paths: list[str], optional: list[str]) -> None:
    extra = "".join(f" {word}" for word in optional)
    text = "".join(f"1 2 0:3 / /{escape(path)} rw{extra} - tmpfs {escape(path)} rw\n" for path in paths)
    assert [entry.path for entry in parse_mountinfo(text)] == [f"/{path}" for path in paths]


@given(st.text())
def test_any_text_gives_entries_or_one_typed_error(text: str) -> None:
    with contextlib.suppress(ParseError):
        parse_mountinfo(text)


def test_a_strange_mount_of_somebody_else_hides_nothing(fake_host: Host) -> None:
    strange = "41 27 0:41 / /tmp/a\rb\x0cc\u2028d rw - fuse x rw\n"
    fake_host.path("/proc/self/mountinfo").write_bytes((MOUNTINFO + strange + HUGE).encode())
    found = found_mount(fake_host, "/mnt/huge")
    assert found == MountSpec("/mnt/huge", MIB2, None, 0o770)


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        ("rw,relatime,pagesize=2M", MountSpec("/m", MIB2)),
        ("rw,pagesize=2M,mode=770", MountSpec("/m", MIB2, None, 0o770)),
        ("rw,pagesize=2M,mode=0770", MountSpec("/m", MIB2, None, 0o770)),
        ("rw,uid=990,gid=980,mode=1777,pagesize=1024M,size=67108864", MountSpec("/m", GIB, 64 << 20, 0o1777, 990, 980)),
        ("rw,pagesize=1G,size=64M", MountSpec("/m", GIB, 64 << 20)),
        ("rw", MountSpec("/m", MIB2)),
        ("", MountSpec("/m", MIB2)),
        ("rw,pagesize=2M,size=1125899906842624", MountSpec("/m", MIB2, 1 << 50)),
        ("rw,pagesize=2M,size=18446744073709551615", MountSpec("/m", MIB2, (1 << 64) - 1)),
        ("rw,pagesize=2M,min_size=4194304,nr_inodes=10", MountSpec("/m", MIB2)),
    ],
)
def test_options_as_written_and_as_the_kernel_prints_them(options: str, spec: MountSpec) -> None:
    assert parse_options("/m", options, MIB2) == spec


@given(
    st.builds(
        MountSpec,
        st.just("/m"),
        st.integers(1, 2**40),
        st.none() | st.integers(0, 2**45),
        st.integers(0, 0o1777),
        st.integers(0, 2**32 - 2),
        st.integers(0, 2**32 - 2),
    )
)
def test_our_own_spelling_reads_back(spec: MountSpec) -> None:
    assert parse_options("/m", spec.options, 7) == spec


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(r"(uid|gid|mode|size|pagesize)=.*"))
def test_any_options_give_a_mount_or_one_typed_error(options: str) -> None:
    with contextlib.suppress(ParseError):
        parse_options("/m", options, MIB2)


def test_settings_and_their_defaults(fake_host: Host) -> None:
    assert parse_mounts(fake_host, None) == []
    assert parse_mounts(
        fake_host,
        [
            {"path": "/mnt/huge", "page_size": "2M", "mode": "0770"},
            {"path": "/mnt/big", "page_size": "1G", "size": "2G", "owner": "serving", "group": 7, "mode": "1777"},
        ],
    ) == [
        MountSpec("/mnt/huge", MIB2, None, 0o770),
        MountSpec("/mnt/big", GIB, 2 * GIB, 0o1777, 990, 7),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "mnt/huge",
        "",
        "/",
        "//mnt",
        "/mnt/../etc",
        "/mnt/./x",
        "/mnt/a b",
        "/mnt/a,b",
        "/mnt/%h",
        "/mnt/a\nb",
        "/mnt/ü",
        "/mnt/a\\b",
        "/mnt/$x",
        "/dev/hugepages",
        7,
        None,
        True,
        ["/mnt"],
    ],
)
def test_a_path_that_is_not_plain_is_refused(fake_host: Host, path: object) -> None:
    with pytest.raises(SettingError, match="hugetlbfs"):
        parse_mounts(fake_host, [{"path": path, "page_size": "2M"}])


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (504, "the number 504"),
        (True, "the number 504"),
        ("0999", "permissions"),
        ("rwx", "permissions"),
        ("77", "permissions"),
        ("2770", "permissions and the sticky bit"),
        ("04755", "permissions and the sticky bit"),
        ("077777", "permissions"),
        (None, "permissions"),
        (7.5, "permissions"),
    ],
)
def test_a_mode_the_kernel_would_not_keep_is_refused(fake_host: Host, mode: object, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        parse_mounts(fake_host, [{"path": "/mnt/huge", "page_size": "2M", "mode": mode}])


def test_a_directory_service_is_asked_for_the_name_since_it_need_not_list_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed() -> list[object]:
        return []

    def user(name: str) -> pwd.struct_passwd:
        if name != "serving":
            raise KeyError(name)
        return pwd.struct_passwd(("serving", "x", 70001, 70002, "", "/", "/bin/false"))

    for module, function in ((pwd, "getpwall"), (grp, "getgrall")):
        monkeypatch.setattr(module, function, listed)
    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 70003, [])))
    item = {"path": "/mnt/huge", "page_size": "2M", "owner": "serving", "group": "models"}
    (mount,) = parse_mounts(Host(), [item])
    assert (mount.uid, mount.gid) == (70001, 70003)
    with pytest.raises(SettingError, match="no such name"):
        parse_mounts(Host(), [{**item, "owner": "serving2"}])


@pytest.mark.parametrize("name", ["no-such-name-here", "nul\0", "\ud800", ""])
def test_a_name_that_nobody_has_is_refused_on_a_live_host(name: str) -> None:
    for what in ("owner", "group"):
        with pytest.raises(SettingError, match="no such name"):
            parse_mounts(Host(), [{"path": "/mnt/huge", "page_size": "2M", what: name}])


@pytest.mark.parametrize("owner", ["nobody-here", True, -1, 2**32 - 1, "4294967295", "9" * 5000, "", 1.5, []])
def test_an_unknown_owner_is_refused_by_name(fake_host: Host, owner: object) -> None:
    for what in ("owner", "group"):
        with pytest.raises(SettingError) as caught:
            parse_mounts(fake_host, [{"path": "/mnt/huge", "page_size": "2M", what: owner}])
        assert repr(owner) in caught.value.wanted


@pytest.mark.parametrize("size", ["3M", "1M", 0, "half", "50%", -1, True])
def test_a_limit_the_kernel_would_round_is_refused(fake_host: Host, size: object) -> None:
    with pytest.raises(SettingError, match=r"hugetlbfs\./mnt/huge size"):
        parse_mounts(fake_host, [{"path": "/mnt/huge", "page_size": "2M", "size": size}])


@pytest.mark.parametrize(
    "settings",
    [
        "/mnt/huge",
        {"path": "/mnt/huge", "page_size": "2M"},
        [None],
        [{}],
        [{"path": "/mnt/huge"}],
        [{"page_size": "2M"}],
        [{"path": "/mnt/huge", "page_size": "2M", "gid": 7}],
        [{"path": "/mnt/huge", "page_size": True}],
    ],
)
def test_another_form_is_refused(fake_host: Host, settings: object) -> None:
    with pytest.raises(SettingError, match="hugetlbfs"):
        parse_mounts(fake_host, settings)


@pytest.mark.parametrize("other", ["/mnt/huge", "/mnt", "/mnt/huge/deep"])
def test_mounts_that_hide_each_other_contradict(fake_host: Host, other: str) -> None:
    settings = [{"path": "/mnt/huge", "page_size": "2M"}, {"path": other, "page_size": "1G"}]
    with pytest.raises(SettingError, match="hide each other"):
        parse_mounts(fake_host, settings)
    parse_mounts(fake_host, [settings[0], {"path": "/mnt/huge2", "page_size": "2M"}])


def check(host: Host, *ours: str, page: int = MIB2, mode: int = 0o770) -> None:
    check_mounts(host, [MountSpec("/mnt/huge", page, None, mode)], ours)


def test_a_free_path_is_fine(fake_host: Host) -> None:
    check(fake_host)
    fake_host.path("/mnt/huge").mkdir()
    check(fake_host)
    assert missing_folders(fake_host, "/mnt/huge/a/b") == ["/mnt/huge/a", "/mnt/huge/a/b"]


def test_what_stands_in_the_way_is_named(fake_host: Host) -> None:
    put(fake_host.root, "/mnt/huge/file", "")
    with pytest.raises(SettingError, match="1 entries in /mnt/huge"):
        check(fake_host)
    shutil.rmtree(fake_host.path("/mnt/huge"))
    put(fake_host.root, "/mnt/huge", "")
    with pytest.raises(SettingError, match="found a file"):
        check(fake_host)


@pytest.mark.parametrize("link", ["/mnt/huge", "/mnt"])
def test_a_symbolic_link_on_the_way_is_refused(fake_host: Host, link: str) -> None:
    fake_host.path("/elsewhere/huge").mkdir(parents=True)
    fake_host.path("/mnt").rmdir() if link == "/mnt" else None
    os.symlink("/elsewhere", fake_host.path(link))
    with pytest.raises(SettingError, match="symbolic link"):
        check(fake_host)


def test_a_page_size_without_a_pool_and_no_hugetlb_at_all(fake_host: Host) -> None:
    with pytest.raises(SettingError, match="a kernel with 2M, 1G"):
        check(fake_host, page=16 << 20)
    shutil.rmtree(fake_host.path("/sys/kernel/mm/hugepages"))
    with pytest.raises(SettingError, match="no hugetlb at all"):
        check(fake_host)


def test_a_mount_of_somebody_else_is_left_alone_unless_it_is_the_wanted_one(fake_host: Host) -> None:
    put(fake_host.root, "/proc/self/mountinfo", MOUNTINFO + HUGE)
    check(fake_host)
    with pytest.raises(SettingError, match="mounted by somebody else"):
        check(fake_host, mode=0o700)
    check(fake_host, "/mnt/huge", mode=0o700)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (HUGE + HUGE, "hugetlbfs (/mnt/huge) over hugetlbfs (/mnt/huge)"),
        ("41 27 0:41 / /mnt/huge rw - tmpfs scratch rw\n", "tmpfs (scratch)"),
        (HUGE + "41 27 0:41 / /mnt/huge rw - tmpfs scratch rw\n", "tmpfs (scratch) over hugetlbfs (/mnt/huge)"),
    ],
)
def test_stacked_and_foreign_mounts_are_told_from_the_top(fake_host: Host, lines: str, told: str) -> None:
    put(fake_host.root, "/proc/self/mountinfo", MOUNTINFO + lines)
    with pytest.raises(SettingError) as caught:
        check(fake_host)
    assert caught.value.found == told


def test_every_hugetlbfs_is_listed_in_parsed_form(fake_host: Host) -> None:
    systemd = "42 24 0:42 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=1024M\n"
    put(fake_host.root, "/proc/self/mountinfo", MOUNTINFO + systemd + HUGE)
    assert [mount.options for mount in hugetlbfs_mounts(fake_host)] == [
        "pagesize=1G,mode=0755,uid=0,gid=0",
        "pagesize=2M,mode=0770,uid=0,gid=0",
    ]


def test_the_default_page_size_is_the_kernels_else_the_smallest_pools(fake_host: Host) -> None:
    put(fake_host.root, "/proc/meminfo", "MemTotal: 1 kB\nHugepagesize:    1048576 kB\n")
    assert default_page_bytes(fake_host) == GIB
    put(fake_host.root, "/proc/meminfo", "MemTotal: 1 kB\n")
    assert default_page_bytes(fake_host) == MIB2


class FakeMounts:
    """mount(2) and umount2(2) that only edit the fake mountinfo; `ignores` is an option the kernel drops."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch, busy: bool = False, ignores: str = "") -> None:
        self.host, self.busy, self.ignores = host, busy, ignores
        monkeypatch.setattr(subject, "mount", self.mount)
        monkeypatch.setattr(subject, "unmount", self.unmount)

    def mount(self, host: Host, spec: MountSpec) -> None:
        options = spec.options.replace(self.ignores, "") if self.ignores else spec.options
        text = self.host.read("/proc/self/mountinfo")
        put(self.host.root, "/proc/self/mountinfo", f"{text}50 27 0:50 / {spec.path} rw - hugetlbfs h rw,{options}\n")

    def unmount(self, host: Host, path: str) -> None:
        if self.busy:
            raise OSError(16, "Device or resource busy", path)
        lines = self.host.read("/proc/self/mountinfo").splitlines(keepends=True)
        last = max(index for index, line in enumerate(lines) if f" {path} " in line)
        put(self.host.root, "/proc/self/mountinfo", "".join(lines[:last] + lines[last + 1 :]))


def test_a_mount_is_made_with_its_folders_without_suid_and_devices(
    fake_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []

    def libc(*call: object) -> None:
        calls.append(call)
        target = call[3]
        assert isinstance(target, bytes)
        assert os.path.samefile(target, fake_host.path("/mnt/a/b"))
        put(fake_host.root, "/proc/self/mountinfo", f"{MOUNTINFO}50 27 0:50 / /mnt/a/b rw - hugetlbfs h rw\n")

    monkeypatch.setattr(subject, "_libc_call", libc)
    subject.mount(fake_host, MountSpec("/mnt/a/b", MIB2))
    nosuid, nodev = 2, 4
    options = b"pagesize=2M,mode=0755,uid=0,gid=0"
    assert [(*call[:3], *call[4:]) for call in calls] == [
        ("mount", "/mnt/a/b", b"hugetlbfs", b"hugetlbfs", nosuid | nodev, options)
    ]
    assert fake_host.path("/mnt/a/b").is_dir()


@pytest.mark.parametrize("link", ["/mnt/a", "/mnt/a/b"])
def test_a_link_that_was_swapped_in_is_neither_mounted_on_nor_unmounted(
    fake_host: Host, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(subject, "_libc_call", lambda *call: calls.append(call))
    fake_host.path("/srv/b").mkdir(parents=True)
    fake_host.path(link).parent.mkdir(exist_ok=True)
    os.symlink(fake_host.path("/srv"), fake_host.path(link))
    with pytest.raises(SettingError, match="Somebody replaced it"):
        subject.mount(fake_host, MountSpec("/mnt/a/b", MIB2))
    if link == "/mnt/a":
        with pytest.raises(SettingError, match="Somebody replaced it"):
            subject.unmount(fake_host, "/mnt/a/b")
    assert (calls, fake_host.names("/srv/b")) == ([], [])


MOVED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import tests.conftest
from pathlib import Path
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kernel import mount_change

folder, real = Path(sys.argv[2]), mount_change._libc_call

def libc(function, *arguments):
    if function == "mount":
        os.rename(folder / "user", folder / "elsewhere")
        (folder / "user/huge").mkdir(parents=True)
    real(function, *arguments)

spec = mount_change.MountSpec(str(folder / "user/huge"), 2 << 20)
mount_change.mount(Host(), spec)
mount_change.unmount(Host(), spec.path)
mount_change._libc_call = libc
try:
    mount_change.mount(Host(), spec)
except SettingError as error:
    print("refused", [line for line in open("/proc/self/mountinfo") if str(folder) in line])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_folder_moved_away_while_it_is_mounted_on_keeps_no_mount(tmp_path: Path) -> None:
    """On the real kernel, in a mount namespace of its own."""
    command = ["unshare", "--mount", sys.executable, "-c", MOVED, str(REPOSITORY), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if "unshare failed" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert done.stdout == "refused []\n", done.stderr


OLD, NEW = MountSpec("/mnt/huge", MIB2, None, 0o770), MountSpec("/mnt/huge", MIB2, 64 << 20, 0o700)


@pytest.mark.parametrize(("old", "new"), [(None, NEW), (OLD, NEW), (OLD, None)])
def test_a_mount_turns_and_turns_back(
    fake_host: Host, monkeypatch: pytest.MonkeyPatch, old: MountSpec | None, new: MountSpec | None
) -> None:
    kernel = FakeMounts(fake_host, monkeypatch)
    if old:
        kernel.mount(fake_host, old)
    change = ChangeMount("/mnt/huge", old, new)
    change.apply(fake_host)
    assert found_mount(fake_host, "/mnt/huge") == new
    change.reverse().apply(fake_host)
    assert found_mount(fake_host, "/mnt/huge") == old


def test_a_mount_that_reads_back_otherwise_is_an_error_and_undone(
    fake_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMounts(fake_host, monkeypatch, ignores="mode=0700,")
    with pytest.raises(SettingError, match="mountinfo shows other options"):
        apply_all(fake_host, [ChangeMount("/mnt/huge", None, NEW)])
    assert found_mount(fake_host, "/mnt/huge") is None


def test_a_busy_mount_is_refused_and_its_holder_named(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeMounts(fake_host, monkeypatch, busy=True).mount(fake_host, OLD)
    put(fake_host.root, "/proc/77/comm", "llama-server\n")
    put(fake_host.root, "/proc/77/maps", "7f0000000000-7f0000200000 rw-s 0 00:50 9 /mnt/huge/weights\n")
    with pytest.raises(SettingError) as caught:
        apply_all(fake_host, [ChangeMount("/mnt/huge", OLD, NEW)])
    assert caught.value.found == "busy: llama-server (pid 77)"
    assert found_mount(fake_host, "/mnt/huge") == OLD


def test_holders_by_folder_file_and_mapping_but_not_by_a_longer_name(fake_host: Host) -> None:
    for pid, link, target in ((1, "cwd", "/mnt/huge"), (2, "fd/3", "/mnt/huge/file"), (3, "root", "/mnt/huge2")):
        put(fake_host.root, f"/proc/{pid}/comm", f"p{pid}\n")
        place = fake_host.path(f"/proc/{pid}/{link}")
        place.parent.mkdir(exist_ok=True)
        os.symlink(target, place)
    assert holders(fake_host, "/mnt/huge") == ["p1 (pid 1)", "p2 (pid 2)"]
    assert holders(fake_host, "/mnt/huge", most=1) == ["p1 (pid 1)"]


def test_one_unreadable_mount_of_somebody_elses_is_a_note(fake_host: Host) -> None:
    odd = "9 27 0:9 / /mnt/odd rw - hugetlbfs h rw,pagesize=2M,size=lots\n"
    put(fake_host.root, "/proc/self/mountinfo", MOUNTINFO + odd + HUGE)
    assert [mount.path for mount in hugetlbfs_mounts(fake_host)] == ["/mnt/huge"]
    facts = Mounts.facts(fake_host)
    assert [mount["path"] for mount in facts["mounts"]] == ["/mnt/huge"]
    (note,) = facts["unreadable_mounts"]
    assert "hugetlbfs options of /mnt/odd" in note
    assert Mounts().plan(fake_host, {}) == []
    assert "hugetlbfs./mnt/odd" not in runtime_values(fake_host)
    wanted = Mounts([MountSpec("/mnt/odd", MIB2)])
    assert isinstance(wanted.read(fake_host)["hugetlbfs./mnt/odd"], SettingError)


def test_a_slash_at_the_end_makes_no_other_folder(fake_host: Host) -> None:
    plain, slashed = ([{"path": path, "page_size": "2M"}] for path in ("/mnt/huge", "/mnt/huge//"))
    assert parse_mounts(fake_host, slashed) == parse_mounts(fake_host, plain)


def test_a_mount_returns_only_where_what_is_found_is_ours_or_as_it_was() -> None:
    before, found = MountState("/mnt/huge", None), MountState("/mnt/huge", OLD)
    ours = Ours({"hugetlbfs./mnt/huge": OLD.options})
    assert before.rollback_target(found, ours) == before
    assert before.rollback_target(before, Ours()) == before
    assert before.rollback_target(found, Ours()) is None
    assert before.rollback_target(MountState("/mnt/huge", NEW), ours) is None
    unmounted = Ours({"hugetlbfs./mnt/huge": "not mounted"})
    assert found.rollback_target(before, unmounted) == found


def test_a_recorded_mount_is_read_back_and_damage_is_a_value_error() -> None:
    for mount in (OLD, NEW):
        stored = MountState("/mnt/huge", mount).to_json()
        assert Mounts.recorded("/mnt/huge", stored) == MountState("/mnt/huge", mount)
    assert Mounts.recorded("/mnt/huge", None) == MountState("/mnt/huge", None)
    assert MountState("/mnt/huge", None).to_json() is None
    good = MountState("/mnt/huge", OLD).to_json() or {}
    for name, value in (
        ("mode", 0o10000),
        ("uid", 2**32),
        ("gid", -1),
        ("page_size_bytes", "2M"),
        ("size_bytes", True),
    ):
        with pytest.raises((ValueError, TypeError)):
            Mounts.recorded("/mnt/huge", {**good, name: value})
    with pytest.raises(ValueError, match="mnt"):
        Mounts.recorded("mnt/huge", good)


@pytest.mark.parametrize(("text", "mode"), [("0770", 0o770), ("770", 0o770), ("1777", 0o1777), ("01777", 0o1777)])
def test_a_mode_is_octal_however_many_zeros_it_begins_with(fake_host: Host, text: str, mode: int) -> None:
    (mount,) = parse_mounts(fake_host, [{"path": "/mnt/huge", "page_size": "2M", "mode": text}])
    assert mount.mode == mode


def test_a_limit_of_whole_pages_is_taken(fake_host: Host) -> None:
    for size, found in (("2M", MIB2), ("1G", GIB), (3 * MIB2, 3 * MIB2)):
        (mount,) = parse_mounts(fake_host, [{"path": "/mnt/huge", "page_size": "2M", "size": size}])
        assert mount.size_bytes == found


def test_what_is_mounted_and_persisted_is_read_with_its_line(fake_host: Host) -> None:
    unit = unit_path("/mnt/huge")
    put(fake_host.root, unit, unit_text(OLD))
    assert Mounts.persisted(fake_host, []) == {}
    link = fake_host.path(wants_path("/mnt/huge"))
    link.parent.mkdir(parents=True)
    link.symlink_to(unit)
    ((name, (options, source)),) = Mounts.persisted(fake_host, []).items()
    assert (name, options) == ("hugetlbfs./mnt/huge", OLD.options)
    number = int(source.removeprefix(f"{unit}:"))
    assert unit_text(OLD).splitlines()[number - 1].startswith("Options=")
    assert our_mount_paths(fake_host) == ["/mnt/huge"]


def test_a_mount_that_is_there_as_wanted_is_no_change(fake_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for state in (MountState("/mnt/huge", None), MountState("/mnt/huge", MountSpec("/mnt/huge", MIB2, None, 0o770))):
        if state.mount:
            FakeMounts(fake_host, monkeypatch).mount(fake_host, OLD)
        assert state.change(fake_host) is None
        assert state.now(fake_host) == state
    assert MountState("/mnt/huge", NEW).change(fake_host) == ChangeMount("/mnt/huge", OLD, NEW)
