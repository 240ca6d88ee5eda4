"""Compiling the modules of a start once more, to know what it costs: measured, and nothing of it is executed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.compile_cost import CompileCost, measure_compiling, parse_cost
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from hypothesis import given
from hypothesis import strategies as st

PYTHON = "/usr/bin/python3"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")


@needs_root
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs the host's Python")
def test_sources_are_compiled_and_none_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "writes.py").write_text(f"open({str(trace)!r}, 'w')\n" + "x = 1\n" * 5000)
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "real.py").symlink_to(tmp_path / "writes.py")
    cost = measure_compiling(
        Host(), [str(tmp_path / name) for name in ("writes.py", "broken.py", "real.py", "gone.py")]
    )
    assert cost
    # A link is not followed, and what is gone or wrong costs nothing.
    assert (cost.lacking, cost.modules) == (4, 1)
    assert cost.compile_s > 0
    assert not trace.exists()
    assert "compiling 1 of the 4 modules without bytecode takes" in cost.note


@needs_root
def test_what_cannot_be_measured_has_no_figure(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (:")
    assert measure_compiling(Host(), [str(tmp_path / "broken.py")]) is None
    assert measure_compiling(Host(), [], python=str(tmp_path / "no-python")) is None
    assert measure_compiling(Host(), [], python="/bin/false") is None


def test_the_sentence_says_that_it_was_measured_and_with_which_interpreter() -> None:
    cost = parse_cost('{"modules": 60, "compile_s": 1.25, "python": "3.11.2"}', 60)
    assert cost == CompileCost(60, 60, 1.25, "3.11.2")
    assert cost
    assert "compiling the 60 modules without bytecode takes 1.2 s of CPU" in cost.note
    assert "measured once with this host's Python 3.11.2" in cost.note
    assert cost.to_json() == {"lacking": 60, "compiled": 60, "compile_s": 1.25, "python": "3.11.2"}


@given(st.text())
def test_any_other_output_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_cost(text, 1)
