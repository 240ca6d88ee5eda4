"""Other writers of our knobs, found with file and line; and kernel command lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.audit.conflicts.conflict import Scanner
from ansible.module_utils.slm_baseline.settings.audit.conflicts.find import find_conflicts
from ansible.module_utils.slm_baseline.settings.audit.conflicts.shell import parse_shell
from ansible.module_utils.slm_baseline.settings.boot.mount_units import unit_path, unit_text
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.settings.kinds.pools import POOLS_DROPIN
from ansible.module_utils.slm_baseline.settings.kinds.registry import boot_values, knob_of, persisted_values
from ansible.module_utils.slm_baseline.settings.kinds.thp import THP_DROPIN
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fakes import put
from tests.unit.target.settings.audit import conflict_cases
from tests.unit.target.settings.audit.conflict_cases import CASES, PAGE, Case, page, short

MIB2 = 2 << 20
THP = "/sys/kernel/mm/transparent_hugepage"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
NODE1 = "/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages"
WANTED = {"thp.enabled": "madvise", "hugepages.2M": "1024", "hugetlbfs./mnt/huge": "pagesize=2M,mode=0770,uid=0,gid=0"}


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 9000])
def test_a_file_of_any_length_is_read_to_its_end(tmp_path: Path, length: int) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/one").write_text("x" * length)
    assert Scanner(Host(tmp_path), {}, 2 << 20).text("/etc/one") == "x" * length


def found(host: Host, wanted: dict[str, str] | None = None) -> list[tuple[str, str | None, str]]:
    return [
        (writer.knob, writer.value, f"{writer.path}:{writer.line}")
        for writer in find_conflicts(host, WANTED if wanted is None else wanted, MIB2)
    ]


@pytest.mark.parametrize(
    ("target", "knob"),
    [
        (f"{THP}/enabled", "thp.enabled"),
        (f"{THP}/khugepaged/defrag", "thp.khugepaged.defrag"),
        (f"{THP}/hugepages-64kB/enabled", "thp.sizes.64kB.enabled"),
        (POOL, "hugepages.2M"),
        (NODE1, "hugepages.node1.1G"),
        ("/proc/sys/vm/nr_hugepages", "hugepages.2M"),
        (f"{THP}/../ksm/run", None),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages", "hugepages_overcommit.2M"),
        ("/proc/sys/vm/nr_overcommit_hugepages", "hugepages_overcommit.2M"),
        ("/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages", None),
        ("/proc/sys/vm/swappiness", None),
    ],
)
def test_kernel_files_by_their_flat_names(target: str, knob: str | None) -> None:
    assert knob_of(target, MIB2) == knob


@pytest.mark.parametrize(
    ("cmdline", "values"),
    [
        ("quiet root=/dev/vda1", {}),
        ("hugepagesz=1G hugepages=4", {"hugepages.1G": "4"}),
        ("hugepages=7", {"hugepages.2M": "7"}),
        ("default_hugepagesz=1G hugepages=7", {"hugepages.1G": "7"}),
        ("hugepagesz=2M hugepages=0:2,1:4", {"hugepages.node0.2M": "2", "hugepages.node1.2M": "4"}),
        ("hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=2", {"hugepages.1G": "1", "hugepages.2M": "2"}),
        ("transparent_hugepage=never", {"thp.enabled": "never"}),
        ("transparent_hugepage_shmem=advise", {"thp.shmem_enabled": "advise"}),
        (
            "thp_anon=16K,64K:always;2M:inherit",
            {
                "thp.sizes.16kB.enabled": "always",
                "thp.sizes.64kB.enabled": "always",
                "thp.sizes.2048kB.enabled": "inherit",
            },
        ),
        ("thp_anon=16K-64K:madvise", {f"thp.sizes.{size}kB.enabled": "madvise" for size in (16, 32, 64)}),
        ("thp_anon=big:always", {}),
        ("hugepages=²:4", {}),
        ("hugepages=7 hugepages=9", {"hugepages.2M": "7"}),
        ("hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=4", {"hugepages.1G": "2"}),
        ("hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=4 hugepages=5", {"hugepages.1G": "2"}),
        ("hugepagesz=1G hugepagesz=2M hugepages=4", {"hugepages.2M": "4"}),
        ("hugepagesz=3M hugepages=4", {}),
        ("hugepagesz=nonsense hugepages=4 hugepages=5", {"hugepages.2M": "5"}),
        ("hugepages=7 default_hugepagesz=1G", {"hugepages.1G": "7"}),
        (
            "default_hugepagesz=1G hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=8",
            {"hugepages.1G": "2", "hugepages.2M": "8"},
        ),
        ("default_hugepagesz=1G hugepages=2 hugepagesz=1G hugepages=8", {"hugepages.1G": "2"}),
        ("default_hugepagesz=1G default_hugepagesz=2M hugepages=3", {}),
        ("hugepages=7 hugepagesz=2M hugepages=9", {"hugepages.2M": "7"}),
        ("hugepages=0:2,x", {"hugepages.node0.2M": "2"}),
        ("hugepages=4pages", {"hugepages.2M": "4"}),
        ("hugepages=-4", {}),
        ("sysctl.vm.nr_hugepages=5 hugepages=7", {"hugepages.2M": "5"}),
        ("sysctl.vm/nr_hugepages=5 hugepages=0:7", {"hugepages.2M": "5"}),
        (
            "default_hugepagesz=1G sysctl.vm.nr_hugepages=5 hugepagesz=2M hugepages=4",
            {"hugepages.1G": "5", "hugepages.2M": "4"},
        ),
        ("sysctl.vm.nr_hugepages=many", {}),
        ("transparent-hugepage=never", {"thp.enabled": "never"}),
        ("transparent_hugepage=never transparent_hugepage=always", {"thp.enabled": "always"}),
        ("transparent_hugepage=off", {}),
        ('x="a hugepages=3" "hugepages=4"', {"hugepages.2M": "4"}),
        ("quiet -- hugepages=3", {}),
    ],
)
def test_golden_command_lines(cmdline: str, values: dict[str, str]) -> None:
    assert boot_values(cmdline, MIB2) == values


WORDS = st.sampled_from(
    ["hugepagesz=1G", "hugepages=4", "hugepages=0:2,1:4", "hugepages=:,", "thp_anon=16K-1T:always", "thp_anon=;:", "="]
)


@given(st.lists(WORDS | st.text()).map(" ".join))
def test_any_command_line_gives_names_and_text(text: str) -> None:
    for knob, value in boot_values(text, MIB2).items():
        assert knob.startswith(("thp.", "hugepages."))
        assert isinstance(value, str)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_place_is_read_as_its_own_program_reads_it(case: Case, tmp_path: Path) -> None:
    conflicts = conflict_cases.found(case, tmp_path)
    assert [short(one) for one in conflicts if one.certain] == list(case.certain)
    assert [short(one) for one in conflicts if not one.certain] == list(case.possible)


def test_the_page_says_what_is_found(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--write-conflicts", default=False):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "renew it with --write-conflicts"


def test_a_host_with_no_other_writer_has_no_competitor(fake_host: Host) -> None:
    assert found(fake_host) == []


def test_our_own_files_do_not_compete(fake_host: Host) -> None:
    put(fake_host.root, THP_DROPIN, f"w {THP}/enabled - - - - never\n")
    put(fake_host.root, POOLS_DROPIN, f"w {POOL} - - - - 1\n")
    put(fake_host.root, unit_path("/mnt/huge"), unit_text(MountSpec("/mnt/huge", MIB2)))
    assert found(fake_host) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("/etc/tmpfiles.d/x.conf", f"# x\nw {THP}/enabled - - - - never\n", [("thp.enabled", "never", 2)]),
        ("/etc/tmpfiles.d/x.conf", f"w {THP}/enabled - - - - madvise\n", []),
        ("/etc/sysctl.d/9.conf", "# vm.nr_hugepages=1\n\nvm.nr_hugepages = 512\n", [("hugepages.2M", "512", 3)]),
        ("/etc/sysctl.d/9.conf", "-vm/nr_hugepages=512\n", [("hugepages.2M", "512", 1)]),
        ("/etc/sysctl.d/9.conf", "vm.nr_hugepages=1024\nvm.swappiness=1\n", []),
        ("/proc/cmdline", "transparent_hugepage=never hugepages=1024\n", [("thp.enabled", "never", 1)]),
        (
            "/etc/fstab",
            "# huge\nnone\t/mnt/huge hugetlbfs mode=0700 0 0\nnone /mnt/other hugetlbfs defaults 0 0\n",
            [("hugetlbfs./mnt/huge", "pagesize=2M,mode=0700,uid=0,gid=0", 2)],
        ),
        (
            "/etc/systemd/system/mnt-huge.mount",
            "[Mount]\nWhere=/mnt/huge\nType=hugetlbfs\n",
            [("hugetlbfs./mnt/huge", "pagesize=2M,mode=0755,uid=0,gid=0", 2)],
        ),
        ("/etc/rc.local", f"#!/bin/sh\necho never > {THP}/enabled\n", [("thp.enabled", "never", 2)]),
        ("/etc/rc.local", f"echo madvise | tee {THP}/enabled {THP}/defrag\n", []),
        ("/etc/rc.local", f"if test -f {THP}/enabled; then\n  cat {THP}/enabled\nfi\n", []),
        ("/etc/rc.local", f"echo 512 >>{POOL}\n", [("hugepages.2M", "512", 1)]),
        ("/etc/rc.local", f"echo 512 >| '{POOL}'\n", [("hugepages.2M", "512", 1)]),
        ("/etc/rc.local", f'echo 512 | tee -a "{POOL}" > /dev/null\n', [("hugepages.2M", "512", 1)]),
        ("/etc/rc.local", f"echo never | tee {THP}/defrag {THP}/enabled\n", [("thp.enabled", "never", 1)]),
        ("/etc/cron.d/x", f"* * * * * root cat {POOL} > /var/lib/node_exporter/hp.prom\n", []),
        ("/etc/cron.d/x", f"* * * * * root cat {POOL} | tee /var/lib/node_exporter/hp.prom\n", []),
        ("/etc/cron.d/x", f"* * * * * root tee /tmp/x < {POOL}\n", []),
        ("/etc/cron.d/x", f"* * * * * root echo never | tee /tmp/x; cat {THP}/enabled\n", []),
        ("/etc/cron.d/x", "* * * * * root sysctl vm.nr_hugepages | tee /tmp/hp\n", []),
        ("/etc/rc.local", f"echo $MODE > {THP}/enabled\n", [("thp.enabled", None, 1)]),
        ("/etc/rc.local", f"echo 512 > {POOL}\n", [("hugepages.2M", "512", 1)]),
        ("/etc/rc.local", f"echo 4 > {NODE1}\n", []),
        ("/etc/cron.d/x", "@reboot root sysctl -w vm.nr_hugepages=512\n", [("hugepages.2M", "512", 1)]),
    ],
)
def test_each_kind_of_writer_with_file_and_line(
    fake_host: Host, path: str, text: str, expected: list[tuple[str, str | None, int]]
) -> None:
    put(fake_host.root, path, text, 0o755)
    assert found(fake_host) == [(knob, value, f"{path}:{line}") for knob, value, line in expected]


def test_a_masked_sysctl_file_does_not_count(fake_host: Host) -> None:
    put(fake_host.root, "/usr/lib/sysctl.d/9.conf", "vm.nr_hugepages=1\n")
    put(fake_host.root, "/etc/sysctl.d/9.conf", "vm.swappiness=1\n")
    assert found(fake_host) == []


def test_a_pool_as_a_whole_and_by_node_move_the_same_pages(fake_host: Host) -> None:
    put(fake_host.root, "/etc/sysctl.d/9.conf", "vm.nr_hugepages=5\n")
    assert found(fake_host, {"hugepages.node1.2M": "7"}) == [("hugepages.2M", "5", "/etc/sysctl.d/9.conf:1")]
    assert found(fake_host, {"hugepages.node1.1G": "7", "hugepages.1G": "7"}) == []


DISABLE_THP = f"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo never > {THP}/enabled'\n"


def test_a_unit_competes_once_it_is_enabled(fake_host: Host) -> None:
    put(fake_host.root, "/usr/lib/systemd/system/disable-thp.service", DISABLE_THP)
    assert found(fake_host) == []
    wants = fake_host.path("/etc/systemd/system/multi-user.target.wants")
    wants.mkdir()
    os.symlink("/usr/lib/systemd/system/disable-thp.service", wants / "disable-thp.service")
    assert found(fake_host) == [("thp.enabled", "never", "/usr/lib/systemd/system/disable-thp.service:3")]


def test_a_unit_that_only_reads_a_knob_does_not_compete(fake_host: Host) -> None:
    unit = "/etc/systemd/system/exporter.service"
    put(fake_host.root, unit, f"[Service]\nExecStart=/bin/sh -c 'cat {POOL} {THP}/enabled > /run/hp.prom'\n")
    wants = fake_host.path("/etc/systemd/system/multi-user.target.wants")
    wants.mkdir()
    os.symlink(unit, wants / "exporter.service")
    assert found(fake_host) == []


def enable(host: Host, name: str, wants: str = "multi-user.target.wants", unit: str | None = None) -> None:
    link = host.path(f"/etc/systemd/system/{wants}/{name}")
    link.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(f"/usr/lib/systemd/system/{unit or name}", link)


NEVER = f"echo never > {THP}/enabled"
UNIT = "/usr/lib/systemd/system/x.service"


def test_a_continued_exec_line_is_read_whole(fake_host: Host) -> None:
    text = f"[Service]\nExecStart=/bin/sh -c 'true; \\\n# a comment\n  echo never > \\\n  {THP}/enabled'\n"
    put(fake_host.root, UNIT, text)
    enable(fake_host, "x.service")
    assert found(fake_host) == [("thp.enabled", "never", f"{UNIT}:2")]


@pytest.mark.parametrize(
    ("timer", "name"), [("[Timer]\n", "x.timer"), ("[Timer]\nUnit=x.service\n", "y.timer"), ("[Path]\n", "x.path")]
)
def test_what_an_enabled_timer_starts_competes(fake_host: Host, timer: str, name: str) -> None:
    put(fake_host.root, UNIT, f"[Service]\nExecStart=/bin/sh -c '{NEVER}'\n")
    put(fake_host.root, f"/usr/lib/systemd/system/{name}", timer)
    assert found(fake_host) == []
    enable(fake_host, name, "timers.target.wants")
    assert found(fake_host) == [("thp.enabled", "never", f"{UNIT}:2")]


def test_an_instance_of_a_template_and_an_alias_compete(fake_host: Host) -> None:
    put(fake_host.root, UNIT.replace("x.", "x@."), f"[Service]\nExecStart=/bin/sh -c '{NEVER}'\n")
    put(fake_host.root, UNIT.replace("x.", "real."), f"[Service]\nExecStart=/bin/sh -c 'echo 5 > {POOL}'\n")
    enable(fake_host, "x@one.service", unit="x@.service")
    enable(fake_host, "alias.service", unit="real.service")
    assert sorted(found(fake_host)) == [
        ("hugepages.2M", "5", "/usr/lib/systemd/system/real.service:2"),
        ("thp.enabled", "never", "/usr/lib/systemd/system/x@.service:2"),
    ]


@pytest.mark.parametrize("folder", ["a-b.service.d", "a-.service.d", "service.d"])
def test_a_drop_in_of_an_enabled_unit_competes(fake_host: Host, folder: str) -> None:
    put(fake_host.root, "/usr/lib/systemd/system/a-b.service", "[Service]\nExecStart=/bin/true\n")
    enable(fake_host, "a-b.service")
    path = f"/etc/systemd/system/{folder}/10.conf"
    put(fake_host.root, path, f"[Service]\nExecStartPost=/bin/sh -c '{NEVER}'\n")
    assert found(fake_host) == [("thp.enabled", "never", f"{path}:2")]


def test_a_script_that_a_unit_calls_competes(fake_host: Host) -> None:
    put(fake_host.root, "/opt/tune.sh", f"#!/bin/sh\n{NEVER}\n")
    put(fake_host.root, "/usr/bin/machine-code", f"\x7fELF\0\n{NEVER}\n")
    put(fake_host.root, UNIT, "[Service]\nExecStart=-/opt/tune.sh --fast\nExecStop=/usr/bin/machine-code\n")
    enable(fake_host, "x.service")
    assert found(fake_host) == [("thp.enabled", "never", "/opt/tune.sh:2")]


@pytest.mark.parametrize(
    ("path", "schedule"), [("/var/spool/cron/crontabs/root", "0 4 * * * "), ("/etc/cron.daily/thp", "#!/bin/sh\n")]
)
def test_roots_crontab_and_the_scripts_it_calls_compete(fake_host: Host, path: str, schedule: str) -> None:
    put(fake_host.root, "/root/night.sh", f"{NEVER}\n")
    put(fake_host.root, path, f"{schedule}echo 7 > {POOL}; sh /root/night.sh\n", 0o755)
    line = schedule.count("\n") + 1
    assert found(fake_host) == [("hugepages.2M", "7", f"{path}:{line}"), ("thp.enabled", "never", "/root/night.sh:1")]


def test_a_glob_of_tmpfiles_means_each_file_and_wins_over_ours(fake_host: Host) -> None:
    put(fake_host.root, "/etc/tmpfiles.d/a.conf", f"w {THP}/ena*d - - - - always\n")
    put(fake_host.root, "/etc/tmpfiles.d/z.conf", f"w {THP}/[e]nabled - - - - never\n")
    put(fake_host.root, THP_DROPIN, f"w {THP}/enabled - - - - madvise\n")
    assert found(fake_host) == [
        ("thp.enabled", "always", "/etc/tmpfiles.d/a.conf:1"),
        ("thp.enabled", "never", "/etc/tmpfiles.d/z.conf:1"),
    ]
    assert persisted_values(fake_host)["thp.enabled"] == ("never", "/etc/tmpfiles.d/z.conf:1")


@pytest.mark.parametrize("folder", ["mnt-huge.mount.d", "mnt-.mount.d", "mount.d"])
def test_a_drop_in_of_our_own_mount_unit_competes_where_it_says_otherwise(fake_host: Host, folder: str) -> None:
    spec = MountSpec("/mnt/huge", MIB2, None, 0o770)
    put(fake_host.root, unit_path("/mnt/huge"), unit_text(spec))
    path = f"/etc/systemd/system/{folder}/o.conf"
    put(fake_host.root, path, f"[Mount]\nOptions={spec.options},nosuid,nodev\n")
    wanted = {spec.name: spec.options}
    assert found(fake_host, wanted) == []
    put(fake_host.root, path, "[Mount]\nOptions=pagesize=2M,mode=0777\n")
    assert found(fake_host, wanted) == [(spec.name, "pagesize=2M,mode=0777,uid=0,gid=0", f"{path}:2")]


def tuned(host: Host, active: str, profiles: dict[str, str], enabled: bool = True) -> None:
    put(host.root, "/etc/tuned/active_profile", f"{active}\n")
    for name, text in profiles.items():
        put(host.root, f"/usr/lib/tuned/{name}/tuned.conf", text)
    if enabled:
        put(host.root, "/run/tuned/tuned.pid", "1\n")


THROUGHPUT = "[main]\nsummary=fast\n\n[vm]\ntransparent_hugepages=always\n"


def test_an_active_tuned_profile_is_named_with_the_line_it_inherits(fake_host: Host) -> None:
    child = "[main]\ninclude=throughput-performance\n[sysctl]\nvm.nr_hugepages = 3\n"
    tuned(fake_host, "virtual-host", {"throughput-performance": THROUGHPUT, "virtual-host": child})
    assert found(fake_host) == [
        ("thp.enabled", "always", "/usr/lib/tuned/throughput-performance/tuned.conf:5"),
        ("hugepages.2M", "3", "/usr/lib/tuned/virtual-host/tuned.conf:4"),
    ]


def test_a_profile_that_overrides_what_it_includes_is_the_one_that_counts(fake_host: Host) -> None:
    child = "[vm]\ntransparent_hugepages=madvise\n[main]\ninclude=throughput-performance\n"
    tuned(fake_host, "mine", {"throughput-performance": THROUGHPUT, "mine": child})
    assert found(fake_host) == []


def test_the_last_of_several_active_profiles_wins(fake_host: Host) -> None:
    profiles = {"fast": THROUGHPUT, "mine": "[vm]\ntransparent_hugepages=madvise\n"}
    tuned(fake_host, "fast mine", profiles)
    assert found(fake_host) == []
    tuned(fake_host, "mine fast", profiles)
    assert [knob for knob, _, _ in found(fake_host)] == ["thp.enabled"]


def test_profiles_that_include_each_other_come_to_an_end(fake_host: Host) -> None:
    tuned(fake_host, "a", {"a": "[main]\ninclude=b\n", "b": f"[main]\ninclude=a\n{THROUGHPUT}"})
    assert [knob for knob, _, _ in found(fake_host)] == ["thp.enabled"]


def test_tuned_that_is_neither_running_nor_enabled_does_not_compete(fake_host: Host) -> None:
    tuned(fake_host, "fast", {"fast": THROUGHPUT}, enabled=False)
    assert found(fake_host) == []


def test_a_competitor_reads_as_a_sentence(fake_host: Host) -> None:
    put(fake_host.root, "/etc/sysctl.d/9.conf", "vm.nr_hugepages=5\n")
    (writer,) = find_conflicts(fake_host, WANTED, MIB2)
    assert str(writer) == "sysctl sets hugepages.2M to 5 at /etc/sysctl.d/9.conf:1"
    assert writer.as_dict()["detail"] == str(writer)


PIECES = st.sampled_from(
    [
        *("if", "then", "fi", "case", "in", "esac", "for", "do", "done", "{", "}", "(", ")", "$(", "`", "'", '"', "\\"),
        *(";", ";;", "&&", "|", ">", ">>", "<<EOF", "<<<", "EOF", "\n", " ", "#", "$x", "${x", "x=", "echo", "tee"),
        *("sysctl -w vm.nr_hugepages=", "sysctl -p", "mount -t hugetlbfs x /mnt/huge", "sh -c", "%", "*", "[", "{a,b}"),
        *(
            "[vm]",
            "transparent_hugepages=",
            "include=",
            "[variables]",
            "${f:virt_check:",
            "[main]",
            "drop=",
            "hugepages=7",
        ),
        *(f"{THP}/enabled", POOL, "GRUB_CMDLINE_LINUX=", "linux /x ", "options ", 'RUN+="', "ExecStart=", "- "),
    ]
)
PLACES = (
    "/etc/sysctl.d/9.conf",
    "/etc/fstab",
    "/etc/rc.local",
    "/proc/cmdline",
    "/etc/tmpfiles.d/a.conf",
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/default/grub",
    "/boot/grub/grub.cfg",
    "/boot/loader/entries/x.conf",
    "/usr/lib/bootc/kargs.d/x.toml",
    "/etc/cloud/cloud.cfg",
    "/etc/udev/rules.d/x.rules",
    "/usr/lib/systemd/system/x.service",
    "/etc/tuned/tuned-main.conf",
    "/etc/tuned/recommend.conf",
)


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.lists(PIECES).map("".join))
@settings(max_examples=200)
def test_no_text_in_any_file_is_too_odd(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("odd")
    for path in PLACES:
        put(root, path, text, 0o755)
    enable(Host(root), "x.service")
    for active in ("p", ""):
        tuned(Host(root), active, {"p": text, "balanced": text})
        for conflict in find_conflicts(Host(root), WANTED, MIB2):
            assert conflict.line >= 1
            assert conflict.value is not None or not conflict.certain


@given(st.lists(PIECES).map("".join))
def test_any_shell_text_is_read_to_its_end(text: str) -> None:
    lines = [command.line for command in parse_shell(text)]
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


def test_only_the_two_options_of_huge_pages_count_among_those_of_tuneds_plugin(fake_host: Host) -> None:
    others = "dirty_bytes=never\nboost=always\ntransparent_hugepage.other=never\nzzz=never\n"
    tuned(fake_host, "mine", {"mine": f"[vm]\n{others}transparent_hugepage.defrag=never\n"})
    wanted = {**WANTED, "thp.defrag": "madvise"}
    assert found(fake_host, wanted) == [("thp.defrag", "never", "/usr/lib/tuned/mine/tuned.conf:6")]


@pytest.mark.parametrize("command", ["sh -c", "bash -lc", "sudo sh -c", "env", "sh", "timeout 5", "nohup"])
def test_a_command_that_lacks_its_script_ends_nothing(fake_host: Host, command: str) -> None:
    put(fake_host.root, "/etc/rc.local", f"#!/bin/sh\n{command}\n{NEVER}\n", 0o755)
    assert found(fake_host) == [("thp.enabled", "never", "/etc/rc.local:3")]


def test_a_quoted_line_that_goes_on_is_one_line(fake_host: Host) -> None:
    text = f'#!/bin/sh\nsh -c "echo never \\\n> {THP}/enabled"\nsh -c "echo 7 \\\n> {POOL}"\n'
    put(fake_host.root, "/etc/rc.local", text, 0o755)
    assert [(knob, value) for knob, value, _ in found(fake_host)] == [("thp.enabled", "never"), ("hugepages.2M", "7")]


@pytest.mark.parametrize("pattern", ["if|while", "(if", "fi", "start"])
def test_what_comes_after_a_case_is_certain_whatever_its_patterns_are(fake_host: Host, pattern: str) -> None:
    text = f"#!/bin/sh\ncase $1 in\n  {pattern}) {NEVER};;\nesac\necho 7 > {POOL}\n"
    put(fake_host.root, "/etc/rc.local", text, 0o755)
    told = {each.knob: each.certain for each in find_conflicts(fake_host, WANTED, MIB2)}
    assert told == {"thp.enabled": False, "hugepages.2M": True}


@pytest.mark.parametrize(
    ("program", "knobs"),
    [
        ("/opt/spdk/scripts/setup.sh", ["hugepages.2M"]),
        ("/opt/app/setup.sh", []),
        ("/opt/spdk/scripts/status.sh", []),
    ],
)
def test_only_spdks_own_setup_may_reserve_pages(fake_host: Host, program: str, knobs: list[str]) -> None:
    put(fake_host.root, "/etc/rc.local", f"#!/bin/sh\nHUGEMEM=4096 {program}\n", 0o755)
    assert [each.knob for each in find_conflicts(fake_host, WANTED, MIB2) if not each.certain] == knobs


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('kargs = ["quiet"]\nnote = ["hugepages=64"]\n', []),
        ('note = ["hugepages=64"]\nkargs = ["quiet"]\n', []),
        ('note = ["hugepages=64"]\nkargs=[\n  "hugepages=32",\n]\n', [3]),
        ('kargs = [\n  "quiet",\n]\nnote = [\n  "hugepages=64",\n]\n', []),
        ('[other]\nnote = "x"\nkargs = ["hugepages=64"]\n', [3]),
    ],
)
def test_of_a_bootc_file_its_kernel_arguments_count_alone(fake_host: Host, text: str, lines: list[int]) -> None:
    put(fake_host.root, "/usr/lib/bootc/kargs.d/1.toml", text)
    told = [each.line for each in find_conflicts(fake_host, WANTED, MIB2) if "kargs.d" in each.path]
    assert told == lines


def test_quotes_within_quotes_are_those_of_the_inner_shell(fake_host: Host) -> None:
    text = f'#!/bin/sh\nsh -c "echo \\"never\\" > {THP}/enabled"\nsh -c "V=7; echo \\$V > {POOL}"\n'
    put(fake_host.root, "/etc/rc.local", text, 0o755)
    assert found(fake_host) == [("thp.enabled", "never", "/etc/rc.local:2"), ("hugepages.2M", "7", "/etc/rc.local:3")]
