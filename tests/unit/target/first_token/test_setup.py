"""How a target stands on a host, and what a removal takes and leaves."""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import setup
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, to_text
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Seen
from ansible.module_utils.slm_baseline.first_token.recorder.record import Recording
from ansible.module_utils.slm_baseline.first_token.setup import WRITTEN_TELLS, difference, is_set_up, remove, rows
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.first_token.unit_files import wanted_files
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import FIRST_TOKEN

FACTS = {"page_bytes": "4096", "spinning": "0"}
TARGET = Target("vllm", unit="vllm.service", ready="port", ready_at="8000")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which TARGET is set up, with one library file and one module with bytecode."""
    host = Host(tmp_path)
    for folder in (f"{FIRST_TOKEN}/bin", f"{TARGET.folder}/pycache/srv", "/srv", os.path.dirname(TARGET.boot_link)):
        os.makedirs(host.path(folder), exist_ok=True)
    host.path("/srv/lib.so").write_bytes(b"x")
    host.path("/srv/mine.py").write_text("VALUE = 1\n")
    cached = f"{TARGET.pycache}/srv/mine.cpython-311.pyc"
    py_compile.compile(str(host.path("/srv/mine.py")), str(host.path(cached)))
    files = []
    for path in ("/srv/lib.so", cached):
        found = os.lstat(host.path(path))
        files.append(PlanFile(path, False, found.st_ino, found.st_size, found.st_mtime_ns))
    host.path(TARGET.plan).write_text(to_text(Plan({"page_bytes": "4096"}, ["/srv"], files)))
    host.path(f"{TARGET.folder}/bytecode").write_text("")
    texts = wanted_files(TARGET, True)
    for path, text in texts.items():
        os.makedirs(host.path(path).parent, exist_ok=True)
        host.path(path).write_text(text)
    os.symlink(TARGET.replay_unit, host.path(TARGET.boot_link))
    hashes = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    host.path(TARGET.record).write_text(json.dumps({"target": TARGET.to_json(), "files": hashes}))
    return host


def states(host: Host) -> dict[str, str]:
    return {row["knob"]: row["runtime"] for row in rows(host)}


def test_a_target_that_is_set_up_is_clean_and_another_is_not_it(host: Host) -> None:
    assert states(host) == {"first_token.vllm.plan": "clean", "first_token.vllm.bytecode": "clean"}
    assert is_set_up(host, TARGET)
    assert not is_set_up(host, Target("vllm", unit="vllm.service", ready="port", ready_at="8001"))
    assert not is_set_up(host, Target("other", unit="vllm.service"))


@pytest.mark.parametrize(("written", "starts"), [(WRITTEN_TELLS, 1), (WRITTEN_TELLS + 1, 2)])
def test_a_start_that_wrote_what_later_ones_read_is_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, starts: int
) -> None:
    plans = iter([Plan(FACTS, [f"/start{number}"]) for number in (1, 2)])
    counts = iter([written, written])
    monkeypatch.setattr(setup, "drop_host_caches", lambda _: None)
    monkeypatch.setattr(setup, "record", lambda *_: Recording(next(plans), Seen(), next(counts)))
    monkeypatch.setattr(setup, "require_trusted", lambda *_: None)
    monkeypatch.setattr(setup, "reload_units", lambda _: None)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("")
    target = Target("app", command=("/bin/true",), user="nobody", bytecode=False)
    outcome = setup.set_up(Host(tmp_path), target, {})
    assert outcome.starts == starts
    assert outcome.plan
    assert outcome.plan.folders == [f"/start{starts}"]
    assert any("one that reads them is recorded" in note for note in outcome.notes) == (starts == 2)


def test_an_upgrade_makes_the_plan_stale_and_names_the_file(host: Host) -> None:
    host.path("/srv/lib.so").write_bytes(b"newer")
    assert states(host)["first_token.vllm.plan"] == "stale"
    assert "/srv/lib.so changed" in rows(host)[0]["detail"]
    assert rows(host)[0]["verdict"] == "drift"
    assert not is_set_up(host, TARGET)


def test_a_newer_source_makes_its_bytecode_stale(host: Host) -> None:
    host.path("/srv/mine.py").write_text("VALUE = 22\n")
    assert states(host) == {"first_token.vllm.plan": "clean", "first_token.vllm.bytecode": "stale"}


@pytest.mark.parametrize("path", [TARGET.plan, TARGET.drop_in])
def test_what_is_gone_is_missing(host: Host, path: str) -> None:
    host.path(path).unlink()
    assert states(host)["first_token.vllm.plan"] == "missing"


def test_a_unit_of_ours_that_others_changed_is_drift(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    row = rows(host)[0]
    assert (row["runtime"], row["persisted"], row["verdict"]) == ("stale", "stale", "drift")
    assert "was changed by others since" in row["detail"]


def test_what_no_boot_would_read_ahead_is_not_persisted(host: Host) -> None:
    host.path(TARGET.boot_link).unlink()
    row = rows(host)[0]
    assert (row["runtime"], row["persisted"], row["verdict"]) == ("clean", "missing", "drift")
    assert "no boot reads ahead" in row["detail"]
    assert not is_set_up(host, TARGET)


def test_a_diff_says_what_is_missing_stale_or_asked_otherwise(host: Host) -> None:
    assert difference(host, Target("new", unit="new.service")) == {
        "before": "first_token.new.plan: missing\n",
        "after": "first_token.new.plan: clean\n",
    }
    host.path("/srv/lib.so").write_bytes(b"newer")
    told = difference(host, replace(TARGET, replay="together"))
    assert "first_token.vllm.plan is stale: /srv/lib.so changed since" in told["before"]
    assert "first_token.vllm.replay: both\n" in told["before"]
    assert told["after"] == (
        "first_token.vllm.plan: clean\nfirst_token.vllm.bytecode: clean\nfirst_token.vllm.replay: together\n"
    )


def test_a_dry_run_tells_what_a_removal_takes_and_takes_nothing(host: Host) -> None:
    told = remove(host, "vllm", dry_run=True)
    assert states(host) == {"first_token.vllm.plan": "clean", "first_token.vllm.bytecode": "clean"}
    assert remove(host, "vllm") == told
    assert len(told[0]) == 4


def test_a_forced_removal_takes_what_others_changed_too(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    removed, left = remove(host, "vllm", force=True)
    assert (TARGET.drop_in in removed, left) == (True, [])
    assert not host.path(TARGET.drop_in).parent.exists()


def test_a_damaged_record_or_plan_is_a_row_and_no_traceback(host: Host) -> None:
    host.path(TARGET.plan).write_bytes(b"\xff\xfe")
    assert states(host)["first_token.vllm.plan"] == "missing"
    host.path(TARGET.record).write_text("[]")
    assert states(host) == {"first_token.vllm.plan": "missing"}


def test_a_removal_leaves_nothing_of_ours(host: Host) -> None:
    removed, left = remove(host, "vllm")
    assert left == []
    assert {TARGET.drop_in, TARGET.replay_unit, TARGET.boot_link, TARGET.folder} == set(removed)
    assert not host.path(FIRST_TOKEN).exists()
    assert not host.path(TARGET.drop_in).parent.exists()
    assert not host.path(TARGET.boot_link).parent.exists()
    assert host.path("/srv/lib.so").exists()
    assert remove(host, "vllm") == ([], [])


def test_a_unit_that_somebody_changed_is_left_and_listed(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    removed, left = remove(host, "vllm")
    assert left == [TARGET.drop_in]
    assert host.path(TARGET.drop_in).exists()
    assert TARGET.replay_unit in removed


def test_a_set_up_that_was_cut_short_is_removed_by_its_mark(host: Host) -> None:
    host.path(TARGET.record).unlink()
    removed, left = remove(host, "vllm")
    assert left == []
    assert {TARGET.drop_in, TARGET.replay_unit} <= set(removed)
