"""What hosts have beside our settings, and what is made of it: the cases of docs/conflicts.md.

`pytest tests/unit/target/settings/audit/test_conflicts.py --write-conflicts` writes the page.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.audit.conflicts.conflict import Conflict
from ansible.module_utils.slm_baseline.settings.audit.conflicts.find import find_conflicts

from tests.conftest import REPOSITORY
from tests.support.fakes import build_host, put

MIB2 = 2 << 20
THP = "/sys/kernel/mm/transparent_hugepage"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
NEVER = f"echo never > {THP}/enabled"
WANTED = {
    "thp.enabled": "madvise",
    "thp.defrag": "madvise",
    "hugepages.2M": "1024",
    "hugetlbfs./mnt/huge": "pagesize=2M,mode=0770,uid=0,gid=0",
}
SYSTEM = "/etc/systemd/system"
ENABLED = f"{SYSTEM}/multi-user.target.wants"
X86 = "processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: fpu sse avx\n"
VM = X86.replace("avx", "avx hypervisor")
PAGE = REPOSITORY / "docs/conflicts.md"

THUNDERX = """[main]
summary=Broadly applicable tuning

[variables]
board_regex=CPU part\\s+:\\s+(0x0?516)|(0x0?af)\\b

[vm.board]
type=vm
uname_regex=aarch64
cpuinfo_regex=${board_regex}
transparent_hugepages=never

[sysctl]
vm.dirty_ratio = 40
"""
"""The form of TuneD's throughput-performance, whose section for one ARM board is no other host's."""

MONGODB = """#!/bin/bash
### BEGIN INIT INFO
# Provides:          disable-transparent-hugepages
### END INIT INFO
case $1 in
  start)
    if [ -d /sys/kernel/mm/transparent_hugepage ]; then
      thp_path=/sys/kernel/mm/transparent_hugepage
    else
      return 0
    fi
    echo 'never' > ${thp_path}/enabled
    unset thp_path
    ;;
esac
"""
"""The form of the init script that a database's manual gives."""


HEAD = """# Who else writes the settings

Written by its own test, not to be edited:
`pytest tests/unit/target/settings/audit/test_conflicts.py --write-conflicts`.

Before a host is tuned, and at every audit, all places are read in which another program may set what we set. There are
two kinds of answers:

- **certain**: a declarative place, read as its own program reads it, or a plain command that a boot runs, holds
  another value. The tuning is refused, and an audit calls it drift, with file and line (`competitors` in `audit.json`).
  Where you know that ours runs last, `tuning_tolerate_competitors: true` makes it a note.
- **possible**: a script or a tool may write the setting: in a condition, a loop or a function, with a variable, or with
  an option of a program. So is the command line of the next boot. It is a note in the console, the report and the audit
  (`possible_writers`): no drift, no refusal. The values that are read back, and the next audit, show what came of it.

Where something certain is found on a running host, the program itself is asked before anything is refused: TuneD's own
loader what its profiles come to, `systemd-analyze cat-config` which files count, `systemctl show` which files a unit is
made of. Where it is not there, our own reading counts, with the cases below.

What each line means: `refused` stops the tuning, `note` only tells.
"""


@dataclass(frozen=True)
class Link:
    """A symbolic link of the host."""

    to: str


Files = Mapping[str, "str | Link"]


@dataclass(frozen=True)
class Case:
    """A host's files, and what is said of them: certain and possible writers as `knob value path:line`.

    A script is executable where its text begins with `#!`. `before` is what the first release made of it.
    """

    kind: str
    what: str
    before: str
    files: Files
    certain: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    wanted: Mapping[str, str] = field(default_factory=lambda: WANTED)

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.what}"


def tuned(profile: str, more: Files | None = None, active: str = "mine", folder: str = "/usr/lib/tuned") -> Files:
    """A host on which TuneD runs with the profile `mine`."""
    return {
        "/etc/tuned/active_profile": f"{active}\n",
        "/run/tuned/tuned.pid": "1\n",
        "/proc/cpuinfo": X86,
        f"{folder}/mine/tuned.conf": profile,
        **(more or {}),
    }


def service(text: str, more: Files | None = None, wants: str = ENABLED) -> Files:
    """A host on which the service x is enabled."""
    unit = "/usr/lib/systemd/system/x.service"
    return {unit: f"[Service]\nType=oneshot\n{text}", f"{wants}/x.service": Link(unit), **(more or {})}


def rc(text: str) -> Files:
    return {"/etc/rc.local": f"#!/bin/sh\n{text}\n"}


T = "/usr/lib/tuned/mine/tuned.conf"
U = "/usr/lib/systemd/system/x.service"
RC = "/etc/rc.local"
PARENT = "/usr/lib/tuned/parent/tuned.conf"
VM_NEVER = "[vm]\ntransparent_hugepages=never\n"
CHILD = "[main]\ninclude=parent\n"
SAID_NEVER = "refused"
SYSFSUTILS: Files = {"/usr/lib/systemd/system/sysfsutils.service": "[Service]\nExecStart=/usr/bin/sysfs\n"}

