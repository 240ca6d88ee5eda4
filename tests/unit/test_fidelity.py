"""The benchmark of the observer keeps off a host that a run works on, and releases it."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host import lease
from ansible.module_utils.slm_baseline.host.files import Host

from benchmarks import fidelity


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what the benchmark does on a tree that stands for the host."""
    done: list[str] = []

    def make_subject(host: Host, request: Any) -> Any:
        done.append("subject")
        return SimpleNamespace()

    def compare(subject: Any, pairs: int, rng: random.Random) -> int:
        assert Host(tmp_path).exists(lease.LEASE)
        done.append(f"{pairs} pairs")
        return 0

    monkeypatch.setattr(fidelity, "Host", lambda: Host(tmp_path))
    monkeypatch.setattr(fidelity, "TIME", sys.executable)
    monkeypatch.setattr(fidelity, "make_subject", make_subject)
    monkeypatch.setattr(fidelity, "compare", compare)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["fidelity.py", "--pairs", "2"])
    return done


def test_it_works_under_a_lease_and_gives_the_host_back(tmp_path: Path, made: list[str]) -> None:
    assert fidelity.main() == 0
    assert made == ["subject", "2 pairs"]
    assert not Host(tmp_path).exists(lease.LEASE)


def test_a_run_at_work_keeps_its_scratch_and_its_lease(tmp_path: Path, made: list[str]) -> None:
    with lease.held(Host(tmp_path), {"id": "run-1"}), pytest.raises(SystemExit, match="run run-1") as refused:
        fidelity.main()
    assert str(refused.value).startswith("fidelity: run lock: wanted ")
    assert made == []
    assert Host(tmp_path).exists(lease.LEASE)
