"""Room for a measurement: memory of host and control group, and GPUs that nobody else uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.probes.gpu import GpuFacts, GpuProcess, parse_nvidia_smi
from ansible.module_utils.slm_baseline.measuring.probes.headroom import (
    LIBRARIES_BYTES,
    needed_bytes,
    require_free_gpus,
    require_memory,
)

from tests.conftest import REPOSITORY

GIB = 1 << 30


@pytest.mark.parametrize(
    ("dtype", "wanted"), [("auto", 2 * GIB), ("bfloat16", 2 * GIB), ("float32", 4 * GIB), ("float16", 2 * GIB)]
)
def test_a_load_takes_its_weights_or_the_copy_of_another_dtype(dtype: str, wanted: int) -> None:
    assert needed_bytes(2 * GIB, GIB, dtype) == wanted + LIBRARIES_BYTES


def host(root: Path, available_kb: int, limit: int | None = None) -> Host:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kb} kB\n")
    if limit is not None:
        (root / "proc/self/cgroup").write_text("0::/box\n")
        (root / "sys/fs/cgroup/box").mkdir(parents=True)
        (root / "sys/fs/cgroup/box/memory.max").write_text(f"{limit}\n")
    return Host(root)


def test_too_little_memory_is_told_with_what_is_there(tmp_path: Path) -> None:
    there = host(tmp_path, 3 << 20)
    require_memory(there, 3 * GIB)
    with pytest.raises(SettingError) as refused:
        require_memory(there, 3 * GIB + 1)
    assert refused.value.found == "3.0 GiB available (MemAvailable)"
    assert refused.value.knob == "slm_benchmark_model"


def test_a_control_group_s_limit_is_looked_at_too(tmp_path: Path) -> None:
    there = host(tmp_path, 64 << 20, 2 * GIB)
    require_memory(there, 2 * GIB)
    with pytest.raises(SettingError, match=r"2\.0 GiB in this control group \(memory\.max\)"):
        require_memory(there, 2 * GIB + 1)


def test_a_kernel_that_does_not_tell_refuses_nothing(tmp_path: Path) -> None:
    require_memory(Host(tmp_path), 1 << 50)


def test_a_gpu_that_others_use_is_refused_by_its_process() -> None:
    facts = parse_nvidia_smi((REPOSITORY / "tests/golden/nvidia_smi/h100.xml").read_text())
    idle = GpuFacts(facts.driver, facts.cuda, tuple(replace(gpu, processes=()) for gpu in facts.gpus))
    require_free_gpus(idle, allow_busy=False)
    require_free_gpus(GpuFacts(None), allow_busy=False)
    others = (GpuProcess(4711, "python3", 1), GpuProcess(4712, None, None))
    busy = replace(idle, gpus=(*idle.gpus[:-1], replace(idle.gpus[-1], processes=others)))
    require_free_gpus(busy, allow_busy=True)
    with pytest.raises(SettingError) as refused:
        require_free_gpus(busy, allow_busy=False)
    index = idle.gpus[-1].index
    assert refused.value.found == f"process 4711 (python3) and 1 more on GPU {index}"
    assert "slm_benchmark_allow_busy_gpu" in refused.value.next_step
