"""Each note's rule at its threshold: it speaks on one side and is silent on the other."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.baseline.notes import device as rules_device
from analysis.baseline.notes import memory as rules_memory
from analysis.baseline.notes import samples as rules_samples
from analysis.baseline.notes import time as rules_time
from analysis.baseline.notes import tuning as rules_tuning
from analysis.baseline.notes.collect import RULES, notes
from analysis.baseline.result import Result
from analysis.documents.decode import typed
from analysis.documents.samples import Sample
from analysis.statistics import figure, summarise

REPOSITORY = Path(__file__).resolve().parents[4]
GOLDEN = REPOSITORY / "tests/golden/results"
GIB = 1 << 30


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return document


def as_result(document: dict[str, Any]) -> Result:
    return typed(Result, document)


def summary_of(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return summarise(typed(Sample, sample) for sample in samples).to_json()


@pytest.fixture
def cpu() -> dict[str, Any]:
    return load("cpu")


@pytest.fixture
def gpu() -> dict[str, Any]:
    return load("gpu")


def with_figures(document: dict[str, Any], **figures: list[float]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    changed["summary"] |= {key: asdict(figure(values)) for key, values in figures.items()}
    return changed


def with_samples(document: dict[str, Any], **fields: Any) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    for sample in changed["samples"]:
        sample.update(fields)
    changed["summary"] = summary_of(changed["samples"])
    return changed


def test_every_rule_is_listed_once_and_documented() -> None:
    page = (REPOSITORY / "docs/report.md").read_text(encoding="utf-8")
    assert len(set(RULES)) == len(RULES)
    for rule in RULES:
        assert rule.__doc__
        assert f"`{rule.__name__}`" in page, rule.__name__
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == {rule.__name__ for rule in RULES}


def test_a_quiet_gpu_run_has_no_note_about_cpus(gpu: dict[str, Any]) -> None:
    assert rules_memory.weights_file_backed(as_result(gpu)) is None
    assert rules_time.weights_read_late(as_result(gpu)) is None
    assert rules_time.disk_share(as_result(gpu)) is None


def test_drift_is_told_knob_by_knob() -> None:
    said = rules_tuning.not_as_asked(as_result(load("measure-only")))
    assert said
    assert "thp.enabled is always, should be madvise" in said
    assert rules_tuning.not_as_asked(as_result(load("cpu"))) is None


def test_what_waits_for_systemd_is_told_only_where_it_does_not_run(cpu: dict[str, Any]) -> None:
    assert rules_tuning.waits_for_systemd(as_result(load("no-systemd")))
    assert rules_tuning.waits_for_systemd(as_result(cpu)) is None


def test_a_side_effect_is_a_knob_that_moved_unasked(cpu: dict[str, Any]) -> None:
    said = rules_tuning.side_effects(as_result(cpu))
    assert said
    assert "`vm.min_free_kbytes` went from 67584 to 90112" in said
    assert "thp.enabled" not in said
    cpu["tuning"]["runtime"]["vm.min_free_kbytes"] = "67584"
    assert rules_tuning.side_effects(as_result(cpu)) is None


def test_a_nodes_pages_of_an_asked_size_are_no_side_effect(cpu: dict[str, Any]) -> None:
    cpu["tuning"]["runtime"]["vm.min_free_kbytes"] = "67584"
    cpu["tuning"]["before"]["hugepages.node0.2M"] = "0"
    cpu["tuning"]["runtime"]["hugepages.node0.2M"] = "1024"
    assert rules_tuning.side_effects(as_result(cpu)) is None
    cpu["tuning"]["before"]["hugepages.1G"] = "0"
    cpu["tuning"]["runtime"]["hugepages.1G"] = "1"
    assert rules_tuning.side_effects(as_result(cpu))


def test_an_idle_pool_is_priced_and_a_reserved_one_is_not(cpu: dict[str, Any]) -> None:
    said = rules_tuning.idle_pool(as_result(cpu))
    assert said
    assert "Idle in the pool: 2.00 GiB in 2M pages, 6.3 % of the host's memory" in said
    cpu["tuning"]["pools"][0]["reserved"] = cpu["tuning"]["pools"][0]["free"]
    assert rules_tuning.idle_pool(as_result(cpu)) is None


def test_excluded_samples_are_counted_with_their_reasons() -> None:
    said = rules_samples.excluded_samples(as_result(load("troubled")))
    assert said
    assert said.startswith("2 of 8 samples are in no figure: 1 lukewarm instead of cold (12.4 %")
    assert rules_samples.excluded_samples(as_result(load("cpu"))) is None


def test_a_noisy_host_is_named() -> None:
    said = rules_samples.noisy_host(as_result(load("troubled")))
    assert said
    assert said.startswith("Noisy samples, 1 of 8: load average")
    assert "steal 3.1 % (1 of 8)" in said
    assert rules_samples.noisy_host(as_result(load("cpu"))) is None


def test_readings_of_memory_that_disagree_are_not_called_a_busy_host(cpu: dict[str, Any]) -> None:
    cpu["samples"][0]["noise"] |= {"noisy": True, "reasons": ["memory figures disagree: psutil says 1, smaps_rollup 2"]}
    assert rules_samples.noisy_host(as_result(cpu)) == (
        "Noisy samples, 1 of 6: memory figures disagree: psutil says 1, smaps_rollup 2 (1 of 6). "
        "Trust their figures less."
    )


def test_one_cause_of_noise_is_said_once_with_its_worst_figure(cpu: dict[str, Any]) -> None:
    for sample, ratio in zip(cpu["samples"], ("1.2", "10.4", "9.8"), strict=False):
        sample["noise"] |= {"noisy": True, "reasons": [f"computing took {ratio} times its best", "no figure"]}
    cpu["samples"][3]["noise"] |= {"noisy": True, "reasons": ["the hypervisor took 7% of the CPUs"]}
    assert rules_samples.noisy_host(as_result(cpu)) == (
        "Noisy samples, 4 of 6: computing took up to 10.4 times its best (3 of 6); no figure (3 of 6); "
        "the hypervisor took 7% of the CPUs (1 of 6). Trust their figures less."
    )


def test_a_cause_that_differs_in_several_figures_and_names_is_one_cause(cpu: dict[str, Any]) -> None:
    details = [
        "memory figures disagree: psutil says 1, smaps_rollup 2",
        "memory figures disagree: psutil says 7, smaps_rollup 9",
        "other processes used 13% of the CPUs: python3, gcc",
        "other processes used 8% of the CPUs: rsync, gcc, ld, cc1",
        "tasks waited 3% of the time for 2 disks",
        "tasks waited 3% of the time for 4 disks",
    ]
    for sample, reason in zip(cpu["samples"], details, strict=True):
        sample["noise"] |= {"noisy": True, "reasons": [reason, "a foreign process on GPU 1"]}
    cpu["samples"][0]["noise"]["reasons"] += ["a foreign process on GPU 2"]
    assert rules_samples.noisy_host(as_result(cpu)) == (
        "Noisy samples, 6 of 6: a foreign process on GPU 1 (6 of 6); "
        "memory figures disagree: psutil says 1, smaps_rollup 2 (2 of 6); "
        "other processes used up to 13% of the CPUs: python3, gcc, rsync, ld and 1 more (2 of 6); "
        "tasks waited 3% of the time for 4 disks (2 of 6); "
        "a foreign process on GPU 2 (1 of 6). Trust their figures less."
    )


def test_few_samples_end_at_six(cpu: dict[str, Any], gpu: dict[str, Any]) -> None:
    said = rules_samples.few_samples(as_result(cpu))
    assert said
    assert "at most 75 % of the time" in said
    assert rules_samples.few_samples(as_result(gpu)) is None
    assert "no interval is given" in (rules_samples.few_samples(as_result(load("no-systemd"))) or "")


@pytest.mark.parametrize(
    ("valid", "told"), [(0, "There is no valid sample of a kind"), (1, "There is only 1 valid sample of a kind")]
)
def test_one_sample_is_no_plural(valid: int, told: str) -> None:
    result: Any = SimpleNamespace(summary=SimpleNamespace(counts={"cold": valid, "warm": 6}))
    said = rules_samples.few_samples(result)
    assert said is not None
    assert said.startswith(told)


@pytest.mark.parametrize(("high", "wide"), [(10.9, False), (11.2, True)])
def test_an_interval_is_wide_above_a_tenth_of_the_median(cpu: dict[str, Any], high: float, wide: bool) -> None:
    said = rules_samples.wide_interval(as_result(with_figures(cpu, cold_load_real_s=[10.0, 10.0, high])))
    assert (said is not None) is wide


@pytest.mark.parametrize(
    ("ratios", "same"), [([0.95, 1.02, 1.1], True), ([1.01, 1.02, 1.1], False), ([0.9, 1.1], False)]
)
def test_cold_and_warm_are_the_same_where_the_interval_of_their_ratio_holds_one(
    cpu: dict[str, Any], ratios: list[float], same: bool
) -> None:
    said = rules_time.cold_is_warm(as_result(with_figures(cpu, cold_to_warm_load_ratio=ratios)))
    assert (said is not None) is same


def test_a_drift_from_block_to_block_hides_no_difference(cpu: dict[str, Any]) -> None:
    """Cold took a tenth longer in every block, and the host became slower by half: the loads' intervals meet."""
    for sample in cpu["samples"]:
        sample["load_real_s"] = (1 + sample["block"] / 4) * (1.1 if sample["kind"] == "cold" else 1.0)
    cpu["summary"] = summary_of(cpu["samples"])
    assert cpu["summary"]["cold_load_real_s"]["ci_low"] < cpu["summary"]["warm_load_real_s"]["ci_high"]
    assert rules_time.cold_is_warm(as_result(cpu)) is None


