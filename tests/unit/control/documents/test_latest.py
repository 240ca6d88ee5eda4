"""Which stored document a report shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analysis.documents.errors import DocumentError
from analysis.documents.latest import choose

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def check(document: Any) -> None:
    if document["schema_version"] != 1:
        raise DocumentError("result document", wanted="1", found=document["schema_version"], why="W.", next_step="n.")


def store(folder: Path, run_id: str, finished_at: str = "2026-02-01T00:00:00Z", version: int = 1) -> Path:
    path = folder / f"{run_id}.json"
    path.write_text(json.dumps({"schema_version": version, "finished_at": finished_at}))
    return path


def test_a_run_is_found_by_its_id(tmp_path: Path) -> None:
    wanted = store(tmp_path, "20260101T000000Z-a")
    store(tmp_path, "20260201T000000Z-b")
    assert choose(tmp_path, "", check, NOW, "20260101T000000Z-a").path == wanted


def test_the_latest_run_of_a_model_passes_over_those_of_others(tmp_path: Path) -> None:
    for run_id, model in (("20260101T000000Z-a", "tiny"), ("20260201T000000Z-b", "other"), ("20260202T000000Z-c", "")):
        document = {"schema_version": 1, "finished_at": "2026-02-01T00:00:00Z"}
        named = {"model": {"id": model, "path": f"/models/{model}"}} if model else {}
        (tmp_path / f"{run_id}.json").write_text(json.dumps({**document, **named}))
    for name in ("tiny", "/models/tiny"):
        found = choose(tmp_path, "", check, NOW, model=name)
        assert found.path == tmp_path / "20260101T000000Z-a.json"
        assert found.left_out == ()
    assert choose(tmp_path, "", check, NOW, model="a third one").path is None


def test_a_run_whose_own_file_cannot_be_used_shows_no_other(tmp_path: Path) -> None:
    store(tmp_path, "20260101T000000Z-a")
    found = choose(tmp_path, "", check, NOW, "20260201T000000Z-b")
    assert found.path is None
    assert found.left_out == (f"{tmp_path}/20260201T000000Z-b.json cannot be read: No such file or directory",)


def test_a_clock_that_was_ahead_stands_behind_every_other_run(tmp_path: Path) -> None:
    ahead = store(tmp_path, "20990101T000000Z", "2099-01-01T00:00:00Z")
    assert choose(tmp_path, "", check, NOW).path == ahead
    wanted = store(tmp_path, "20260101T000000Z")
    found = choose(tmp_path, "", check, NOW)
    assert found.path == wanted
    assert "clock was ahead" in found.left_out[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"finished_at": 3, "schema_version": 1}', "[" * 100_000])
def test_a_file_that_is_no_document_is_named_and_left_out(tmp_path: Path, text: str) -> None:
    odd = tmp_path / "20260201T000000Z.json"
    odd.write_text(text)
    wanted = store(tmp_path, "20260101T000000Z")
    found = choose(tmp_path, "", check, NOW)
    assert found.path == wanted
    assert str(odd) in found.left_out[0]


def test_bytes_that_are_no_text_and_another_schema_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "20260203T000000Z.json").write_bytes(b"\xff\xfe")
    store(tmp_path, "20260202T000000Z", version=2)
    wanted = store(tmp_path, "20260101T000000Z")
    found = choose(tmp_path, "", check, NOW)
    assert found.path == wanted
    assert len(found.left_out) == 2


def test_sweeps_and_results_share_a_folder(tmp_path: Path) -> None:
    result, sweep = store(tmp_path, "20260101T000000Z"), store(tmp_path, "sweep-20260201T000000Z")
    assert choose(tmp_path, "", check, NOW).path == result
    assert choose(tmp_path, "sweep-", check, NOW).path == sweep
    assert choose(tmp_path / "nowhere", "", check, NOW).path is None
