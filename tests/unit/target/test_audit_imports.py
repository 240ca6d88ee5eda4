"""An audit imports what every host needs to be compared, and nothing for rare answers: each host compiles all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PACKAGE = "ansible.module_utils.slm_baseline."
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import tests.conftest
before = set(sys.modules)
sys.path.insert(0, sys.argv[1] + "/library")
import memory_info
print(*sorted(name for name in set(sys.modules) - before if "slm_baseline" in name))
"""
RARE = (
    "containers",
    "measuring",
    "first_token.audit",
    "host.lease",
    "host.names",
    "host.unit_users",
    "settings.apply",
    "settings.audit.conflicts.ask",
    "settings.audit.conflicts.commands",
    "settings.audit.conflicts.shell",
    "settings.audit.conflicts.tuned",
    "settings.audit.facts",
    "settings.kernel.mount_change",
    "settings.kernel.mount_guard",
    "settings.rollback",
    "settings.state.changes",
    "setter",
)


@pytest.fixture(scope="module")
def imported() -> set[str]:
    command = [sys.executable, "-c", PROGRAM, str(REPOSITORY)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_the_comparison_is_imported(imported: set[str]) -> None:
    assert {PACKAGE + "settings.audit.drift", PACKAGE + "settings.kernel.hugetlbfs"} <= imported


@pytest.mark.parametrize("room", RARE)
def test_what_an_audit_rarely_needs_is_not_imported(room: str, imported: set[str]) -> None:
    name = PACKAGE + room
    assert [each for each in imported if each == name or each.startswith(f"{name}.")] == []
