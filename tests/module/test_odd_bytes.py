"""Names of processes and files that are no UTF-8 pass through real Ansible, in results, errors and warnings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.module import printable
from ansible.module_utils.slm_baseline.settings.rollback.snapshot import ensure

from tests.conftest import REPOSITORY
from tests.support.fakes import put

ANSIBLE = Path(sys.executable).with_name("ansible")
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def ansible(host: Host, module: str, **arguments: object) -> str:
    """What an ad-hoc call of one of our modules shows."""
    given = json.dumps({"root": str(host.root), **arguments})
    python = f"ansible_python_interpreter={sys.executable}"
    done = subprocess.run(
        [ANSIBLE, "localhost", "-m", module, "-a", given, "-e", python],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": f"{REPOSITORY}/ansible.cfg", "ANSIBLE_BECOME": "false"},
        capture_output=True,
        check=False,
    )
    return (done.stdout + done.stderr).decode("utf-8", "backslashreplace")


@pytest.fixture
def odd_host(fake_host: Host) -> Host:
    """Somebody's process with a Latin-1 name holds pages, and an administrator's file has such a name."""
    for name in ("nr_hugepages", "surplus_hugepages"):
        put(fake_host.root, f"{POOL}/{name}", "3\n")
    status = fake_host.path("/proc/77/status")
    status.parent.mkdir()
    status.write_bytes(b"Name:\tcaf\xe9\nHugetlbPages:\t    6144 kB\n")
    folder = os.fsencode(fake_host.path("/etc/sysctl.d"))
    os.mkdir(folder)
    Path(os.fsdecode(folder + b"/caf\xe9.conf")).write_text("vm.nr_hugepages = 9\n")
    return fake_host


def test_a_result_with_odd_bytes_is_shown(odd_host: Host) -> None:
    shown = ansible(odd_host, "memory_info", pools=[{"size": "2M", "count": 1}])
    assert "SUCCESS" in shown
    assert "caf\\udce9" in shown
    assert "/etc/sysctl.d/caf\\udce9.conf:1" in shown


def test_an_error_with_odd_bytes_is_shown(odd_host: Host) -> None:
    for name in ("nr_hugepages", "surplus_hugepages"):
        put(odd_host.root, f"{POOL}/{name}", "0\n")
    ensure(odd_host, [], "t", "run-1")
    for name in ("nr_hugepages", "surplus_hugepages"):
        put(odd_host.root, f"{POOL}/{name}", "3\n")
    shown = ansible(odd_host, "memory_snapshot", state="restored")
    assert "rollback incomplete" in shown
    assert "caf\\udce9 (pid 77)" in shown


def test_everything_in_a_result_is_printable() -> None:
    assert printable({"a\udce9": ["\udcff", ("\ud800", 1), None, True, 1.5, {"b": "é"}]}) == {
        "a\\udce9": ["\\udcff", ["\\ud800", 1], None, True, 1.5, {"b": "é"}]
    }


def test_no_module_leaves_by_another_door() -> None:
    for path in (REPOSITORY / "library").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        for call in ("exit_json", "fail_json", "module.warn", "deprecate("):
            assert call not in source.partition('"""\n\nfrom typing')[2], f"{path.name} calls {call}"
