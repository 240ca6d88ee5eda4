"""The whole main command on a machine of its own kernel: tune, measure the tiny model, report, restore."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.live.vm import support
from tests.live.vm.fleet import Fleet, differences


# Nine minutes of emulation; on the machine itself, `.ci/run` measures by the same command.
@pytest.mark.slow_vm
def test_the_tiny_model_is_measured_cold_and_warm(one_host: Fleet, seen: Callable[[support.Cell, str], None]) -> None:
    measure_tiny_model(one_host, "one")
    seen((support.MEASURED, "Debian 12"), "yes")


def measure_tiny_model(fleet: Fleet, name: str) -> None:
    """The main command on one machine, its result, and a purge that leaves nothing."""
    pristine = fleet.state(name)
    results, reports = fleet.folder / "results", fleet.folder / "reports"
    folders = {"report_results_dir": str(results), "report_reports_dir": str(reports)}
    fleet.playbook("baseline.yml", **folders).expect(0)
    (document,) = (results / name).glob("*.json")
    samples = json.loads(document.read_text())["samples"]
    assert [(sample["kind"], sample["reason"]) for sample in samples] == [("cold", None), ("warm", None)]
    assert all(sample["load_real_s"] > 0 for sample in samples)
    assert "tiny" in (reports / name / "README.md").read_text()
    fleet.playbook("rollback.yml", "-e", "rollback_purge=true").expect(0)
    assert differences(pristine, fleet.state(name)) == {}
