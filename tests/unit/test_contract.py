"""What the target side sends is what the schema of results describes: the two halves share nothing but JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.processes import pool_users
from ansible.module_utils.slm_baseline.measuring.loader.events import (
    Events,
    Loaded,
    LoaderGpu,
    Mark,
    Names,
    Phase,
    phases,
)
from ansible.module_utils.slm_baseline.measuring.loader.replay import ReplayRecord
from ansible.module_utils.slm_baseline.measuring.probes.gpu import (
    GpuFacts,
    GpuProcess,
    GpuUse,
    gpu_use,
    parse_nvidia_smi,
)
from ansible.module_utils.slm_baseline.measuring.probes.noise import Noise
from ansible.module_utils.slm_baseline.measuring.sample import (
    CeilingRecord,
    CeilingTrial,
    NotASample,
    Sample,
    Shared,
    Trial,
    failed_sample,
    read_document,
    to_document,
)
from ansible.module_utils.slm_baseline.settings.audit.drift import Row
from ansible.module_utils.slm_baseline.settings.kernel.hugetlb import Pool
from ansible.module_utils.slm_baseline.settings.kernel.hugetlbfs import MountSpec
from ansible.module_utils.slm_baseline.sweep.sample import Position, SweepSample
from hypothesis import given
from hypothesis import strategies as st

from analysis.documents.schema import validate
from tests.conftest import REPOSITORY

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def check(value: object, name: str) -> None:
    validate(json.loads(json.dumps(value)), "result", part=f"/$defs/{name}")


def test_a_sample_that_measured_nothing() -> None:
    check(failed_sample(Trial(1, "cold"), "the loader crashed", "2026-03-14T09:20:00Z").to_json(), "sample")


def properties(name: str, *path: str | int) -> dict[str, Any]:
    """The properties that a schema describes at a path."""
    part: Any = json.loads((REPOSITORY / f"plugins/schemas/{name}.schema.json").read_text())
    for key in path:
        part = part[key]
    found: dict[str, Any] = part["properties"]
    return found


SAMPLE = ("result", "$defs", "sample")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (Sample, SAMPLE),
        (Noise, (*SAMPLE, "properties", "noise")),
        (ReplayRecord, (*SAMPLE, "properties", "replay")),
        (Phase, ("result", "$defs", "phase")),
        (GpuUse, ("result", "$defs", "gpu_use")),
        (CeilingTrial, ("result", "$defs", "trial")),
        (Loaded, ("result", "$defs", "loaded")),
        (Names, ("result", "$defs", "names")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_type_has_the_fields_of_its_schema_and_no_other(kind: Any, place: tuple[str, ...]) -> None:
    assert {each.name for each in fields(kind)} == set(properties(*place))


def test_a_ceiling_and_a_position_have_the_fields_of_their_schema() -> None:
    # The copy rates are the host's, not a block's; an abandoned sample is known at the end alone.
    ceiling = set(properties("result", "properties", "ceiling", "anyOf", 1))
    assert {each.name for each in fields(CeilingRecord)} == ceiling - {"host_to_device"}
    measurement = set(properties("sweep", "properties", "measurements", "items"))
    assert {each.name for each in fields(Position)} == measurement - {"arm", "sample", "abandoned"}


# One value for every kind of field that the schema's types allow.
VALUES: dict[str, Any] = {
    "int": 3,
    "float": 1.5,
    "str": "text",
    "bool": True,
    "dict[str, str]": {"thp.enabled": "always"},
    "dict[str, int]": {"thp_fault_alloc": 1},
    "dict[str, float]": {"cpu_share": 0.5},
    "tuple[str, ...]": ("why",),
    "tuple[float, ...]": (1.5, 0.5),
    "tuple[GpuProcess, ...]": (GpuProcess(7, "qemu", None),),
}


def filled(kind: Any, **more: Any) -> Any:
    """One of a kind with a value in every field."""
    values = {**VALUES, **more}
    return kind(**{each.name: values[str(each.type).removesuffix(" | None")] for each in fields(kind)})


def whole_sample() -> Sample:
    nested = {"tuple[Phase, ...]": (filled(Phase),), "tuple[GpuUse, ...]": (filled(GpuUse),), "Noise": filled(Noise)}
    nested["ReplayRecord"] = replace(filled(ReplayRecord), when="ahead")
    sample: Sample = filled(Sample, **nested)
    sample = replace(sample, phases=(replace(sample.phases[0], name="weights"),), started_at="2026-03-14T09:20:00Z")
    return replace(sample, wanted="cold", kind="lukewarm", needed_share=0.5)


def test_a_sample_with_every_field_fits_the_schema_and_survives_the_way_to_json_and_back() -> None:
    sample = whole_sample()
    document = json.loads(json.dumps(sample.to_json()))
    check(document, "sample")
    assert Sample.from_json(document) == sample
    swept = SweepSample(sample, filled(Position))
    assert SweepSample.from_json(json.loads(json.dumps(swept.to_json()))) == swept


def test_what_a_loader_held_fits_the_schema_and_survives_the_way_to_json_and_back() -> None:
    loaded = filled(Loaded, Names=Names(12, ("lm_head.weight",)))
    document = json.loads(json.dumps(to_document(loaded)))
    check(document, "loaded")
    shared = Shared(loaded=loaded)
    assert read_document(Shared, json.loads(json.dumps(to_document(shared)))) == shared


LEAVES: list[Any] = [None, True, -(2**70), 2**70, 1.5, float("nan"), "x", [], {}, [1], {"a": {}}]


@given(st.sampled_from([each.name for each in fields(Sample)]), st.sampled_from(LEAVES))
def test_a_damaged_sample_is_told_by_its_field(name: str, value: Any) -> None:
    try:
        sample = Sample.from_json({**whole_sample().to_json(), name: value})
    except NotASample as error:
        named = str(error)
    else:
        named = name
        json.dumps(sample.to_json(), allow_nan=False)
    assert name in named


def test_a_sample_of_an_older_form_lacks_what_has_a_default_and_nothing_else() -> None:
    document = whole_sample().to_json()
    del document["noise"]
    assert Sample.from_json(document).noise is None
    del document["kind"]
    with pytest.raises(NotASample, match="kind"):
        Sample.from_json(document)


def test_phases() -> None:
    events = Events(spawn_ns=0)
    events.marks["interpreter"] = Mark(10, read_bytes=None, minor_faults=1, cpu_user_s=0.1)
    assert len(phases(events)) == 1
    for phase in phases(events):
        check(asdict(phase), "phase")


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
    devices = [LoaderGpu(gpu.index, gpu.name, gpu.uuid) for gpu in facts.gpus]
    assert devices
    for gpu in facts.gpus:
        check(gpu.as_dict(), "gpu")
    for use in gpu_use(devices, facts, facts, ()):
        check(to_document(use), "gpu_use")
