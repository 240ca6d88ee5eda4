"""From the samples of a sweep to verdicts, advice, report and pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from analysis.sweep import analyse
from analysis.sweep_advice import group_vars
from analysis.sweep_document import analysed, measurements
from analysis.sweep_figures import forest_svg, memory_svg, phases_svg
from analysis.sweep_metrics import METRICS
from analysis.sweep_progress import line, outlook, stop_reason
from analysis.sweep_report import PICTURES, report
from module_utils.slm_baseline.errors import SettingError
from tests.unit.sweep_samples import ARMS, document

EFFECTS = {
    ("madvise-torch", "float32", "warm"): 0.85,
    ("madvise-torch", "float32", "cold"): 0.90,
    ("always", "float32", "warm"): 0.85,
    ("never", "auto", "warm"): 1.15,
}


@pytest.fixture(scope="module")
def sweep() -> dict[str, Any]:
    return analysed(document(effects=EFFECTS))


def _group(analysis: dict[str, Any], metric: str, dtype: str, kind: str) -> dict[str, Any]:
    wanted = (metric, dtype, kind)
    return next(each for each in analysis["groups"] if (each["metric"], each["dtype"], each["kind"]) == wanted)


def _verdict(analysis: dict[str, Any], metric: str, dtype: str, kind: str, arm: str) -> dict[str, Any]:
    return next(each for each in _group(analysis, metric, dtype, kind)["arms"] if each["arm"] == arm)


def test_known_effects_are_found_told_and_nothing_else_is(sweep: dict[str, Any]) -> None:
    found = {
        (result["arm"], group["dtype"], group["kind"]): result["verdict"]
        for group in sweep["analysis"]["groups"]
        if group["metric"] == "time_to_first_token_s"
        for result in group["arms"]
        if result["verdict"] != "none"
    }
    assert found == {key: "less" if effect < 1 else "more" for key, effect in EFFECTS.items()}


def test_words_say_direction_size_and_interval(sweep: dict[str, Any]) -> None:
    analysis = sweep["analysis"]
    words = _verdict(analysis, "time_to_first_token_s", "float32", "warm", "madvise-torch")["words"]
    match = re.fullmatch(r"faster, (1\.\d\d)x \[(1\.\d\d), (1\.\d\d)\]", words)
    assert match
    assert float(match[2]) < 1 / 0.85 < float(match[3])
    assert _verdict(analysis, "time_to_first_token_s", "auto", "warm", "never")["words"].startswith("slower, 1.1")
    assert re.fullmatch(
        r"no effect beyond noise \(±\d+ %\)",
        _verdict(analysis, "time_to_first_token_s", "auto", "cold", "always")["words"],
    )
    assert _verdict(analysis, "minor_faults", "float32", "warm", "always")["words"].startswith("fewer, 0.20x")
    assert _verdict(analysis, "anon_huge_bytes", "float32", "warm", "always")["words"].startswith("more, +1.00 GiB")


def test_the_bound_of_no_effect_covers_interval_and_band(sweep: dict[str, Any]) -> None:
    for group in sweep["analysis"]["groups"]:
        for result in group["arms"]:
            if result["verdict"] == "none" and group["scale"] == "ratio":
                ends = [result["low"], result["high"], group["band"]["low"], group["band"]["high"]]
                bound = int(re.findall(r"±(\d+) %", result["words"])[0])
                assert bound >= max(abs(end - 1) for end in ends) * 100 - 1e-4


def test_lukewarm_failed_and_abandoned_samples_never_enter() -> None:
    clean = document()
    odd = document()
    for each in odd["measurements"]:
        sample = each["sample"]
        if each["arm"] == "always" and sample["block"] == 1:
            sample.update(kind="lukewarm", time_to_first_token_s=1000.0)
        if each["arm"] == "never" and sample["block"] == 2:
            sample.update(kind="failed", time_to_first_token_s=None)
    odd["measurements"] += [
        {**each, "attempt": 9, "abandoned": True, "sample": {**each["sample"], "time_to_first_token_s": 1000.0}}
        for each in clean["measurements"][:3]
    ]
    analysis = analyse(odd)
    assert analysis["counts"] == {"cold": 92, "warm": 92, "lukewarm": 4, "failed": 4, "abandoned": 3, "noisy": 0}
    for arm in ("always", "never"):
        found = _verdict(analysis, "time_to_first_token_s", "auto", "cold", arm)
        assert (found["n"], found["dropped"]) == (7, 1)
        assert 0.9 < found["estimate"] < 1.1


def test_below_six_blocks_there_is_nothing_to_say() -> None:
    few = analysed(document(blocks=5, effects=EFFECTS))
    assert {result["verdict"] for group in few["analysis"]["groups"] for result in group["arms"]} == {"too_few"}
    assert "too few blocks to say" in report(few).splitlines()[2]


def test_no_block_at_all_still_gives_a_document_and_a_report() -> None:
    none = analysed(document(blocks=0))
    assert none["analysis"]["advice"][0]["arm"] is None
    assert "too few blocks to say" in report(none)
    assert forest_svg(none, "load_real_s")
    assert phases_svg(none)


def test_a_control_that_moved_silences_its_group() -> None:
    moved = analysed(document(effects={**EFFECTS, ("stock-again", "float32", "warm"): 1.3}))
    group = _group(moved["analysis"], "time_to_first_token_s", "float32", "warm")
    assert group["control"]["verdict"] == "moved"
    assert {result["verdict"] for result in group["arms"]} == {"untrusted"}
    assert "stock differs from itself" in "\n".join(report(moved).splitlines()[:5])


def test_the_answer_stands_in_the_first_five_lines(sweep: dict[str, Any]) -> None:
    head = report(sweep).splitlines()[:5]
    assert head[0].startswith("# ")
    assert "no effect" in head[2]
    assert "`never` slower" in head[2]
    assert "`madvise-torch` faster" in head[3]
    assert "8 blocks" in head[4]


def test_advice_takes_the_smallest_supported_set(sweep: dict[str, Any]) -> None:
    stored, cast = sweep["analysis"]["advice"]
    assert stored["arm"] is None
    # As fast as `always` when warm, and faster cold; one variable, and the knob is as it was.
    assert (cast["arm"], cast["changes"]) == ("madvise-torch", 1)
    text = report(sweep).split("## What to do with it")[1]
    assert 'thp_enabled: "madvise"' in text
    assert "THP_MEM_ALLOC_ENABLE=1" in text
    assert "supports no change" in text


def test_an_arm_that_slows_anything_is_never_advised() -> None:
    effects = {("always", "float32", "warm"): 0.7, ("always", "float32", "cold"): 1.3}
    assert analysed(document(effects=effects))["analysis"]["advice"][1]["arm"] is None


def test_group_vars_spell_every_kind_of_knob() -> None:
    settings = {
        "thp.enabled": "always",
        "thp.shmem_enabled": "never",
        "thp.sizes.64kB.enabled": "madvise",
        "thp.khugepaged.scan_sleep_millisecs": "100",
        "hugepages.2M": "1024",
    }
    assert group_vars(settings).splitlines() == [
        'thp_enabled: "always"',
        'thp_shmem_enabled: "never"',
        "thp_sizes:",
        '  64kB: "madvise"',
        "thp_khugepaged:",
        '  scan_sleep_millisecs: "100"',
        "hugepages_pools:",
        "  - {size: 2M, count: 1024}",
    ]


def test_a_document_that_breaks_the_schema_is_refused() -> None:
    broken = document(blocks=1)
    broken["measurements"][0]["sample"]["kind"] = "tepid"
    with pytest.raises(SettingError, match="sweep document"):
        analysed(broken)


def test_measurements_know_which_attempt_finished_a_block() -> None:
    flat = [
        {"block": 1, "attempt": attempt, "arm": "stock", "dtype_asked": "auto", "elapsed_s": 1.0, "kind": "cold"}
        for attempt in (1, 2)
    ]
    found = measurements(flat, {"1": 2})
    assert [each["abandoned"] for each in found] == [True, False]
    assert found[0]["sample"] == {"block": 1, "arm": "stock", "kind": "cold"}


def test_hostile_names_stay_inert() -> None:
    hostile = document(blocks=6)
    hostile["host"]["name"] = "<script>alert(1)</script> | [x](http://e.example)"
    hostile["arms"] = [{**arm, "about": "| <b> `x"} for arm in ARMS]
    text = report(analysed(hostile))
    assert "<script" not in text
    assert "<b>" not in text
    assert r"\[x\](http&#58;" in text


def test_report_and_pictures_are_deterministic_and_well_formed(sweep: dict[str, Any]) -> None:
    pictures = [forest_svg(sweep, "time_to_first_token_s"), phases_svg(sweep), memory_svg(sweep)]
    assert pictures[-1] == memory_svg(sweep)
    for picture in pictures:
        assert "madvise-torch" in "".join(ElementTree.fromstring(picture).itertext())
    text = report(sweep)
    assert text == report(sweep)
    assert all(f"]({name})" in text for name in PICTURES)
    assert all(metric.title in text.lower() or metric.title in text for metric in METRICS)


def test_a_hypervisor_that_takes_memory_back_is_told(sweep: dict[str, Any]) -> None:
    for value in (True, False):
        sweep["host"]["free_page_reporting"] = value
        assert ("free page reporting" in report(sweep)) is value


PROTOCOL = {"blocks": 8, "budget_s": 2400.0, "precision": 0.05}


def _progress(done: int, spent_s: float, noise: float = 0.03) -> dict[str, Any]:
    rows = [
        {
            "arm": each["arm"],
            "dtype_asked": each["dtype_asked"],
            **{name: each["sample"][name] for name in ("block", "kind", "load_real_s", "time_to_first_token_s")},
        }
        for each in document(blocks=done, noise=noise)["measurements"]
    ]
    return {"done": done, "last_block": done, "spent_s": spent_s, "times": rows}


def test_a_sweep_stops_at_its_blocks_its_budget_or_its_precision() -> None:
    assert stop_reason({"done": 0, "spent_s": 0.0, "times": []}, PROTOCOL) is None
    assert stop_reason(_progress(7, 1400.0), PROTOCOL) is None
    assert stop_reason(_progress(8, 1600.0), PROTOCOL) == "8 blocks are measured, as many as asked for"
    assert "40 minutes" in str(stop_reason(_progress(6, 2100.0), PROTOCOL))
    assert stop_reason(_progress(6, 600.0, noise=0.001), PROTOCOL) == "every interval of the times is within ±5 %"
    assert stop_reason(_progress(5, 500.0, noise=0.001), PROTOCOL) is None


def test_a_missing_sample_keeps_a_sweep_from_being_called_tight() -> None:
    progress = _progress(6, 600.0, noise=0.001)
    progress["times"] = [row for row in progress["times"] if (row["arm"], row["block"]) != ("never", 3)]
    assert stop_reason(progress, PROTOCOL) is None


def test_a_block_says_how_far_it_is_and_why_it_was_the_last() -> None:
    assert line(_progress(0, 0.0), PROTOCOL) == "block 0 of 8"
    told = line(_progress(3, 900.0), PROTOCOL)
    assert re.fullmatch(r"block 3 of 8: stock's first token \S+ s cold, \S+ s warm; about 25 min 0 s left", told)
    assert line(_progress(8, 1600.0), PROTOCOL).endswith("; 8 blocks are measured, as many as asked for")


def test_the_outlook_names_arms_and_what_is_left_out() -> None:
    plan = {
        "run_id": "20260101T000000Z",
        "arms": ARMS,
        "dtypes": ["auto"],
        "seed": 7,
        "left_out": [{"arm": "mthp-64k", "why": "no such knob."}],
    }
    planned = {"plan": plan, "restored": True, "is_resumed": True, "progress": {"done": 2}}
    told = " ".join(outlook(planned, {**PROTOCOL, "blocks": 3}))
    for words in ("stock-again", "seed 7", "cut short", "2 of whose blocks", "mthp-64k is left out", "fewer than 6"):
        assert words in told
