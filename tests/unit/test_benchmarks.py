"""The benchmarks keep off a host that a run works on and give it back; what they say of pairs with a known effect."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ansible.module_utils.slm_baseline.first_token.plan import Plan, to_text
from ansible.module_utils.slm_baseline.first_token.recorder import start as start_module
from ansible.module_utils.slm_baseline.first_token.recorder.ready import ask_ready
from ansible.module_utils.slm_baseline.first_token.recorder.record import plan_file
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.host import lease
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import LEASE

from analysis.documents.schema import validate
from benchmarks import agreement, engine, fidelity, first_token, one_host, subject
from benchmarks.evidence import Document
from benchmarks.subject import Benchmark, Effect
from benchmarks.tables import one_host_table
from tests.support.ourselves import Ourselves

BENCHMARK = Benchmark("fidelity", "", sys.executable, "python3", pairs=15)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A tree that stands for the host; a subject is made of nothing."""
    monkeypatch.setattr(subject, "Host", lambda: Host(tmp_path))
    monkeypatch.setattr(subject, "make_subject", lambda host, request: SimpleNamespace())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Host(tmp_path)


def test_it_works_under_a_lease_and_gives_the_host_back(host: Host) -> None:
    done: list[int] = []

    def compare(at: Host, subject: Any, pairs: int, rng: random.Random) -> int:
        assert at.exists(LEASE)
        done.append(pairs)
        return 1

    assert BENCHMARK.run(compare, ["--pairs", "4"]) == 1
    assert done == [4]
    assert not host.exists(LEASE)


def test_a_run_at_work_keeps_its_scratch_and_its_lease(host: Host) -> None:
    def compare(*_: Any) -> int:
        raise AssertionError("the host belongs to another run")

    with lease.held(host, {"id": "run-1"}), pytest.raises(SystemExit, match="run run-1") as refused:
        BENCHMARK.run(compare, [])
    assert str(refused.value).startswith("fidelity: run lock: wanted ")
    assert host.exists(LEASE)


