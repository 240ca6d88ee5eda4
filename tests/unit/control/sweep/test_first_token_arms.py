"""Arms of the first token: what is asked first of them, whether they do harm, and what the report makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.documents.decode import typed
from analysis.sweep.advice import first_token_vars
from analysis.sweep.comparison import analyse
from analysis.sweep.document import analysed
from analysis.sweep.no_harm import harm_words
from analysis.sweep.report import sweep_report
from analysis.sweep.sweep import AnalysedSweep, StartAid, Sweep
from tests.support.sweep_samples import ARMS, document

REPLAYS = {"bytecode": (True, "none"), "replay-together": (False, "together"), "replay-ahead": (False, "ahead")}
STARTS: list[dict[str, Any]] = [
    {"name": name, "about": "", "settings": {}, "env": {}, "first_token": {"bytecode": bytecode, "replay": replay}}
    for name, (bytecode, replay) in REPLAYS.items()
]
IMPORTS = ("import_torch", "import_transformers")
TIMES = ("time_to_first_token_s", "weights_to_first_token_s")


def measured(arms: list[dict[str, Any]], imports: dict[tuple[str, str], float], **more: Any) -> dict[str, Any]:
    """A sweep of these arms beside both stocks; `imports` maps (arm, kind) to a factor on the imports alone."""
    found = document(arms=[*ARMS[:2], *arms], **more)
    for each in found["measurements"]:
        sample = each["sample"]
        factor = imports.get((each["arm"], sample["wanted"]), 1.0)
        before = sum(phase["seconds"] for phase in sample["phases"])
        for phase in sample["phases"]:
            phase["seconds"] *= factor if phase["name"] in IMPORTS else 1.0
        moved = sum(phase["seconds"] for phase in sample["phases"]) - before
        sample["time_to_first_token_s"] += moved
        sample["load_real_s"] += moved
        start = next(arm.get("first_token") for arm in found["arms"] if arm["name"] == each["arm"])
        if start and start["replay"] != "none":
            read = {"read_bytes": 100 << 20, "weights_read_bytes": 64 << 20} if sample["wanted"] == "cold" else {}
            sample["replay"] = {
                "when": start["replay"],
                "read_bytes": 0,
                "weights_read_bytes": 0,
                "weights_bytes": 64 << 20,
                "cpu_s": 0.25,
                "first_request_s": 0.04,
                "ended_s": 0.5,
                **read,
            }
    return found


def swept(arms: list[dict[str, Any]], imports: dict[tuple[str, str], float], **more: Any) -> AnalysedSweep:
    return typed(AnalysedSweep, analysed(measured(arms, imports, **more)))


def verdicts(sweep: AnalysedSweep, metric: str, kind: str) -> dict[str, str]:
    return {result.arm: result.verdict for result in sweep.analysis.group(metric, "auto", kind).arms}


def test_an_effect_on_the_imports_alone_is_claimed_at_the_first_level() -> None:
    """In this sweep the whole level claims a twentieth off the start, and a quarter of the level does not."""
    settings = [{name: value for name, value in arm.items() if name != "first_token"} for arm in STARTS]
    told = []
    for arms in (STARTS, settings):
        sweep = typed(Sweep, measured(arms, {("bytecode", "cold"): 0.91}, noise=0.02, seed=5))
        groups = [analyse(sweep).group(metric, "auto", "cold") for metric in TIMES]
        told.append([group.arms[0].verdict for group in groups])
    assert told == [["less", "none"], ["none", "none"]]


def test_the_two_questions_stay_apart_where_a_sweep_asks_both() -> None:
    sweep = swept([*ARMS[2:4], *STARTS], {("replay-ahead", "cold"): 0.5}, effects={("never", "auto", "cold"): 1.3})
    assert verdicts(sweep, "time_to_first_token_s", "cold") == {
        "always": "none",
        "never": "more",
        "bytecode": "none",
        "replay-together": "none",
        "replay-ahead": "less",
    }
    assert verdicts(sweep, "weights_to_first_token_s", "cold")["never"] == "more"
    assert sweep_report(sweep).startswith("# What huge pages, bytecode and replay do to loading tiny on gpu-1")
    assert "time to first token for arms that act on the whole start" in sweep.analysis.rule.family


@pytest.mark.parametrize(
    ("factor", "noise", "word"),
    [
        (1.0, 0.001, "holds: a warm start is "),
        (1.3, 0.001, "**does not hold**"),
        (1.0, 0.05, "is not shown either way"),
    ],
)
def test_the_report_says_whether_a_warm_start_is_harmed(factor: float, noise: float, word: str) -> None:
    sweep = swept(STARTS, {("replay-together", "warm"): factor}, noise=noise)
    assert word in harm_words(sweep.analysis, sweep.arms[3], "auto")
    section = sweep_report(sweep).split("## Does a replay harm a warm start?")[1].split("\n## ")[0]
    assert f"`replay-together`, as stored: {word}" in section
    assert "`bytecode`" not in section
    row = next(line for line in section.splitlines() if line.startswith("| `replay-together` | cold"))
    assert [cell.strip() for cell in row.split("|")[3:7]] == ["40.0 ms", "500 ms", "100 MiB", "250 ms"]


def test_a_slowing_is_harm_from_one_per_cent_on() -> None:
    """Between 0 and 1 % is no harm, and a slowing that is sure but small is not called one."""
    held = swept(STARTS, {("replay-together", "warm"): 1.005}, noise=0.0005)
    assert "holds: a warm start is 0." in harm_words(held.analysis, held.arms[3], "auto")
    broken = swept(STARTS, {("replay-together", "warm"): 1.06}, noise=0.0005)
    assert "does not hold" in harm_words(broken.analysis, broken.arms[3], "auto")


def test_too_few_blocks_say_nothing_of_harm() -> None:
    sweep = swept(STARTS, {}, blocks=2)
    assert harm_words(sweep.analysis, sweep.arms[3], "auto") == "cannot be said: too few blocks to say"


def test_the_advice_is_the_variable_that_does_it() -> None:
    sweep = swept(STARTS, {("replay-ahead", "cold"): 0.5, ("replay-together", "cold"): 0.8})
    advice = sweep_report(sweep).split("## What to do with it")[1]
    assert "first_token_targets:\n  - {name: slm_load, bytecode: false, kernels: false, replay: ahead}" in advice
    assert "ansible-playbook first_token.yml -l HOST" in advice
    assert sweep.analysis.advice[0].changes == 1
    assert sweep_report(sweep).startswith("# What bytecode and replay do to the first token of tiny on gpu-1")


def test_a_replay_that_slows_a_warm_start_is_never_advised() -> None:
    sweep = swept(STARTS, {("replay-ahead", "cold"): 0.5, ("replay-ahead", "warm"): 1.3})
    assert sweep.analysis.advice[0].arm is None
    assert "supports no change that was tried" in sweep_report(sweep)


def test_the_variables_are_those_of_the_role() -> None:
    assert first_token_vars(StartAid(True, "none")) == (
        "first_token_targets:\n  - {name: slm_load, bytecode: true, kernels: false, replay: none}"
    )
