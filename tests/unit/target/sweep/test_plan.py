"""A sweep's plan and its finished blocks, and what resuming makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import SWEEP_PLAN
from ansible.module_utils.slm_baseline.measuring.sample import Sample
from ansible.module_utils.slm_baseline.sweep.design import Cell
from ansible.module_utils.slm_baseline.sweep.plan import (
    Plan,
    attempts,
    finished_attempts,
    load_plan,
    progress,
    require_same,
    save_plan,
)
from ansible.module_utils.slm_baseline.sweep.sample import Position, SweepSample

CELLS = [Cell("stock", "auto"), Cell("stock-again", "auto")]
WANTED_PLAN = Plan(
    run_id="20260101T000000Z",
    seed=7,
    started_at="2026-01-01T00:00:00Z",
    asked=[{"name": "stock", "about": "", "settings": {}, "env": {}}],
    arms=[{"name": "stock", "about": "", "settings": {}, "env": {}}],
    left_out=[],
    dtypes=["auto"],
    stock={"thp.enabled": "madvise"},
    subject={"model": "tiny"},
)
PLAN_OF_TWO = replace(WANTED_PLAN, arms=[{**WANTED_PLAN.arms[0], "name": cell.arm} for cell in CELLS])


def _sample(block: int, attempt: int, arm: str, wanted: str, elapsed_s: float = 1.0, kind: str = "") -> SweepSample:
    sample = Sample(block, wanted, kind or wanted, None, "", arm=arm, load_real_s=2.0, time_to_first_token_s=3.0)
    return SweepSample(sample, Position("auto", attempt, elapsed_s))


def _block(block: int, attempt: int, seconds: float = 4.0) -> list[SweepSample]:
    return [
        _sample(block, attempt, cell.arm, wanted, seconds * (index + 1) / 4)
        for index, (cell, wanted) in enumerate((cell, wanted) for cell in CELLS for wanted in ("cold", "warm"))
    ]


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert load_plan(host) is None
    save_plan(host, WANTED_PLAN)
    assert load_plan(host) == WANTED_PLAN


@pytest.mark.parametrize("drawn", [[], {"x": {}}, {"1": {"measurement": "full"}}, {"1": {"cells": [["stock"]]}}])
def test_a_damaged_draw_is_one_readable_error(tmp_path: Path, drawn: Any) -> None:
    host = Host(tmp_path)
    save_plan(host, WANTED_PLAN)
    host.path(SWEEP_PLAN).write_text(json.dumps({**json.loads(host.read(SWEEP_PLAN)), "drawn": drawn}))
    with pytest.raises(SettingError, match="sweep_new=true"):
        load_plan(host)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id": "x"}', "[" * 100_000])
def test_a_damaged_plan_is_one_readable_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / SWEEP_PLAN[1:]
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(SettingError, match="sweep_new=true"):
        load_plan(Host(tmp_path))


def test_a_plan_of_an_older_form_is_no_damage(tmp_path: Path) -> None:
    host = Host(tmp_path)
    save_plan(host, WANTED_PLAN)
    stored = json.loads(host.read(SWEEP_PLAN))
    del stored["asked"]
    host.path(SWEEP_PLAN).write_text(json.dumps(stored))
    found = load_plan(host)
    assert found is not None
    assert found.asked == []


@pytest.mark.parametrize(
    ("name", "value"), [("asked", []), ("dtypes", ["float32"]), ("stock", {}), ("subject", {"model": "other"})]
)
def test_an_unfinished_sweep_that_asks_something_else_is_refused(name: str, value: Any) -> None:
    require_same(WANTED_PLAN, **{name: getattr(WANTED_PLAN, name)})
    with pytest.raises(SettingError, match="sweep_new=true"):
        require_same(WANTED_PLAN, **{name: value})


def test_a_block_is_finished_when_one_attempt_has_every_sample() -> None:
    half = _block(2, 1)[:3]
    samples = [*_block(1, 1), *half]
    assert finished_attempts(samples, PLAN_OF_TWO) == {1: 1}
    assert attempts(samples, 2) == 1
    # Halves of two attempts do not make a whole: the host was not in one stretch of time.
    assert finished_attempts([*samples, _block(2, 2)[3]], PLAN_OF_TWO) == {1: 1}
    assert finished_attempts([*samples, *_block(2, 2)], PLAN_OF_TWO) == {1: 1, 2: 2}


def test_a_failed_sample_does_not_make_its_block_repeat_for_ever() -> None:
    samples = [*_block(1, 1)[:3], _sample(1, 1, "stock-again", "warm", kind="failed")]
    assert finished_attempts(samples, PLAN_OF_TWO) == {1: 1}
    assert len(progress(samples, PLAN_OF_TWO)["times"]) == 3


def test_progress_counts_finished_attempts_alone() -> None:
    found = progress([*_block(1, 1, 10.0), *_block(2, 1)[:2], *_block(2, 2, 30.0)], PLAN_OF_TWO)
    assert (found["done"], found["next_block"], found["spent_s"]) == (2, 3, 40.0)
    assert len(found["times"]) == 8
    assert found["cells"] == [["stock", "auto"], ["stock-again", "auto"]]
    assert found["cell_s"] == {"full": 10.0}
    assert found["noise"] == {"samples": 8, "noisy": 0, "slowdown": None, "worst_slowdown": None}
    empty = progress([], PLAN_OF_TWO)
    assert (empty["done"], empty["next_block"], empty["spent_s"], empty["times"]) == (0, 1, 0, [])


def test_a_block_is_finished_by_what_was_drawn_for_it() -> None:
    drawn = {"1": {"measurement": "weights", "cells": [["stock", "auto"]]}}
    plan = replace(PLAN_OF_TWO, weights_pairs=2, drawn=drawn)
    pair = [
        replace(each, position=replace(each.position, measurement="weights"))
        for each in _block(1, 1)
        if each.sample.arm == "stock"
    ]
    assert finished_attempts(pair, plan) == {}
    assert finished_attempts([*pair, *pair[:1]], plan) == {}
    assert finished_attempts([*pair, *pair], plan) == {1: 1}
    # Whole loads of the same cells are another measurement.
    assert finished_attempts([*_block(1, 1), *_block(1, 1)], plan) == {}
    assert progress([*pair, *pair], plan)["cell_s"] == {"weights": 2.0}
