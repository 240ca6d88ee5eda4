"""Fixtures of the VM scenarios: machines booted once, handed to every scenario as they were after their first boot."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.fleet import Fleet
from tests.vm.image import CACHE, REPOSITORY, base_image, python_disk
from tests.vm.machine import Machine, Shape
from tests.vm.tools import VmTestError

# Host `one` measures: its memory holds the whole loader environment, which a warm run finds in the page cache.
SHAPES = {"one": Shape(memory_mib=2560, cpus=1), "two": Shape(cpus=2, numa_nodes=2)}
TUNING: dict[str, object] = {
    "thp_enabled": "madvise",
    "thp_defrag": "never",
    # Small enough for these machines, large enough to tell apart from none.
    "hugepages_pools": [{"size": "2M", "count": 32}],
    "hugepages_margin": "100M",
    "hugetlbfs_mounts": [{"path": "/mnt/huge", "page_size": "2M", "mode": "0770"}],
    "slm_benchmark_model": "tiny",
    "slm_benchmark_python": "/opt/slm-python/bin/python",
    "slm_benchmark_runs": 1,
}


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder for disks and logs that goes with the run; those of runs that were killed go first."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for stale in CACHE.glob("machines-*"):
        _remove_unless_locked(stale)
    path = Path(tempfile.mkdtemp(prefix="machines-", dir=CACHE))
    lock = os.open(path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield path
    shutil.rmtree(path)
    os.close(lock)


@pytest.fixture(scope="session")
def booted(folder: Path) -> Iterator[list[Machine]]:
    """Two machines of different shape, booted side by side and saved as they are then."""
    try:
        image, python = base_image(), python_disk(REPOSITORY / "files/requirements-host.txt")
    except VmTestError as error:
        pytest.exit(str(error), returncode=3)
    machines = [Machine(name, image, folder / name, shape, python) for name, shape in SHAPES.items()]
    try:
        for machine in machines:
            machine.start()
        for machine in machines:
            machine.wait_until_up()
            machine.save()
        yield machines
    finally:
        for machine in machines:
            machine.close()


@pytest.fixture
def two_hosts(booted: list[Machine], folder: Path, request: pytest.FixtureRequest) -> Fleet:
    """Host `one` with one NUMA node and host `two` with two, both pristine."""
    fleet = Fleet(booted, folder / request.node.name, TUNING)
    fleet.restore()
    return fleet


@pytest.fixture
def one_host(booted: list[Machine], folder: Path, request: pytest.FixtureRequest) -> Fleet:
    """Host `one` alone, pristine."""
    fleet = Fleet(booted[:1], folder / request.node.name, TUNING)
    fleet.restore()
    return fleet


@pytest.fixture
def numa_host(booted: list[Machine], folder: Path, request: pytest.FixtureRequest) -> Fleet:
    """Host `two`, the one with two NUMA nodes, alone and pristine."""
    fleet = Fleet(booted[1:], folder / request.node.name, TUNING)
    fleet.restore()
    return fleet


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Close with the scenarios by name, how each ended and what it cost, set-up included."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if isinstance(report, pytest.TestReport) and "tests/vm/" in report.nodeid
    ]
    seconds: dict[str, float] = {}
    for report in reports:
        seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
    failed = {report.nodeid for report in reports if report.failed}
    terminalreporter.section("scenarios on virtual machines")
    for name, spent in seconds.items():
        terminalreporter.line(f"{'FAILED' if name in failed else 'passed'} {spent:6.1f} s  {name.rpartition('::')[2]}")
    passed = len(seconds) - len(failed)
    terminalreporter.line(f"{passed} passed, {len(failed)} failed, {sum(seconds.values()):.0f} s")


def _remove_unless_locked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
