"""GPU facts from golden nvidia-smi texts, and from stand-ins for nvidia-smi that fail in every way known."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.loader.events import LoaderGpu
from ansible.module_utils.slm_baseline.measuring.probes.gpu import (
    Gpu,
    GpuFacts,
    GpuProcess,
    GpuUse,
    gpu_use,
    parse_damaged_nvidia_smi,
    parse_module_version,
    parse_nvidia_smi,
    read_gpus,
)
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "golden" / "nvidia_smi"
OPEN_MODULE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (builder@)  \n"
    "GCC version:  gcc version 15.3.0 (GCC) \n"
)
PROPRIETARY_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
MIB = 1 << 20


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


H100 = Gpu(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-01234567-89ab-cdef-0123-456789abcdef",
    memory_bytes=81559 * MIB,
    memory_used_bytes=1551 * MIB,
    persistence_mode=True,
    pcie_generation=5,
    pcie_generation_max=5,
    pcie_width=16,
    pcie_width_max=16,
    compute_mode="Default",
    mig_mode=False,
    processes=(GpuProcess(414, "python3", 1542 * MIB),),
)


def test_an_h100_with_a_process() -> None:
    assert parse_nvidia_smi(golden("h100.xml")) == GpuFacts("580.159.04", "13.0", (H100,))


def test_two_gpus_one_in_mig_mode_with_a_warning_after_the_document() -> None:
    facts = parse_nvidia_smi(golden("mig.xml"))
    first, second = facts.gpus
    assert (facts.driver, facts.cuda) == ("550.54.15", "12.4")
    assert (first.index, first.mig_mode, first.persistence_mode) == (0, True, True)
    # The whole GPU's memory, not that of its first MIG device.
    assert (first.memory_bytes, first.memory_used_bytes) == (81559 * MIB, 6140 * MIB)
    assert (first.pcie_generation, first.pcie_generation_max, first.pcie_width, first.pcie_width_max) == (1, 5, 8, 16)
    assert first.processes == (GpuProcess(4242, "/opt/serve/bin/python", 6090 * MIB), GpuProcess(77, None, None))
    assert (second.index, second.mig_mode, second.persistence_mode) == (1, False, False)
    assert (second.compute_mode, second.pcie_generation, second.processes) == ("Exclusive_Process", None, ())


def test_what_a_gpu_does_not_say_is_none() -> None:
    facts = parse_nvidia_smi(golden("unsupported.xml"))
    nothing: dict[str, Any] = {field.name: None for field in dataclasses.fields(Gpu)}
    assert facts == GpuFacts(
        "470.223.02", None, (Gpu(**{**nothing, "index": 0, "name": "Quadro K620", "processes": ()}),)
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No devices were found",
        "<nvidia_smi_log>",
        "<html></html>",
        golden("h100.xml")[:9000],
        '<!DOCTYPE nvidia_smi_log [<!ENTITY a "aaaa">]><nvidia_smi_log>&a;</nvidia_smi_log>',
        "<nvidia_smi_log>\0</nvidia_smi_log>",
    ],
)
def test_other_texts_are_a_parse_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_nvidia_smi(text)


@given(st.text() | st.text().map(lambda text: f"<nvidia_smi_log>{text}</nvidia_smi_log>"))
def test_any_text_is_facts_or_a_parse_error(text: str) -> None:
    try:
        facts = parse_nvidia_smi(text)
    except ParseError:
        return
    assert isinstance(facts, GpuFacts)


@given(st.integers(0, 27000), st.text(max_size=8))
def test_a_damaged_document_is_facts_or_a_parse_error(at: int, text: str) -> None:
    whole = golden("h100.xml")
    try:
        facts = parse_nvidia_smi(whole[:at] + text + whole[at + 4 :])
    except ParseError:
        return
    assert all(gpu.memory_bytes is None or gpu.memory_bytes >= 0 for gpu in facts.gpus)


@pytest.mark.parametrize(
    ("damage", "insertion"),
    [
        ("<processes>", "<processes>\n<broken & tag>"),
        ("</gpu>", "</gpu_>"),
        ("</nvidia_smi_log>", ""),
        ("<processes>", "\x1b<processes>"),
    ],
)
def test_what_stands_before_the_damage_is_read_and_the_damage_is_named(damage: str, insertion: str) -> None:
    text = golden("h100.xml").replace(damage, insertion)
    with pytest.raises(ParseError):
        parse_nvidia_smi(text)
    facts = parse_damaged_nvidia_smi(text)
    (gpu,) = facts.gpus
    assert (facts.driver, facts.cuda) == ("580.159.04", "13.0")
    assert dataclasses.replace(gpu, processes=H100.processes) == H100
    assert facts.note is not None
    assert "its XML is damaged" in facts.note


@given(st.integers(0, 27000), st.text(max_size=8))
def test_any_damage_leaves_facts_with_a_note_or_a_parse_error(at: int, text: str) -> None:
    whole = golden("h100.xml")
    try:
        facts = parse_damaged_nvidia_smi(whole[:at] + text + whole[at + 4 :])
    except ParseError:
        return
    assert facts.gpus
    assert facts.note


def test_a_damaged_answer_is_used_where_nvidia_smi_was_content(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.xml"
    damaged.write_text(golden("h100.xml").replace("<processes>", "<processes><&>"))
    facts = read_gpus(host_with(tmp_path, script=f"exec cat {damaged}"))
    assert [gpu.name for gpu in facts.gpus] == [H100.name]
    assert "damaged" in (facts.note or "")


@pytest.mark.parametrize(("text", "version"), [(OPEN_MODULE, "580.159.04"), (PROPRIETARY_MODULE, "550.54.15")])
def test_module_version(text: str, version: str) -> None:
    assert parse_module_version(text) == version


def test_no_module_version() -> None:
    with pytest.raises(ParseError):
        parse_module_version("GCC version:  gcc version 15.3.0 (GCC) \n")


@pytest.fixture(autouse=True)
def usual_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")


def host_with(root: Path, module: str | None = OPEN_MODULE, script: str | None = None, folder: str = "usr/bin") -> Host:
    """A tree with a driver and a stand-in for nvidia-smi."""
    if module is not None:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        (root / "proc/driver/nvidia/version").write_text(module)
    if script is not None:
        (root / folder).mkdir(parents=True)
        program = root / folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return Host(root)


def test_no_driver(tmp_path: Path) -> None:
    assert read_gpus(host_with(tmp_path, module=None)) == GpuFacts(None)


def test_a_driver_without_nvidia_smi(tmp_path: Path) -> None:
    facts = read_gpus(host_with(tmp_path))
    assert facts == GpuFacts("580.159.04", note="there is an NVIDIA driver but no nvidia-smi to ask it")


def test_a_gpu(tmp_path: Path) -> None:
    script = f'test "$*" = "-q -x" && exec cat {GOLDEN / "h100.xml"}'
    assert read_gpus(host_with(tmp_path, script=script)) == parse_nvidia_smi(golden("h100.xml"))


def test_nvidia_smi_beyond_path(tmp_path: Path) -> None:
    script = f"exec cat {GOLDEN / 'h100.xml'}"
    assert read_gpus(host_with(tmp_path, script=script, folder="usr/local/nvidia/bin")).gpus == (H100,)


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("echo 'No devices were found'; exit 6", "the NVIDIA driver finds no device"),
        (
            "echo '<nvidia_smi_log><attached_gpus>0</attached_gpus></nvidia_smi_log>'",
            "the NVIDIA driver finds no device",
        ),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "nvidia-smi ended with status 18: Failed to initialize NVML: Driver/library version mismatch",
        ),
        ("echo 'cannot open shared object' >&2; exit 127", "nvidia-smi ended with status 127: cannot open shared obj"),
        (f"head -c 9000 {GOLDEN / 'h100.xml'}; kill -9 $$", "nvidia-smi ended with status -9: <?xml"),
    ],
)
def test_a_driver_that_fails_is_a_note(tmp_path: Path, script: str, note: str) -> None:
    facts = read_gpus(host_with(tmp_path, script=script))
    assert (facts.driver, facts.gpus) == ("580.159.04", ())
    assert facts.note is not None
    assert facts.note.startswith(note)


def test_nvidia_smi_that_cannot_be_executed(tmp_path: Path) -> None:
    host = host_with(tmp_path, script="")
    (tmp_path / "usr/bin/nvidia-smi").write_text("#!/no/such/shell\n")
    assert read_gpus(host).note == "nvidia-smi cannot be run: No such file or directory"


def test_nvidia_smi_that_hangs(tmp_path: Path) -> None:
    began = time.monotonic()
    # A child keeps the pipe open after nvidia-smi itself is killed.
    facts = read_gpus(host_with(tmp_path, script="sleep 20"), timeout_s=0.2)
    assert facts == GpuFacts("580.159.04", note="nvidia-smi gave no answer in 0.2 s: the driver may hang")
    assert time.monotonic() - began < 10


def test_foreign_processes() -> None:
    gpu = parse_nvidia_smi(golden("mig.xml")).gpus[0]
    assert gpu.foreign_processes(own_pids={4242}) == [GpuProcess(77, None, None)]
    assert gpu.foreign_processes(own_pids={4242, 77}) == []


def test_as_the_result_document_has_it() -> None:
    shown = H100.as_dict(own_pids={1})
    assert "processes" not in shown
    assert shown["foreign_processes"] == [{"pid": 414, "name": "python3", "used_bytes": 1542 * MIB}]
    assert H100.as_dict(own_pids={414})["foreign_processes"] == []


def test_use_by_a_sample_matches_by_uuid_not_by_index() -> None:
    held = parse_nvidia_smi(golden("mig.xml"))
    before = dataclasses.replace(held, gpus=tuple(dataclasses.replace(gpu, processes=()) for gpu in held.gpus))
    torch_device = LoaderGpu(0, "NVIDIA H100 PCIe", "66666666-7777-8888-9999-aaaaaaaaaaaa", 3, 4, 5)
    assert gpu_use([torch_device], before, held, own_pids=()) == (
        GpuUse(
            index=0,
            driver_index=1,
            name="NVIDIA H100 PCIe",
            memory_before_bytes=4 * MIB,
            memory_after_bytes=4 * MIB,
            allocated_bytes=3,
            reserved_bytes=4,
            peak_bytes=5,
            foreign_processes=(),
        ),
    )
    other = dataclasses.replace(torch_device, uuid="11111111-2222-3333-4444-555555555555")
    assert [process.pid for process in gpu_use([other], before, held, own_pids={4242})[0].foreign_processes] == [77]
    unknown = gpu_use([dataclasses.replace(torch_device, uuid="another")], before, held, own_pids=())[0]
    assert unknown.memory_after_bytes is None


def test_use_without_a_uuid_needs_a_single_gpu() -> None:
    held = parse_nvidia_smi(golden("h100.xml"))
    # A process that was there before the loader is foreign whatever its number.
    use = gpu_use([LoaderGpu(0, "NVIDIA H100 80GB HBM3")], held, held, own_pids={414})[0]
    assert use.memory_after_bytes == 1551 * MIB
    assert [process.pid for process in use.foreign_processes] == [414]


def test_a_slice_of_a_gpu_is_not_taken_for_the_whole() -> None:
    whole = parse_nvidia_smi(golden("mig.xml"))
    facts = dataclasses.replace(whole, gpus=whole.gpus[:1])
    assert facts.gpus[0].mig_mode
    for uuid in ("MIG-99999999-8888-7777-6666-555555555555", None):
        use = gpu_use([LoaderGpu(0, "MIG 1g.10gb", uuid)], facts, facts, own_pids=())[0]
        assert (use.memory_before_bytes, use.memory_after_bytes, use.foreign_processes) == (None, None, ())


def test_the_devices_of_a_host_with_two_are_told_apart_whatever_torch_calls_them() -> None:
    held = parse_nvidia_smi(golden("two-h200.xml"))
    assert [(gpu.index, gpu.name, gpu.persistence_mode) for gpu in held.gpus] == [
        (0, "NVIDIA H200", True),
        (1, "NVIDIA H200", True),
    ]
    assert all([process.pid for process in gpu.processes] == [3234] for gpu in held.gpus)
    # CUDA_VISIBLE_DEVICES=1: torch's only device is the driver's second.
    seen = LoaderGpu(0, "NVIDIA H200", held.gpus[1].uuid, 3_859_000_000, 3_900_000_000, 3_860_000_000)
    (use,) = gpu_use([seen], GpuFacts(held.driver), held, {3234})
    assert (use.index, use.driver_index) == (0, 1)
    assert use.memory_after_bytes == held.gpus[1].memory_used_bytes
    assert use.foreign_processes == ()
    (unknown,) = gpu_use([seen], GpuFacts(None), GpuFacts(None), {3234})
    assert (unknown.driver_index, unknown.memory_after_bytes) == (None, None)
