"""Every system that is supported, and conditions that fleets have: docs/support.md shows what these scenarios see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from tests.live.vm import support
from tests.live.vm.fleet import Fleet, differences
from tests.live.vm.image import OPERATOR
from tests.live.vm.machine import Machine
from tests.live.vm.probes import assert_tuned
from tests.live.vm.support import Cell
from tests.live.vm.test_measurement import measure_tiny_model

TUNE = ("baseline.yml", "--tags", "tune")
MACHINE_OF = {"Debian 11": "bullseye", "Debian 12": "one", "Debian 13": "trixie", support.ARM64: "arm64"}
EVERY_SYSTEM = [
    pytest.param(system, marks=pytest.mark.xdist_group(name), id=name) for system, name in MACHINE_OF.items()
]
PASSWORD = "a pass'word"
FACTS = """
- hosts: gpu-hosts
  become: true
  gather_facts: false
  tasks:
    - {memory_info: {}, register: found}
    - {ansible.builtin.debug: {var: found.memory.thp.lacking}}
"""
ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"

FleetOf = Callable[..., Fleet]
Seen = Callable[[Cell, str], None]

pytestmark = pytest.mark.slow_vm


@pytest.mark.parametrize("system", EVERY_SYSTEM)
def test_a_host_is_tuned_audited_rebooted_and_restored(system: str, fleet_of: FleetOf, seen: Seen) -> None:
    name = MACHINE_OF[system]
    fleet = fleet_of(name)
    machine, pristine = fleet[name], fleet.state(name)
    seen((support.VERSIONS, system), versions(machine))

    tune_twice(fleet)
    assert_tuned(machine)
    seen((support.TUNED, system), "yes")

    assert drifts(fleet, 0) == []
    machine.check(f"echo always > {ENABLED}")
    assert drifts(fleet, 2) == ["thp.enabled"]
    machine.check(f"echo madvise > {ENABLED}")
    seen((support.AUDITED, system), "yes")

    machine.reboot()
    assert_tuned(machine)
    assert drifts(fleet, 0) == []
    seen((support.KEPT, system), "yes")

    fleet.playbook("rollback.yml").expect(0)
    assert differences(pristine, fleet.state(name)) == {}
    machine.reboot()
    assert differences(pristine, fleet.state(name)) == {}
    seen((support.RESTORED, system), "yes")


@pytest.mark.parametrize("system", EVERY_SYSTEM)
def test_a_setting_that_a_kernel_lacks_is_refused_by_name(system: str, fleet_of: FleetOf, seen: Seen) -> None:
    name = MACHINE_OF[system]
    fleet = fleet_of(name)
    pristine = fleet.state(name)
    has_sizes = fleet[name].ssh("test -e /sys/kernel/mm/transparent_hugepage/hugepages-64kB").returncode == 0
    facts = fleet.folder / "facts.yml"
    facts.write_text(FACTS)
    assert ("thp_sizes" in fleet.playbook(str(facts)).expect(0).text) is not has_sizes
    asked = fleet.playbook(*TUNE, thp_sizes={"64K": "madvise"}).expect(0 if has_sizes else 2)
    if has_sizes:
        assert f"{ENABLED.replace('enabled', 'hugepages-64kB/enabled')}=madvise" in kernel_says(fleet[name])
        fleet.playbook("rollback.yml").expect(0)
        seen((support.LACKING, system), "mTHP sizes set and restored")
    else:
        assert "thp.sizes.64kB.enabled" in asked.text
        assert "no such knob" in asked.text
        seen((support.LACKING, system), "mTHP sizes rejected with a clear error")
    assert differences(pristine, fleet.state(name)) == {}


@pytest.mark.xdist_group("trixie")
def test_the_tiny_model_is_measured_on_debian_13(fleet_of: FleetOf, seen: Seen) -> None:
    measure_tiny_model(fleet_of("trixie"), "trixie")
    seen((support.MEASURED, "Debian 13"), "yes")


@pytest.mark.xdist_group("bullseye")
def test_a_loader_environment_that_a_system_cannot_have_is_refused_by_name(fleet_of: FleetOf, seen: Seen) -> None:
    fleet = fleet_of("bullseye")
    pristine = fleet.state("bullseye")
    refused = fleet.playbook("baseline.yml", slm_benchmark_python="").expect(2)
    assert "slm_benchmark_base_python" in refused.text
    assert differences(pristine, fleet.state("bullseye")) == {}
    seen((support.MEASURED, "Debian 11"), "rejected: its Python is older than 3.11")


@pytest.mark.xdist_group("trixie")
def test_a_snapshot_outlives_an_upgrade_of_the_system(fleet_of: FleetOf, seen: Seen) -> None:
    """What tuning left on the disk of Debian 12 is carried over to Debian 13, which boots with it and is restored."""
    fleet_of("one", "trixie")  # booted side by side
    old, new = fleet_of("one"), fleet_of("trixie")
    before, pristine = old.state("one"), new.state("trixie")
    old.playbook(*TUNE).expect(0)
    paths = [key for key in differences(before, old.state("one")) if key.startswith(("/etc/", "/mnt/", "/var/lib/"))]
    assert "/mnt/huge" in paths
    quoted = " ".join(path.lstrip("/") for path in [*paths, "/var/lib/slm-baseline"])
    disk = old["one"].check(f"tar --create --gzip --one-file-system --directory / {quoted} | base64")
    new["trixie"].check("base64 --decode | tar --extract --gzip --same-owner --directory /", stdin=disk)
    new["trixie"].reboot()
    assert_tuned(new["trixie"])
    assert drifts(new, 0) == []

    new.playbook("rollback.yml").expect(0)
    assert differences(pristine, new.state("trixie")) == {}
    new["trixie"].reboot()
    assert differences(pristine, new.state("trixie")) == {}
    seen((support.UPGRADE, support.SEEN), "from Debian 12 to 13")


@dataclass(frozen=True)
class Condition:
    """What is done to a host, a command that proves it to be in force for its ssh user, and how Ansible is told."""

    row: str
    prepare: tuple[str, ...]
    proof: str
    variables: Mapping[str, object] = field(default_factory=dict)


def speaking(locale: str) -> tuple[str, ...]:
    """Every session and every service in one locale, and drop-ins of others with text in two encodings."""
    return (
        f"echo LANG={locale} | tee /etc/default/locale /etc/locale.conf",
        # A reload is over before the server listens again.
        f"echo SetEnv LANG={locale} LC_ALL={locale} > /etc/ssh/sshd_config.d/locale.conf && systemctl restart ssh",
        "printf '# gr\\303\\266\\303\\237er \\342\\206\\222 gut\\nvm.swappiness = 60\\n' > /etc/sysctl.d/team.conf",
        "printf '# gr\\366\\337er\\nd /run/team 0755\\n' > /etc/tmpfiles.d/team.conf",
    )


def without_exec(folder: str) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,bind,noexec {folder}"


CONDITIONS = {
    "become": Condition(
        support.BECOME,
        (
            f'echo "{OPERATOR}:{PASSWORD}" | chpasswd',
            f"echo '{OPERATOR} ALL=(ALL) ALL' > /etc/sudoers.d/{OPERATOR}",
        ),
        f"! setpriv --reuid {OPERATOR} --regid {OPERATOR} --init-groups sudo --non-interactive true",
        {"ansible_become_password": PASSWORD},
    ),
    "noexec": Condition(
        support.NOEXEC,
        tuple(map(without_exec, ("/tmp", "/var/tmp", f"/home/{OPERATOR}", "/root"))),
        f"for folder in /tmp /var/tmp /home/{OPERATOR} /root; do cp /bin/true $folder/run && ! $folder/run "
        "&& rm $folder/run || exit 1; done",
        {"ansible_pipelining": False},
    ),
    "c_locale": Condition(support.C_LOCALE, speaking("C"), "test $(locale charmap) = ANSI_X3.4-1968"),
    "latin_locale": Condition(
        support.LATIN_LOCALE,
        ("localedef -i en_US -f ISO-8859-1 en_US.ISO-8859-1", *speaking("en_US.ISO-8859-1")),
        "test $(locale charmap) = ISO-8859-1",
    ),
    "read_only_usr": Condition(
        support.READ_ONLY_USR,
        ("mount --bind /usr /usr && mount -o remount,bind,ro /usr",),
        "! touch /usr/local/written",
    ),
    "apparmor": Condition(
        support.APPARMOR, (), "grep --quiet '(enforce)' /sys/kernel/security/apparmor/profiles && aa-enabled"
    ),
}


# Together where none hides another: a machine's minutes are dear.
TOGETHER = {
    "hardened": ("become", "noexec", "c_locale", "read_only_usr", "apparmor"),
    "other_encoding": ("latin_locale",),
}


@pytest.mark.xdist_group("hardened")
@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_a_host_under_conditions_is_tuned_and_restored(names: tuple[str, ...], fleet_of: FleetOf, seen: Seen) -> None:
    conditions = [CONDITIONS[name] for name in names]
    fleet = fleet_of("hardened")
    hardened = fleet["hardened"]
    for condition in conditions:
        for command in condition.prepare:
            hardened.check(command)
        fleet.variables.update(condition.variables)
    # The shared connections are older than what was prepared.
    hardened.hang_up()
    for condition in conditions:
        hardened.check(condition.proof)
    tune_and_restore(fleet, "hardened")
    for condition in conditions:
        seen((condition.row, support.SEEN), "Debian 12")


@pytest.mark.xdist_group("hardened")
def test_a_host_is_tuned_and_restored_where_selinux_is_enforcing(fleet_of: FleetOf, seen: Seen) -> None:
    fleet = fleet_of("selinux")
    machine = fleet["selinux"]
    machine.check("setfiles -F /etc/selinux/default/contexts/files/file_contexts /", timeout_s=600)
    machine.check("sed -i s/^SELINUX=.*/SELINUX=enforcing/ /etc/selinux/config")
    machine.reboot()
    assert machine.check("getenforce") == "Enforcing"
    tune_and_restore(fleet, "selinux")
    seen((support.SELINUX, support.SEEN), "Debian 12")


def tune_twice(fleet: Fleet) -> None:
    """The first run changes every machine of the fleet, the second none."""
    first, second = fleet.playbook(*TUNE).expect(0), fleet.playbook(*TUNE).expect(0)
    for machine in fleet:
        assert first.count(machine.name, "changed") > 0
        assert second.count(machine.name, "changed") == 0


def tune_and_restore(fleet: Fleet, name: str) -> None:
    pristine = fleet.state(name)
    tune_twice(fleet)
    assert_tuned(fleet[name])
    assert drifts(fleet, 0) == []
    fleet.playbook("rollback.yml").expect(0)
    assert differences(pristine, fleet.state(name)) == {}


def drifts(fleet: Fleet, returncode: int) -> list[str]:
    """The knobs that an audit finds drifted on the fleet's hosts."""
    fleet.playbook("audit.yml", audit_reports_dir=str(fleet.folder / "audit")).expect(returncode)
    audit = json.loads((fleet.folder / "audit/audit.json").read_text())
    rows = [row for host in audit["hosts"].values() for row in host["rows"]]
    assert rows
    return [row["knob"] for row in rows if row["verdict"] == "drift"]


def versions(machine: Machine) -> str:
    """Kernel, Python and systemd by their series, which an update of the release leaves alone."""
    kernel = machine.check("uname --kernel-release").split("-")[0].rpartition(".")[0]
    python = machine.check("python3 --version").split()[1].rpartition(".")[0]
    systemd = machine.check("systemctl --version").split()[1].partition(".")[0]
    return f"{kernel}, {python}, {systemd}"


def kernel_says(machine: Machine) -> list[str]:
    """Every selector of THP as PATH=CHOICE."""
    files = machine.check("grep --recursive --no-messages '\\[' /sys/kernel/mm/transparent_hugepage").splitlines()
    return [f"{path}={text.partition('[')[2].partition(']')[0]}" for path, _, text in (f.partition(":") for f in files)]
