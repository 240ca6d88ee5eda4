"""The textfiles, the alert rules and the dashboard with a real Prometheus and a real node_exporter."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analysis.audit.files import audit_files
from analysis.audit.fleet import audit
from analysis.documents.storage import write_files
from analysis.fleet.files import Folders, Terms, write
from tests.support import fleet_samples as samples

REPOSITORY = Path(__file__).resolve().parents[2]
MONITORING = REPOSITORY / "monitoring"
PROGRAMS = {name: shutil.which(name) for name in ("prometheus", "prometheus-node-exporter", "promtool")}
HOSTILE = 'a"b\\c\nd'


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    missing = [name for name, path in PROGRAMS.items() if path is None]
    assert not missing, f"missing: {missing}. Next: apt-get install prometheus prometheus-node-exporter"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of textfiles of eight like hosts, one slow, one drifted, one of a hostile name."""
    folder = tmp_path_factory.mktemp("fleet")
    samples.build(folder / "results", 8, 10, lambda host, run, _: 1.5 if host == 2 and run > 4 else 1.0)
    samples.add_steady_token(max((folder / "results/gpu-1").iterdir()), 0.04)
    samples.store(folder / "results", samples.scaled(samples.golden("gpu"), HOSTILE, samples.NOW, 1))
    rows = samples.golden("gpu")["tuning"]["rows"]
    drifted = [{**rows[0], "verdict": "drift", "detail": "thp.enabled is always"}]
    answers = {"gpu-1": {"rows": rows, "competitors": []}, "gpu-2": {"rows": drifted, "competitors": []}}
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    write_files(folder / "audit", audit_files(audit(answers, at, at)))
    folders = Folders(folder / "results", folder / "reports", folder / "audit")
    write(folders, {}, Terms(timedelta(days=30), 20), samples.NOW)
    return folder / "audit/metrics"


@pytest.fixture(scope="module")
def prometheus(metrics: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that scrapes a node_exporter which reads the textfiles, each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    exporter_port, port = free_port(), free_port()
    # What waits five minutes in service waits a second here; promtool tests the waiting.
    rules = (MONITORING / "rules.yml").read_text().replace("for: 5m", "for: 1s")
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yml"],
                "scrape_configs": [
                    {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]}
                ],
            }
        )
    )
    commands = [
        [
            "prometheus-node-exporter",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={metrics}",
            f"--web.listen-address=127.0.0.1:{exporter_port}",
        ],
        [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    ]
    running = [subprocess.Popen(each, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for each in commands]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def ask(address: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{query}", timeout=10) as answer:
        found = json.loads(answer.read())
    assert found["status"] == "success"
    return found["data"]


def firing(address: str, wanted: set[tuple[str, str]], patience_s: float = 60) -> list[dict[str, Any]]:
    """The firing alerts, once all of `wanted` (name, host) are among them or patience ends."""
    end = time.monotonic() + patience_s
    while True:
        try:
            alerts = [each for each in ask(address, "alerts")["alerts"] if each["state"] == "firing"]
        except OSError:
            alerts = []
        names = {(each["labels"]["alertname"], each["labels"].get("host", "")) for each in alerts}
        if wanted <= names or time.monotonic() > end:
            return alerts
        time.sleep(0.5)


def test_the_drifted_and_the_slow_host_fire_and_no_other(prometheus: str) -> None:
    wanted = {
        ("SlmBaselineDrift", "gpu-2"),
        ("SlmBaselineSlowerThanItsLike", "gpu-3"),
        ("SlmBaselineSlowerThanBefore", "gpu-3"),
        # The samples are of another year.
        ("SlmBaselineRunStale", "gpu-1"),
    }
    alerts = firing(prometheus, wanted)
    found = {(each["labels"]["alertname"], each["labels"]["host"]) for each in alerts}
    assert wanted <= found
    assert {host for name, host in found if name == "SlmBaselineDrift"} == {"gpu-2"}
    assert {host for name, host in found if name.startswith("SlmBaselineSlower")} == {"gpu-3"}
    assert "SlmBaselineAuditStale" not in {name for name, _ in found}
    summaries = [each["annotations"]["summary"] for each in alerts if each["labels"]["host"] == "gpu-3"]
    assert any(re.search(r"gpu-3 is 5\d(\.\d+)?% slower than hosts like it", summary) for summary in summaries)


def test_every_metric_arrives_with_its_figure_and_a_hostile_name_is_a_label(prometheus: str) -> None:
    firing(prometheus, {("SlmBaselineDrift", "gpu-2")})
    names = set(ask(prometheus, "label/__name__/values"))
    assert {
        "slm_baseline_time_to_first_token_seconds",
        "slm_baseline_load_seconds",
        "slm_baseline_steady_token_seconds",
        "slm_baseline_disk_bytes_per_second",
        "slm_baseline_memory_bytes",
        "slm_baseline_samples",
        "slm_baseline_run_timestamp_seconds",
        "slm_baseline_first_token_lower_bound_seconds",
        "slm_baseline_first_token_saving_seconds",
        "slm_baseline_idle_pool_bytes",
        "slm_baseline_noisy_samples",
        "slm_baseline_outlier_share",
        "slm_baseline_change_ratio",
        "slm_baseline_audit_host_status",
        "slm_baseline_audit_fleet_hosts",
    } <= names
    (errors,) = ask(prometheus, "query", query="node_textfile_scrape_error")["result"]
    assert errors["value"][1] == "0"
    hosts = {each["metric"]["host"] for each in ask(prometheus, "query", query="slm_baseline_load_seconds")["result"]}
    assert HOSTILE in hosts


def test_every_panel_of_the_dashboard_can_be_drawn(prometheus: str) -> None:
    firing(prometheus, {("SlmBaselineDrift", "gpu-2")})
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$host", ".*").replace("$model", ".*")
            assert ask(prometheus, "query", query=expression)["result"], panel["title"]
    used = set(re.findall(r"slm_baseline_\w+", json.dumps(dashboard)))
    assert used <= set(ask(prometheus, "label/__name__/values"))


def test_the_rules_hold_their_own_tests() -> None:
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_textfile(metrics: Path) -> None:
    text = "".join(path.read_text() for path in sorted(metrics.glob("_*.prom")))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
