"""Verdicts: each rule at its threshold, and the page of the protocol that lists them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.measuring.loader.replay import ReplayRecord, replay_record
from ansible.module_utils.slm_baseline.measuring.verdict import RULES, Evidence, verdict_of
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY

GB = 1_000_000_000
FILES = frozenset({"/m/model.safetensors"})
COLD = Evidence(GB, 0, GB, GB, GB, checked=FILES, loaded=FILES)
WARM = Evidence(GB, GB, GB, 0, 0, checked=FILES, loaded=FILES)
SEEN = {"cold": COLD, "warm": WARM}


@pytest.mark.parametrize(
    ("wanted", "change", "why"),
    [
        ("cold", {}, None),
        ("cold", {"resident_before_bytes": GB // 100 - 1}, None),
        ("cold", {"resident_before_bytes": GB // 100}, "1.0% of the model was resident before"),
        ("cold", {"app_resident": 0.0099}, None),
        ("cold", {"app_resident": 0.01}, "1.0% of the libraries stayed resident: other processes use them"),
        ("cold", {"weights_read_bytes": GB * 95 // 100}, None),
        (
            "cold",
            {"weights_read_bytes": GB * 94 // 100},
            "the loader read only 94.0% of what came into the page cache: others read the rest",
        ),
        # A lazy mapping: the first token needed 38 % of the weights, and the loader read them.
        ("cold", {"resident_bytes": GB * 38 // 100, "weights_read_bytes": GB * 38 // 100}, None),
        ("cold", {"resident_bytes": GB * 38 // 100, "weights_read_bytes": GB * 36 // 100}, "read only 94.7%"),
        ("cold", {"resident_bytes": GB // 100, "weights_read_bytes": GB // 100}, None),
        ("cold", {"resident_bytes": GB // 100 - 1}, "only 1.0% of the model came into the page cache"),
        ("cold", {"resident_before_bytes": 5_000_000, "resident_bytes": 4_000_000}, "only 0.0% of the model came"),
        ("cold", {"read_bytes": None}, "the kernel does not tell what the loader read"),
        ("cold", {"weights_read_bytes": None}, "the kernel does not tell what the loader read"),
        ("warm", {}, None),
        ("warm", {"resident_before_bytes": GB * 99 // 100}, None),
        ("warm", {"resident_before_bytes": GB * 99 // 100 - 1}, "only 99.0% of the model was resident before"),
        ("warm", {"read_bytes": GB // 100 - 1}, None),
        ("warm", {"read_bytes": GB // 100}, "9.5 MiB were read from disk during the run"),
        ("warm", {"read_bytes": None}, "the kernel does not tell what the loader read"),
    ],
)
def test_each_rule_at_its_threshold(wanted: str, change: dict[str, Any], why: str | None) -> None:
    verdict = verdict_of(wanted, replace(SEEN[wanted], **change))
    assert verdict.kind == (wanted if why is None else "lukewarm")
    assert verdict.reason is None if why is None else why in (verdict.reason or "")


@pytest.mark.parametrize("wanted", ["cold", "warm"])
def test_other_files_than_those_checked_are_no_sample_of_the_model(wanted: str) -> None:
    decoy = frozenset({"/m/decoy.safetensors"})
    for loaded, why in (
        (frozenset(), "the loader named no weight file that it opened: what was loaded is not known"),
        (decoy, "the loader opened '/m/decoy.safetensors': what was loaded is not what was checked"),
        (FILES | decoy | {"/m/z"}, "the loader opened '/m/decoy.safetensors' and 1 more: what was loaded"),
    ):
        verdict = verdict_of(wanted, replace(SEEN[wanted], loaded=loaded))
        assert verdict.kind == "lukewarm"
        assert why in (verdict.reason or "")
    other = replace(SEEN[wanted], checked=FILES | {"/m/second.safetensors"})
    assert "never opened '/m/second.safetensors'" in (verdict_of(wanted, other).reason or "")


def test_a_path_in_a_reason_is_plain_and_short() -> None:
    reason = verdict_of("warm", replace(WARM, loaded=frozenset({"/\x1b[31m" + "x" * 5000}))).reason or ""
    assert reason.isprintable()
    assert len(reason) < 300


def test_a_tiny_models_stray_read_is_still_warm() -> None:
    tiny = replace(WARM, weight_bytes=500_000, resident_before_bytes=500_000)
    assert verdict_of("warm", replace(tiny, read_bytes=(8 << 20) - 1)).kind == "warm"
    assert verdict_of("warm", replace(tiny, read_bytes=8 << 20)).kind == "lukewarm"


def test_what_a_replay_read_counts_where_the_loader_found_it_in_memory() -> None:
    loader = replace(COLD, read_bytes=GB // 100, weights_read_bytes=GB // 100)
    assert verdict_of("cold", loader).kind == "lukewarm"
    replay = ReplayRecord("ahead", 2 * GB, GB * 94 // 100, GB, 0.1)
    assert verdict_of("cold", loader.with_replay(replay)).kind == "cold"
    # What it read of the imports is not the model, however much that was.
    short = replace(replay, weights_read_bytes=GB * 93 // 100)
    assert "read only 94.0%" in (verdict_of("cold", loader.with_replay(short)).reason or "")
    # A plan has a small model's files among the imports.
    small = replace(short, weights_bytes=0, weights_read_bytes=0)
    assert verdict_of("cold", loader.with_replay(small)).kind == "cold"
    assert verdict_of("cold", loader.with_replay(replace(small, read_bytes=GB // 2))).kind == "lukewarm"
    assert loader.with_replay(None) == loader


@pytest.mark.parametrize(
    ("planned", "counted"), [(GB * 95 // 100, GB // 5), (GB * 95 // 100 - 1, GB // 2), (1, GB // 2)]
)
def test_a_plan_that_has_the_model_apart_counts_what_it_read_of_it(planned: int, counted: int) -> None:
    replay = ReplayRecord("ahead", GB // 2, GB // 5, planned, 0.1)
    loader = replace(SEEN["cold"], weight_bytes=GB, weights_read_bytes=0)
    assert loader.with_replay(replay).weights_read_bytes == counted


def test_a_replay_that_reads_makes_a_warm_start_lukewarm() -> None:
    quiet = ReplayRecord("together", 1 << 20, 0, GB, 0.1)
    assert verdict_of("warm", WARM.with_replay(quiet)).kind == "warm"
    assert verdict_of("warm", WARM.with_replay(replace(quiet, read_bytes=GB // 100))).kind == "lukewarm"


@pytest.mark.parametrize("wanted", ["cold", "warm"])
def test_another_replay_than_the_one_planned_is_told(wanted: str) -> None:
    replay = replay_record("ahead", f"imports_s=0.1 weights_bytes={GB} weights_read_bytes={GB} stale=2", GB, 0.1)
    assert verdict_of(wanted, SEEN[wanted].with_replay(replay)).reason == (
        "the replay was not the one planned: 2 files of the plan have changed since it was recorded"
    )


def test_how_much_of_the_weights_the_first_token_needed() -> None:
    assert replace(COLD, resident_bytes=GB * 385 // 1000).needed_share == pytest.approx(0.385)
    assert replace(COLD, resident_before_bytes=GB // 200, resident_bytes=GB).needed_share == pytest.approx(0.995)
    assert WARM.needed_share == 0.0


@given(st.integers(0, GB // 100 - 1), st.integers(GB // 50, GB), st.integers(0, GB))
def test_a_cold_verdict_never_rests_on_what_others_read(before: int, after: int, read: int) -> None:
    seen = replace(COLD, resident_before_bytes=before, resident_bytes=after, weights_read_bytes=read)
    assert (verdict_of("cold", seen).kind == "cold") == (read >= 0.95 * (after - before))


def test_the_page_of_the_protocol_lists_every_rule_with_its_threshold() -> None:
    page = (REPOSITORY / "docs/measuring.md").read_text()
    for kind, rules in RULES.items():
        for rule in rules:
            share = "-" if rule.threshold is None else f"{rule.threshold:.0%}".replace("%", " %")
            assert f"| {kind} | {rule.name} | {share} |" in page, (kind, rule.name)
