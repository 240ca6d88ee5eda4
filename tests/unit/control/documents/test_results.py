"""What is removed of a host's stored results: never another's, never this run's; a clock ahead makes nothing newer."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analysis.documents.errors import DocumentError
from analysis.documents.results import parse_kept, prune
from tests.support import fleet_samples as samples

NOW = samples.NOW + timedelta(hours=1)
NEWEST = "20260320T120000Z.json"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_stay_and_everything_that_is_no_result(tmp_path: Path) -> None:
    samples.build(tmp_path, 2, 5)
    folder = tmp_path / "gpu-1"
    (folder / "sweep-20260101T000000Z.json").write_text("{}")
    (folder / "20260101.json").write_text("mine")
    assert prune(folder, "gpu-1", 0, NOW) == []
    assert len(prune(folder, "gpu-1", 3, NOW)) == 2
    assert len(names(folder)) == 5
    assert {NEWEST, "sweep-20260101T000000Z.json", "20260101.json"} <= set(names(folder))
    assert len(names(tmp_path / "gpu-2")) == 5


def test_a_result_of_a_clock_that_was_ahead_goes_before_the_one_just_measured(tmp_path: Path) -> None:
    samples.build(tmp_path, 1, 2)
    ahead = samples.store(tmp_path, samples.scaled(samples.golden("gpu"), "gpu-1", NOW + timedelta(days=400), 1))
    prune(tmp_path / "gpu-1", "gpu-1", 1, NOW, NEWEST.removesuffix(".json"))
    assert names(tmp_path / "gpu-1") == [NEWEST]
    assert not ahead.exists()


def test_the_run_that_was_just_stored_stays_whatever_the_others_are_called(tmp_path: Path) -> None:
    """Its own clock may be behind: a control node that was just booted."""
    samples.build(tmp_path, 1, 3)
    behind = samples.store(tmp_path, samples.scaled(samples.golden("gpu"), "gpu-1", NOW - timedelta(days=4000), 1))
    prune(tmp_path / "gpu-1", "gpu-1", 1, NOW, behind.stem)
    assert names(tmp_path / "gpu-1") == [behind.name]


@pytest.mark.parametrize(
    "foreign",
    [
        {"host": {"name": "another"}},
        {"kind": "sweep"},
        {"run_id": "20200101T000000Z-other"},
        {"finished_at": "yesterday"},
        {"started_at": None},
    ],
)
def test_what_is_not_this_hosts_own_result_stays(tmp_path: Path, foreign: dict[str, Any]) -> None:
    samples.build(tmp_path, 1, 3)
    folder = tmp_path / "gpu-1"
    oldest = folder / names(folder)[0]
    theirs = folder / "20200101T000000Z-abcdef.json"
    shutil.copy(oldest, theirs)
    document = {**json.loads(oldest.read_text()), "run_id": theirs.stem, **foreign}
    theirs.write_text(json.dumps(document))
    prune(folder, "gpu-1", 1, NOW)
    assert names(folder) == [theirs.name, NEWEST]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "baseline"}', "[" * 5000])
def test_what_cannot_be_read_stays(tmp_path: Path, text: str) -> None:
    samples.build(tmp_path, 1, 2)
    broken = tmp_path / "gpu-1/20200101T000000Z-abcdef.json"
    broken.write_text(text)
    prune(tmp_path / "gpu-1", "gpu-1", 1, NOW)
    assert names(tmp_path / "gpu-1") == [broken.name, NEWEST]


@pytest.mark.parametrize("value", [-1, "-1", "soon", 1.5, None, True, 10**7])
def test_a_number_that_is_none_is_refused_under_the_name_that_the_user_wrote(value: object) -> None:
    with pytest.raises(DocumentError, match=r"^report_keep_runs: wanted a whole number") as caught:
        parse_kept(value, "report_keep_runs")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("value", "number"), [(0, 0), ("7", 7), (50, 50)])
def test_numbers_are_taken_as_yaml_or_the_command_line_give_them(value: object, number: int) -> None:
    assert parse_kept(value, "report_keep_runs") == number


def test_a_folder_that_is_not_there_has_nothing_to_remove(tmp_path: Path) -> None:
    assert prune(tmp_path / "nowhere", "gpu-1", 1, datetime.now(UTC)) == []
