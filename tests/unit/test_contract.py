"""What the target side sends is what the schema of results describes: the two halves share nothing but JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.processes import pool_users
from ansible.module_utils.slm_baseline.measuring.gpu import GpuFacts, gpu_use, parse_nvidia_smi
from ansible.module_utils.slm_baseline.measuring.loader_events import Events, Mark, phases
from ansible.module_utils.slm_baseline.measuring.protocol import empty_sample
from ansible.module_utils.slm_baseline.settings.drift import Row
from ansible.module_utils.slm_baseline.settings.hugetlb import Pool
from ansible.module_utils.slm_baseline.settings.hugetlbfs import MountSpec

from analysis.text.schema import validate

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def check(value: object, name: str) -> None:
    validate(json.loads(json.dumps(value)), "result", part=f"/$defs/{name}")


def test_a_sample_that_measured_nothing() -> None:
    check(empty_sample(1, "cold", "failed", "the loader crashed", "2026-03-14T09:20:00Z"), "sample")


def test_phases() -> None:
    events = Events(spawn_ns=0)
    events.marks["interpreter"] = Mark(10, read_bytes=None, minor_faults=1, cpu_user_s=0.1)
    assert len(phases(events)) == 1
    for phase in phases(events):
        check(phase, "phase")


def test_a_row() -> None:
    check(asdict(Row("thp.enabled", "madvise", "always", None, None, None, "drift", "thp.enabled is always")), "row")


@pytest.mark.parametrize("pool", [Pool(2 << 20, None, 1024, 1024, 0, 0, 0), Pool(2 << 20, 1, 512, 12, 0)])
def test_a_pool(pool: Pool) -> None:
    check(pool.as_dict(), "pool")


def test_a_mount() -> None:
    mount = MountSpec("/mnt/huge", 2 << 20, None, 0o770, 0, 0)
    check({**asdict(mount), "options": mount.options, "stacked": 1}, "mount")


def test_a_user_of_a_pool(tmp_path: Path) -> None:
    folder = tmp_path / "proc/12"
    folder.mkdir(parents=True)
    (folder / "status").write_text("Name:\tqemu\nHugetlbPages:\t    2048 kB\n")
    users = pool_users(Host(tmp_path))
    assert [user["bytes"] for user in users] == [2 << 20]
    for user in users:
        check(user, "pool_user")


@pytest.mark.parametrize("name", ["h100", "mig", "unsupported"])
def test_gpus(name: str) -> None:
    facts: GpuFacts = parse_nvidia_smi((GOLDEN / f"nvidia_smi/{name}.xml").read_text())
    devices: list[dict[str, Any]] = [{"index": gpu.index, "name": gpu.name, "uuid": gpu.uuid} for gpu in facts.gpus]
    assert devices
    for gpu in facts.gpus:
        check(gpu.as_dict(), "gpu")
    for use in gpu_use(devices, facts, facts, ()):
        check(use, "gpu_use")
