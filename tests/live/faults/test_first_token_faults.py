"""No kill and no failed system call of a recording or a removal loses the service or leaves anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.first_token_faults import KINDS, LEAST_POINTS, WORKS, try_faults


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORKS)
def test_no_fault_loses_the_service_or_leaves_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    assert try_faults(tmp_path, monkeypatch, name, kind) >= LEAST_POINTS[name]