CASES: tuple[Case, ...] = (
    # TuneD's conditions
    Case(
        "TuneD: conditions",
        "a section for one ARM board, as in the stock profiles",
        "refused on every x86 host",
        tuned(THUNDERX),
    ),
    Case(
        "TuneD: conditions",
        "the same, included by another profile (virtual-guest)",
        "refused on every x86 host",
        tuned(CHILD + "[sysctl]\nvm.swappiness = 30\n", {PARENT: THUNDERX}),
    ),
    Case(
        "TuneD: conditions",
        "`uname_regex` that matches",
        "refused",
        tuned(f"{VM_NEVER}uname_regex=.\n"),
        (f"thp.enabled never {T}:2",),
    ),
    Case(
        "TuneD: conditions",
        "`cpuinfo_regex` that matches",
        "refused",
        tuned(f"{VM_NEVER}cpuinfo_regex=Some Proc\n"),
        (f"thp.enabled never {T}:2",),
    ),
    Case(
        "TuneD: conditions",
        "`cpuinfo_regex` with a variable that does not match",
        "refused",
        tuned(f"[variables]\nx=Other Processor\n{VM_NEVER}cpuinfo_regex=${{x}}\n"),
    ),
    Case(
        "TuneD: conditions",
        "`uname_string` of tuned-main.conf speaks for another machine",
        "refused",
        tuned(f"{VM_NEVER}uname_regex=s390x\n", {"/etc/tuned/tuned-main.conf": "uname_string = Linux s390x\n"}),
        (f"thp.enabled never {T}:2",),
    ),
    # merging
    Case(
        "TuneD: merging",
        "a child switches the section off (`enabled=false`)",
        "refused",
        tuned(CHILD + "[vm]\nenabled=false\n", {PARENT: VM_NEVER}),
    ),
    Case(
        "TuneD: merging",
        "a child replaces the section (`replace=1`)",
        "refused",
        tuned(CHILD + "[vm]\nreplace=1\n", {PARENT: VM_NEVER}),
    ),
    Case(
        "TuneD: merging",
        "a child drops the option (`drop=`)",
        "refused",
        tuned(CHILD + "[vm]\ndrop=transparent_hugepages\n", {PARENT: VM_NEVER}),
    ),
    Case(
        "TuneD: merging",
        "a child sets what is wanted",
        "nothing",
        tuned(CHILD + "[vm]\ntransparent_hugepages=madvise\n", {PARENT: VM_NEVER}),
    ),
    Case(
        "TuneD: merging",
        "a parent's value, which nobody overrides",
        "refused",
        tuned(CHILD, {PARENT: VM_NEVER}),
        (f"thp.enabled never {PARENT}:2",),
    ),
    Case(
        "TuneD: merging",
        "the command line sets THP, which TuneD then leaves alone",
        "refused",
        tuned(VM_NEVER, {"/proc/cmdline": "BOOT_IMAGE=/vmlinuz transparent_hugepage=madvise\n"}),
    ),
    Case(
        "TuneD: merging",
        "two sections for one plugin: the one that runs later counts",
        "the first",
        tuned(
            "[vm]\ntransparent_hugepages=never\npriority=5\n[vm.late]\ntype=vm\npriority=9\ntransparent_hugepages=madvise\n"
        ),
    ),
    Case(
        "TuneD: merging",
        "`[DEFAULT]` counts in every section",
        "missed",
        tuned("[DEFAULT]\ntransparent_hugepages=never\n[vm]\n"),
        (f"thp.enabled never {T}:2",),
    ),
    # values
    Case(
        "TuneD: values",
        "`madvise # comment`",
        "refused",
        tuned("[vm]\ntransparent_hugepages=madvise # as we like it\n"),
    ),
    Case(
        "TuneD: values",
        "`${thp}` of `[variables]`, the wanted value",
        "refused",
        tuned("[variables]\nthp=madvise\n[vm]\ntransparent_hugepages=${thp}\n"),
    ),
    Case(
        "TuneD: values",
        "`${thp}` of `[variables]`, another value",
        "its text",
        tuned("[variables]\nthp=never\n[vm]\ntransparent_hugepages=${thp}\n"),
        (f"thp.enabled never {T}:4",),
    ),
    Case(
        "TuneD: values",
        "`${thp}` of a file that is included",
        "its text",
        tuned(
            "[variables]\ninclude=/etc/tuned/mine-variables.conf\n[vm]\ntransparent_hugepages=${thp}\n",
            {"/etc/tuned/mine-variables.conf": "# x\nthp=never\n"},
        ),
        (f"thp.enabled never {T}:4",),
    ),
    Case(
        "TuneD: values",
        "a variable that nobody sets",
        "refused",
        tuned("[vm]\ntransparent_hugepages=${nowhere}\n"),
        (),
        (f"thp.enabled ? {T}:2",),
    ),
    Case(
        "TuneD: values",
        "the output of a program (`${f:exec:…}`)",
        "refused",
        tuned("[vm]\ntransparent_hugepages=${f:exec:cat:/etc/thp}\n"),
        (),
        (f"thp.enabled ? {T}:2",),
    ),
    Case("TuneD: values", "a word that TuneD does not take", "refused", tuned("[vm]\ntransparent_hugepages=inherit\n")),
    Case(
        "TuneD: values",
        "`vm.nr_hugepages=>512`: at least, and we want more",
        "refused",
        tuned("[sysctl]\nvm.nr_hugepages=>512\n"),
    ),
    Case(
        "TuneD: values",
        "`vm.nr_hugepages=>4096`: at least, and we want less",
        "its text",
        tuned("[sysctl]\nvm.nr_hugepages=>4096\n"),
        (f"hugepages.2M 4096 {T}:2",),
    ),
    Case(
        "TuneD: values",
        "quotes around a count",
        "its text",
        tuned('[sysctl]\nvm.nr_hugepages="64"\n'),
        (f"hugepages.2M 64 {T}:2",),
    ),
    Case(
        "TuneD: values",
        "a sysctl that the administrator's own file sets again (`reapply_sysctl`)",
        "refused",
        tuned("[sysctl]\nvm.nr_hugepages=64\n", {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 1024\n"}),
    ),
    Case(
        "TuneD: values",
        "/etc/sysctl.conf, which TuneD applies",
        "said of sysctl",
        tuned("[sysctl]\nvm.swappiness=1\n", {"/etc/sysctl.conf": "vm.nr_hugepages = 64\n"}),
        ("hugepages.2M 64 /etc/sysctl.conf:1",),
    ),
    # includes and places
    Case(
        "TuneD: values",
        "`${f:regex_search_ternary:abc:b:never:madvise}`",
        "its text",
        tuned("[vm]\ntransparent_hugepages=${f:regex_search_ternary:abc:b:never:madvise}\n"),
        (f"thp.enabled never {T}:2",),
        (),
    ),
    Case(
        "TuneD: values",
        "`${f:regex_search_ternary:abc:x:never:madvise}`",
        "its text",
        tuned("[vm]\ntransparent_hugepages=${f:regex_search_ternary:abc:x:never:madvise}\n"),
        (),
        (),
    ),
    Case(
        "TuneD: values",
        "`${f:cpuinfo_check:Some:never:madvise}`",
        "its text",
        tuned("[vm]\ntransparent_hugepages=${f:cpuinfo_check:Some:never:madvise}\n"),
        (f"thp.enabled never {T}:2",),
        (),
    ),
    Case(
        "TuneD: values",
        "`${f:cpuinfo_check:Other:never:madvise}`",
        "its text",
        tuned("[vm]\ntransparent_hugepages=${f:cpuinfo_check:Other:never:madvise}\n"),
        (),
        (),
    ),
    Case(
        "TuneD: values",
        "`${f:strip:never}`",
        "its text",
        tuned("[vm]\ntransparent_hugepages=${f:strip:never}\n"),
        (f"thp.enabled never {T}:2",),
        (),
    ),
    Case(
        "TuneD: values",
        "`${f:virt_check:madvise:never}`",
        "its text",
        tuned("[vm]\ntransparent_hugepages=${f:virt_check:madvise:never}\n"),
        (f"thp.enabled never {T}:2",),
        (),
    ),
    Case(
        "TuneD: conditions",
        "an expression that is none",
        "refused",
        tuned("[vm]\ntransparent_hugepages=never\ncpuinfo_regex=(\n"),
        (),
        (),
    ),
    Case(
        "TuneD: merging",
        "a file that TuneD cannot parse: it loads nothing",
        "refused",
        tuned("transparent_hugepages=never\n[vm]\ntransparent_hugepages=never\n"),
        (),
        (),
    ),
    Case(
        "TuneD: merging",
        "an older section with a newer condition",
        "refused",
        tuned(CHILD + "[vm]\nuname_regex=s390x\n", {PARENT: VM_NEVER}),
        (),
        (),
    ),
    Case(
        "TuneD: values",
        "`vm.nr_hugepages=<64`: at most",
        "its text",
        tuned("[sysctl]\nvm.nr_hugepages=<64\n"),
        (f"hugepages.2M 64 {T}:2",),
        (),
    ),
    Case(
        "TuneD: values",
        "`reapply_sysctl = 0`",
        "refused",
        tuned(
            "[sysctl]\nvm.nr_hugepages=64\n",
            {"/etc/tuned/tuned-main.conf": "reapply_sysctl = 0\n", "/etc/sysctl.d/9.conf": "vm.nr_hugepages = 1024\n"},
        ),
        (f"hugepages.2M 64 {T}:2",),
        (),
    ),
    Case(
        "TuneD: includes and places",
        "several parents",
        "missed where a semicolon parts them",
        tuned("[main]\ninclude=other; parent\n", {PARENT: VM_NEVER, "/usr/lib/tuned/other/tuned.conf": "[cpu]\n"}),
        (f"thp.enabled never {PARENT}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "a conditional parent that is there (`-parent`)",
        "missed",
        tuned("[main]\ninclude=-parent\n", {PARENT: VM_NEVER}),
        (f"thp.enabled never {PARENT}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "a conditional parent that is not there",
        "nothing",
        tuned("[main]\ninclude=-gone\n"),
    ),
    Case(
        "TuneD: includes and places",
        "a parent that is not there: TuneD loads nothing",
        "refused",
        tuned("[main]\ninclude=gone\n" + VM_NEVER),
    ),
    Case(
        "TuneD: includes and places",
        "`${f:virt_check:parent:other}` on a virtual machine",
        "missed",
        tuned(
            "[main]\ninclude=${f:virt_check:parent:other}\n",
            {PARENT: VM_NEVER, "/usr/lib/tuned/other/tuned.conf": "[cpu]\n", "/proc/cpuinfo": VM},
        ),
        (f"thp.enabled never {PARENT}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "the same on bare metal",
        "nothing",
        tuned(
            "[main]\ninclude=${f:virt_check:parent:other}\n",
            {PARENT: VM_NEVER, "/usr/lib/tuned/other/tuned.conf": "[cpu]\n"},
        ),
    ),
    Case(
        "TuneD: includes and places",
        "the same where the processor does not say",
        "missed",
        tuned(
            "[main]\ninclude=${f:virt_check:parent:other}\n",
            {PARENT: VM_NEVER, "/usr/lib/tuned/other/tuned.conf": "[cpu]\n", "/proc/cpuinfo": "CPU part\t: 0xd0c\n"},
        ),
        (),
        (f"thp.enabled never {PARENT}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "`[script]`",
        "missed",
        tuned(
            "[script]\nscript=${i:PROFILE_DIR}/script.sh\n",
            {"/usr/lib/tuned/mine/script.sh": f"#!/bin/sh\nstart() {{\n  {NEVER}\n}}\nstart\n"},
        ),
        (),
        ("thp.enabled never /usr/lib/tuned/mine/script.sh:3",),
    ),
    Case(
        "TuneD: includes and places",
        "`[sysfs]` with a glob",
        "missed",
        tuned(f"[sysfs]\n{THP}/en*=never\n"),
        (f"thp.enabled never {T}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "post_loaded_profile",
        "missed",
        tuned("[cpu]\n", {"/etc/tuned/post_loaded_profile": "parent\n", PARENT: VM_NEVER}),
        (f"thp.enabled never {PARENT}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "`profile_dirs` of tuned-main.conf",
        "missed",
        tuned(
            "[cpu]\n",
            {
                "/etc/tuned/tuned-main.conf": "profile_dirs = /usr/lib/tuned, /srv/tuned\n",
                "/srv/tuned/mine/tuned.conf": VM_NEVER,
            },
        ),
        ("thp.enabled never /srv/tuned/mine/tuned.conf:2",),
    ),
    Case(
        "TuneD: includes and places",
        "/etc/tuned/profiles (2.23 and later) hides a stock profile",
        "nothing",
        tuned(
            VM_NEVER,
            {"/etc/tuned/profiles/mine/tuned.conf": "[vm]\ntransparent_hugepages=madvise\n"},
            folder="/usr/lib/tuned/profiles",
        ),
    ),
    Case(
        "TuneD: includes and places",
        "a profile that includes the stock one of its own name",
        "missed",
        tuned(VM_NEVER, {"/etc/tuned/mine/tuned.conf": "[main]\ninclude=mine\n"}),
        (f"thp.enabled never {T}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "no active profile: the one that recommend.d names",
        "missed",
        tuned(
            VM_NEVER,
            {
                "/etc/tuned/active_profile": "",
                "/usr/lib/tuned/recommend.d/50-tuned.conf": "[other]\nvirt=.\n\n[mine,1]\nvirt=\n",
            },
        ),
        (),
        (f"thp.enabled never {T}:2",),
    ),
    Case(
        "TuneD: includes and places",
        "manual mode without a profile (`tuned-adm off`)",
        "nothing",
        tuned(VM_NEVER, {"/etc/tuned/active_profile": "", "/etc/tuned/profile_mode": "manual\n"}),
    ),
    Case(
        "TuneD: includes and places",
        "masked, with a leftover pid",
        "refused",
        tuned(VM_NEVER, {f"{SYSTEM}/tuned.service": Link("/dev/null")}),
    ),
    Case(
        "TuneD: includes and places",
        "its command line for the next boot (`[bootloader]`)",
        "missed",
        tuned("[bootloader]\ncmdline_mine=+quiet hugepages=16\n"),
        (),
        (f"hugepages.2M 16 {T}:2",),
    ),
    # sysctl
    Case(
        "sysctl files",
        "/etc/sysctl.conf that nothing links (Debian 13)",
        "refused",
        {"/etc/sysctl.conf": "vm.nr_hugepages = 64\n"},
    ),
    Case(
        "sysctl files",
        "the same through the link 99-sysctl.conf",
        "said twice",
        {"/etc/sysctl.conf": "vm.nr_hugepages = 64\n", "/etc/sysctl.d/99-sysctl.conf": Link("../sysctl.conf")},
        ("hugepages.2M 64 /etc/sysctl.conf:1",),
    ),
    Case(
        "sysctl files", "`= 1024   # 2 GiB`", "refused", {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 1024   # 2 GiB\n"}
    ),
    Case(
        "sysctl files",
        "`= 64   # 128M`, and 1024 are wanted",
        "its text",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 64   # 128M\n"},
        ("hugepages.2M 64 /etc/sysctl.d/9.conf:1",),
    ),
    Case("sysctl files", "`= 0x400`, which is 1024", "refused", {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 0x400\n"}),
    Case(
        "sysctl files",
        "no number at all: the kernel refuses it",
        "refused",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = {{ pages }}\n"},
    ),
    Case(
        "sysctl files",
        "/boot/sysctl.conf-KERNEL (SUSE)",
        "missed",
        {
            "/boot/sysctl.conf-6.4.0-150600.21-default": "vm.nr_hugepages = 64\n",
            "/proc/sys/kernel/osrelease": "6.4.0-150600.21-default\n",
        },
        ("hugepages.2M 64 /boot/sysctl.conf-6.4.0-150600.21-default:1",),
    ),
    Case(
        "sysctl files",
        "the same of another kernel",
        "nothing",
        {"/boot/sysctl.conf-5.3.18-default": "vm.nr_hugepages = 64\n", "/proc/sys/kernel/osrelease": "6.4.0-default\n"},
    ),
    Case(
        "sysctl files",
        "a glob as a key",
        "missed",
        {"/etc/sysctl.d/9.conf": "vm.nr_huge*s = 64\n"},
        ("hugepages.2M 64 /etc/sysctl.d/9.conf:1",),
    ),
    Case(
        "sysctl files",
        "a glob beside the name: the name wins",
        "missed",
        {
            "/etc/sysctl.d/9.conf": "vm.nr_hugepages = 1024\nvm.nr_huge* = 64\n",
            "/etc/sysctl.d/1.conf": "vm.nr_hugepages_mempolicy = 1024\n",
        },
    ),
    Case(
        "sysctl files",
        "a glob, and `-vm.nr_hugepages`, which takes the key out of it",
        "nothing",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages* = 64\n-vm.nr_hugepages\n-vm.nr_hugepages_mempolicy\n"},
    ),
    Case(
        "sysctl files",
        "a later file that sets what is wanted",
        "refused",
        {"/etc/sysctl.d/10.conf": "vm.nr_hugepages = 64\n", "/etc/sysctl.d/90.conf": "vm/nr_hugepages = 1024\n"},
    ),
    Case(
        "sysctl files",
        "order is by name, not by folder",
        "said of both",
        {"/etc/sysctl.d/10.conf": "vm.nr_hugepages = 1024\n", "/usr/lib/sysctl.d/90.conf": "vm.nr_hugepages = 64\n"},
        ("hugepages.2M 64 /usr/lib/sysctl.d/90.conf:1",),
    ),
    Case(
        "sysctl files",
        "masked by a link to /dev/null",
        "nothing",
        {"/usr/lib/sysctl.d/90.conf": "vm.nr_hugepages = 64\n", "/etc/sysctl.d/90.conf": Link("/dev/null")},
    ),
    Case(
        "sysctl files",
        "masked by an empty file of the same name",
        "nothing",
        {"/usr/lib/sysctl.d/90.conf": "vm.nr_hugepages = 64\n", "/etc/sysctl.d/90.conf": ""},
    ),
    Case(
        "sysctl files",
        "`-vm.nr_hugepages = 64`, errors ignored",
        "refused",
        {"/etc/sysctl.d/9.conf": "-vm.nr_hugepages = 64\n"},
        ("hugepages.2M 64 /etc/sysctl.d/9.conf:1",),
    ),
    Case("sysctl files", "no `.conf` name", "nothing", {"/etc/sysctl.d/9.conf.rpmsave": "vm.nr_hugepages = 64\n"}),
    # command line
    Case(
        "command line",
        "two `hugepages=` for one size: the first counts",
        "the last",
        {"/proc/cmdline": "hugepages=1024 hugepages=64\n"},
    ),
    Case(
        "command line",
        "two `hugepagesz=` of one size (Talos): the second is ignored with its count",
        "the last",
        {"/proc/cmdline": "hugepagesz=2M hugepages=1024 hugepagesz=2M hugepages=64\n"},
    ),
    Case(
        "command line",
        "`hugepagesz=1G hugepagesz=2M hugepages=64`",
        "refused",
        {"/proc/cmdline": "hugepagesz=1G hugepagesz=2M hugepages=64\n"},
        ("hugepages.2M 64 /proc/cmdline:1",),
    ),
    Case(
        "command line",
        "`sysctl.vm.nr_hugepages=`, which comes last",
        "missed",
        {"/proc/cmdline": "hugepages=1024 sysctl.vm.nr_hugepages=64\n"},
        ("hugepages.2M 64 /proc/cmdline:1",),
    ),
    Case(
        "command line",
        "`sysctl.vm.nr_hugepages=` sets what is wanted",
        "refused",
        {"/proc/cmdline": "hugepages=64 sysctl.vm/nr_hugepages=1024\n"},
    ),
    Case(
        "command line",
        "pages by node that add up to the pool",
        "refused",
        {"/proc/cmdline": "hugepagesz=2M hugepages=0:512,1:512\n"},
    ),
    Case(
        "command line",
        "pages by node that do not",
        "refused",
        {"/proc/cmdline": "hugepagesz=2M hugepages=0:512,1:16\n"},
        ("hugepages.2M 528 /proc/cmdline:1",),
    ),
    Case(
        "command line",
        "behind `--`, which ends the kernel's part",
        "refused",
        {"/proc/cmdline": "quiet -- hugepages=64 transparent_hugepage=never\n"},
    ),
    Case(
        "command line",
        "in quotes of another parameter",
        "refused",
        {"/proc/cmdline": 'dyndbg="file x +p; transparent_hugepage=never hugepages=64"\n'},
    ),
    Case(
        "command line",
        "a dash for an underscore",
        "missed",
        {"/proc/cmdline": "transparent-hugepage=never\n"},
        ("thp.enabled never /proc/cmdline:1",),
    ),
    Case(
        "command line",
        "a word that the kernel does not take",
        "refused",
        {"/proc/cmdline": "transparent_hugepage=off\n"},
    ),
    # next boot
    Case(
        "next boot",
        "/etc/default/grub",
        "missed",
        {"/etc/default/grub": 'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX="quiet hugepages=64"\n'},
        (),
        ("hugepages.2M 64 /etc/default/grub:2",),
    ),
    Case(
        "next boot",
        "/etc/default/grub.d (Ubuntu's cloud images)",
        "missed",
        {"/etc/default/grub.d/50-cloudimg.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="transparent_hugepage=never"\n'},
        (),
        ("thp.enabled never /etc/default/grub.d/50-cloudimg.cfg:1",),
    ),
    Case(
        "next boot",
        "grub.cfg",
        "missed",
        {"/boot/grub/grub.cfg": "menuentry x {\n  linux /vmlinuz root=/dev/vda1 hugepages=64\n}\n"},
        (),
        ("hugepages.2M 64 /boot/grub/grub.cfg:2",),
    ),
    Case(
        "next boot",
        "a BLS entry, the one that grubenv names",
        "missed",
        {
            "/boot/grub2/grubenv": "saved_entry=id-6.1\n",
            "/boot/loader/entries/id-6.1.conf": "title x\noptions root=/dev/vda1 transparent_hugepage=never\n",
            "/boot/loader/entries/id-5.9.conf": "options hugepages=1\n",
        },
        (),
        ("thp.enabled never /boot/loader/entries/id-6.1.conf:2",),
    ),
    Case(
        "next boot",
        "`kernelopts` of grubenv (RHEL 8)",
        "missed",
        {"/boot/grub2/grubenv": "# GRUB\nkernelopts=root=/dev/vda1 hugepages=64 \n"},
        (),
        ("hugepages.2M 64 /boot/grub2/grubenv:2",),
    ),
    Case(
        "next boot",
        "kargs.d (bootc)",
        "missed",
        {"/usr/lib/bootc/kargs.d/10-huge.toml": 'kargs = [\n  "hugepagesz=2M", "hugepages=64",\n]\n'},
        (),
        ("hugepages.2M 64 /usr/lib/bootc/kargs.d/10-huge.toml:2",),
    ),
    Case(
        "next boot",
        "/etc/kernel/cmdline",
        "missed",
        {"/etc/kernel/cmdline": "root=/dev/vda1 hugepages=64\n"},
        (),
        ("hugepages.2M 64 /etc/kernel/cmdline:1",),
    ),
    Case(
        "next boot",
        "/etc/tuned/bootcmdline",
        "missed",
        {"/etc/tuned/bootcmdline": '# x\nTUNED_BOOT_CMDLINE="hugepages=64"\n'},
        (),
        ("hugepages.2M 64 /etc/tuned/bootcmdline:2",),
    ),
    Case(
        "next boot",
        "extlinux.conf",
        "missed",
        {"/boot/extlinux/extlinux.conf": "label x\n  append root=/dev/vda1 hugepages=64\n"},
        (),
        ("hugepages.2M 64 /boot/extlinux/extlinux.conf:2",),
    ),
    Case(
        "next boot",
        "Flatcar's grub.cfg",
        "missed",
        {"/oem/grub.cfg": 'set linux_append="$linux_append transparent_hugepage=never"\n'},
        (),
        ("thp.enabled never /oem/grub.cfg:1",),
    ),
    Case(
        "next boot",
        "what the running kernel was told, too",
        "said of the command line",
        {"/proc/cmdline": "hugepages=64\n", "/etc/default/grub": 'GRUB_CMDLINE_LINUX="hugepages=64"\n'},
        ("hugepages.2M 64 /proc/cmdline:1",),
    ),
    Case("next boot", "what is wanted", "nothing", {"/etc/default/grub": 'GRUB_CMDLINE_LINUX="hugepages=1024"\n'}),
    Case("next boot", "a comment", "nothing", {"/etc/default/grub": '#GRUB_CMDLINE_LINUX="hugepages=64"\n'}),
    # mounts
    Case(
        "mounts",
        "`mount -t hugetlbfs` in rc.local",
        "missed",
        rc("mount -t hugetlbfs -o pagesize=2M nodev /mnt/huge"),
        (f"hugetlbfs./mnt/huge pagesize=2M,mode=0755,uid=0,gid=0 {RC}:2",),
    ),
    Case(
        "mounts",
        "`mount -t hugetlbfs` in a unit",
        "missed",
        service("ExecStart=/usr/bin/mount -t hugetlbfs none /mnt/huge/\n"),
        (f"hugetlbfs./mnt/huge pagesize=2M,mode=0755,uid=0,gid=0 {U}:3",),
    ),
    Case(
        "mounts",
        "the same with a variable for the path",
        "missed",
        rc("d=/mnt/huge\nmount -t hugetlbfs nodev $d"),
        (),
        (f"hugetlbfs./mnt/huge ? {RC}:3",),
    ),
    Case("mounts", "on another path", "nothing", rc("mount -t hugetlbfs nodev /dev/hugepages1G")),
    Case(
        "mounts",
        "fstab with `/mnt/huge/`",
        "missed",
        {"/etc/fstab": "none /mnt/huge/ hugetlbfs mode=0700 0 0\n"},
        ("hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 /etc/fstab:1",),
    ),
    Case(
        "mounts",
        "fstab with the wanted options in other words",
        "refused",
        {"/etc/fstab": "none /mnt/huge hugetlbfs mode=770,pagesize=2048K 0 0\n"},
    ),
    Case("mounts", "fstab with `noauto`", "refused", {"/etc/fstab": "none /mnt/huge hugetlbfs noauto,mode=0700 0 0\n"}),
    Case(
        "mounts",
        "another file system on the path",
        "missed",
        {"/etc/fstab": "tmpfs /mnt/huge tmpfs defaults 0 0\n"},
        ("hugetlbfs./mnt/huge a mount of tmpfs /etc/fstab:1",),
    ),
    Case(
        "mounts",
        "a mount unit of somebody else's",
        "its value untold",
        {f"{SYSTEM}/mnt-huge.mount": "[Mount]\nWhat=none\nWhere=/mnt/huge\nType=hugetlbfs\nOptions=mode=0700\n"},
        (f"hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 {SYSTEM}/mnt-huge.mount:3",),
    ),
    # scripts
    Case(
        "scripts",
        "a variable for the folder",
        "missed",
        rc(f"p={THP}; echo never > ${{p}}/enabled"),
        (),
        (f"thp.enabled never {RC}:2",),
    ),
    Case(
        "scripts",
        "a variable for the value",
        "missed",
        rc(f"echo $MODE > {THP}/enabled"),
        (),
        (f"thp.enabled ? {RC}:2",),
    ),
    Case(
        "scripts",
        "a loop over nodes",
        "missed",
        rc(f"for n in 0 1; do\n  echo 64 > {NODE.format('$n')}\ndone"),
        (),
        (f"hugepages.node0.2M 64 {RC}:3", f"hugepages.node1.2M 64 {RC}:3"),
    ),
    Case(
        "scripts",
        "a loop over what a glob finds",
        "missed",
        rc("for f in /sys/devices/system/node/node*/hugepages/hugepages-2048kB/nr_hugepages; do echo 64 > $f; done"),
        (),
        (f"hugepages.2M 64 {RC}:2",),
    ),
    Case(
        "scripts",
        "a loop over the knobs",
        "missed",
        rc(f"for k in enabled defrag; do echo never > {THP}/$k; done"),
        (),
        (f"thp.enabled never {RC}:2", f"thp.defrag never {RC}:2"),
    ),
    Case(
        "scripts",
        "`cd` and a bare name",
        "missed",
        rc(f"cd {THP}\necho never > enabled"),
        (f"thp.enabled never {RC}:3",),
    ),
    Case(
        "scripts",
        "`sysctl -w vm.nr_hugepages=$N`",
        "missed",
        rc("sysctl -w vm.nr_hugepages=$N"),
        (),
        (f"hugepages.2M ? {RC}:2",),
    ),
    Case(
        "scripts",
        "`sysctl -w vm.nr_hugepages=64`",
        "refused",
        rc("sysctl -q -w vm.nr_hugepages=64"),
        (f"hugepages.2M 64 {RC}:2",),
    ),
    Case(
        "scripts",
        "`sysctl -p FILE`",
        "missed",
        {**rc("sysctl -p /etc/oracle-sysctl.conf"), "/etc/oracle-sysctl.conf": "# x\nvm.nr_hugepages = 64\n"},
        (),
        ("hugepages.2M 64 /etc/oracle-sysctl.conf:2",),
    ),
    Case(
        "scripts",
        "`sysctl -p` and the file that nothing links",
        "missed",
        {**rc("sysctl -p"), "/etc/sysctl.conf": "vm.nr_hugepages = 64\n"},
        (),
        ("hugepages.2M 64 /etc/sysctl.conf:1",),
    ),
    Case(
        "scripts",
        "a condition",
        "refused",
        rc(f"if test -f {THP}/enabled; then\n  {NEVER}\nfi"),
        (),
        (f"thp.enabled never {RC}:3",),
    ),
    Case("scripts", "behind `&&`", "refused", rc(f"[ -e /etc/db ] && {NEVER}"), (), (f"thp.enabled never {RC}:2",)),
    Case("scripts", "a function", "refused", rc(f"off() {{\n  {NEVER}\n}}"), (), (f"thp.enabled never {RC}:3",)),
    Case("scripts", "behind an `exit` that comes first", "refused", rc(f"exit 0\n{NEVER}")),
    Case(
        "scripts",
        "behind an `exit` in a condition",
        "refused",
        rc(f"[ -e /skip ] && exit 0\n{NEVER}"),
        (),
        (f"thp.enabled never {RC}:3",),
    ),
    Case("scripts", "a plain command", "refused", rc(NEVER), (f"thp.enabled never {RC}:2",)),
    Case(
        "scripts",
        "a here-document for the file",
        "refused without a value",
        rc(f"cat > {POOL} <<EOF\n64\nEOF"),
        (f"hugepages.2M 64 {RC}:2",),
    ),
    Case("scripts", "`sudo sh -c '…'`", "refused", rc(f"sudo sh -c '{NEVER}'"), (f"thp.enabled never {RC}:2",)),
    Case(
        "scripts",
        "`sudo tee` in a pipe",
        "refused",
        rc(f"echo never | sudo tee {THP}/enabled > /dev/null"),
        (f"thp.enabled never {RC}:2",),
    ),
    Case(
        "scripts",
        "`tee` with braces",
        "missed",
        rc(f"echo never | tee {THP}/{{enabled,defrag}}"),
        (),
        (f"thp.enabled never {RC}:2", f"thp.defrag never {RC}:2"),
    ),
    Case(
        "scripts",
        "`printf` and `dd`",
        "missed",
        rc(f"printf '64\\n' > {POOL}\nprintf never | dd of={THP}/enabled"),
        (f"hugepages.2M 64 {RC}:2",),
        (f"thp.enabled ? {RC}:3",),
    ),
    Case(
        "scripts",
        "Python that writes the file",
        "missed",
        {
            **service("ExecStart=/opt/tune.py\n"),
            "/opt/tune.py": f"#!/usr/bin/python3\nopen('{THP}/enabled', 'w').write('never')\n",
        },
        (),
        ("thp.enabled ? /opt/tune.py:2",),
    ),
    Case(
        "scripts",
        "a script that another one calls",
        "missed",
        {**rc("/opt/a.sh"), "/opt/a.sh": "#!/bin/sh\n# huge pages\n. /opt/b.sh\n", "/opt/b.sh": f"{NEVER}\n"},
        ("thp.enabled never /opt/b.sh:1",),
    ),
    Case(
        "tools",
        "`hugeadm --pool-pages-min 2M:64`",
        "missed",
        rc("hugeadm --pool-pages-min 2M:64"),
        (),
        (f"hugepages.2M ? {RC}:2",),
    ),
    Case(
        "tools",
        "`hugeadm --thp-never`",
        "missed",
        rc("/usr/bin/hugeadm --thp-never"),
        (),
        (f"thp.enabled ? {RC}:2", f"thp.defrag ? {RC}:2"),
    ),
    Case(
        "tools",
        "`rpk redpanda tune all`, a unit's",
        "missed",
        service("ExecStart=/usr/bin/rpk redpanda tune all\n"),
        (),
        (f"thp.enabled ? {U}:3",),
    ),
    Case(
        "tools",
        "`saptune`, a unit's",
        "missed",
        service("ExecStart=/usr/sbin/saptune service apply\n"),
        (),
        (f"thp.enabled ? {U}:3", f"thp.defrag ? {U}:3"),
    ),
    Case(
        "tools",
        "dpdk-hugepages.py",
        "missed",
        rc("/usr/local/bin/dpdk-hugepages.py --setup 2G"),
        (),
        (f"hugepages.2M ? {RC}:2",),
    ),
    Case(
        "tools",
        "SPDK's setup.sh",
        "missed",
        rc("HUGEMEM=4096 /opt/spdk/scripts/setup.sh"),
        (),
        (f"hugepages.2M ? {RC}:2",),
    ),
    # text that is no command
    Case("text that is no command", "a hint", "refused", rc(f"echo \"Hint: run '{NEVER}'\"")),
    Case(
        "scripts",
        "a loop over what `ls` prints",
        "missed",
        rc(f"for f in `ls {NODE.format('*')}`; do\n  echo 64 > $f\ndone"),
        (),
        (f"hugepages.2M 64 {RC}:3",),
    ),
    Case(
        "scripts",
        "a line put into /etc/sysctl.conf",
        "missed",
        rc('echo "vm.nr_hugepages = 64" >> /etc/sysctl.conf'),
        (),
        (f"hugepages.2M 64 {RC}:2",),
    ),
    Case(
        "scripts",
        "a loop for ever, in the background",
        "refused",
        rc(f"while true; do\n  {NEVER}\n  sleep 60\ndone &"),
        (),
        (f"thp.enabled never {RC}:3",),
    ),
    Case("scripts", "a command for another host", "refused", rc(f"ssh other '{NEVER}'")),
    Case(
        "scripts",
        "the argument of a script",
        "missed",
        service(
            "ExecStart=/bin/bash /opt/thp.sh never\n",
            {"/opt/thp.sh": f"echo $1 > {THP}/enabled\n"},
        ),
        (),
        ("thp.enabled ? /opt/thp.sh:1",),
    ),
    Case(
        "scripts",
        "a function with the node as its argument (hugetlb-reserve-pages)",
        "missed",
        service(
            "ExecStart=/opt/reserve.sh\n",
            {"/opt/reserve.sh": f"#!/bin/sh\nset_pages() {{\n  echo $1 > {NODE.format('$2')}\n}}\nset_pages 64 0\n"},
        ),
        (),
        ("hugepages.2M ? /opt/reserve.sh:3",),
    ),
    Case(
        "tools",
        "`grubby --args=`",
        "missed",
        rc('grubby --update-kernel=ALL --args="transparent_hugepage=never"'),
        (),
        (f"thp.enabled never {RC}:2",),
    ),
    Case("scripts", "`eval`", "missed or refused", rc(f'eval "{NEVER}"'), (), (f"thp.enabled never {RC}:2",)),
    Case("scripts", "`su -c`", "missed or refused", rc(f"su root -c '{NEVER}'"), (), (f"thp.enabled never {RC}:2",)),
    Case(
        "scripts",
        "`timeout 5 sh -c`",
        "missed or refused",
        rc(f"timeout 5 sh -c '{NEVER}'"),
        (),
        (f"thp.enabled never {RC}:2",),
    ),
    Case(
        "scripts",
        "`nohup sh -c … &`",
        "missed or refused",
        rc(f"nohup sh -c '{NEVER}' &"),
        (f"thp.enabled never {RC}:2",),
        (),
    ),
    Case(
        "scripts",
        "`tee` with a here-string",
        "missed or refused",
        rc(f"tee {THP}/enabled <<< never"),
        (f"thp.enabled never {RC}:2",),
        (),
    ),
    Case(
        "scripts",
        "`printf %s`",
        "missed or refused",
        rc(f"printf '%s' never > {THP}/enabled"),
        (f"thp.enabled never {RC}:2",),
        (),
    ),
    Case(
        "scripts",
        "`echo -n`, appended",
        "missed or refused",
        rc(f"echo -n never >> {THP}/enabled"),
        (f"thp.enabled never {RC}:2",),
        (),
    ),
    Case(
        "scripts",
        "`cat` of a file that nobody knows",
        "missed or refused",
        rc(f"cat /etc/thp > {THP}/enabled"),
        (),
        (f"thp.enabled ? {RC}:2",),
    ),
    Case(
        "scripts",
        "`cp` onto the file",
        "missed or refused",
        rc(f"cp /etc/thp {THP}/enabled"),
        (),
        (f"thp.enabled ? {RC}:2",),
    ),
    Case(
        "scripts",
        "`sh` that reads a here-document",
        "missed or refused",
        rc(f"sh <<'X'\n{NEVER}\nX"),
        (f"thp.enabled never {RC}:2",),
        (),
    ),
    Case(
        "scripts",
        "a variable of two branches",
        "missed or refused",
        rc(f"if x; then m=never; else m=always; fi\necho $m > {THP}/enabled"),
        (),
        (f"thp.enabled ? {RC}:3",),
    ),
    Case(
        "scripts",
        "`export`, then the variable",
        "missed or refused",
        rc(f"export M=never\necho $M > {THP}/enabled"),
        (),
        (f"thp.enabled never {RC}:3",),
    ),
    Case("scripts", "in a subshell", "missed or refused", rc(f"( {NEVER} )"), (), (f"thp.enabled never {RC}:2",)),
    Case(
        "scripts",
        "`sysctl --system` and the file that nothing links",
        "missed",
        {**rc("sysctl --system"), "/etc/sysctl.conf": "vm.nr_hugepages = 64\n"},
        (),
        ("hugepages.2M 64 /etc/sysctl.conf:1",),
    ),
    Case(
        "scripts",
        "`sysctl --load=FILE`",
        "missed",
        {**rc("sysctl --load=/etc/x"), "/etc/x": "vm.nr_hugepages = 64\n"},
        (),
        ("hugepages.2M 64 /etc/x:1",),
    ),
    Case(
        "scripts",
        "`sysctl -w` with a word that the kernel refuses",
        "refused",
        rc("sysctl -w vm.nr_hugepages=many"),
        (),
        (),
    ),
    Case(
        "mounts",
        "`umount /mnt/huge` in rc.local",
        "missed",
        rc("umount /mnt/huge"),
        (),
        (f"hugetlbfs./mnt/huge ? {RC}:2",),
    ),
    Case(
        "mounts",
        "`mount -t tmpfs` on the path",
        "missed",
        rc("mount -t tmpfs tmpfs /mnt/huge"),
        (f"hugetlbfs./mnt/huge a mount of tmpfs {RC}:2",),
        (),
    ),
    Case(
        "mounts",
        "a second mount with the wanted options",
        "missed",
        rc("mount -t hugetlbfs -o pagesize=2M,mode=0770 none /mnt/huge"),
        (f"hugetlbfs./mnt/huge a second mount (pagesize=2M,mode=0770,uid=0,gid=0) {RC}:2",),
        (),
    ),
    Case("tools", "`hugeadm --create-mounts`, which sets no pool", "nothing", rc("hugeadm --create-mounts"), (), ()),
    Case("tools", "`rpk topic list`, which tunes nothing", "nothing", rc("rpk topic list"), (), ()),
    Case(
        "tools",
        "`tuned-adm profile`",
        "missed",
        rc("tuned-adm profile x"),
        (),
        (f"thp.enabled ? {RC}:2", f"thp.defrag ? {RC}:2", f"hugepages.2M ? {RC}:2"),
    ),
    Case("tools", "`tuned-adm active`", "nothing", rc("tuned-adm active"), (), ()),
    Case(
        "text that is no command",
        "a here-document for another file",
        "refused",
        rc(f"cat <<EOF > /root/notes\n{NEVER}\nsysctl -w vm.nr_hugepages=64\nEOF"),
    ),
    Case("text that is no command", "a comment behind a command", "refused", rc(f"true # {NEVER}")),
    Case(
        "text that is no command",
        "a unit that has no shell for its redirection",
        "refused",
        service(f"ExecStart=/bin/echo never > {THP}/enabled\n"),
    ),
    Case(
        "text that is no command",
        "a program that reads",
        "nothing",
        rc(f"cat {THP}/enabled > /run/thp; grep -q x < {POOL}"),
    ),
    Case("text that is no command", "errors into the file", "refused", rc(f"something 2> {THP}/enabled")),
    Case(
        "guessed values",
        "`sleep 5 && echo $N > …/nr_hugepages`",
        "taken for 5, so missed or refused",
        rc(f"sleep 5 && echo $N > {POOL}"),
        (),
        (f"hugepages.2M ? {RC}:2",),
    ),
    Case(
        "guessed values",
        "`echo $((1024 * 2)) > …/nr_hugepages`",
        "taken for 2",
        rc(f"echo $((1024 * 2)) > {POOL}"),
        (),
        (f"hugepages.2M ? {RC}:2",),
    ),
    # SysV
    Case(
        "SysV and others",
        "/etc/init.d with a link (MongoDB)",
        "missed",
        {"/etc/init.d/disable-thp": MONGODB, "/etc/rc3.d/S01disable-thp": Link("../init.d/disable-thp")},
        (),
        ("thp.enabled never /etc/init.d/disable-thp:12",),
    ),
    Case(
        "SysV and others",
        "the same without a link that starts it",
        "nothing",
        {"/etc/init.d/disable-thp": MONGODB, "/etc/rc3.d/K01disable-thp": Link("../init.d/disable-thp")},
    ),
    Case(
        "SysV and others",
        "the same beside a unit of its name",
        "nothing",
        {"/etc/init.d/x": MONGODB, "/etc/rc3.d/S01x": Link("../init.d/x"), U: "[Service]\nExecStart=/bin/true\n"},
    ),
    Case(
        "SysV and others",
        "links of RHEL (/etc/rc.d)",
        "missed",
        {"/etc/rc.d/init.d/thp": MONGODB, "/etc/rc.d/rc5.d/S85thp": Link("../init.d/thp")},
        (),
        ("thp.enabled never /etc/rc.d/init.d/thp:12",),
    ),
    Case(
        "SysV and others",
        "boot.local (SUSE)",
        "missed",
        {"/etc/init.d/boot.local": f"#!/bin/sh\n{NEVER}\n"},
        ("thp.enabled never /etc/init.d/boot.local:2",),
    ),
    Case("SysV and others", "rc.local without its x bit", "refused", {"/etc/rc.local": f"{NEVER}\n"}),
    Case(
        "SysV and others",
        "rc.local, its unit masked",
        "refused",
        {**rc(NEVER), f"{SYSTEM}/rc-local.service": Link("/dev/null")},
    ),
    Case(
        "SysV and others",
        "/etc/rc.local and /etc/rc.d/rc.local are one file (RHEL)",
        "said twice",
        {"/etc/rc.d/rc.local": f"#!/bin/sh\n{NEVER}\n", "/etc/rc.local": Link("rc.d/rc.local")},
        ("thp.enabled never /etc/rc.d/rc.local:2",),
    ),
    Case(
        "SysV and others",
        "cloud-init, `bootcmd`",
        "missed",
        {"/etc/cloud/cloud.cfg.d/99.cfg": f'bootcmd:\n  - {NEVER}\n  - [sh, -c, "echo 64 > {POOL}"]\n'},
        (),
        ("thp.enabled never /etc/cloud/cloud.cfg.d/99.cfg:2", "hugepages.2M 64 /etc/cloud/cloud.cfg.d/99.cfg:3"),
    ),
    Case(
        "SysV and others",
        "cloud-init, switched off",
        "nothing",
        {"/etc/cloud/cloud.cfg.d/99.cfg": f"bootcmd:\n  - {NEVER}\n", "/etc/cloud/cloud-init.disabled": ""},
    ),
    Case(
        "SysV and others",
        "a udev rule",
        "missed",
        {"/etc/udev/rules.d/99.rules": f'ACTION=="add", SUBSYSTEM=="memory", RUN+="/bin/sh -c \'{NEVER}\'"\n'},
        (),
        ("thp.enabled never /etc/udev/rules.d/99.rules:1",),
    ),
    Case(
        "SysV and others",
        "a udev rule with `SYSCTL{}`",
        "missed",
        {"/etc/udev/rules.d/99.rules": 'ACTION=="add", SYSCTL{vm.nr_hugepages}="64"\n'},
        (),
        ("hugepages.2M 64 /etc/udev/rules.d/99.rules:1",),
    ),
    Case(
        "SysV and others",
        "a hook of libvirt",
        "missed",
        {"/etc/libvirt/hooks/qemu": f'#!/bin/bash\n[ "$2" = prepare ] && echo 8192 > {POOL}\n'},
        (),
        ("hugepages.2M 8192 /etc/libvirt/hooks/qemu:2",),
    ),
    Case(
        "SysV and others",
        "a crontab's line",
        "refused",
        {"/etc/cron.d/x": f"@reboot root {NEVER}\n"},
        ("thp.enabled never /etc/cron.d/x:1",),
    ),
    Case(
        "SysV and others",
        "anacron's line",
        "refused",
        {"/etc/anacrontab": f"1 5 thp.daily {NEVER}\n"},
        ("thp.enabled never /etc/anacrontab:1",),
    ),
    Case(
        "SysV and others",
        "a file that cron does not read",
        "refused",
        {"/etc/cron.d/x.dpkg-old": f"@reboot root {NEVER}\n"},
    ),
    Case("SysV and others", "/etc/cron.daily without the x bit", "refused", {"/etc/cron.daily/x": f"{NEVER}\n"}),
    # units
    Case(
        "units",
        "disable-thp.service",
        "refused",
        service(f"ExecStart=/bin/sh -c '{NEVER}'\n"),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "`ExecStart=` of a drop-in takes it back",
        "refused",
        service(
            f"ExecStart=/bin/sh -c '{NEVER}'\n",
            {f"{SYSTEM}/x.service.d/o.conf": "[Service]\nExecStart=\nExecStart=/bin/true\n"},
        ),
    ),
    Case(
        "units",
        "a drop-in puts another value in",
        "said of both",
        service(
            f"ExecStart=/bin/sh -c '{NEVER}'\n",
            {
                f"{SYSTEM}/x.service.d/o.conf": "[Service]\nExecStart=\nExecStart=/bin/sh -c '"
                + f"echo always > {THP}/enabled'\n"
            },
        ),
        (f"thp.enabled always {SYSTEM}/x.service.d/o.conf:3",),
    ),
    Case(
        "units",
        "masked, and enabled",
        "refused",
        service(f"ExecStart=/bin/sh -c '{NEVER}'\n", {f"{SYSTEM}/x.service": Link("/dev/null")}),
    ),
    Case("units", "`ExecStop=`", "refused", service(f"ExecStart=/bin/true\nExecStop=/bin/sh -c '{NEVER}'\n")),
    Case(
        "units",
        "a condition that does not hold",
        "refused",
        service(f"ExecStart=/bin/sh -c '{NEVER}'\n[Unit]\nConditionPathExists=/etc/db\n"),
    ),
    Case(
        "units",
        "a condition that holds",
        "refused",
        service(f"ExecStart=/bin/sh -c '{NEVER}'\n[Unit]\nConditionPathExists={THP}/enabled\n"),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "a condition that only systemd can judge",
        "refused",
        service(f"ExecStart=/bin/sh -c '{NEVER}'\n[Unit]\nConditionVirtualization=vm\n"),
        (),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "wanted by a suspend alone",
        "refused",
        service(f"ExecStart=/bin/sh -c '{NEVER}'\n", wants=f"{SYSTEM}/suspend.target.wants"),
        (),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "wanted by graphical.target on a host that boots into multi-user.target",
        "refused",
        service(
            f"ExecStart=/bin/sh -c '{NEVER}'\n",
            {f"{SYSTEM}/default.target": Link("/usr/lib/systemd/system/multi-user.target")},
            f"{SYSTEM}/graphical.target.wants",
        ),
        (),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "pulled in by a service that is enabled",
        "missed",
        service(
            "ExecStart=/bin/true\n[Unit]\nRequires=y.service\n",
            {f"{SYSTEM}/y.service": f"[Service]\nExecStart=/bin/sh -c '{NEVER}'\n"},
        ),
        (f"thp.enabled never {SYSTEM}/y.service:2",),
    ),
    Case(
        "units",
        "a variable of its environment",
        "missed",
        service(f"Environment=N=64\nExecStart=/bin/sh -c 'echo $N > {POOL}'\n"),
        (),
        (f"hugepages.2M ? {U}:4",),
    ),
    Case(
        "units",
        "two dollars for the shell's variable",
        "missed",
        service(f"ExecStart=/bin/sh -c 'for i in 64; do echo $$i > {POOL}; done'\n"),
        (),
        (f"hugepages.2M 64 {U}:3",),
    ),
    # tmpfiles
    Case(
        "tmpfiles.d",
        "another value",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w {THP}/enabled - - - - never\n"},
        ("thp.enabled never /etc/tmpfiles.d/x.conf:1",),
    ),
    Case(
        "tmpfiles.d",
        "masked by a link to /dev/null",
        "nothing",
        {"/usr/lib/tmpfiles.d/x.conf": f"w {THP}/enabled - - - - never\n", "/etc/tmpfiles.d/x.conf": Link("/dev/null")},
    ),
    Case(
        "tmpfiles.d",
        "a glob for the nodes' files",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w {NODE.format('*')} - - - - 64\n"},
        ("hugepages.node0.2M 64 /etc/tmpfiles.d/x.conf:1",),
    ),
    Case(
        "tmpfiles.d",
        "quotes around the path",
        "missed",
        {"/etc/tmpfiles.d/x.conf": f'w "{THP}/enabled" - - - - never\n'},
        ("thp.enabled never /etc/tmpfiles.d/x.conf:1",),
    ),
    Case(
        "tmpfiles.d",
        "for a boot alone (`w!`), in a file that comes after ours: a duplicate, which is ignored",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w! {THP}/enabled - - - - never\n"},
    ),
    Case(
        "tmpfiles.d",
        "for a boot alone, in a file that comes before ours",
        "refused",
        {"/etc/tmpfiles.d/a.conf": f"w! {THP}/enabled - - - - never\n"},
        ("thp.enabled never /etc/tmpfiles.d/a.conf:1",),
    ),
    Case(
        "tmpfiles.d",
        "a newline by its escape behind our value",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w {THP}/enabled - - - - madvise\\n\n"},
    ),
    Case(
        "tmpfiles.d",
        "another value in base64 (`w~`)",
        "refused, as the value `bmV2ZXI=`",
        {"/etc/tmpfiles.d/x.conf": f"w~ {THP}/enabled - - - - bmV2ZXI=\n"},
        ("thp.enabled never /etc/tmpfiles.d/x.conf:1",),
    ),
    Case(
        "tmpfiles.d",
        "text that is no base64, which systemd-tmpfiles rejects",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w~ {THP}/enabled - - - - never!\n"},
    ),
    Case(
        "scripts",
        "another value for a while, then ours",
        "refused",
        rc(f"{NEVER}\nmeasure\necho madvise > {THP}/enabled"),
    ),
    Case(
        "scripts",
        "another value for a while, then what was found",
        "refused",
        rc(f"found=$(cat {THP}/enabled)\n{NEVER}\nmeasure\necho $found > {THP}/enabled"),
        (),
        (f"thp.enabled never {RC}:3", f"thp.enabled ? {RC}:5"),
    ),
    Case(
        "scripts",
        "ours, then another value",
        "refused",
        rc(f"echo madvise > {THP}/enabled\n{NEVER}"),
        (f"thp.enabled never {RC}:3",),
    ),
    Case(
        "units",
        "another value before the start, ours by the start",
        "refused",
        service(f"ExecStart=/bin/sh -c 'echo madvise > {THP}/enabled'\nExecStartPre=/bin/sh -c '{NEVER}'\n"),
    ),
    Case(
        "units",
        "a path that may appear starts it",
        "refused",
        {
            U: f"[Service]\nExecStart=/bin/sh -c '{NEVER}'\n",
            "/usr/lib/systemd/system/x.path": "[Path]\nPathExists=/run/ready\n",
            f"{ENABLED}/x.path": Link("/usr/lib/systemd/system/x.path"),
        },
        (),
        (f"thp.enabled never {U}:2",),
    ),
    Case(
        "units",
        "`ExecCondition=`",
        "refused",
        service(f"ExecCondition=/usr/bin/is-database\nExecStart=/bin/sh -c '{NEVER}'\n"),
        (),
        (f"thp.enabled never {U}:4",),
    ),
    Case(
        "sysfs.conf",
        "a comment behind the value",
        "refused",
        {"/etc/sysfs.d/x.conf": "kernel/mm/transparent_hugepage/enabled = madvise # x\n", **SYSFSUTILS},
    ),
    Case(
        "sysfs.conf",
        "another value, without the package that reads the file",
        "refused",
        {"/etc/sysfs.conf": "kernel/mm/transparent_hugepage/enabled = never\n"},
    ),
    Case(
        "sysfs.conf",
        "another value",
        "refused",
        {"/etc/sysfs.conf": "kernel/mm/transparent_hugepage/enabled = never\n", **SYSFSUTILS},
        ("thp.enabled never /etc/sysfs.conf:1",),
    ),
    Case(
        "pools by node",
        "sysctl writes the whole pool, wanted is one node's",
        "listed, its row clean",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 64\n"},
        ("hugepages.2M 64 /etc/sysctl.d/9.conf:1",),
        wanted={"hugepages.node0.2M": "512"},
    ),
    Case(
        "pools by node",
        "the whole pool is the sum of the wanted nodes",
        "refused",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 1024\n"},
        wanted={"hugepages.node0.2M": "512", "hugepages.node1.2M": "512"},
    ),
    # Further spellings
    Case(
        "sysctl files",
        "a slash in front, or two in a row: both are the same key",
        "missed",
        {"/etc/sysctl.d/9.conf": "/vm//nr_hugepages = 64\n"},
        ("hugepages.2M 64 /etc/sysctl.d/9.conf:1",),
    ),
    Case(
        "sysctl files", "`= -1`, which the kernel refuses", "refused", {"/etc/sysctl.d/9.conf": "vm.nr_hugepages=-1\n"}
    ),
    Case(
        "sysctl files",
        "`= +64`, which the kernel refuses",
        "refused",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages=+64\n"},
    ),
    Case(
        "sysctl files",
        "`= 0b1000000` and `= 6_4`: numbers in Python, not in the kernel",
        "refused",
        {"/etc/sysctl.d/8.conf": "vm.nr_hugepages=0b1000000\n", "/etc/sysctl.d/9.conf": "vm.nr_hugepages=6_4\n"},
    ),
    Case(
        "sysctl files",
        "a number of more than 64 bits",
        "refused",
        {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 99999999999999999999\n"},
    ),
    Case("sysctl files", "an empty value", "nothing", {"/etc/sysctl.d/9.conf": "-vm.nr_hugepages = \n"}),
    Case(
        "command line",
        "`sysctl.vm.nr_overcommit_hugepages=`",
        "missed",
        {"/proc/cmdline": "sysctl.vm.nr_overcommit_hugepages=8\n"},
        ("hugepages_overcommit.2M 8 /proc/cmdline:1",),
        wanted={"hugepages_overcommit.2M": "512"},
    ),
    Case(
        "command line",
        "`hugepages=` with a zero in front: the kernel reads it as decimal",
        "refused",
        {"/proc/cmdline": "hugepages=01024\n"},
    ),
    Case(
        "command line",
        "a sysctl whose name begins like that of the pool",
        "refused",
        {"/proc/cmdline": "sysctl.vm.nr_hugepages_of_mine=8\n"},
    ),
    Case(
        "next boot",
        "a later assignment replaces an earlier one",
        "missed",
        {
            "/etc/default/grub": 'GRUB_CMDLINE_LINUX="hugepages=64"\n',
            "/etc/default/grub.d/9.cfg": 'GRUB_CMDLINE_LINUX="quiet"\n',
        },
    ),
    Case(
        "next boot",
        "a later assignment adds to an earlier one",
        "missed",
        {
            "/etc/default/grub": 'GRUB_CMDLINE_LINUX="hugepagesz=1G"\n',
            "/etc/default/grub.d/9.cfg": 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX hugepages=64"\n',
        },
        (),
        ("hugepages.1G 64 /etc/default/grub.d/9.cfg:1",),
        wanted={"hugepages.1G": "2", "hugepages.2M": "1024"},
    ),
    Case(
        "next boot",
        "both variables of GRUB name a count: the first one counts",
        "missed",
        {
            "/etc/default/grub": 'GRUB_CMDLINE_LINUX="hugepages=1024"\nGRUB_CMDLINE_LINUX_DEFAULT="hugepages=64"\n',
        },
    ),
    Case(
        "next boot",
        "`tuned_params` of grubenv (BLS entries)",
        "missed",
        {"/boot/grub2/grubenv": "# GRUB\ntuned_params=hugepages=64\n"},
        (),
        ("hugepages.2M 64 /boot/grub2/grubenv:2",),
    ),
    Case(
        "next boot",
        "grub.cfg on the EFI partition",
        "missed",
        {"/boot/efi/EFI/redhat/grub.cfg": "  linuxefi /vmlinuz hugepages=64\n"},
        (),
        ("hugepages.2M 64 /boot/efi/EFI/redhat/grub.cfg:1",),
    ),
    Case(
        "next boot",
        "kargs.d (bootc), one word a line",
        "a wrong size",
        {"/usr/lib/bootc/kargs.d/1.toml": 'kargs = [\n  "hugepagesz=1G",\n  "hugepages=4",\n]\n'},
        (),
        ("hugepages.1G 4 /usr/lib/bootc/kargs.d/1.toml:3",),
        wanted={"hugepages.1G": "2", "hugepages.2M": "1024"},
    ),
    Case(
        "next boot",
        "kargs.d (bootc) for another architecture",
        "missed",
        {"/usr/lib/bootc/kargs.d/1.toml": 'kargs = ["hugepages=64"]\nmatch-architectures = ["s390x"]\n'},
    ),
    Case(
        "next boot",
        "/usr/lib/kernel/cmdline, which /etc/kernel/cmdline hides",
        "missed",
        {"/etc/kernel/cmdline": "root=/dev/vda1\n", "/usr/lib/kernel/cmdline": "hugepages=64\n"},
    ),
    Case(
        "next boot",
        "/etc/kernel/cmdline over several lines",
        "a wrong size",
        {"/etc/kernel/cmdline": "hugepagesz=1G\nhugepages=4\n"},
        (),
        ("hugepages.1G 4 /etc/kernel/cmdline:2",),
        wanted={"hugepages.1G": "2", "hugepages.2M": "1024"},
    ),
    Case(
        "next boot",
        "`kernel_cmdline` of dracut, for a unified kernel image",
        "missed",
        {"/etc/dracut.conf.d/huge.conf": 'kernel_cmdline+=" hugepages=64 "\n'},
        (),
        ("hugepages.2M 64 /etc/dracut.conf.d/huge.conf:1",),
    ),
    Case(
        "next boot",
        "`Cmdline=` of uki.conf",
        "missed",
        {"/etc/kernel/uki.conf": "[UKI]\nCmdline=root=/dev/vda1 hugepages=64\n"},
        (),
        ("hugepages.2M 64 /etc/kernel/uki.conf:2",),
    ),
    Case(
        "next boot",
        "`U_BOOT_PARAMETERS`",
        "missed",
        {"/etc/default/u-boot": 'U_BOOT_PARAMETERS="ro hugepages=64"\n'},
        (),
        ("hugepages.2M 64 /etc/default/u-boot:1",),
    ),
    Case(
        "TuneD: includes and places",
        "`[bootloader]` over two options, one word untold",
        "missed",
        tuned("[bootloader]\ncmdline_a=+isolcpus=${cores} hugepagesz=1G\ncmdline_b=+hugepages=4\n"),
        (),
        (f"hugepages.1G 4 {T}:3",),
        wanted={"hugepages.1G": "2", "hugepages.2M": "1024"},
    ),
    Case(
        "mounts",
        "fstab with the owner's and the group's names",
        "refused",
        {
            "/etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "/etc/group": "root:x:0:\nkvm:x:108:\n",
            "/etc/fstab": "none /mnt/huge hugetlbfs mode=0770,uid=root,gid=kvm 0 0\n",
        },
        wanted={"hugetlbfs./mnt/huge": "pagesize=2M,mode=0770,uid=0,gid=108"},
    ),
    Case(
        "mounts",
        "fstab with an escaped blank in the path",
        "missed",
        {"/etc/fstab": "none /mnt/huge\\040pages hugetlbfs mode=0700 0 0\n"},
        ("hugetlbfs./mnt/huge pages pagesize=2M,mode=0700,uid=0,gid=0 /etc/fstab:1",),
        wanted={"hugetlbfs./mnt/huge pages": "pagesize=2M,mode=0770,uid=0,gid=0"},
    ),
    Case(
        "mounts",
        "fstab with a share of the pool as its size",
        "refused",
        {"/etc/fstab": "none /mnt/huge hugetlbfs mode=0770,size=50% 0 0\n"},
        ("hugetlbfs./mnt/huge mode=0770,size=50% /etc/fstab:1",),
    ),
    Case(
        "mounts",
        "fstab with the wanted size in other words",
        "refused",
        {"/etc/fstab": "none /mnt/huge hugetlbfs mode=0770,size=262144K 0 0\n"},
        wanted={"hugetlbfs./mnt/huge": "pagesize=2M,mode=0770,uid=0,gid=0,size=256M"},
    ),
    Case("mounts", "fstab, commented behind a tab", "nothing", {"/etc/fstab": "\t#none\t/mnt/huge\thugetlbfs\n"}),
    Case("mounts", "fstab's line for swap", "refused", {"/etc/fstab": "/swapfile /mnt/huge swap sw 0 0\n"}),
    Case(
        "mounts",
        "fstab with `noauto,x-systemd.automount`: mounted at the first access",
        "refused",
        {"/etc/fstab": "none /mnt/huge hugetlbfs noauto,x-systemd.automount,mode=0700 0 0\n"},
        ("hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 /etc/fstab:1",),
    ),
    Case(
        "mounts",
        "the unit that systemd makes of a line of fstab",
        "said twice",
        {
            "/etc/fstab": "none /mnt/huge hugetlbfs mode=0700 0 0\n",
            "/run/systemd/generator/mnt-huge.mount": "[Unit]\nSourcePath=/etc/fstab\n[Mount]\nWhere=/mnt/huge\n"
            + "Type=hugetlbfs\nOptions=mode=0700\n",
        },
        ("hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 /etc/fstab:1",),
    ),
    Case(
        "mounts",
        "a mount unit whose condition does not hold",
        "refused",
        {
            f"{SYSTEM}/mnt-huge.mount": "[Unit]\nConditionPathExists=/nowhere\n[Mount]\nWhere=/mnt/huge\n"
            + "Type=hugetlbfs\n"
        },
    ),
    Case(
        "mounts",
        "a mount unit that an empty file of its name masks",
        "refused",
        {
            "/usr/lib/systemd/system/mnt-huge.mount": "[Mount]\nWhere=/mnt/huge\nType=hugetlbfs\n",
            f"{SYSTEM}/mnt-huge.mount": "",
        },
    ),
    Case(
        "mounts",
        "a mount unit whose drop-in says what is wanted",
        "refused",
        {
            f"{SYSTEM}/mnt-huge.mount": "[Mount]\nWhere=/mnt/huge\nType=hugetlbfs\nOptions=mode=0700\n",
            f"{SYSTEM}/mnt-huge.mount.d/o.conf": "[Mount]\nOptions=mode=0770\n",
        },
    ),
    Case(
        "mounts",
        "a mount unit whose drop-in says something else",
        "missed",
        {
            f"{SYSTEM}/mnt-huge.mount": "[Mount]\nWhere=/mnt/huge\nType=hugetlbfs\nOptions=mode=0770\n",
            f"{SYSTEM}/mnt-huge.mount.d/o.conf": "[Mount]\nOptions=mode=0700\n",
        },
        (f"hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 {SYSTEM}/mnt-huge.mount:2",),
    ),
    Case(
        "SysV and others",
        "a crontab's line of another user, who cannot write the file",
        "refused",
        {"/etc/cron.d/x": f"@reboot nobody {NEVER}\n"},
    ),
    Case(
        "SysV and others",
        "the same by sudo",
        "refused",
        {"/etc/cron.d/x": f"@reboot admin sudo sh -c '{NEVER}'\n"},
        (),
        ("thp.enabled never /etc/cron.d/x:1",),
    ),
    Case(
        "SysV and others",
        "a crontab's line with tabs",
        "its value untold",
        {"/etc/cron.d/x": f"@reboot\troot\t{NEVER}\n"},
        ("thp.enabled never /etc/cron.d/x:1",),
    ),
    Case(
        "SysV and others",
        "cloud-init, a list in a list",
        "missed",
        {"/etc/cloud/cloud.cfg.d/99.cfg": "bootcmd: [[sysctl, -w, vm.nr_hugepages=64]]\n"},
        (),
        ("hugepages.2M 64 /etc/cloud/cloud.cfg.d/99.cfg:1",),
    ),
    Case(
        "SysV and others",
        "cloud-init, `cloud-init-per`",
        "missed",
        {"/etc/cloud/cloud.cfg.d/99.cfg": f"bootcmd:\n  - cloud-init-per boot thp sh -c '{NEVER}'\n"},
        (),
        ("thp.enabled never /etc/cloud/cloud.cfg.d/99.cfg:2",),
    ),
    Case(
        "SysV and others",
        "a file that cloud-init does not read",
        "nothing",
        {"/etc/cloud/cloud.cfg.d/README": f"bootcmd:\n  - {NEVER}\n"},
    ),
    Case(
        "SysV and others",
        "a udev rule that calls a script of udev's own folder",
        "missed",
        {
            "/etc/udev/rules.d/99.rules": 'SUBSYSTEM=="cpu", RUN+="huge.sh"\n',
            "/usr/lib/udev/huge.sh": f"#!/bin/sh\n{NEVER}\n",
        },
        (),
        ("thp.enabled never /usr/lib/udev/huge.sh:2",),
    ),
    Case(
        "SysV and others",
        "a udev rule that calls a script by its path",
        "missed",
        {
            "/etc/udev/rules.d/99.rules": 'SUBSYSTEM=="cpu", RUN+="/opt/tune.sh"\n',
            "/opt/tune.sh": f"#!/bin/sh\n{NEVER}\n",
        },
        (),
        ("thp.enabled never /opt/tune.sh:2",),
    ),
    Case(
        "SysV and others",
        "`install` of modprobe.d",
        "missed",
        {"/etc/modprobe.d/kvm.conf": f"install kvm /sbin/modprobe --ignore-install kvm; echo 64 > {POOL}\n"},
        (),
        ("hugepages.2M 64 /etc/modprobe.d/kvm.conf:1",),
    ),
    Case(
        "SysV and others",
        "options of kubelet, which writes no pool",
        "nothing",
        {
            "/var/lib/kubelet/config.yaml": "reservedSystemCPUs: 0-3\nreservedMemory:\n- numaNode: 0\n"
            + "  limits: {hugepages-2Mi: 1Gi}\n"
        },
    ),
    Case(
        "scripts",
        "`find -exec`",
        "missed",
        rc(f"find {THP} -name enabled -exec sh -c 'echo never > {{}}' \\;"),
        (),
        (f"thp.enabled ? {RC}:2",),
    ),
    Case("scripts", "`find` that only looks", "nothing", rc(f"find {THP} -name enabled -print")),
    Case(
        "tools",
        "`grubby --args …`",
        "missed",
        rc("grubby --update-kernel ALL --args transparent_hugepage=never"),
        (),
        (f"thp.enabled never {RC}:2",),
    ),
    Case(
        "units",
        "`User=` of somebody who cannot write the file",
        "refused",
        service(f"User=nobody\nExecStart=/bin/sh -c '{NEVER}'\n"),
    ),
    Case("units", "`DynamicUser=yes`", "refused", service(f"DynamicUser=yes\nExecStart=/bin/sh -c '{NEVER}'\n")),
    Case(
        "units",
        "`ProtectKernelTunables=yes`, under which the file is read-only",
        "refused",
        service(f"ProtectKernelTunables=yes\nExecStart=/bin/sh -c '{NEVER}'\n"),
    ),
    Case(
        "units",
        "a command with full rights (`+`) of such a unit",
        "refused",
        service(f"User=nobody\nProtectKernelTunables=yes\nExecStartPre=+/bin/sh -c '{NEVER}'\nExecStart=/bin/true\n"),
        (f"thp.enabled never {U}:5",),
    ),
    Case(
        "units",
        "`User=root`, in a drop-in",
        "refused",
        service(
            f"User=nobody\nExecStart=/bin/sh -c '{NEVER}'\n",
            {f"{SYSTEM}/x.service.d/o.conf": "[Service]\nUser=root\n"},
        ),
        (f"thp.enabled never {U}:4",),
    ),
    Case(
        "units",
        "a name for the program (`@`)",
        "missed",
        service(f"ExecStart=-@/bin/sh thp -c '{NEVER}'\n"),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "two commands in one line, a semicolon between them",
        "missed",
        service(f"ExecStart=/bin/true ; /bin/sh -c '{NEVER}'\n"),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "a semicolon in quotes, which is the shell's",
        "refused",
        service(f"ExecStart=/bin/sh -c 'sleep 5 ; {NEVER}'\n"),
        (f"thp.enabled never {U}:3",),
    ),
    Case(
        "units",
        "a script by its bare name",
        "missed",
        service("ExecStart=thp-off\n", {"/usr/local/bin/thp-off": f"#!/bin/sh\n{NEVER}\n"}),
        ("thp.enabled never /usr/local/bin/thp-off:2",),
    ),
    Case(
        "units",
        "`sysctl --system`, which sets what a boot sets",
        "missed",
        service("ExecStart=/sbin/sysctl --system\n", {"/etc/sysctl.d/9.conf": "vm.nr_hugepages = 64\n"}),
        ("hugepages.2M 64 /etc/sysctl.d/9.conf:1",),
    ),
    Case(
        "scripts",
        "`echo -e` with a newline of its own",
        "refused, as `never\\n`",
        rc(f"echo -e 'never\\n' > {THP}/enabled\necho -e 'madvise\\n' > {THP}/defrag"),
        (f"thp.enabled never {RC}:2",),
    ),
    Case(
        "scripts",
        "in a privileged container",
        "missed",
        rc(f"docker run --rm --privileged alpine sh -c '{NEVER}'"),
        (),
        (f"thp.enabled never {RC}:2",),
    ),
    Case("scripts", "in a container that may not write it", "nothing", rc(f"docker run alpine sh -c '{NEVER}'")),
    Case(
        "scripts", "below another root", "missed", rc(f"chroot /h sh -c '{NEVER}'"), (), (f"thp.enabled never {RC}:2",)
    ),
    Case("mounts", "`mount /mnt/huge`: what fstab says", "nothing", rc("mount /mnt/huge")),
    Case("mounts", "`mount -o remount`, which changes nothing", "nothing", rc("mount -o remount,mode=0700 /mnt/huge")),
    Case(
        "mounts",
        "long options of mount",
        "missed",
        rc("mount --types=hugetlbfs --options mode=0700 --source none --target /mnt/huge"),
        (f"hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 {RC}:2",),
    ),
    Case(
        "mounts",
        "`mount -thugetlbfs`",
        "missed",
        rc("mount -thugetlbfs -omode=0700 none /mnt/huge"),
        (f"hugetlbfs./mnt/huge pagesize=2M,mode=0700,uid=0,gid=0 {RC}:2",),
    ),
    Case(
        "mounts",
        "`umount -a -t hugetlbfs`",
        "missed",
        rc("umount -a -t hugetlbfs"),
        (),
        (f"hugetlbfs./mnt/huge ? {RC}:2",),
    ),
    Case(
        "mounts",
        "`mount --move`",
        "missed",
        rc("mount --move /mnt/huge /elsewhere"),
        (),
        (f"hugetlbfs./mnt/huge ? {RC}:2",),
    ),
    Case(
        "tmpfiles.d",
        "quotes around the value, which are written as they stand: the kernel refuses them",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f'w {THP}/enabled - - - - "never"\n'},
    ),
    Case(
        "tmpfiles.d",
        "a comment behind the value: no word that the kernel takes",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w {THP}/enabled - - - - never # as we like it\n"},
    ),
    Case(
        "tmpfiles.d",
        "a path with double slashes and dots",
        "missed",
        {"/etc/tmpfiles.d/x.conf": "w /sys/kernel/mm//transparent_hugepage/./enabled - - - - never\n"},
        ("thp.enabled never /etc/tmpfiles.d/x.conf:1",),
    ),
    Case(
        "tmpfiles.d",
        "braces in the path",
        "missed",
        {"/etc/tmpfiles.d/x.conf": f"w {THP}/{{enabled,defrag}} - - - - never\n"},
        ("thp.enabled never /etc/tmpfiles.d/x.conf:1", "thp.defrag never /etc/tmpfiles.d/x.conf:1"),
    ),
    Case(
        "tmpfiles.d",
        "a count in hexadecimal, which the file of a pool refuses",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w {POOL} - - - - 0x40\n"},
    ),
    Case(
        "tmpfiles.d",
        "the wanted count with a zero in front",
        "refused",
        {"/etc/tmpfiles.d/x.conf": f"w {POOL} - - - - 01024\n"},
    ),
    Case("scripts", "a word that the kernel refuses", "refused", rc(f"echo off > {THP}/enabled")),
    Case(
        "sysfs.conf",
        "a slash in front of the path",
        "missed",
        {"/etc/sysfs.conf": "/kernel/mm/transparent_hugepage/enabled = never\n", **SYSFSUTILS},
        ("thp.enabled never /etc/sysfs.conf:1",),
    ),
    Case(
        "SysV and others",
        "/etc/local.d of OpenRC: what is called `.start`, and nothing else",
        "missed",
        {"/etc/local.d/thp.start": f"#!/bin/sh\n{NEVER}\n", "/etc/local.d/thp.old": f"#!/bin/sh\n{NEVER}\n"},
        (),
        ("thp.enabled never /etc/local.d/thp.start:2",),
    ),
    Case(
        "SysV and others",
        "`post-up` of /etc/network/interfaces",
        "missed",
        {"/etc/network/interfaces": f"iface eth0 inet dhcp\n  post-up {NEVER}\n"},
        (),
        ("thp.enabled never /etc/network/interfaces:2",),
    ),
)


def lay_out(root: Path, files: Files) -> Host:
    """A fake host with these files."""
    build_host(root)
    for path, content in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            os.symlink(content.to, target)
        else:
            put(root, path, content, 0o755 if content.startswith("#!") else 0o644)
    return Host(root)


def found(case: Case, root: Path) -> list[Conflict]:
    """What is found on the case's host."""
    return find_conflicts(lay_out(root, case.files), case.wanted, MIB2)


def short(conflict: Conflict) -> str:
    """`knob value path:line`, a question mark for a value that is not told."""
    return f"{conflict.knob} {conflict.value or '?'} {conflict.path}:{conflict.line}"


def page() -> str:
    """docs/conflicts.md."""
    rows = []
    kinds = list(dict.fromkeys(case.kind for case in CASES))
    for case in sorted(CASES, key=lambda case: kinds.index(case.kind)):
        with tempfile.TemporaryDirectory() as folder:
            conflicts = found(case, Path(folder))
        now = [f"{'refused' if one.certain else 'note'}: {one}" for one in conflicts]
        cells = [case.kind, case.what, case.before, "<br>".join(now) or "nothing"]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    table = ["| kind | input | first release | now |", "| --- | --- | --- | --- |", *rows]
    return HEAD + "\n" + "\n".join(table) + "\n"