@pytest.mark.parametrize(("seconds", "told"), [(0.9, False), (1.1, True)])
def test_imports_are_told_from_a_quarter_of_the_load(cpu: dict[str, Any], seconds: float, told: bool) -> None:
    changed = with_figures(
        cpu,
        cold_load_real_s=[8.0] * 3,
        cold_phase_import_torch_s=[seconds] * 3,
        cold_phase_import_transformers_s=[1.0] * 3,
    )
    assert (rules_time.imports_dominate(as_result(changed)) is not None) is told


@pytest.mark.parametrize(("share", "told"), [(0.49, False), (0.51, True)])
def test_late_reads_are_told_from_half_of_the_model(cpu: dict[str, Any], share: float, told: bool) -> None:
    for sample in cpu["samples"]:
        for phase in sample["phases"]:
            if phase["name"] == "first_token":
                phase["read_bytes"] = int(share * sample["model_bytes"])
    assert (rules_time.weights_read_late(as_result(cpu)) is not None) is told


def test_file_backed_weights_need_the_stored_dtype_and_enough_file_pages(cpu: dict[str, Any]) -> None:
    assert rules_memory.weights_file_backed(as_result(cpu))
    assert rules_memory.weights_file_backed(as_result(with_samples(cpu, dtype="float32"))) is None
    anonymous = with_samples(cpu, anon_bytes=GIB, rss_bytes=GIB + cpu["model"]["bytes"] - 1)
    assert rules_memory.weights_file_backed(as_result(anonymous)) is None


