"""No kill and no failed system call loses a host's prior state. Needs root, strace, and some minutes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.live.faults import stage, table
from tests.live.faults.matrix import ROLLBACK, Matrix, Scenario
from tests.live.faults.modules import REPOSITORY, Modules
from tests.live.faults.scenarios import FIRST, SCENARIOS
from tests.live.faults.strace import parse_log

DOC = REPOSITORY / "docs/faults.md"


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    if os.geteuid() != 0:
        pytest.fail("the fault matrix mounts and changes kernel settings: run it as root")
    if not shutil.which("strace"):
        pytest.fail("the fault matrix injects faults with strace: install it (apt-get install strace)")
    if os.getpid() != 1:
        pytest.fail("processes of others move the counts by which faults are found: run make test-faults")
    scratch = tmp_path_factory.mktemp("faults")
    modules = Modules(scratch)
    with stage.staged() as pristine:
        yield Matrix(modules, pristine, request.config.getoption("--every"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_fault(matrix: Matrix, scenario: Scenario) -> None:
    """Every fault of one sequence converges and is undone exactly."""
    known = len(matrix.problems)
    matrix.play(scenario)
    assert not matrix.problems[known:], "\n".join(matrix.problems[known:])


def test_a_living_run_is_not_disturbed(matrix: Matrix) -> None:
    """What lets the next run in after a kill is that the run is dead, and nothing else."""
    modules = matrix.modules
    modules.new_run()
    assert modules.run(FIRST[0]).is_fine
    living = modules.identity()["alive"]
    modules.new_run()
    refused = modules.run(FIRST[1], others=living)
    assert refused.result["problem"]["knob"] == "run lock"
    assert modules.run(ROLLBACK).is_fine
    stage.forget_runs()


def test_the_table(matrix: Matrix, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """All was tried, all was exact; says so, and renews the page on request."""
    whole = table.total(matrix.tallies)
    if matrix.every == 1 and len(matrix.tallies) == sum(len(scenario.steps) for scenario in SCENARIOS):
        assert whole.points > 200
        if request.config.getoption("--write-doc"):
            DOC.write_text(table.page(matrix.tallies), encoding="utf-8")
    with capsys.disabled():
        print("", table.page(matrix.tallies).partition("\n| ")[2], sep="\n| ")
    assert (whole.converged, whole.exact) == (whole.tried_converge, whole.tried_restore)


def test_a_log_is_read() -> None:
    """Golden lines of strace 6.1: a descriptor's path, not the data; a rename's target; the injected and the killed."""
    calls = parse_log(
        'openat(AT_FDCWD</w>, "/etc/a.tmp", O_WRONLY|O_CREAT, 0600) = 3</etc/a.tmp>\n'
        'write(3</etc/a.tmp>, "/etc/other", 10) = 10\n'
        'rename("/etc/a.tmp", "/etc/a") = -1 EIO (Input/output error) (INJECTED)\n'
        'openat(AT_FDCWD</w>, "/etc/a", O_RDONLY|O_CLOEXEC) = 4</etc/a>\n'
        "--- SIGCHLD {si_signo=SIGCHLD} ---\n"
        'unlink("/etc/a") = ?\n'
        "+++ killed by SIGKILL +++\n"
    )
    assert [(call.name, call.number, call.path) for call in calls] == [
        ("openat", 1, "/etc/a.tmp"),
        ("write", 1, "/etc/a.tmp"),
        ("rename", 1, "/etc/a"),
        ("openat", 2, "/etc/a"),
        ("unlink", 1, "/etc/a"),
    ]
    assert [call.changes for call in calls] == [True, True, False, False, False]
    assert calls[2].injected
