"""Samples on disk: durable lines, torn lines, interrupted blocks."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring.sample import CeilingRecord, Sample, Shared
from ansible.module_utils.slm_baseline.measuring.store import (
    append_line,
    append_sample,
    close_block,
    finished_blocks,
    keep_run,
    kept_run,
    read_lines,
    samples_path,
    shared_of,
)
from hypothesis import given
from hypothesis import strategies as st

COLD = Sample(1, "cold", "cold", None, "2026-01-01T00:00:00Z", load_real_s=2.5)
WARM = Sample(1, "warm", "warm", None, "2026-01-01T00:00:09Z", load_real_s=1.5)
SHARED = Shared(CeilingRecord((2e9, 2.1e9), 4, False), {"torch": "2"})


def read_samples(host: Host, run_id: str) -> list[Sample]:
    return [Sample.from_json(line) for line in read_lines(host, run_id) if "wanted" in line]


def test_samples_come_back_in_order(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert read_samples(host, "run-1") == []
    append_sample(host, "run-1", COLD)
    append_sample(host, "run-1", WARM)
    assert read_samples(host, "run-1") == [COLD, WARM]
    assert host.path(samples_path("run-1")).stat().st_mode & 0o777 == 0o600


def test_a_write_that_takes_part_of_a_line_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    append_sample(Host(tmp_path), "run-1", COLD)
    monkeypatch.undo()
    assert read_samples(Host(tmp_path), "run-1") == [COLD]


@pytest.mark.parametrize("keep", [1, 20, 5000])
def test_a_torn_line_costs_itself_alone(tmp_path: Path, keep: int) -> None:
    host = Host(tmp_path)
    append_sample(host, "run-1", COLD)
    path = host.path(samples_path("run-1"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: min(keep, len(whole) - 2)])
    append_sample(host, "run-1", WARM)
    assert read_samples(host, "run-1") == [COLD, WARM]


def test_a_block_is_finished_when_it_was_closed_and_not_before(tmp_path: Path) -> None:
    host = Host(tmp_path)
    append_sample(host, "run-1", COLD)
    append_sample(host, "run-1", WARM)
    assert finished_blocks(host, "run-1") == {}
    close_block(host, "run-1", 1, SHARED)
    block = finished_blocks(host, "run-1")[1]
    assert (block.samples, block.shared) == ((COLD, WARM), SHARED)
    assert shared_of(host, "run-1") == {1: SHARED}


def test_samples_of_an_interrupted_attempt_are_superseded(tmp_path: Path) -> None:
    host = Host(tmp_path)
    append_sample(host, "run-1", replace(COLD, load_real_s=99.0))
    for sample in (COLD, WARM):
        append_sample(host, "run-1", sample)
    close_block(host, "run-1", 1, Shared())
    assert finished_blocks(host, "run-1")[1].samples == (COLD, WARM)


@pytest.mark.parametrize("run_id", ["", "../etc", "a/b", ".hidden", "x" * 200, "a\nb"])
def test_a_run_id_is_a_plain_name(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(SettingError, match="run_id"):
        append_sample(Host(tmp_path), run_id, COLD)


@given(st.binary(max_size=400))
def test_any_file_is_read_as_samples_or_skipped(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    host = Host(tmp_path_factory.mktemp("host"))
    append_sample(host, "run-1", COLD)
    with host.path(samples_path("run-1")).open("ab") as file:
        file.write(data)
    assert Sample.from_json(read_lines(host, "run-1")[0]) == COLD
    finished_blocks(host, "run-1")
    shared_of(host, "run-1")


def test_deep_nesting_and_other_json_are_skipped(tmp_path: Path) -> None:
    host = Host(tmp_path)
    append_sample(host, "run-1", COLD)
    lines = ["[" * 100_000, "3", json.dumps({"block": "1", "wanted": "cold"}), json.dumps({"block": True})]
    with host.path(samples_path("run-1")).open("a") as file:
        file.write("\n".join(lines) + "\n")
    append_line(host, "run-1", {"block": 1, "wanted": "warm", "kind": 7})
    append_line(host, "run-1", {"block": 1, "shared": {"software": 3}})
    close_block(host, "run-1", 1, Shared())
    assert finished_blocks(host, "run-1")[1].samples == (COLD,)


def test_a_kept_run_comes_back_by_its_name_or_as_the_latest(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for run_id in ("20260101T000000Z-a", "20260102T000000Z-b", "20260103T000000Z-c"):
        append_sample(host, run_id, COLD)
    # The last one was cut short: it has samples, and is no result.
    for run_id in ("20260101T000000Z-a", "20260102T000000Z-b"):
        keep_run(host, run_id, {"benchmark": {"samples": []}, "run": {"id": run_id}})
    assert kept_run(host)["run"]["id"] == "20260102T000000Z-b"
    assert kept_run(host, "20260101T000000Z-a")["run"]["id"] == "20260101T000000Z-a"
    for name in ("20260103T000000Z-c", "nobody", "../../etc/passwd"):
        with pytest.raises(SettingError, match=r"^fetch_run: wanted run"):
            kept_run(host, name)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmark": 7}', "{", "[" * 5000])
def test_a_kept_run_that_is_damaged_is_none(tmp_path: Path, text: str) -> None:
    host = Host(tmp_path)
    append_sample(host, "run-1", COLD)
    host.path(samples_path("run-1")).with_name("run.json").write_text(text)
    with pytest.raises(SettingError, match=r"^fetch_run: wanted a run that was measured to its end; found none"):
        kept_run(host)
