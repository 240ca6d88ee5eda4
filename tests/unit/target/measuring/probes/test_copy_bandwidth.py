"""What the copy-rate script printed, checked: a rate, an unknown one, or nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader
from ansible.module_utils.slm_baseline.measuring.probes.copy_bandwidth import measure_copy_rates, parse_copy_rates
from hypothesis import given
from hypothesis import strategies as st

GOOD = {"index": 0, "pinned_bytes_per_s": 5.47e10, "pageable_bytes_per_s": 8.6e9, "bytes": 1 << 30}


def printed(*devices: dict[str, Any]) -> bytes:
    return json.dumps({"devices": devices}).encode() + b"\n"


def test_rates_are_taken_as_printed() -> None:
    assert parse_copy_rates(printed(GOOD)) == [GOOD]


@pytest.mark.parametrize(("before", "expected"), [(0, [GOOD]), (2 << 20, [])])
def test_a_script_that_floods_gives_no_limit(tmp_path: Path, before: int, expected: list[dict[str, Any]]) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.stdout.write(' ' * {before})\nsys.stdout.write({printed(GOOD).decode()!r})\n")
    assert measure_copy_rates(Loader(sys.executable, "", (), None, 60), str(script)) == expected


def test_a_device_that_could_not_be_measured_is_unknown_not_zero() -> None:
    assert parse_copy_rates(printed({**GOOD, "pinned_bytes_per_s": None}))[0]["pinned_bytes_per_s"] is None


@pytest.mark.parametrize("rate", [0, -1.0, True, "fast", float("nan"), float("inf")])
def test_what_is_no_rate_gives_no_limit(rate: object) -> None:
    assert parse_copy_rates(printed({**GOOD, "pageable_bytes_per_s": rate})) == []


@given(st.binary())
def test_rubbish_gives_nothing(output: bytes) -> None:
    assert parse_copy_rates(output) == []