def test_cast_weights_need_another_dtype_and_enough_anonymous_memory(cpu: dict[str, Any]) -> None:
    said = rules_memory.weights_cast(as_result(with_samples(cpu, dtype="float32", anon_bytes=2 * GIB)))
    assert said
    assert "from bfloat16 to float32" in said
    assert rules_memory.weights_cast(as_result(with_samples(cpu, dtype="float32", anon_bytes=GIB // 8))) is None
    assert rules_memory.weights_cast(as_result(with_samples(cpu, anon_bytes=2 * GIB))) is None


def test_madvise_alone_is_told_while_nothing_asks_and_nothing_is_backed(cpu: dict[str, Any]) -> None:
    assert rules_memory.madvise_alone(as_result(cpu))
    assert rules_memory.madvise_alone(as_result(with_samples(cpu, env={"THP_MEM_ALLOC_ENABLE": "1"}))) is None
    assert rules_memory.madvise_alone(as_result(with_samples(cpu, anon_huge_bytes=2 << 20))) is None
    cpu["tuning"]["runtime"]["thp.enabled"] = "always"
    assert rules_memory.madvise_alone(as_result(cpu)) is None


def test_thp_backed_memory_is_a_share_of_the_anonymous(cpu: dict[str, Any]) -> None:
    assert rules_memory.thp_backed(as_result(cpu)) is None
    said = rules_memory.thp_backed(as_result(with_samples(cpu, anon_bytes=GIB, anon_huge_bytes=GIB // 2)))
    assert (
        said == "THP-backed: 512 MiB (50 % of the anonymous memory) cold, 512 MiB (50 % of the anonymous memory) warm."
    )


def test_huge_file_mappings_are_told(cpu: dict[str, Any]) -> None:
    assert rules_memory.file_pmd(as_result(cpu)) is None
    assert "2.00 MiB" in (rules_memory.file_pmd(as_result(with_samples(cpu, file_pmd_bytes=2 << 20))) or "")


def test_a_pool_that_the_load_used_is_not_called_unused(cpu: dict[str, Any]) -> None:
    assert rules_memory.pool_unused_by_load(as_result(cpu))
    assert rules_memory.pool_unused_by_load(as_result(with_samples(cpu, hugetlb_bytes=2 << 20))) is None


def test_memory_given_back_to_the_hypervisor_is_told(cpu: dict[str, Any]) -> None:
    for value in (True, False, None):
        cpu["host"]["free_page_reporting"] = value
        assert bool(rules_samples.free_page_reporting(as_result(cpu))) is (value is True)
    del cpu["host"]["free_page_reporting"]
    assert rules_samples.free_page_reporting(as_result(cpu)) is None


def test_a_cache_below_the_guest_is_told() -> None:
    assert rules_samples.guest_cold(as_result(load("measure-only")))
    assert rules_samples.guest_cold(as_result(load("cpu"))) is None
    assert rules_samples.guest_cold(as_result(load("no-systemd"))) is None


@pytest.mark.parametrize(
    ("share", "warm_s", "verdict"),
    [
        (0.81, 3.9, "that is the limit"),
        (0.6, 3.9, "disk and loader both count"),
        (0.3, 2.9, "disk and loader both count"),
        (0.3, 3.1, "the loader itself is the limit"),
    ],
)
def test_the_disks_share_and_the_warm_load_decide_what_limits(
    cpu: dict[str, Any], share: float, warm_s: float, verdict: str
) -> None:
    """Cold takes 4 s; what a warm load does without is reading, however slow."""
    said = rules_time.disk_share(
        as_result(
            with_figures(
                cpu,
                cold_ceiling_share=[share] * 3,
                cold_phase_weights_s=[1.0] * 3,
                cold_phase_first_token_s=[3.0] * 3,
                warm_phase_weights_s=[1.0] * 3,
                warm_phase_first_token_s=[warm_s - 1.0] * 3,
            )
        )
    )
    assert said == (
        f"Between tokenizer and first token a cold run reads at {share:.0%} of the disk's ceiling".replace("%", " %")
        + f", in 4.00 s against {warm_s:.2f} s warm: {verdict}."
    )


def test_without_a_warm_load_the_disks_share_alone_decides(cpu: dict[str, Any]) -> None:
    del cpu["summary"]["warm_phase_first_token_s"]
    assert rules_time.disk_share(as_result(with_figures(cpu, cold_ceiling_share=[0.3] * 3))) == (
        "Between tokenizer and first token a cold run reads at 30 % of the disk's ceiling: "
        "the loader itself is the limit."
    )


COPIES = "of what host-to-device copies from pageable memory can do"


@pytest.mark.parametrize(
    ("rates", "cold", "warm"),
    [
        (
            (3.5e9, 6.5e9),
            "88 % of what the disk can do, in 2.29 s against 1.23 s warm: that is the limit",
            f"81 % {COPIES}: that is the limit",
        ),
        (
            (1.92e9, 4.4e9),
            "48 % of what the disk can do, in 4.17 s against 1.82 s warm: disk and loader both count",
            f"55 % {COPIES}: copies and loader both count",
        ),
        (
            (1.92e9, 2e9),
            "48 % of what the disk can do, in 4.17 s against 4.01 s warm: the loader itself is the limit",
            f"25 % {COPIES}: the loader itself is the limit",
        ),
    ],
)
def test_on_a_gpu_the_lower_limit_is_compared(
    gpu: dict[str, Any], rates: tuple[float, float], cold: str, warm: str
) -> None:
    bytes_ = gpu["model"]["bytes"]
    gpu["ceiling"]["bytes_per_s"] = [4e9]
    gpu["ceiling"]["host_to_device"] = [{"index": 0, "pinned_bytes_per_s": 5e10, "pageable_bytes_per_s": 8e9}]
    changed = with_figures(gpu, cold_phase_weights_s=[bytes_ / rates[0]], warm_phase_weights_s=[bytes_ / rates[1]])
    assert rules_time.gpu_limits(as_result(changed)) == (
        f"In the weights phase alone, the cold weights arrive at {rates[0] / 1e9:.2f} GB/s, {cold}; "
        f"the warm weights arrive at {rates[1] / 1e9:.2f} GB/s, {warm}."
    )
    assert rules_time.gpu_limits(as_result(load("cpu"))) is None


def test_several_devices_are_fed_in_turn(gpu: dict[str, Any]) -> None:
    gpu["ceiling"]["host_to_device"] = [
        {"index": 0, "pinned_bytes_per_s": 3e9, "pageable_bytes_per_s": None},
        {"index": 1, "pinned_bytes_per_s": 6e9, "pageable_bytes_per_s": None},
    ]
    assert as_result(gpu).host_to_device("pinned") == pytest.approx(4e9)
    assert as_result(gpu).host_to_device("pageable") is None


def test_figures_of_the_cpu_on_a_gpu_host_are_told_first(cpu: dict[str, Any], gpu: dict[str, Any]) -> None:
    assert rules_device.gpu_unseen(as_result(cpu)) is None
    assert rules_device.gpu_unseen(as_result(gpu)) is None
    blind = with_samples(gpu, device="cpu", gpu=[])
    blind["software"]["torch"] = "2.13.0+cpu"
    said = rules_device.gpu_unseen(as_result(blind))
    assert said
    assert notes(as_result(blind))[0] == said
    assert said.startswith("These are figures of the CPU: the host has 2 GPUs and torch saw none.")
    assert "Look at the driver and at torch's build first (driver 580.95.05 for CUDA 13.0, torch 2.13.0+cpu)" in said
    assert "whether slm-baseline, who runs the loader, may open `/dev/nvidia*`" in said
    gpu["samples"][0] |= {"device": "cpu", "gpu": []}
    assert (rules_device.gpu_unseen(as_result(gpu)) or "").startswith(
        "These are figures of the CPU in 1 of 12 valid samples: "
    )


def test_weights_that_stayed_off_the_gpu_are_told(cpu: dict[str, Any], gpu: dict[str, Any]) -> None:
    assert rules_device.weights_off_gpu(as_result(cpu)) is None
    assert rules_device.weights_off_gpu(as_result(gpu)) is None
    assert rules_device.weights_off_gpu(as_result(with_samples(gpu, device="cpu", gpu=[]))) is None
    said = rules_device.weights_off_gpu(as_result(with_samples(gpu, device="cuda:0,cpu")))
    assert said
    assert said.startswith("Not all weights went to the GPU in 12 of 12 valid samples; they were on cuda:0, cpu.")
    # The GPU was full: torch saw it, and every weight stayed on the host.
    full = with_samples(gpu, device="cpu,disk")
    assert "they were on cpu, disk." in (rules_device.weights_off_gpu(as_result(full)) or "")
    assert rules_device.gpu_unseen(as_result(full)) is None


def test_a_gpus_state_is_told(gpu: dict[str, Any]) -> None:
    said = rules_time.gpu_state(as_result(gpu))
    assert said
    assert "GPU 1 has persistence mode off" in said
    assert "GPU 1 runs on 8 of 16 PCIe lanes" in said
    assert "GPU 0" not in said


@pytest.mark.parametrize(("first", "told"), [(0.29, False), (0.31, True)])
def test_one_time_work_is_three_times_the_second_token(cpu: dict[str, Any], first: float, told: bool) -> None:
    changed = with_figures(cpu, warm_phase_first_token_s=[first] * 3, warm_second_token_s=[0.1] * 3)
    assert (rules_time.one_time_work(as_result(changed)) is not None) is told
    # The second token has one-time work of its own; a steady one has none.
    steady = with_figures(changed, warm_second_token_s=[first] * 3, warm_steady_token_s=[0.1] * 3)
    said = rules_time.one_time_work(as_result(steady))
    assert (said is not None) is told
    assert said is None or "a steady one (310 ms against 100 ms)" in said


def test_missing_psi_is_told_as_missing() -> None:
    assert rules_samples.no_psi(as_result(load("no-systemd")))
    assert rules_samples.no_psi(as_result(load("cpu"))) is None


def test_what_the_host_says_is_escaped(cpu: dict[str, Any]) -> None:
    cpu["tuning"]["notes"] = ["<b>`x`</b>|"]
    assert "&lt;b&gt;\\`x\\`&lt;/b&gt;\\|" in "\n".join(notes(as_result(cpu)))


def test_what_is_said_of_devices_is_escaped(gpu: dict[str, Any]) -> None:
    hostile = "<b>|`x`"
    blind = with_samples(gpu, device="cpu", gpu=[])
    blind["software"]["torch"] = blind["host"]["gpu_driver"] = blind["host"]["cuda"] = hostile
    blind["protocol"]["user"] = hostile
    for said in (
        rules_device.gpu_unseen(as_result(blind)),
        rules_device.weights_off_gpu(as_result(with_samples(gpu, device=f"cpu,{hostile}"))),
    ):
        assert said
        assert "&lt;b&gt;\\|\\`x\\`" in said
        assert "<b>" not in said


def two_gpus(document: dict[str, Any], *used: int) -> dict[str, Any]:
    """The document of a host with two GPUs, whose loader saw these of nvidia-smi's numbers."""
    uses = [{"index": number, "driver_index": index} for number, index in enumerate(used)]
    return with_samples(document, gpu=uses)


def test_gpus_that_torch_did_not_see_are_named_as_the_driver_numbers_them(gpu: dict[str, Any]) -> None:
    assert len(gpu["host"]["gpus"]) == 2
    assert rules_device.gpu_left_out(as_result(two_gpus(gpu, 0, 1))) is None
    said = rules_device.gpu_left_out(as_result(two_gpus(gpu, 1))) or ""
    assert said.startswith("torch saw 1 of the host's 2 GPUs, and not 0: ")
    # An older result does not tell which they were.
    assert rules_device.gpu_left_out(as_result(with_samples(gpu, gpu=[{"index": 0}]))) is None
    assert rules_device.gpu_left_out(as_result(with_samples(gpu, gpu=[]))) is None


@pytest.mark.parametrize(("taken", "told"), [((256 << 20) - 1, False), (256 << 20, True)])
def test_memory_of_a_gpu_that_others_hold_is_told(gpu: dict[str, Any], taken: int, told: bool) -> None:
    use = {"index": 0, "driver_index": 1, "memory_before_bytes": taken}
    said = rules_device.gpu_shared(as_result(with_samples(gpu, gpu=[use])))
    assert (said is not None) is told
    assert not told or "256 MiB of GPU 1" in (said or "")


def test_persistence_mode_that_is_off_is_told_with_what_it_costs(gpu: dict[str, Any]) -> None:
    slow = with_figures(gpu, warm_phase_device_ready_s=[2.9] * 3)
    assert "(2.90 s until the devices were ready; 0.3 s a GPU is usual with it on)" in (
        rules_time.gpu_state(as_result(slow)) or ""
    )
