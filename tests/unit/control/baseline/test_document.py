"""The result document: assembly, schema, folder names."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import statistics
from analysis.baseline.document import check_result, result_document
from analysis.documents.decode import typed
from analysis.documents.errors import DocumentError
from analysis.documents.samples import Sample
from analysis.documents.storage import as_json, folder_name

GOLDEN = Path(__file__).resolve().parents[3] / "golden/results"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return document


def assemble(golden: dict[str, Any], **changed: Any) -> dict[str, Any]:
    tuning = golden["tuning"]
    memory = {
        "memory": {
            "values": tuning["runtime"],
            "persisted": {"thp.enabled": {"value": "madvise", "source": "/etc/tmpfiles.d/slm-baseline-thp.conf:2"}},
            "pools": tuning["pools"],
            "pool_users": [],
            "mounts": tuning["mounts"],
            "unfinished_sweep": True,
        },
        "desired": tuning["desired"],
        "rows": tuning["rows"],
        "competitors": [{"detail": "TuneD's profile sets thp.enabled"}],
    }
    benchmark = {key: golden[key] for key in ("model", "software", "protocol", "ceiling", "samples")}
    pieces: dict[str, Any] = {
        "name": "node-a",
        "run": {
            "run_id": "20260314T092000Z-ab12cd",
            "started_at": "2026-03-14T09:20:00Z",
            "finished_at": "2026-03-14T09:21:00Z",
        },
        "memory": memory,
        "before": tuning["before"],
    }
    host = {key: value for key, value in golden["host"].items() if key != "name"}
    return result_document({**benchmark, "host": host, **changed}, **pieces)


@pytest.mark.parametrize("name", NAMES)
def test_stored_results_satisfy_the_schema_and_their_summary_follows_from_their_samples(name: str) -> None:
    stored = load(name)
    check_result(stored)
    assert stored["summary"] == statistics.summarise(typed(Sample, sample) for sample in stored["samples"]).to_json()


def test_a_document_is_assembled_from_what_a_run_registered() -> None:
    golden = load("cpu")
    made = assemble(golden)
    assert made["host"] == golden["host"]
    assert made["tuning"]["persisted"] == {"thp.enabled": "madvise"}
    assert made["tuning"]["before"] == golden["tuning"]["before"]
    assert made["tuning"]["notes"][0] == "TuneD's profile sets thp.enabled"
    assert "sweep" in made["tuning"]["notes"][1]
    assert made["summary"] == golden["summary"]


def test_bad_samples_are_one_readable_error_before_any_figure_is_made() -> None:
    golden = load("cpu")
    golden["samples"][2]["kind"] = "tepid"
    with pytest.raises(DocumentError, match=r"found 'tepid' is not one of .* at \$\.samples\[2\]\.kind"):
        assemble(golden)


def test_nan_has_no_place_in_a_document() -> None:
    golden = load("cpu")
    golden["samples"][0]["load_real_s"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        assemble(golden)


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(target: Any) -> None:
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (_set("schema_version", value=2), "schema_version"),
        (_set("run_id", value="../../etc/cron.d/x"), "run_id"),
        (_set("started_at", value="yesterday"), "started_at"),
        (_set("surprise", value=1), "surprise"),
        (_set("host", "memory_bytes", value="32 GiB"), "host.memory_bytes"),
        (_set("model", "source", value="nowhere"), "model.source"),
        (_set("protocol", "cold_scope", value="all"), "protocol.cold_scope"),
        (_set("tuning", "before", "thp.enabled", value=True), "tuning.before"),
        (_set("tuning", "rows", 0, "verdict", value="fine"), "tuning.rows"),
        (_set("tuning", "pools", 0, "free", value=-1), "tuning.pools"),
        (_set("ceiling", "bytes_per_s", value=[None]), "ceiling"),
        (_set("samples", 0, "load_real_s", value=None), "samples"),
        (_set("samples", 0, "reason", value="cold, and yet a reason"), "samples"),
        (_set("samples", 0, "wanted", value="warm"), "samples"),
        (_set("samples", 0, "kind", value="lukewarm"), "samples"),
        (_set("samples", 0, "rss_bytes", value=1.5), "samples"),
        (_set("samples", 0, "phases", 0, "name", value="<b>"), "samples"),
        (_set("summary", "hot_load_real_s", value=None), "hot_load_real_s"),
        (_set("summary", "cold_load_real_s", "n", value=-1), "summary.cold_load_real_s"),
    ],
)
def test_the_schema_refuses(spoil: Callable[[dict[str, Any]], None], place: str) -> None:
    broken = copy.deepcopy(load("cpu"))
    spoil(broken)
    with pytest.raises(DocumentError) as refused:
        check_result(broken)
    assert place in refused.value.found


def test_a_failed_sample_may_have_measured_nothing_but_needs_a_reason() -> None:
    troubled = load("troubled")
    failed = next(sample for sample in troubled["samples"] if sample["kind"] == "failed")
    assert failed["load_real_s"] is None
    failed["reason"] = None
    with pytest.raises(DocumentError, match="reason"):
        check_result(troubled)


def test_folder_names_of_ordinary_hosts_are_the_hosts_names() -> None:
    assert folder_name("gpu-07.example.org") == "gpu-07.example.org"
    assert folder_name("10.0.0.7") == "10.0.0.7"


@pytest.mark.parametrize("host", ["..", ".hidden", "", "a/b", "../../etc", "a\0b", "-rf", "x" * 300, "gpü", "\udc80"])
def test_folder_names_of_odd_hosts_are_harmless_and_their_own(host: str) -> None:
    made = folder_name(host)
    assert made != host
    assert made == folder_name(host)
    assert made[0].isalnum()
    assert len(made) < 100


@settings(deadline=None)
@given(st.text(), st.text())
def test_folder_names_are_plain_and_distinct(one: str, other: str) -> None:
    made = folder_name(one)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert made not in ("", ".", "..")
    assert (made == folder_name(other)) == (one == other)


def test_json_keeps_the_documents_order_and_letters() -> None:
    assert as_json({"b": "ü", "a": 1}) == '{\n  "b": "ü",\n  "a": 1\n}\n'
