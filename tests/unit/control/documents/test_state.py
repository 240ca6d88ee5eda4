"""The latest word on a host: stored, read back, and on the report of an earlier measurement."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analysis.baseline.report import host_report
from analysis.documents.state import FILE, State, read_state, write_state
from analysis.fleet.fleet import fleet
from analysis.fleet.metrics import metrics
from analysis.fleet.stored import read
from tests.support import fleet_samples as samples

ROW = {
    "knob": "thp.enabled",
    "desired": "madvise",
    "runtime": "madvise",
    "persisted": "madvise",
    "boot": None,
    "source": None,
    "verdict": "clean",
    "detail": None,
}


def test_a_word_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_state(tmp_path, "gpu-1", "tuned", "20260320T120000Z-ab12cd", samples.NOW, [ROW])
    assert read_state(tmp_path) == State("tuned", "20260320T120000Z-ab12cd", samples.NOW, (ROW,))
    write_state(tmp_path, "gpu-1", "restored", "20260320T130000Z-ab12cd", samples.NOW)
    assert read_state(tmp_path) == State("restored", "20260320T130000Z-ab12cd", samples.NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"kind": "gone", "finished_at": "2026-03-20T12:00:00Z", "run_id": "x"}',
        '{"kind": "tuning", "finished_at": "2026-03-20T12:00:00", "run_id": "x"}',
        '{"kind": "tuning", "finished_at": 7, "run_id": "x"}',
        '{"kind": "tuning", "finished_at": "2026-03-20T12:00:00Z", "run_id": "x", "rows": [7]}',
    ],
)
def test_a_word_of_another_form_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_state(tmp_path) is None


def test_the_report_of_an_earlier_measurement_begins_with_what_happened_since() -> None:
    document = samples.golden("gpu")
    ended = datetime.fromisoformat(document["finished_at"]).astimezone(UTC)
    later, before = ended + timedelta(hours=1), ended - timedelta(seconds=1)
    plain = host_report(document)
    restored = host_report(document, State("restored", "20260320T130000Z-ab12cd", later))
    assert "**Rolled back since:**" in restored.partition("## Next")[0]
    assert "[what](rollback.md)" in restored
    assert "**Tuned since:**" in host_report(document, State("tuned", "20260320T130000Z-ab12cd", later))
    assert host_report(document, State("restored", "x", before)) == plain
    assert "Rolled back" not in plain


def test_the_page_of_the_fleet_takes_it_for_a_document_of_the_host(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    write_state(tmp_path / "results/gpu-1", "gpu-1", "restored", "20260320T130000Z-ab12cd", samples.NOW)
    stored = read(tmp_path / "results", tmp_path / "audit.json", 5)
    assert stored.left_out == []
    assert [each.kind for each in stored.documents["gpu-1"]] == ["rollback"]


def test_after_a_rollback_the_fleet_does_not_call_the_host_clean(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 2)
    inventory, later = {"gpu-1": ["rack"]}, samples.NOW + timedelta(hours=1)

    def host_and_metrics() -> tuple[str, str]:
        found = fleet(read(tmp_path / "results", tmp_path / "audit.json", 5), inventory, later, timedelta(days=30))
        return found.hosts[0].status, metrics(found)

    status, text = host_and_metrics()
    assert (status, "slm_baseline_rollback_timestamp_seconds{" in text) == ("clean", False)
    write_state(tmp_path / "results/gpu-1", "gpu-1", "restored", "20260320T130000Z-ab12cd", later)
    status, text = host_and_metrics()
    assert status == "unknown"
    assert f'slm_baseline_rollback_timestamp_seconds{{host="gpu-1"}} {int(later.timestamp())}' in text
    # Tuned again since.
    write_state(tmp_path / "results/gpu-1", "gpu-1", "tuned", "20260320T140000Z-ab12cd", later, [ROW])
    assert host_and_metrics()[0] == "clean"


def test_a_run_of_a_clock_that_was_ahead_is_not_the_latest(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 2)
    ahead = samples.scaled(samples.golden("gpu"), "gpu-1", samples.NOW + timedelta(days=300), 1)
    samples.store(tmp_path / "results", ahead)
    found = fleet(read(tmp_path / "results", tmp_path / "audit.json", 5), {}, samples.NOW, timedelta(days=30))
    latest = found.hosts[0].latest
    assert latest is not None
    assert latest.started_at == samples.NOW
    assert len(found.hosts[0].runs) == 3


def test_every_field_is_in_its_schema(tmp_path: Path) -> None:
    write_state(tmp_path, "gpu-1", "tuned", "20260320T120000Z-ab12cd", samples.NOW, [ROW])
    stored = json.loads((tmp_path / FILE).read_text())
    schema = json.loads((Path(__file__).parents[4] / "plugins/schemas/state.schema.json").read_text())
    assert sorted(stored) == sorted(schema["properties"])
