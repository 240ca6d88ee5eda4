"""A fleet put together from stored files: statuses, majorities, odd ones, and files that nobody can read."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analysis.baseline.floor import GAP_RATIO
from analysis.documents.schema import validate
from analysis.documents.state import write_state
from analysis.fleet.fleet import Fleet, fleet
from analysis.fleet.metrics import metrics
from analysis.fleet.page import Links, data
from analysis.fleet.run import LEAST_GAP_RATIO
from analysis.fleet.stored import read
from tests.support import fleet_samples as samples
from tests.support.fleet_samples import NOW

STALE = timedelta(days=30)


def gather(folder: Path, inventory: dict[str, list[str]] | None = None, newest: int = 20) -> Fleet:
    return fleet(read(folder / "results", folder / "audit.json", newest), inventory or {}, NOW, STALE)


def test_an_empty_folder_is_an_empty_fleet(tmp_path: Path) -> None:
    found = gather(tmp_path)
    assert (found.hosts, found.left_out) == ((), ())
    assert found.overview()["hosts"] == 0


def test_every_golden_result_is_read(tmp_path: Path) -> None:
    for path in samples.GOLDEN.glob("*.json"):
        samples.store(tmp_path / "results", json.loads(path.read_text()))
    found = gather(tmp_path)
    assert found.left_out == ()
    assert len(found.hosts) == len(
        {json.loads(path.read_text())["host"]["name"] for path in samples.GOLDEN.glob("*.json")}
    )


def test_real_examples_are_read(tmp_path: Path) -> None:
    examples = samples.GOLDEN.parents[2] / "docs/examples"
    for path in examples.glob("*/*.json"):
        document = json.loads(path.read_text())
        name = f"sweep-{document['run_id']}" if document["kind"] == "sweep" else document["run_id"]
        (tmp_path / "results/host").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"results/host/{name}.json").write_text(path.read_text())
    found = gather(tmp_path)
    assert found.left_out == ()
    assert sum(len(host.documents) for host in found.hosts) == len(list(examples.glob("*/sweep.json")))
    assert all(host.documents[0].words for host in found.hosts if host.documents)


def test_overview_statuses_and_the_newer_word_wins(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 4, 2)
    old = samples.scaled(samples.golden("gpu"), "old", NOW - timedelta(days=31), 1)
    samples.store(tmp_path / "results", old)
    statuses = {"gpu-1": "clean", "gpu-2": "drift", "gpu-3": "unreachable", "lost": "error"}
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit(statuses)))
    found = gather(tmp_path, {"gpu-1": ["rack-1"], "new": []})
    assert {host.name: host.status for host in found.hosts} == {
        "gpu-1": "clean",
        "gpu-2": "drift",
        "gpu-3": "unreachable",
        "gpu-4": "clean",
        "lost": "error",
        "new": "unknown",
        "old": "clean",
    }
    assert found.overview() == {
        "hosts": 7, "clean": 3, "drift": 1, "unreachable": 1, "error": 1, "unknown": 1,
        "measured": 4, "stale": 1, "failed": 0, "never": 2,
    }  # fmt: skip
    assert [host.in_inventory for host in found.hosts].count(True) == 2
    (knob,) = (each for each in found.settings if each.knob == "thp.enabled")
    assert [(value, len(hosts)) for value, hosts in knob.values] == [("madvise", 4), ("always", 1)]
    assert knob.majority


def test_an_older_audit_does_not_outlive_a_newer_run(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"gpu-1": "drift"}, NOW - timedelta(days=1))))
    assert gather(tmp_path).hosts[0].status == "clean"


def test_the_odd_one_is_named_with_what_differs(tmp_path: Path) -> None:
    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if host == 3:
            document["host"]["kernel"] = "5.10.0"
            document["summary"] = {
                key: samples.times(figure, 3) if key == "cold_phase_weights_s" else figure
                for key, figure in document["summary"].items()
            }
        return 1.3 if host == 3 else 1.0

    samples.build(tmp_path / "results", 8, 1, change)
    (outlier,) = gather(tmp_path).outliers
    assert outlier.host == "gpu-4"
    assert {odd.metric for odd in outlier.odd} >= {"cold_time_to_first_token_s", "warm_load_real_s"}
    assert 0.2 < outlier.odd[0].share < 0.4
    (difference,) = outlier.differs
    assert (difference.fact, difference.here, difference.usual) == ("kernel", "5.10.0", "6.12.9-amd64")
    assert (difference.count, difference.hosts) == (7, 8)
    assert outlier.phase is not None
    assert outlier.phase[0] in ("weights", "import_torch")


@pytest.mark.parametrize(
    ("valid", "missing", "stale", "words"),
    [(9, 0, 0, "complete"), (9, 1, 2, "partly missing"), (0, 0, 9, "mostly missing"), (None, None, None, None)],
)
def test_bytecode_is_a_fact(
    tmp_path: Path, valid: int | None, missing: int | None, stale: int | None, words: str | None
) -> None:
    document = samples.golden("gpu")
    document["imports"] = {"bytecode": {"valid": valid, "missing": missing, "stale": stale, "unreadable": 0}}
    samples.store(tmp_path / "results", document)
    (host,) = gather(tmp_path).hosts
    assert host.latest is not None
    assert host.latest.environment.bytecode == words


def test_figures_of_the_first_token_pools_and_noise_are_read_and_absent_ones_unknown(tmp_path: Path) -> None:
    document = samples.golden("gpu") | {"first_token": {**samples.FIRST_TOKEN, "kernels_s": 0.5, "unheard_of": [1]}}
    samples.store(tmp_path / "results", document)
    latest = gather(tmp_path).hosts[0].latest
    assert latest is not None
    found = latest.first_token
    assert (found.now_s, found.lower_bound_s, found.limit) == (12.2, 4.6, "imports")
    assert found.saves == {"bytecode": 3.3, "kernels": 0.5, "replay": 4.3}
    assert found.saving_s == pytest.approx(7.6)
    # 962 free pages of 2 MiB; the nodes' rows count the same pages again.
    assert latest.idle_pool_bytes == 962 * (2 << 20)
    assert latest.noisy is not None
    old = samples.golden("gpu")
    old["tuning"] = {**old["tuning"], "pools": None}
    old["samples"] = [{**each, "noise": None} for each in old["samples"]]
    samples.store(tmp_path / "old/results", old)
    latest = gather(tmp_path / "old").hosts[0].latest
    assert latest is not None
    assert (latest.first_token.saving_s, latest.idle_pool_bytes, latest.noisy) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "saving"),
    [({}, 7.6), ({"ratio_low": 0.98}, 0), ({"now_s": 4.9}, 0), ({"now_s": None}, None), ({"floor_s": None}, None)],
)
def test_a_gap_within_noise_or_under_a_tenth_saves_nothing(
    tmp_path: Path, changed: dict[str, Any], saving: float | None
) -> None:
    document = samples.golden("gpu") | {"first_token": {**samples.FIRST_TOKEN, **changed}}
    samples.store(tmp_path / "results", document)
    latest = gather(tmp_path).hosts[0].latest
    assert latest is not None
    assert latest.first_token.saving_s == (None if saving is None else pytest.approx(saving))


def test_the_least_gap_is_the_reports() -> None:
    assert LEAST_GAP_RATIO == GAP_RATIO


def test_after_a_rollback_nothing_is_called_clean_until_somebody_looks_again(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"gpu-1": "clean"})))
    rollback = {
        "schema_version": 1,
        "kind": "rollback",
        "host": {"name": "gpu-1"},
        "run_id": "20260320T130000Z",
        "started_at": "2026-03-20T13:00:00Z",
    }
    (tmp_path / "results/gpu-1/rollback-20260320T130000Z.json").write_text(json.dumps(rollback))
    (host,) = gather(tmp_path).hosts
    assert (host.status, host.settings, host.settings_at) == ("unknown", (), None)
    assert host.rolled_back_at == NOW + timedelta(hours=1)
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"gpu-1": "drift"}, NOW + timedelta(hours=2))))
    (host,) = gather(tmp_path).hosts
    assert (host.status, host.rolled_back_at) == ("drift", None)
    assert host.settings_at == NOW + timedelta(hours=2)


def test_settings_of_a_silent_host_have_the_date_of_the_run_that_saw_them(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 3)
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"gpu-1": "unreachable"}, NOW + timedelta(days=2))))
    (host,) = gather(tmp_path).hosts
    assert host.status == "unreachable"
    assert host.settings
    assert host.settings_at == NOW


def test_unlike_hosts_are_not_compared(tmp_path: Path) -> None:
    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if host % 2:
            document["host"]["disk"] = {**document["host"]["disk"], "model": "Slow disk"}
        return 2.0 if host % 2 else 1.0

    samples.build(tmp_path / "results", 10, 1, change)
    assert gather(tmp_path).outliers == ()


def test_a_change_is_told_from_its_first_run_on_with_what_changed(tmp_path: Path) -> None:
    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if host == 1 and run >= 6:
            document["software"]["torch"] = "2.14.0"
            return 1.4
        return 1.0

    samples.build(tmp_path / "results", 3, 10, change)
    found = gather(tmp_path).changes
    assert {each.host for each in found} == {"gpu-2"}
    assert "cold_load_real_s" in {each.metric for each in found}
    assert all(each.low < 1.4 < each.high for each in found)
    assert {(each.before, each.after, each.differs) for each in found} == {(6, 4, ("torch",))}


def test_runs_of_another_task_are_no_history(tmp_path: Path) -> None:
    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if run >= 6:
            document["model"] = {**document["model"], "id": "another"}
            return 2.0
        return 1.0

    samples.build(tmp_path / "results", 2, 10, change)
    assert gather(tmp_path).changes == ()


BROKEN = {
    "empty": ("", "no valid JSON"),
    "cut": ('{"kind": "baseline", ', "no valid JSON"),
    "list": ("[]", "not a JSON object"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "nan": ('{"kind": NaN}', "no number"),
    "bare": ('{"kind": "baseline", "schema_version": 7}', "schema version 7"),
    "unknown": ('{"schema_version": 2, "x": 1}', "kind is missing"),
    "latin": (b"\xff\xfe".decode("latin-1"), "no valid JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_and_left_out(tmp_path: Path, name: str) -> None:
    samples.build(tmp_path / "results", 1, 1)
    content, why = BROKEN[name]
    (tmp_path / "results/gpu-1/20260101T000000Z.json").write_text(content, encoding="latin-1")
    found = gather(tmp_path)
    assert [host.name for host in found.hosts] == ["gpu-1"]
    (left_out,) = found.left_out
    assert left_out.file == "gpu-1/20260101T000000Z.json"
    assert why in left_out.why


def test_a_name_that_is_no_unicode_leaves_no_document_out(tmp_path: Path) -> None:
    # The quick parser refuses such a text; JSON does not.
    document = samples.golden("cpu")
    document["model"] = {**document["model"], "id": "caf\udce9"}
    path = tmp_path / "results/x/20260101T000000Z.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    found = gather(tmp_path)
    assert found.left_out == ()
    assert len(found.hosts[0].runs) == 1


@pytest.mark.parametrize("place", ["host", "summary", "samples", "tuning", "started_at", "run_id", "model"])
@pytest.mark.parametrize("value", [7, "x", [1], {"a": 1}, True])
def test_a_part_of_another_form_is_never_a_crash(tmp_path: Path, place: str, value: object) -> None:
    document = samples.golden("cpu") | {place: value}
    path = tmp_path / "results/x/20260101T000000Z.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    found = gather(tmp_path)
    assert len(found.hosts) + len(found.left_out) == 1


def test_a_broken_audit_is_named(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"a": "splendid"})))
    (left_out,) = gather(tmp_path).left_out
    assert left_out.file == "audit.json"
    assert "splendid" in left_out.why


def test_only_the_newest_runs_are_read_and_the_rest_counted(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 2, 5)
    for host in gather(tmp_path, newest=3).hosts:
        assert (len(host.runs), host.older) == (3, 2)


def test_a_failed_newest_run_is_no_figure_and_says_so(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    failed = samples.scaled(samples.golden("gpu"), "gpu-1", NOW, 1)
    failed["summary"] = {"counts": {"cold": 0, "warm": 0, "lukewarm": 0, "failed": 6}}
    failed["samples"] = [{**sample, "kind": "failed", "reason": "killed"} for sample in failed["samples"]]
    samples.store(tmp_path / "results", failed)
    found = gather(tmp_path)
    assert found.overview()["failed"] == 1
    latest = found.hosts[0].latest
    assert latest is not None
    assert (latest.reason, latest.times) == ("killed", {})


def test_the_metrics_hold_what_a_first_token_could_save_and_idle_pools(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    samples.store(tmp_path / "results", samples.golden("cpu"))
    lines = metrics(gather(tmp_path)).splitlines()
    saving = [line for line in lines if line.startswith("slm_baseline_first_token_saving_seconds{")]
    assert [re.search('by="([a-z]+)"', line)[1] for line in saving if 'host="gpu-1"' in line] == [  # type: ignore[index]
        "all",
        "bytecode",
        "replay",
    ]
    # The other host's document is older than the field.
    assert len(saving) == 3
    assert sum(line.startswith("slm_baseline_first_token_lower_bound_seconds{") for line in lines) == 1
    assert f'slm_baseline_idle_pool_bytes{{host="gpu-1"}} {962 * (2 << 20)}' in lines
    assert sum(line.startswith("slm_baseline_noisy_samples{") for line in lines) == 2
    # And older than the steady token.
    assert not any("steady_token" in line for line in lines)


def test_the_steady_token_is_in_metrics_and_page_and_older_runs_are_read(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 3)
    for path in sorted((tmp_path / "results/gpu-1").iterdir())[1:]:
        samples.add_steady_token(path, 0.04)
    found = gather(tmp_path)
    lines = [line for line in metrics(found).splitlines() if line.startswith("slm_baseline_steady_token_seconds{")]
    assert [re.sub('model="[^"]*"', "", line) for line in lines] == [
        'slm_baseline_steady_token_seconds{host="gpu-1",,kind="cold"} 0.04',
        'slm_baseline_steady_token_seconds{host="gpu-1",,kind="warm"} 0.038',
    ]
    page = data(found, Links())
    validate(page, "fleet")
    assert page["tokens"] == ["cold_steady_token_s", "warm_steady_token_s"]
    oldest, middle, newest = (run[4][len(page["times"]) :] for run in page["hosts"][0]["runs"])
    # An interval for each of 20,000 runs would take a tenth of the page.
    assert (oldest, middle) == ([], [0.04, 0.038])
    assert newest == [[0.04, 6, 0.036, 0.044], [0.038, 6, 0.036, 0.044]]
    # How far runs spread is known of the others alone, so none is called odd by this one.
    assert len(page["hosts"][0]["reach"]) == len(page["times"]) == 4


def test_what_a_tuning_read_back_is_the_newest_word_until_somebody_looks(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"gpu-1": "drift"})))
    row = {"knob": "thp.enabled", "desired": "always", "runtime": "always", "persisted": "always"}
    rows = [{**row, "boot": None, "source": None, "verdict": "clean", "detail": None}]
    at = NOW + timedelta(hours=1)
    write_state(tmp_path / "results/gpu-1", "gpu-1", "tuned", "20260320T130000Z", at, rows)
    (host,) = gather(tmp_path).hosts
    assert (host.status, host.settings_at, host.tuned_at, host.rolled_back_at) == ("clean", at, at, None)
    assert [each.runtime for each in host.settings] == ["always"]
    assert data(gather(tmp_path), Links())["hosts"][0]["tuned_at_s"] == int(at.timestamp())
    write_state(tmp_path / "results/gpu-1", "gpu-1", "restored", "20260320T130500Z", at + timedelta(minutes=5))
    (host,) = gather(tmp_path).hosts
    assert (host.status, host.settings, host.tuned_at) == ("unknown", (), None)
    assert host.rolled_back_at == at + timedelta(minutes=5)
    (tmp_path / "audit.json").write_text(json.dumps(samples.audit({"gpu-1": "drift"}, NOW + timedelta(hours=2))))
    (host,) = gather(tmp_path).hosts
    assert (host.status, host.tuned_at, host.rolled_back_at) == ("drift", None, None)


def test_possible_writers_are_on_the_page_and_older_audits_have_none(tmp_path: Path) -> None:
    samples.build(tmp_path / "results", 1, 1)
    audit = samples.audit({"gpu-1": "clean"})
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    assert data(gather(tmp_path), Links())["hosts"][0]["audit"]["possible"] == []
    audit["hosts"]["gpu-1"]["possible_writers"] = [{"knob": "thp.enabled", "detail": "/etc/x:3 may set it"}]
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    assert data(gather(tmp_path), Links())["hosts"][0]["audit"]["possible"] == ["/etc/x:3 may set it"]
