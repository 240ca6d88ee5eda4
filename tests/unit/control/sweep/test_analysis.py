"""From the samples of a sweep to verdicts, advice, report and pictures."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.documents.decode import typed
from analysis.documents.errors import DocumentError
from analysis.sweep.advice import group_vars
from analysis.sweep.comparison import analyse
from analysis.sweep.document import analysed, measurements
from analysis.sweep.figures import arm_memory_svg, arm_phases_svg, forest_svg
from analysis.sweep.metrics import METRICS, TIMES, canary
from analysis.sweep.progress import next_block, outlook, progress_line, stop_reason
from analysis.sweep.report import PICTURES, sweep_files, sweep_report
from analysis.sweep.sweep import AnalysedSweep, Sweep
from tests.support.sweep_samples import ARMS, document

EXAMPLES = Path(__file__).resolve().parents[4] / "docs/examples"
TIME_NAMES = {metric.name for metric in TIMES}
EFFECTS = {
    ("madvise-torch", "float32", "warm"): 0.85,
    ("madvise-torch", "float32", "cold"): 0.90,
    ("always", "float32", "warm"): 0.85,
    ("never", "auto", "warm"): 1.15,
}


def as_sweep(document: dict[str, Any]) -> AnalysedSweep:
    return typed(AnalysedSweep, document)


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


def test_the_bound_of_no_effect_covers_interval_and_for_counters_the_band(sweep: dict[str, Any]) -> None:
    for group in sweep["analysis"]["groups"]:
        for result in group["arms"]:
            if result["verdict"] == "none" and group["scale"] == "ratio":
                band = [] if group["metric"] in TIME_NAMES else [group["band"]["low"], group["band"]["high"]]
                ends = [result["low"], result["high"], *band]
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
    analysis = asdict(analyse(typed(Sweep, odd)))
    assert analysis["counts"] == {"cold": 92, "warm": 92, "lukewarm": 4, "failed": 4, "abandoned": 3, "noisy": 0}
    for arm in ("always", "never"):
        found = _verdict(analysis, "time_to_first_token_s", "auto", "cold", arm)
        assert (found["n"], found["dropped"]) == (7, 1)
        assert 0.9 < found["estimate"] < 1.1


def test_below_six_blocks_there_is_nothing_to_say() -> None:
    few = analysed(document(blocks=5, effects=EFFECTS))
    assert {result["verdict"] for group in few["analysis"]["groups"] for result in group["arms"]} == {"too_few"}
    page = sweep_report(as_sweep(few))
    assert "too few blocks to say" in page.splitlines()[2]
    # Once for each dtype above, and once in a sentence; no metric repeats it.
    assert len(re.findall("too few", page)) == 3
    assert "## Verdicts" not in page
    assert not [metric.title for metric in METRICS if f"**{metric.title[0].upper()}{metric.title[1:]}**" in page]


def test_too_few_blocks_still_show_medians_by_arm_and_what_more_would_take() -> None:
    made = document(blocks=5, effects=EFFECTS)
    page = sweep_report(as_sweep(analysed(made)))
    seen = page.partition("## Seen so far, nothing claimed")[2].partition("\n## ")[0]
    assert "A claim needs 6 blocks, and there are 5: too few to say what any arm does to any metric." in seen
    stored, cast = (part.splitlines() for part in seen.split("**Cast to float32**"))
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:7]] for line in cast if "| `" in line
    }
    assert list(rows) == [f"`{arm['name']}`" for arm in ARMS]
    assert sum("| `" in line for line in stored) == len(ARMS)
    # In these samples memory that is asked for is backed by 1 GiB of huge pages, with a fifth of the faults.
    assert (rows["`madvise-torch`"][3], rows["`stock`"][3]) == ("1.00 GiB", "0 B")
    faults = {arm: int(cells[2].replace(",", "")) for arm, cells in rows.items()}
    assert faults["`madvise-torch`"] < 0.3 * faults["`stock`"]
    spent_s = made["stopped"]["spent_s"]
    budget_s = int(re.findall(r"-e sweep_budget_s=(\d+)", page.partition("## What to do with it")[2])[0])
    assert 1.0 <= budget_s / (6 * spent_s / 5) <= 1.3


def test_a_median_that_is_shown_is_of_valid_whole_loads_alone() -> None:
    made = document(blocks=3)
    for each in made["measurements"]:
        sample = each["sample"]
        if each["arm"] == "always" and sample["block"] > 1:
            sample["minor_faults"] = 77
            each["measurement"] = "weights"
        if each["arm"] == "never":
            sample.update(kind="failed", reason="it crashed")
    page = sweep_report(as_sweep(analysed(made)))
    row = {
        name: next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        for name in ("always", "never")
    }
    assert "| 77 |" not in row["always"]
    assert row["never"].count("not measured") == 5


def test_no_block_at_all_still_gives_a_document_and_a_report() -> None:
    none = analysed(document(blocks=0))
    assert none["analysis"]["advice"][0]["arm"] is None
    assert "too few blocks to say" in sweep_report(as_sweep(none))
    assert forest_svg(as_sweep(none), "load_real_s")
    assert arm_phases_svg(as_sweep(none))


def test_a_control_that_moved_silences_its_group() -> None:
    moved = analysed(document(effects={**EFFECTS, ("stock-again", "float32", "warm"): 1.3}))
    group = _group(moved["analysis"], "time_to_first_token_s", "float32", "warm")
    assert group["control"]["verdict"] == "moved"
    assert {result["verdict"] for result in group["arms"]} == {"untrusted"}
    assert "stock differs from itself" in "\n".join(sweep_report(as_sweep(moved)).splitlines()[:5])


def _lost(sweep: dict[str, Any], **which: str) -> dict[str, Any]:
    """The sweep with every sample of this arm, kind or both lukewarm or failed."""
    for each in sweep["measurements"]:
        if all((each["arm"] if name == "arm" else each["sample"]["wanted"]) == value for name, value in which.items()):
            each["sample"].update(kind="lukewarm", reason="not what was wanted")
    return analysed(sweep)


def test_a_kind_that_never_was_what_was_wanted_is_not_called_without_effect() -> None:
    sweep = _lost(document(effects={("always", "float32", "warm"): 0.7}), kind="cold")
    _, _, stored, cast, basis = sweep_report(as_sweep(sweep)).splitlines()[:5]
    assert stored.endswith("first token cold: too few pairs to say; warm: no effect beyond noise (±2 %).")
    assert "warm: `always` faster" in cast
    assert "have too few pairs to be compared cold as stored, cold cast to float32" in basis
    assert "8 blocks without a pair" in sweep_report(as_sweep(sweep))
    assert "Cold loads could not be judged." in sweep_report(as_sweep(sweep)).split("## What to do with it")[1]


def test_an_arm_that_was_never_measured_is_named_and_widens_no_bound() -> None:
    stored = sweep_report(as_sweep(_lost(document(), arm="pool-glibc"))).splitlines()[2]
    found = re.fullmatch(
        r".*cold: no effect beyond noise \(±(\d+) %\), `pool-glibc` too few pairs to say; warm: .*", stored
    )
    assert found
    assert int(found[1]) < 10


def test_the_bound_of_the_answer_is_that_of_its_least_certain_verdict() -> None:
    sweep = analysed(document(noise=0.05))
    bounds = [int(bound) for bound in re.findall(r"±(\d+) %", sweep_report(as_sweep(sweep)).splitlines()[2])]
    for kind, bound in zip(("cold", "warm"), bounds, strict=True):
        words = [arm["words"] for arm in _group(sweep["analysis"], "time_to_first_token_s", "auto", kind)["arms"]]
        assert bound == max(int(re.findall(r"±(\d+) %", each)[0]) for each in words)


def test_a_control_that_moved_in_any_metric_is_told_at_once() -> None:
    sweep = document()
    for each in sweep["measurements"]:
        if each["arm"] == "stock-again":
            each["sample"]["rss_bytes"] *= 2
    assert (
        "the two stock arms differ, as they must not: RSS cold as stored"
        in sweep_report(as_sweep(analysed(sweep))).splitlines()[4]
    )


def test_the_report_says_what_stock_is(sweep: dict[str, Any]) -> None:
    assert "Stock has `thp.enabled=madvise`, `thp.defrag=madvise` and no reserved pages." in sweep_report(
        as_sweep(sweep)
    )
    sweep["stock"]["hugepages.2M"] = "512"
    assert "`hugepages.2M=512`." in sweep_report(as_sweep(sweep))
    sweep["stock"]["hugepages.2M"] = "0"


def test_the_answer_stands_in_the_first_five_lines(sweep: dict[str, Any]) -> None:
    head = sweep_report(as_sweep(sweep)).splitlines()[:5]
    assert head[0].startswith("# ")
    assert "no effect" in head[2]
    assert "`never` slower" in head[2]
    assert "`madvise-torch` faster" in head[3]
    assert "8 blocks" in head[4]


def test_an_effect_on_the_weights_alone_is_not_lost_in_the_imports() -> None:
    """Imports are half of the time to first token: at this noise an eighth off the other half does not show in it."""
    effects = {("pool-glibc", "float32", "warm"): 0.87}
    sweep = analysed(document(noise=0.05, weights_effects=effects))
    whole = _verdict(sweep["analysis"], "time_to_first_token_s", "float32", "warm", "pool-glibc")
    part = _verdict(sweep["analysis"], "weights_to_first_token_s", "float32", "warm", "pool-glibc")
    assert (whole["verdict"], part["verdict"]) == ("none", "less")
    assert part["low"] < 0.87 < part["high"]
    stored, cast = sweep_report(as_sweep(sweep)).splitlines()[2:4]
    assert "weights to first token" not in stored
    assert "no arm changes the time to first token beyond noise" in cast
    assert "Weights to first token alone warm: `pool-glibc` faster, 1.1" in cast
    assert sweep["analysis"]["advice"][1]["arm"] == "pool-glibc"
    assert f"`pool-glibc` (weights to first token, warm: {part['words']})." in sweep_report(as_sweep(sweep))


def test_a_sample_without_its_phases_has_no_weights_to_first_token() -> None:
    cut = document()
    for each in cut["measurements"]:
        if each["arm"] == "always" and each["sample"]["block"] == 1:
            each["sample"]["phases"] = each["sample"]["phases"][:-1]
    found = asdict(analyse(typed(Sweep, cut)))
    assert _verdict(found, "weights_to_first_token_s", "auto", "cold", "always")["n"] == 7
    assert _verdict(found, "time_to_first_token_s", "auto", "cold", "always")["n"] == 8


def test_advice_takes_the_smallest_supported_set(sweep: dict[str, Any]) -> None:
    stored, cast = sweep["analysis"]["advice"]
    assert stored["arm"] is None
    # As fast as `always` when warm, and faster cold; one variable, and the knob is as it was.
    assert (cast["arm"], cast["changes"]) == ("madvise-torch", 1)
    text = sweep_report(as_sweep(sweep)).split("## What to do with it")[1]
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
    with pytest.raises(DocumentError, match="sweep document"):
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
    text = sweep_report(as_sweep(analysed(hostile)))
    assert "<script" not in text
    assert "<b>" not in text
    assert r"\[x\](http&#58;" in text


def test_report_and_pictures_are_deterministic_and_well_formed(sweep: dict[str, Any]) -> None:
    pictures = [
        forest_svg(as_sweep(sweep), "time_to_first_token_s"),
        arm_phases_svg(as_sweep(sweep)),
        arm_memory_svg(as_sweep(sweep)),
    ]
    assert pictures[-1] == arm_memory_svg(as_sweep(sweep))
    for picture in pictures:
        assert "madvise-torch" in "".join(ElementTree.fromstring(picture).itertext())
    text = sweep_report(as_sweep(sweep))
    assert text == sweep_report(as_sweep(sweep))
    assert all(f"]({name})" in text for name in PICTURES)
    assert all(metric.title in text.lower() or metric.title in text for metric in METRICS)


def test_each_point_of_a_forest_has_its_number(sweep: dict[str, Any]) -> None:
    whole = as_sweep(sweep)
    shown = list(ElementTree.fromstring(forest_svg(whole, "load_real_s")).itertext())
    groups = [group for group in whole.analysis.groups if group.metric == "load_real_s"]
    estimates = [arm.estimate for group in groups for arm in (group.control, *group.arms) if arm.low is not None]
    assert estimates
    assert {f"{estimate:.3g}" for estimate in estimates if estimate is not None} <= set(shown)


def test_the_document_lies_beside_its_report(sweep: dict[str, Any]) -> None:
    written = sweep_files(sweep)
    assert set(written) == {"sweep.md", "sweep.json", *PICTURES}
    assert json.loads(written["sweep.json"]) == sweep
    assert "(sweep.json)" in written["sweep.md"]


def test_the_report_lists_every_claim_and_one_bound_a_metric(sweep: dict[str, Any]) -> None:
    page = sweep_report(as_sweep(sweep))
    for metric in METRICS:
        groups = [group for group in sweep["analysis"]["groups"] if group["metric"] == metric.name]
        told = page.partition(f"\n**{metric.title[0].upper()}{metric.title[1:]}** (unchanged: ")[2].partition("\n\n**")[
            0
        ]
        claims = [result for group in groups for result in group["arms"] if result["verdict"] in ("less", "more")]
        assert told.count("**" if claims else "nothing") >= 2 * len(claims)
        assert all(f"**{result['words']}**" in told for result in claims)
        assert told.count("beyond noise") == 1
        bounds = [
            int(bound)
            for group in groups
            for result in group["arms"]
            if result["verdict"] == "none"
            for bound in re.findall(r"±(\d+) %", result["words"])
        ]
        if bounds:
            assert f"(±{max(bounds)} % at most)" in told


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*sweep")), ids=lambda path: path.name)
def test_the_examples_are_what_their_samples_give_today(example: Path) -> None:
    stored = analysed(json.loads((example / "sweep.json").read_text()))
    for name, text in sweep_files(stored).items():
        path = example / name.replace("sweep.md", "README.md")
        if os.environ.get("SLM_UPDATE_GOLDEN"):
            path.write_text(text)
        assert path.read_text() == text, name


def test_a_hypervisor_that_takes_memory_back_is_told(sweep: dict[str, Any]) -> None:
    for value in (True, False):
        sweep["host"]["free_page_reporting"] = value
        assert ("free page reporting" in sweep_report(as_sweep(sweep))) is value


WHOLE = "8 blocks are measured, as many as asked for; ±5 % would need about 10 blocks (34 min)"
PROTOCOL = {"blocks": 8, "budget_s": 2400.0, "precision": 0.05}


def _progress(done: int, spent_s: float, noise: float = 0.03) -> dict[str, Any]:
    rows = [
        {
            "arm": each["arm"],
            "dtype_asked": each["dtype_asked"],
            **{name: each["sample"][name] for name in ("block", "kind", "load_real_s", "time_to_first_token_s")},
            "weights_to_first_token_s": sum(phase["seconds"] for phase in each["sample"]["phases"][-2:]),
        }
        for each in document(blocks=done, noise=noise)["measurements"]
    ]
    cells = [[arm["name"], dtype] for arm in ARMS for dtype in ("auto", "float32")]
    return {"done": done, "last_block": done, "spent_s": spent_s, "cells": cells, "times": rows}


def test_a_sweep_stops_at_its_blocks_its_budget_or_its_precision() -> None:
    assert stop_reason({"done": 0, "spent_s": 0.0, "cells": [], "times": []}, PROTOCOL) is None
    assert stop_reason(_progress(7, 1400.0), PROTOCOL) is None
    assert stop_reason(_progress(8, 1600.0), PROTOCOL) == WHOLE
    over = str(stop_reason(_progress(6, 2100.0), PROTOCOL))
    assert re.fullmatch(
        r"another block would not fit the budget of 40 minutes; ±5 % would need about \d+ blocks \(.+\)",
        over,
    )
    tight = "every interval of the times is within ±5 %"
    assert stop_reason(_progress(6, 600.0, noise=0.001), PROTOCOL) == tight
    assert stop_reason(_progress(5, 500.0, noise=0.001), PROTOCOL) is None


@pytest.mark.parametrize("blocks", [(3,), range(1, 7)])
def test_missing_samples_keep_a_sweep_from_being_called_tight(blocks: Sequence[int]) -> None:
    progress = _progress(6, 600.0, noise=0.001)
    progress["times"] = [row for row in progress["times"] if row["arm"] != "never" or row["block"] not in blocks]
    assert stop_reason(progress, PROTOCOL) is None


WITH_TEMPLATES = {**PROTOCOL, "blocks": 24, "full_blocks": 7}


def _with_weights(done: int, weights: int, noise: float, **figures: Any) -> dict[str, Any]:
    """As `_progress`, where the last so many blocks have measured the weights alone, two pairs a cell."""
    progress = {**_progress(done, 100.0 * done, noise), "weights_pairs": 2, **figures}
    rows = []
    for row in progress["times"]:
        if row["block"] > done - weights:
            row = {**row, "measurement": "weights", "load_real_s": None, "time_to_first_token_s": None}
            rows.append(row)
        rows.append(row)
    return {**progress, "times": rows}


def test_whole_loads_come_first_then_the_weights_alone_then_what_is_still_wide() -> None:
    first, later = _with_weights(3, 0, 0.1), _with_weights(7, 0, 0.1)
    everything = [[arm["name"], dtype] for arm in ARMS for dtype in ("auto", "float32")]
    assert next_block(first, WITH_TEMPLATES) == {"measurement": "full", "cells": everything}
    assert next_block(later, WITH_TEMPLATES) == {"measurement": "weights", "cells": everything}
    assert next_block({**later, "weights_pairs": 0}, WITH_TEMPLATES)["measurement"] == "full"
    narrow = [{**row, "weights_to_first_token_s": 1.0 + row["block"] * 1e-5} for row in later["times"]]
    assert next_block({**later, "times": narrow}, WITH_TEMPLATES) == {"measurement": "full", "cells": everything}


def test_a_cell_that_is_settled_is_left_out_and_stock_stays_while_anything_is_compared() -> None:
    progress = _with_weights(8, 0, 0.001)
    wild = [
        {**row, "weights_to_first_token_s": 2.0 ** (row["block"] % 2)}
        if (row["arm"], row["dtype_asked"], row["kind"]) == ("never", "float32", "warm")
        else row
        for row in progress["times"]
    ]
    found = next_block({**progress, "times": wild}, WITH_TEMPLATES)
    assert ["never", "float32"] in found["cells"]
    assert {("stock", "float32"), ("stock-again", "float32")} <= {tuple(cell) for cell in found["cells"]}
    assert not any(dtype == "auto" for _, dtype in found["cells"])
    assert next_block(progress, WITH_TEMPLATES)["cells"] == []
    assert stop_reason(progress, WITH_TEMPLATES) == "every interval of the times is within ±5 %"


def test_the_budget_is_held_by_what_the_next_block_will_measure() -> None:
    progress = _with_weights(7, 0, 0.1, spent_s=2000.0)
    assert stop_reason({**progress, "cell_s": {"full": 20.0, "weights": 30.0}}, WITH_TEMPLATES) is None
    over = stop_reason({**progress, "cell_s": {"full": 20.0, "weights": 40.0}}, WITH_TEMPLATES)
    assert over is not None
    assert over.startswith("another block would not fit the budget of 40 minutes")


def test_a_noisy_host_is_told_from_the_first_block_on_with_the_canarys_figures() -> None:
    noise = {"samples": 28, "noisy": 7, "slowdown": 1.3, "worst_slowdown": 2.44}
    told = progress_line({**_progress(1, 300.0), "noise": noise}, PROTOCOL)
    words = "this host is noisy: 7 of 28 samples, the canary took 1.30 times its best in the median and up to 2.4"
    assert told.endswith(words)
    assert "noisy" not in progress_line({**_progress(1, 300.0), "noise": {**noise, "noisy": 6}}, PROTOCOL)


def test_a_budget_that_holds_too_few_blocks_is_told_after_the_first() -> None:
    told = progress_line(_progress(1, 800.0), PROTOCOL)
    assert told.endswith("that is 3 blocks, and nothing is claimed from fewer than 6")


def _with_template_blocks() -> dict[str, Any]:
    """Eight blocks, of which the last two have measured the weights alone, two pairs a cell."""
    made = document(blocks=8, noise=0.001)
    measured = []
    for each in made["measurements"]:
        if each["sample"]["block"] > 6:
            phases = each["sample"]["phases"][-2:]
            sample = {**each["sample"], "phases": phases, "load_real_s": None, "time_to_first_token_s": None}
            each = {**each, "measurement": "weights", "sample": {**sample, "minor_faults": 1}}
            measured.append(each)
        measured.append(each)
    protocol = {**made["protocol"], "weights_pairs": 2, "full_blocks": 6, "no_template": ""}
    return {**made, "schema_version": 2, "protocol": protocol, "measurements": measured}


def test_a_block_of_weights_counts_once_and_for_the_weights_alone() -> None:
    found = analysed(_with_template_blocks())["analysis"]
    for metric, pairs in (("weights_to_first_token_s", 8), ("time_to_first_token_s", 6), ("minor_faults", 6)):
        arm = _verdict(found, metric, "auto", "warm", "always")
        assert (arm["n"], arm["dropped"]) == (pairs, 0)
    assert _group(found, "minor_faults", "auto", "warm")["stock_median"] > 1


def test_the_report_says_which_measurement_a_figure_is_of() -> None:
    told = sweep_files(analysed(_with_template_blocks()))["sweep.md"]
    assert "6 blocks of whole loads, each a fresh process, and 2 of the weights alone, 2 pairs a cell" in told
    made = document(blocks=6)
    alone = {**made, "protocol": {**made["protocol"], "no_template": "it cannot *fork*"}}
    assert "Every sample is a fresh process: it cannot \\*fork\\*." in sweep_files(analysed(alone))["sweep.md"]


def test_the_report_says_that_all_starts_shared_bytecode() -> None:
    made = document(blocks=6)
    assert "share a cache" not in sweep_files(analysed(made))["sweep.md"]
    shared = {"folder": "/opt/slm-baseline/bytecode", "modules": 2301, "saving_s": 11.04}
    told = sweep_files(analysed({**made, "protocol": {**made["protocol"], "bytecode": shared}}))["sweep.md"]
    assert "2301 modules that the loader imports had no bytecode, which costs a start 11.0 s: all starts share" in told
    assert "kernels" not in told


def test_the_report_says_that_all_starts_shared_kernels() -> None:
    made = document(blocks=6)
    shared = {"folder": "/opt/slm-baseline/kernels", "files": 6, "saving_s": 0.4513}
    told = sweep_files(analysed({**made, "protocol": {**made["protocol"], "kernels": shared}}))["sweep.md"]
    assert "Each start compiled GPU kernels anew, which costs its first token 451 ms: all starts share" in told


def test_an_arm_that_was_left_out_of_later_blocks_has_lost_no_pair() -> None:
    made = document(blocks=8)
    kept = [each for each in made["measurements"] if each["arm"] != "never" or each["sample"]["block"] <= 6]
    found = analysed({**made, "measurements": kept})["analysis"]
    never = _verdict(found, "time_to_first_token_s", "auto", "cold", "never")
    assert (never["n"], never["dropped"]) == (6, 0)


def test_a_noisy_host_is_told_in_the_answer() -> None:
    made = document(blocks=6)
    for index, each in enumerate(made["measurements"]):
        noise = {"noisy": index % 2 == 0, "reasons": [], "canary_slowdown": 1.5 if index % 2 else 2.5}
        each["sample"]["noise"] = {**each["sample"]["noise"], **noise}
    head = "\n".join(sweep_files(analysed(made))["sweep.md"].splitlines()[:5])
    assert (
        "The host was noisy: 72 of 144 samples; the canary took 2.00 times its best in the median and up to 2.5" in head
    )


def test_a_block_says_how_far_it_is_and_why_it_was_the_last() -> None:
    assert progress_line(_progress(0, 0.0), PROTOCOL) == "block 0 of 8"
    told = progress_line(_progress(3, 900.0), PROTOCOL)
    assert re.fullmatch(
        r"block 3 of 8: stock's first token \S+ s cold, \S+ s warm; about 25 min 0 s left; 8 blocks .*",
        told,
    )
    assert progress_line(_progress(8, 1600.0), PROTOCOL).endswith(f"; {WHOLE}")


def test_the_outlook_names_arms_and_what_is_left_out() -> None:
    plan = {
        "run_id": "20260101T000000Z",
        "arms": ARMS,
        "dtypes": ["auto"],
        "seed": 7,
        "left_out": [{"arm": "mthp-64k", "why": "no such knob."}],
        "bytecode": {"folder": "/opt/slm-baseline/bytecode", "modules": 1735, "saving_s": 5.84},
    }
    planned = {
        "plan": plan,
        "restored": True,
        "is_resumed": True,
        "progress": {"done": 2, "spent_s": 0.0, "times": [], "cells": []},
    }
    told = " ".join(outlook(planned, {**PROTOCOL, "blocks": 3}))
    assert "1735 modules that the loader imports had no bytecode, which costs a start 5.84 s" in told
    for words in ("stock-again", "seed 7", "cut short", "2 of whose blocks", "mthp-64k is left out", "fewer than 6"):
        assert words in told


def test_the_first_block_says_what_the_budget_buys_and_what_the_precision_would_take() -> None:
    told = progress_line(_progress(1, 300.0), PROTOCOL)
    found = re.search(r"; 8 blocks give about ±(\d+) %, ±5 % would need about (\d+) blocks \((\d+) min\)$", told)
    assert found, told
    assert 4 <= int(found[1]) <= 8
    assert int(found[3]) == 5 * int(found[2])
    assert progress_line(_progress(1, 300.0, noise=0.005), PROTOCOL).endswith("; 8 blocks give about ±1 %")
    # What the budget does not hold is not promised.
    assert "; 6 blocks give about" in progress_line(_progress(1, 300.0), {**PROTOCOL, "budget_s": 1800.0})


def _with_canaries(noise: float) -> dict[str, Any]:
    """A sweep on a host that slows down now and then, by what its canaries see; `always` is 6 % faster."""
    rng = np.random.default_rng(3)
    sweep = document(noise=0.005, effects={("always", "auto", "cold"): 1 / 1.06})
    for each in sweep["measurements"]:
        slow = float(np.exp(rng.normal(0, noise)))
        sample = each["sample"]
        for name in ("load_real_s", "time_to_first_token_s"):
            sample[name] *= slow
        for phase in sample["phases"]:
            phase["seconds"] *= slow
        sample["noise"]["canary"] = {"cpu_s": 0.02 * slow, "memory_s": 0.01}
    return sweep


def test_a_canary_takes_the_hosts_noise_out_of_the_times() -> None:
    seen = _with_canaries(0.06)
    blind = copy.deepcopy(seen)
    for each in blind["measurements"]:
        del each["sample"]["noise"]["canary"]
    widths = {}
    for name, sweep in (("seen", seen), ("blind", blind)):
        found = _verdict(analysed(sweep)["analysis"], "weights_to_first_token_s", "auto", "cold", "always")
        widths[name] = found["high"] - found["low"]
        assert found["low"] < 1 / 1.06 < found["high"]
        assert (found["verdict"] == "less") is (name == "seen")
    assert widths["seen"] < widths["blind"] / 3


def test_one_sample_without_a_canary_leaves_its_group_as_it_was_measured() -> None:
    sweep = _with_canaries(0.06)
    sweep["measurements"][0]["sample"]["noise"]["canary"] = None
    whole = analysed(sweep)["analysis"]
    for each in sweep["measurements"]:
        each["sample"]["noise"]["canary"] = None
    without = analysed(sweep)["analysis"]
    assert _group(whole, "load_real_s", "auto", "cold") == _group(without, "load_real_s", "auto", "cold")
    assert _group(whole, "load_real_s", "auto", "warm") != _group(without, "load_real_s", "auto", "warm")


def test_what_an_arm_does_to_memory_is_not_taken_for_the_hosts_doing() -> None:
    sample = as_sweep(analysed(_with_canaries(0.0))).measurements[0].sample
    assert canary(sample) == pytest.approx(math.log(0.02))
