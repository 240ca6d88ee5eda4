"""The whole main command on a machine of its own kernel: tune, measure the tiny model, report, put back."""

from __future__ import annotations

import json

from tests.vm.fleet import Fleet, differences
from tests.vm.image import REPOSITORY


def test_the_tiny_model_is_measured_cold_and_warm(one_host: Fleet) -> None:
    pristine = one_host.state("one")
    one_host.playbook("baseline.yml").expect(0)
    documents = sorted((REPOSITORY / "results/one").glob("*.json"))
    samples = json.loads(documents[-1].read_text())["samples"]
    assert [sample["kind"] for sample in samples] == ["cold", "warm"]
    assert all(sample["load_real_s"] > 0 for sample in samples)
    assert (REPOSITORY / "reports/one/README.md").exists()
    one_host.playbook("rollback.yml", "-e", "rollback_purge=true").expect(0)
    assert differences(pristine, one_host.state("one")) == {}
