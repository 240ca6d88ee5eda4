"""The audit's judgement and its four renderings, against golden files and hostile answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.audit.answer import judge_host
from analysis.audit.files import audit_files
from analysis.audit.fleet import Audit, audit, group, hosts_of
from analysis.audit.junit import junit
from analysis.audit.prometheus import fleet_metrics, host_metrics
from analysis.audit.summary import markdown
from analysis.documents.storage import write_files

GOLDEN = Path(__file__).parents[3] / "golden" / "audit"
ROW = {
    "knob": "thp.enabled",
    "desired": "madvise",
    "runtime": "madvise",
    "persisted": "madvise",
    "boot": None,
    "source": "/etc/tmpfiles.d/slm-baseline-thp.conf:2",
    "verdict": "clean",
    "detail": "thp.enabled is madvise",
}
WRITER = {
    "path": "/etc/rc.local",
    "line": 3,
    "knob": "thp.enabled",
    "value": "always",
    "kind": "a script run at boot",
    "detail": "a script run at boot sets thp.enabled to always at /etc/rc.local:3",
}


def answer(*rows: object, competitors: object = ()) -> dict[str, object]:
    return {"rows": list(rows), "competitors": list(competitors) if isinstance(competitors, tuple) else competitors}


def audit_of(answers: dict[str, Any]) -> Audit:
    return audit(answers, "2026-03-14T09:20:00Z", "2026-03-14T09:20:07Z")


@pytest.fixture(scope="module")
def fleet() -> Audit:
    return audit_of(json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8")))


def test_every_file_is_as_published(fleet: Audit) -> None:
    """With SLM_UPDATE_GOLDEN=1 in the environment the golden files are written anew instead."""
    files = audit_files(fleet)
    folder = GOLDEN / "reports"
    if os.environ.get("SLM_UPDATE_GOLDEN"):
        shutil.rmtree(folder, ignore_errors=True)
        write_files(folder, files)
    stored = {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}
    assert files == stored


def test_totals_and_order(fleet: Audit) -> None:
    assert fleet.totals() == {
        "hosts": 9,
        "clean": 2,
        "drift": 3,
        "unreachable": 2,
        "error": 2,
        "drifted_rows": 4,
        "competitors": 2,
    }
    assert [name for name in fleet.hosts if name.startswith("gpu-")] == [f"gpu-{n}" for n in (1, 2, 3, 4, 5, 6, 10)]


def test_identical_drift_is_one_line() -> None:
    drifted = {**ROW, "runtime": "always", "verdict": "drift", "detail": "thp.enabled is always, should be madvise"}
    hosts = {f"gpu-{n}": answer(drifted if n < 7 else ROW) for n in range(1, 320)}
    summary = audit_of(hosts).summary()
    assert summary == [
        "319 hosts: 313 clean, 6 drift, 0 unreachable, 0 error",
        "6 hosts (gpu-1, gpu-2, gpu-3, gpu-4, gpu-5 and 1 more): thp.enabled is always, should be madvise",
    ]


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (answer(ROW), "clean", "clean"),
        (answer({**ROW, "verdict": "drift", "detail": "off"}), "drift", "off"),
        (
            answer({**ROW, "verdict": "drift", "detail": None, "runtime": "x"}),
            "drift",
            "thp.enabled is x, should be madv",
        ),
        (answer(ROW, competitors=(WRITER,)), "drift", "/etc/rc.local:3"),
        ({"unreachable": True, "msg": "no route"}, "unreachable", "no route"),
        ({"failed": True, "msg": "no root"}, "error", "no root"),
        ({"failed": True}, "error", "no reason given"),
        (answer(), "error", "nothing was compared"),
        (None, "error", "no answer"),
        ({"skipped": True}, "error", "rows is not a list"),
        ({"rows": [ROW]}, "error", "competitors is not a list"),
        (answer("text"), "error", "rows is not a list of objects"),
        (answer({**ROW, "verdict": "fine"}), "error", "the verdict on thp.enabled is 'fine'"),
        (answer({**ROW, "runtime": 3}), "error", "runtime is 3, not text"),
        (answer({**ROW, "knob": ""}), "error", "knob is missing"),
        (answer(ROW, competitors=({**WRITER, "line": True},)), "error", "a competitor's line is True"),
    ],
)
def test_judgement(found: object, status: str, says: str) -> None:
    host = judge_host(found)
    assert host.status == status
    assert says in str(host)


def test_a_possible_writer_is_told_and_no_drift() -> None:
    answers = {"h": {**answer(ROW), "possible_writers": [{**WRITER, "value": None}]}, "old": answer(ROW)}
    fleet = audit_of(answers)
    assert [host.status for host in fleet.hosts.values()] == ["clean", "clean"]
    assert fleet.document()["hosts"]["h"]["possible_writers"] == [{**WRITER, "value": None}]
    assert fleet.document()["hosts"]["old"]["possible_writers"] == []
    assert fleet.summary()[1:] == [f"1 host (h): note: {WRITER['detail']}"]
    assert "## Possible writers" in markdown(fleet)
    assert ElementTree.fromstring(junit(fleet)).get("failures") == "0"
    broken = audit_of({"h": {**answer(ROW), "possible_writers": [{"path": 3}]}})
    assert broken.hosts["h"].status == "error"


def test_a_tolerated_competitor_is_reported_and_no_drift() -> None:
    answers = {"h": answer(ROW, competitors=(WRITER,))}
    fleet = audit(answers, "2026-03-14T09:20:00Z", "2026-03-14T09:20:07Z", tolerance={"h": "yes"})
    assert fleet.hosts["h"].status == "clean"
    assert fleet.document()["hosts"]["h"]["competitors"] == [WRITER]
    assert "## Competing writers" in markdown(fleet)
    assert ElementTree.fromstring(junit(fleet)).get("failures") == "0"


def test_a_long_problem_is_cut() -> None:
    host = judge_host({"failed": True, "msg": "x" * 5000})
    assert host.problem is not None
    assert len(host.problem) == 2003


def test_group_counts_a_host_once() -> None:
    assert group([("a", "h1"), ("b", "h1"), ("b", "h2"), ("b", "h1")]) == {"b": ["h1", "h2"], "a": ["h1"]}
    assert hosts_of(["h1"]) == "1 host (h1)"


def test_a_host_named_fleet_does_not_replace_the_fleet(fleet: Audit) -> None:
    files = audit_files(fleet)
    assert 'host="fleet"' in files["metrics/fleet.prom"]
    assert "slm_baseline_audit_fleet_hosts" in files["metrics/_fleet.prom"]
    assert len([name for name in files if name.startswith("metrics/")]) == len(fleet.hosts) + 1


def test_a_knob_named_twice_is_one_series() -> None:
    fleet = audit_of({"h": answer(ROW, {**ROW, "verdict": "drift"}, ROW)})
    lines = [
        line for line in host_metrics(fleet, "h").splitlines() if line.startswith("slm_baseline_audit_knob_drift{")
    ]
    assert lines == ['slm_baseline_audit_knob_drift{host="h",knob="thp.enabled"} 1']


def test_junit_counts(fleet: Audit) -> None:
    root = ElementTree.fromstring(junit(fleet))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("14", "6", "4")
    for suite in root:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("errors") == str(len(suite.findall("testcase/error")))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Task failed: Failed to connect to the host via ssh: ssh: connect to host {}: Connection refused", "refused"),
        ("Failed to connect to the host via ssh: Connection timed out\r\n", "timed out"),
        ("Failed to connect to the host via ssh: root@{}: Permission denied (publickey).", "denied (publickey)"),
        ("Failed to connect to the host via ssh: Connection closed by {} port 22", "Connection closed"),
    ],
)
def test_hosts_that_cannot_be_reached_share_a_line_with_the_reason(message: str, told: str) -> None:
    down = {name: {"unreachable": True, "msg": message.format(f"192.0.2.{name[1]}")} for name in ("a1", "a2")}
    lines = audit_of(down).summary()
    assert len(lines) == 2, lines
    assert "unreachable: " in lines[1]
    assert lines[1].endswith(told)


_hostile = st.text(st.characters(), min_size=1, max_size=40)


@given(name=_hostile, text=_hostile)
def test_no_text_breaks_a_rendering(name: str, text: str) -> None:
    row = {**ROW, "knob": text, "runtime": text, "source": text, "verdict": "drift", "detail": text}
    writer = {**WRITER, "path": text, "kind": text, "detail": text, "value": text}
    fleet = audit_of({name: answer(row, competitors=(writer,)), "down": {"unreachable": True, "msg": text}})
    files = audit_files(fleet)
    assert json.loads(files["audit.json"])["totals"]["drift"] == (name != "down")
    suites = ElementTree.fromstring(files["audit.xml"])
    assert len(suites) == len(fleet.hosts)
    pipes = {line.replace("\\|", "").count("|") for line in markdown(fleet).splitlines() if line.startswith("|")}
    assert pipes <= {9, 6, 4}
    for path, content in files.items():
        content.encode()
        if path.endswith(".prom"):
            lines = content.split("\n")
            assert lines.pop() == ""
            assert all(line.startswith(("# HELP slm_", "# TYPE slm_", "slm_")) for line in lines)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t)
    )
)
def test_any_answer_has_a_status(found: object) -> None:
    assert judge_host(found).status in ("error", "unreachable")


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"metrics/a.prom": "old\n"})

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_files(tmp_path, {"metrics/a.prom": "new\n"})
    assert [path.read_text() for path in (tmp_path / "metrics").iterdir()] == ["old\n"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_accepts_the_metrics(fleet: Audit) -> None:
    for text in (fleet_metrics(fleet), *(host_metrics(fleet, name) for name in fleet.hosts)):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
