"""The floor: its laws, what a run says of it, and what the report makes of that."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.baseline.document import check_result
from analysis.baseline.figures import imports_svg
from analysis.baseline.floor import FirstToken, Step, explain, floor_s, simple_floor_s, with_bytecode
from analysis.baseline.imports import Bytecode, Imports
from analysis.baseline.kernels import Kernels, KernelSeconds
from analysis.baseline.notes import time as rules_time
from analysis.baseline.report import host_report
from analysis.baseline.result import Result, read_result
from analysis.documents.decode import typed
from analysis.documents.samples import Noise, Phase, Sample
from analysis.statistics import summarise

GOLDEN = Path(__file__).resolve().parents[3] / "golden/results"
GB = 10**9
IMPORTS: dict[str, Any] = {
    "problem": None,
    "read_bytes": 0,
    "seconds": 12.6,
    "modules": 4500,
    "packages": [
        {"name": "torch", "seconds": 5.6, "modules": 2141},
        {"name": "sym$py_x$", "seconds": 2.2, "modules": 432},
        {"name": "standard library", "seconds": 0.4, "modules": 282},
    ],
    "bytecode": {
        "valid": 600,
        "missing": 3800,
        "stale": 100,
        "unreadable": 0,
        "compiled": 3900,
        "compile_s": 6.5,
        "load_s": 0.5,
        "saving_s": 6.0,
    },
    "not_required": [{"distribution": "scikit-learn", "importer": "transformers.generation.x", "seconds": 2.0}],
}
steps = st.lists(
    st.builds(Step, st.sampled_from(["import_torch", "weights"]), st.integers(0, 10 * GB), st.floats(0, 100)),
    max_size=8,
)
rates = st.floats(1e6, 1e10)


def sample(block: int, kind: str, seconds: list[float], reads: list[int | None], noisy: bool = False) -> Sample:
    names = ("import_torch", "import_transformers", "weights", "first_token", "second_token")
    phases = [Phase(name, each, size) for name, each, size in zip(names, [*seconds, 9.0], [*reads, 0], strict=True)]
    fields = (
        "resident_before read_bytes rss_bytes vsz_bytes pss_bytes anon_bytes anon_huge_bytes file_pmd_bytes "
        "hugetlb_bytes minor_faults major_faults"
    )
    empty: dict[str, Any] = dict.fromkeys(fields.split())
    return Sample(
        block=block,
        wanted=kind,
        kind=kind,
        reason=None,
        load_real_s=sum(seconds[:3]),
        time_to_first_token_s=sum(seconds),
        phases=tuple(phases),
        ceiling_bytes_per_s=1e9,
        noise=Noise(noisy, ()),
        **empty,
    )


COLD, WARM = [4.0, 12.0, 6.0, 3.0], [3.0, 8.0, 2.0, 1.0]
READS: list[int | None] = [GB, 0, 7 * GB, 0]


def block(number: int, **changes: Any) -> list[Sample]:
    return [sample(number, "cold", COLD, READS, **changes), sample(number, "warm", WARM, [0, 0, 0, 0], **changes)]


def imports(saving_s: float) -> Imports:
    return Imports(None, 12.0, 10, (), Bytecode(1, 9, 0, 0, 9, saving_s))


@given(steps, rates)
def test_the_floor_is_between_its_simple_form_and_reading_before_working(found: list[Step], rate: float) -> None:
    floor = floor_s(found, rate)
    reading, working = sum(step.read_bytes for step in found) / rate, sum(step.warm_s for step in found)
    assert simple_floor_s(found, rate) == max(reading, working)
    assert simple_floor_s(found, rate) <= floor <= reading + working + 1e-6


@given(steps, rates, st.floats(0, 50))
def test_a_faster_disk_or_less_work_never_raises_the_floor(found: list[Step], rate: float, saving_s: float) -> None:
    floor = floor_s(found, rate)
    assert floor_s(found, rate * 2) <= floor + 1e-9
    lighter = with_bytecode(found, saving_s)
    assert floor_s(lighter, rate) <= floor + 1e-9
    assert all(step.warm_s >= 0 for step in lighter)
    spent = sum(step.warm_s for step in found if step.name == "import_torch")
    saved = sum(step.warm_s for step in found) - sum(step.warm_s for step in lighter)
    assert saved == pytest.approx(min(saving_s, spent), abs=1e-6)


def test_work_on_what_is_read_last_comes_after_it() -> None:
    """8 s of reading and 8 s of work, but the last second of work waits for the last byte."""
    found = [Step("import_torch", 0, 7.0), Step("weights", 8 * GB, 0.0), Step("first_token", 0, 1.0)]
    assert simple_floor_s(found, GB) == 8.0
    assert floor_s(found, GB) == 9.0


def test_what_a_run_says_of_its_first_token() -> None:
    found = explain([*block(1), *block(2), *block(3)], imports(6.0))
    # Work: 14 s less 6 s of compiling; reading 8 GB takes 8 s, and then the first token takes 1 s.
    assert (found.problem, found.blocks, found.now_s, found.read_bytes) == (None, 3, 25.0, 8 * GB)
    assert found.warm_s == pytest.approx(8.0)
    assert found.floor_s == pytest.approx(9.0)
    assert found.limit == "disk"
    assert found.ratio == pytest.approx(25 / 9)
    assert found.bytecode_s == 6.0
    assert found.replay_s == pytest.approx(10.0)
    assert found.has_gap


def kernels(compiling_s: float, kept_s: float) -> Kernels:
    return Kernels(None, 5, 616_601, KernelSeconds(compiling_s, 0.4), KernelSeconds(kept_s, 0.1))


def test_kept_kernels_save_at_least_what_the_soonest_compiling_run_took_longer() -> None:
    warm = [sample(1, "warm", [3.0, 8.0, 2.0, 0.9], [0] * 4), sample(2, "warm", [3.0, 8.0, 2.0, 1.3], [0] * 4)]
    assert kernels(1.1, 0.35).saving_s(warm) == pytest.approx(0.55)
    assert kernels(0.8, 0.35).saving_s(warm) == pytest.approx(0.45)
    assert kernels(0.8, 0.95).saving_s(warm) == 0.0
    assert Kernels("it failed").saving_s(warm) is None
    assert Kernels(None, 0, 0, KernelSeconds(0.3, 0.1), None).saving_s(warm) == 0.0


def test_kept_kernels_lower_the_floor_and_are_counted_after_bytecode() -> None:
    blocks = [*block(1), *block(2), *block(3)]
    without, found = explain(blocks, imports(6.0)), explain(blocks, imports(6.0), kernels(0.9, 0.3))
    assert without.kernels_s is None
    assert found.kernels_s == pytest.approx(0.6)
    # Read until 8 s, then the first token without compiling: 0.4 s.
    assert found.floor_s == pytest.approx(8.4)
    assert found.replay_s == pytest.approx(25 - 8.4 - 6.0 - 0.6)
    assert explain(blocks, imports(100.0), kernels(0.9, 0.3)).kernels_s == pytest.approx(0.0)


def test_fewer_than_three_quiet_blocks_bear_out_neither_bold_nor_a_factor() -> None:
    runs = ([each for number in range(count) for each in block(number)] for count in (2, 3))
    assert [explain(run, imports(6.0)).is_borne_out for run in runs] == [False, True]


def test_without_a_look_at_the_imports_bytecode_is_unknown() -> None:
    for unknown in (None, Imports("it failed")):
        found = explain(block(1), unknown)
        assert (found.bytecode_s, found.floor_s, found.limit) == (None, 14.0, "imports")
        assert found.replay_s == pytest.approx(11.0)


def test_a_saving_is_never_larger_than_the_gap() -> None:
    found = explain(block(1), imports(100.0))
    assert found.bytecode_s == pytest.approx((found.now_s or 0) - (found.floor_s or 0))
    assert found.replay_s == 0.0


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ([], "no block has both a valid cold and a valid warm sample"),
        ([block(1)[0], block(2)[1]], "no block has both a valid cold and a valid warm sample"),
        (block(1, noisy=True), "the host was busy with other work in every block"),
        (
            [sample(1, "cold", COLD, [None, 0, 0, 0]), block(1)[1]],
            "the kernel does not tell what each phase read",
        ),
    ],
)
def test_where_it_cannot_be_told_it_says_why(samples: list[Sample], problem: str) -> None:
    assert explain(samples, imports(6.0)) == FirstToken(problem)


def test_a_quiet_block_is_enough_and_noisy_ones_are_left_out() -> None:
    assert explain([*block(1, noisy=True), *block(2)], None).blocks == 1
    for cold, warm in ((True, False), (False, True)):
        half = [sample(1, "cold", COLD, READS, cold), sample(1, "warm", WARM, [0, 0, 0, 0], warm)]
        assert explain([*half, *block(2)], None).blocks == 1


@pytest.mark.parametrize(
    ("ratio", "low", "gap"), [(None, None, False), (1.09, None, False), (1.1, None, True), (1.5, 1.0, False)]
)
def test_a_gap_is_one_beyond_noise(ratio: float | None, low: float | None, gap: bool) -> None:
    assert FirstToken(None, ratio=ratio, ratio_low=low).has_gap is gap


def load(name: str = "cpu", **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    document.update(copy.deepcopy(changes))
    document["summary"] = summarise(typed(Sample, each) for each in document["samples"]).to_json()
    check_result(document)
    return document


def first_line(document: dict[str, Any]) -> str:
    """Return what the verdict says of the first token: its first line, or its last where too few blocks were quiet."""
    verdict = [line for line in host_report(document).partition("\nModel: ")[0].split("\n") if line.startswith("- ")]
    return verdict[-1] if verdict[0].strip("- *").startswith("Cold load") else verdict[0]


def test_the_first_line_says_how_much_sooner_and_what_to_do() -> None:
    document = load(imports={**IMPORTS, "bytecode": {**IMPORTS["bytecode"], "saving_s": 0.5}})
    found = read_result(document).first_token
    assert first_line(document).startswith(
        "- **First token could come 2.2x sooner on this host: bytecode -500 ms, replay "
    )
    assert first_line(document).endswith("the lower bound is 2.97 s (CPU, mostly imports).**")
    assert "\nansible-playbook first_token.yml -l" in host_report(document).partition("## Phases")[0]
    assert (found.bytecode_s or 0) + (found.replay_s or 0) == pytest.approx((found.now_s or 0) - (found.floor_s or 0))
    unknown = first_line(load())
    assert "bytecode unknown, replay up to -" in unknown
    assert "the lower bound is at most 3.47 s" in unknown


def test_the_first_line_of_fewer_than_three_quiet_blocks_is_neither_bold_nor_a_factor() -> None:
    document = load()
    quiet = [each for each in document["samples"] if each["kind"] in ("cold", "warm")]
    document["samples"] = [each for each in quiet if each["block"] <= 2]
    line = first_line(document)
    assert "**" not in line
    assert "sooner on this host" not in line
    assert line.startswith("- Estimate from 2 quiet blocks: ")
    page = host_report(document)
    assert "**" not in page
    assert "-e slm_benchmark_runs=6 " in page.partition("## Phases")[0]
    assert "| Now over the lower bound |" not in page
    assert "| Now over the lower bound |" in host_report(load())


def test_a_remedy_that_saves_nothing_is_in_no_row_and_an_unknown_one_is() -> None:
    """Below 1 % of the time to first token a saving is nothing to act on."""
    row = "| Bytecode for every module would save, at least |"

    def page(saving_s: float) -> str:
        return host_report(load(imports={**IMPORTS, "bytecode": {**IMPORTS["bytecode"], "saving_s": saving_s}}))

    now_s = read_result(load()).first_token.now_s or 0.0
    assert row not in page(0.0)
    assert row not in page(0.0099 * now_s)
    assert row in page(0.0101 * now_s)
    assert f"{row} unknown |" in host_report(load())


def test_what_the_lower_bound_is_made_of_is_folded() -> None:
    shown, _, folded = host_report(load()).partition("<details>")
    assert "| What the disk gives |" not in shown
    basis = folded.partition("## What the lower bound rests on")[2].partition("##")[0]
    for row in ("Everything in memory and bytecode there", "Read from the disk, cold", "What the disk gives"):
        assert f"| {row} |" in basis


def test_kept_kernels_are_a_remedy_in_the_first_line_the_table_and_the_notes() -> None:
    document = load("gpu", imports=IMPORTS)
    for each in document["samples"]:
        each["noise"] = {**each["noise"], "noisy": False}
    phases = [phase for each in document["samples"] for phase in each["phases"] if phase["name"] == "first_token"]
    for phase in phases:
        phase["seconds"] += 1.0
    soonest = min(phase["seconds"] for phase in phases)
    document["kernels"] = {
        "problem": None,
        "files": 5,
        "bytes": 616_601,
        "compiling": {"first_token": 99.0, "second_token": 0.4},
        "kept": {"first_token": soonest - 0.6, "second_token": 0.1},
    }
    check_result(document)
    result = read_result(document)
    assert "kept kernels -600 ms" in first_line(document)
    assert "| Kernels kept from start to start would save, at least | 600 ms" in host_report(document)
    said = rules_time.kernels_compiled(result) or ""
    assert said.startswith("Each start compiles kernels anew: 600 ms of its first token and 300 ms of its second")
    document["kernels"]["kept"] = None
    assert rules_time.kernels_compiled(read_result(document)) is None
    assert "kept kernels" not in first_line(document)


def test_the_first_line_says_that_there_is_no_gap() -> None:
    document = load()
    for cold, warm in zip(document["samples"][::2], document["samples"][1::2], strict=True):
        if (cold["kind"], warm["kind"]) == ("cold", "warm"):
            cold.update(time_to_first_token_s=warm["time_to_first_token_s"])
    assert first_line(document).startswith("- **First token comes about as soon as this host allows:** ")


def test_the_first_line_says_why_it_cannot_be_said() -> None:
    document = load()
    for each in document["samples"]:
        each["noise"] = {**each["noise"], "noisy": True}
    assert first_line(document) == (
        "- How much sooner a first token could come is not known: the host was busy with other work in every block."
    )


def test_the_imports_are_shown() -> None:
    page = host_report(load(imports=IMPORTS))
    assert "](imports.svg)" in page
    assert "4,500 modules in 12.6 s. Of 4,500 with a source, 600 have bytecode" in page
    assert "3,800 missing, 100 stale: compiling these takes each start 6.00 s more than reading it." in page
    assert "| scikit-learn | transformers.generation.x | 2.00 s |" in page
    picture = imports_svg(load(imports=IMPORTS))
    assert "sym$py_x$" in picture
    assert "5.60 s" in picture
    assert imports_svg(load()) == ""
    failed = host_report(load(imports={"problem": "it <b>failed</b>"}))
    assert "could not be looked at: it &lt;b&gt;failed" in failed
    assert "imports.svg" not in failed


def noted(**changes: Any) -> Result:
    return read_result(load(**changes))


def test_notes_about_imports_speak_from_their_thresholds() -> None:
    result = noted(imports=IMPORTS)
    assert "torch 5.60 s" in (rules_time.imports_dominate(result) or "")
    said = rules_time.no_bytecode(result) or ""
    assert said.startswith("3,900 of 4,500 imported modules have no bytecode")
    assert "cold or warm: 6.00 s." in said
    assert rules_time.not_required(result) == (
        "transformers.generation.x imports scikit-learn, 2.00 s, because it is there. Nothing that the loader needs "
        "requires it: an environment without starts that much sooner."
    )
    assert rules_time.imports_unknown(result) is None
    little = {
        **IMPORTS,
        "bytecode": {**IMPORTS["bytecode"], "saving_s": 0.06},
        "not_required": [{"distribution": "x", "importer": None, "seconds": 0.06}],
    }
    assert rules_time.no_bytecode(noted(imports=little)) is None
    assert rules_time.not_required(noted(imports=little)) is None
    partly = {**IMPORTS, "bytecode": {**IMPORTS["bytecode"], "compiled": 100}}
    assert "more than 6.00 s" in (rules_time.no_bytecode(noted(imports=partly)) or "")
    assert "it failed" in (rules_time.imports_unknown(noted(imports={"problem": "it failed"})) or "")
    silent = (rules_time.no_bytecode, rules_time.not_required, rules_time.imports_unknown)
    assert [rule(noted()) for rule in silent] == [None] * 3
