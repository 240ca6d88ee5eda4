"""The whole main command on a machine of its own kernel: tune, measure the tiny model, report, restore."""

from __future__ import annotations

import json

from tests.vm.fleet import Fleet, differences


def test_the_tiny_model_is_measured_cold_and_warm(one_host: Fleet) -> None:
    pristine = one_host.state("one")
    results, reports = one_host.folder / "results", one_host.folder / "reports"
    folders = {"report_results_dir": str(results), "report_reports_dir": str(reports)}
    one_host.playbook("baseline.yml", **folders).expect(0)
    (document,) = (results / "one").glob("*.json")
    samples = json.loads(document.read_text())["samples"]
    assert [(sample["kind"], sample["reason"]) for sample in samples] == [("cold", None), ("warm", None)]
    assert all(sample["load_real_s"] > 0 for sample in samples)
    assert "tiny" in (reports / "one/README.md").read_text()
    one_host.playbook("rollback.yml", "-e", "rollback_purge=true").expect(0)
    assert differences(pristine, one_host.state("one")) == {}
