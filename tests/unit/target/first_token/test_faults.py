"""A sample of the faults of tests/live/faults/test_first_token_faults.py, which tries them at every call."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.first_token_faults import KINDS, WORKS, try_faults

EVERY = 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORKS)
def test_no_fault_loses_the_service_or_leaves_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    first = 1 + 4 * KINDS.index(kind)
    assert try_faults(tmp_path, monkeypatch, name, kind, first, EVERY) >= 3