@pytest.mark.parametrize("arguments", [["--pairs", "2"], ["--pairs", "x"], ["--surprise"]])
def test_a_bad_command_line_is_one_error(host: Host, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        BENCHMARK.run(lambda *_: 0, arguments)
    assert refused.value.code == 2


def test_an_effect_is_told_with_its_interval_and_its_verdict() -> None:
    effect = Effect.of([1.01, 1.01, 1.01, 1.01])
    assert str(effect) == "+1.00% [+1.00%, +1.00%] over 4 pairs"
    assert effect.verdict(0.02) == "within 2%"
    assert effect.verdict(0.005) == "NOT within 0%"
    assert Effect(0.01, -0.03, 0.02, 4).verdict(0.02).startswith("within 2%, and the interval reaches further")


@pytest.mark.parametrize(("cost", "status"), [(0.01, 0), (0.05, 1)])
def test_the_observers_effect_is_that_of_the_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cost: float, status: int
) -> None:
    rng = random.Random(7)
    monkeypatch.setattr(fidelity, "prepare", lambda *_: None)
    # A drift of 50 % over the run cancels within a pair.
    drift = iter(range(1000))
    monkeypatch.setattr(fidelity, "by_hand", lambda _: fidelity.Load(1.0 + next(drift) // 2 / 20, 1.0))
    load = lambda _: (fidelity.Load((1 + cost) * (1.0 + next(drift) // 2 / 20), 1.0), 0.001)  # noqa: E731
    monkeypatch.setattr(fidelity, "watched", load)
    assert fidelity.compare(Host(), SimpleNamespace(), 8, rng) == status  # type: ignore[arg-type]
    assert (
        f"the observer's effect on load time: +{cost:.2%} [+{cost:.2%}, +{cost:.2%}] over 8" in capsys.readouterr().out
    )


@pytest.mark.parametrize(("cold", "status"), [(1.04, 0), (0.94, 1)])
def test_agreement_is_judged_for_each_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cold: float, status: int
) -> None:
    states: list[str] = []
    monkeypatch.setattr(agreement, "prepare", lambda host, subject, wanted: states.append(wanted))
    monkeypatch.setattr(agreement, "observed", lambda _: None)
    monkeypatch.setattr(agreement, "load_real_s", lambda _: 10 * cold if states[-1] == "cold" else 2.0)
    monkeypatch.setattr(agreement, "by_hyperfine", lambda _: 10.0 if states[-1] == "cold" else 2.0)
    assert agreement.compare(Host(), SimpleNamespace(), 3, random.Random(1)) == status  # type: ignore[arg-type]
    assert states == ["cold"] * 6 + ["warm"] * 6
    out = capsys.readouterr().out
    assert f"cold: medians ours {10 * cold:.3f} s, hyperfine 10.000 s" in out
    assert "warm: medians ours 2.000 s, hyperfine 2.000 s; ours against hyperfine +0.00%" in out


def test_plays_of_one_host_are_told_in_pings_and_beside_their_goals() -> None:
    cost = {"ping.yml": 5.0, "baseline.yml": 30.0, "audit.yml": 8.0, "rollback.yml": 9.0}
    asked: list[str] = []

    def run(*arguments: str, **_: object) -> float:
        asked.append(arguments[0])
        # The first tuning of a round is dear, the next one is not.
        is_second = asked[-3:] == ["baseline.yml", "ping.yml", "baseline.yml"]
        return 10.0 if is_second else cost[arguments[0]]

    host = {"kernel": "6.18", "arch": "x86_64", "cpus": 2, "gpus": [], "software": {}}
    document = Document("one-host", host, {"machine": one_host.MACHINE}, commit="0123456789ab")
    for _ in range(2):
        document.add_block(one_host.measure_round(run, "ping.yml", "/a"))
    validate(document.to_json(), "evidence")
    assert "| audit | 2 | 8.0 | 8.0 to 8.0 | 1.60 |" in one_host_table(document.to_json()).split("\n")
    found = {row.name: row for row in one_host.rows(document)}
    assert {name: row.pings for name, row in found.items()} == {
        "ping": 1.0,
        "first tuning": 6.0,
        "tuning that changes nothing": 2.0,
        "audit": 1.6,
        "rollback": 1.8,
    }
    assert [name for name, row in found.items() if row.is_missed] == ["audit"]
    assert str(found["audit"]).endswith("1.60x ping  goal 1.3x MISSED")
    assert len(found["ping"].seconds) == 8


SERVER = """
import http.server, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.do_GET()
        open(sys.argv[2], "wb").write(self.rfile.read(int(self.headers["Content-Length"])))

subprocess.Popen(["sleep", "600"], start_new_session=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_an_engine_is_asked_once_it_is_ready_and_all_of_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asked = tmp_path / "asked"
    command = (sys.executable, "-c", SERVER, str(port), str(asked))
    target = Target("app", command=command, user="app", ready=Ready("port", str(port), 60))
    monkeypatch.setattr(start_module, "identity_of", lambda *_: Ourselves())
    before = set(psutil.Process().children(recursive=True))
    start = engine.Engine(target, f"http://127.0.0.1:{port}/v1/completions", b'{"prompt": "Hello"}').start()
    assert 0 < start.ready_s <= start.token_s
    assert asked.read_bytes() == b'{"prompt": "Hello"}'
    assert not ask_ready(Host(), target.ready, Deadline.after(5)).is_ready
    with pytest.raises(SettingError, match="ftp://nowhere"):
        engine.Engine(target, "ftp://nowhere", b"{}").start()
    assert set(psutil.Process().children(recursive=True)) <= before


def test_an_engine_that_is_no_target_or_an_arm_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    target = Target("app", command=("/bin/app",), user="app", ready=Ready("port", "1"))
    monkeypatch.setattr(engine, "recorded_targets", lambda _: {"app": target})
    for name, arms, said in (("other", "", "other is no target"), ("app", "warm, luke", "no such arm: warm, luke")):
        monkeypatch.setattr(sys, "argv", ["engine", name, "--url", "http://x", "--body", "{}", "--arms", arms])
        with pytest.raises(SystemExit, match=said):
            engine.main()


def test_a_stale_cache_costs_the_check_of_all_its_sources(tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("a/one.py", "b/two.py", "a/three.py", "b/four.py", "b/data.json")]
    for path in sources:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    fit = tmp_path / "fit"
    fit.write_text(first_token.outdated_fit(str(cache), [*map(str, sources), str(tmp_path / "gone.py")]))
    fit.chmod(0o644)
    answer = subprocess.run([*first_token.FIT, str(fit)], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"{tmp_path}/b/four.py changed since" in answer.stderr


def test_a_stale_plan_has_no_file_that_is_still_the_recorded_one(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w" * 5000)
    recorded = plan_file(str(tmp_path / "weights"), Deadline.after(5))
    assert recorded is not None
    plan = Plan({"page_bytes": "4096"}, (), (recorded,))
    (tmp_path / "plan").write_text(to_text(first_token.outdated(plan)))
    (tmp_path / "plan").chmod(0o644)
    answer = subprocess.run([*first_token.REPLAY, str(tmp_path / "plan")], capture_output=True, text=True, check=True)
    assert "read_bytes=0" in answer.stdout
    assert "stale=1" in answer.stdout
