"""Fixtures of the VM scenarios: machines booted once, handed to every scenario as they were after their first boot."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.vm.fleet import SMALL_TUNING, Fleet
from tests.live.vm.image import (
    ARM64,
    BOOKWORM,
    BULLSEYE,
    CACHE,
    HARDENED,
    PODMAN,
    REPOSITORY,
    TRIXIE,
    BaseImage,
    Debian,
    base_image,
    engine_disk,
    locked,
    python_disk,
)
from tests.live.vm.machine import Machine, Shape
from tests.live.vm.support import NOT_SEEN, Cell, renew, shown
from tests.live.vm.tools import VmTestError

# Hosts `one` and `trixie` measure: their memory holds what the loader uses of its environment, which a warm run finds
# in the page cache.
MACHINES: dict[str, tuple[Debian, Shape]] = {
    "one": (BOOKWORM, Shape(memory_mib=2560, cpus=1)),
    "two": (BOOKWORM, Shape(cpus=2, numa_nodes=2)),
    "bullseye": (BULLSEYE, Shape(cpus=1)),
    "trixie": (TRIXIE, Shape(memory_mib=2560, cpus=1)),
    "arm64": (ARM64, Shape(cpus=1)),
    # Its server has the same packages as the loader of `one`.
    "engine": (BOOKWORM, Shape(memory_mib=3072, cpus=2)),
    "podman": (PODMAN, Shape(cpus=2)),
    "hardened": (HARDENED, Shape(cpus=1)),
    "selinux": (HARDENED, Shape(cpus=1, kernel_arguments="security=selinux selinux=1")),
}
ENGINE = Path(__file__).with_name("engine")
TUNING: dict[str, object] = {
    **SMALL_TUNING,
    "slm_benchmark_python": "/opt/slm-python/bin/python",
    "slm_benchmark_runs": 1,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-support", action="store_true", help="renew the table of docs/support.md from this run")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow_vm: a scenario that `make test-vm` leaves to `make test-vm-all`")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have what most scenarios boot from before anything else; end with one plain sentence where it cannot be had."""
    if not (session.config.option.collectonly or hasattr(session.config, "workerinput")):
        try:
            image_of(BOOKWORM)
        except VmTestError as error:
            pytest.exit(str(error), returncode=3)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lanes for `-n 2 --dist loadgroup`: scenarios of host `one` alone, and all others that name none themselves."""
    for item in items:
        if isinstance(item, pytest.Function) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("one" if "one_host" in item.fixturenames else "two"))


def image_of(debian: Debian) -> tuple[BaseImage, Path | None]:
    """The disk to boot from and the one with the loader's environment, from the cache where it has them."""
    requirements = REPOSITORY / "files/requirements-host.txt"
    return base_image(debian), python_disk(requirements, debian) if debian.measures else None


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder for disks and logs that goes with the run; those of runs that were killed go first."""
    with locked(CACHE / "machines.lock"):
        for stale in CACHE.glob("machines-*"):
            _remove_unless_locked(stale)
        path = Path(tempfile.mkdtemp(prefix="machines-", dir=CACHE))
        lock = os.open(path, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    yield path
    shutil.rmtree(path)
    os.close(lock)


@pytest.fixture(scope="session")
def booted(folder: Path) -> Iterator[Callable[..., list[Machine]]]:
    """Gives machines by name, booted side by side on first use and saved as they are then."""
    machines: dict[str, Machine] = {}

    def made(name: str) -> Machine:
        debian, shape = MACHINES[name]
        base, python = image_of(debian)
        disks = [python] if python else []
        if name == "engine":
            disks.append(engine_disk(ENGINE / "requirements.txt"))
        return Machine(name, base, folder / name, shape, tuple(disks))

    def get(*names: str) -> list[Machine]:
        new = [made(name) for name in names if name not in machines]
        machines.update({machine.name: machine for machine in new})
        for machine in new:
            machine.start()
        for machine in new:
            machine.wait_until_up()
            machine.save()
        return [machines[name] for name in names]

    yield get
    for machine in machines.values():
        machine.close()


@pytest.fixture
def fleet_of(
    booted: Callable[..., list[Machine]], folder: Path, request: pytest.FixtureRequest
) -> Callable[..., Fleet]:
    """Gives a fleet of the named machines, all pristine."""

    def get(*names: str) -> Fleet:
        fleet = Fleet(booted(*names), folder / request.node.name, TUNING)
        fleet.restore()
        return fleet

    return get


@pytest.fixture
def two_hosts(fleet_of: Callable[..., Fleet]) -> Fleet:
    """Host `one` with one NUMA node and host `two` with two."""
    return fleet_of("one", "two")


@pytest.fixture
def one_host(fleet_of: Callable[..., Fleet]) -> Fleet:
    """Host `one` alone."""
    return fleet_of("one")


@pytest.fixture
def numa_host(fleet_of: Callable[..., Fleet]) -> Fleet:
    """Host `two`, the one with two NUMA nodes, alone."""
    return fleet_of("two")


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[[Cell, str], None]:
    """Records what a scenario saw for one cell of the support table, and holds the page's table to it."""

    def record(cell: Cell, result: str) -> None:
        # No cell has a bar, which would end it.
        request.node.user_properties.append(("support", "|".join((*cell, result))))
        if not request.config.option.write_support:
            claimed = shown().get(cell, NOT_SEEN)
            assert claimed in (result, NOT_SEEN), f"{cell} was seen to be {result!r}, and support.md says {claimed!r}"

    return record


@pytest.fixture
def engine_host(booted: Callable[..., list[Machine]], folder: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Host `engine`, with the packages of a model server. Nothing of it is to be tuned; its disks have no limit."""
    fleet = Fleet(booted("engine"), folder / request.node.name, {})
    fleet.restore()
    yield fleet
    fleet["engine"].limit_disks(0)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line on what a scenario measured, for the end of the run."""

    def keep(line: str) -> None:
        request.node.user_properties.append(("figure", line))

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Close with the scenarios by name, how each ended and what it cost, set-up included."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if isinstance(report, pytest.TestReport) and "tests/live/vm/" in report.nodeid
    ]
    seconds: dict[str, float] = {}
    for report in reports:
        seconds[_plain_name(report)] = seconds.get(_plain_name(report), 0.0) + report.duration
    failed = {_plain_name(report) for report in reports if report.failed}
    terminalreporter.section("scenarios on virtual machines")
    for name, spent in seconds.items():
        terminalreporter.line(f"{'FAILED' if name in failed else 'passed'} {spent:6.1f} s  {name}")
    for report in reports:
        for name, value in report.user_properties:
            if name == "figure" and report.when == "call":
                terminalreporter.line(f"{_plain_name(report)}: {value}")
    passed = len(seconds) - len(failed)
    terminalreporter.line(f"{passed} passed, {len(failed)} failed, {sum(seconds.values()):.0f} s")
    if config.option.write_support:
        # Each cell as the scenarios that passed saw it; those of others stay as they are in the table. What a scenario
        # recorded is in the reports of its teardown too, which passes after a call that failed.
        calls = [report for report in reports if report.when == "call" and report.passed]
        seen = [str(value) for report in calls for name, value in report.user_properties if name == "support"]
        renew({(row, column): result for row, column, result in (value.split("|") for value in seen)})


def _plain_name(report: pytest.TestReport) -> str:
    """The scenario's name without its file and without the lane that xdist adds."""
    return report.nodeid.rpartition("::")[2].partition("@")[0]


def _remove_unless_locked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
