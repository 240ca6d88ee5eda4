"""The page as text: its data keep their schema and their digits, and nothing that a host says is markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from analysis.documents.schema import validate
from analysis.fleet.fleet import Fleet, fleet
from analysis.fleet.page import Links, _packed, block, data, render
from analysis.fleet.stored import read
from analysis.render import units
from tests.conftest import REPOSITORY
from tests.support import fleet_samples as samples
from tests.support.fleet_samples import HOSTILE, NOW


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve like hosts with an odd one, a change and a failed run, real sweeps, and hosts of hostile names."""
    folder = tmp_path_factory.mktemp("fleet")

    def change(host: int, run: int, document: dict[str, Any]) -> float:
        if host == 11 and run == 7:
            document["summary"] = {"counts": {"failed": 6}}
        return 1.4 if host == 3 or (host == 4 and run > 3) else 1.0

    samples.build(folder / "results", 12, 8, change)
    for name in HOSTILE:
        samples.store(folder / "results", samples.scaled(samples.golden("troubled"), name, NOW, 1))
    sweep = json.loads((samples.GOLDEN.parents[2] / "docs/examples/gpu-sweep/sweep.json").read_text())
    (folder / "results/gpu-01/sweep-20260101T000000Z.json").write_text(json.dumps(sweep))
    (folder / "results/gpu-01/20260101T000000Z.json").write_text("</script>")
    (folder / "audit.json").write_text(json.dumps(samples.audit({"gpu-02": "drift", HOSTILE[0]: "unreachable"})))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Fleet:
    return fleet(read(folder / "results", folder / "audit.json", 20), {"gpu-01": ["<b>"]}, NOW, timedelta(days=30))


def test_the_data_keep_their_schema(whole: Fleet) -> None:
    found = data(whole, Links(reports={"gpu-01"}))
    validate(json.loads(json.dumps(found)), "fleet")
    assert found["outliers"]
    assert found["changes"]
    assert found["left_out"]
    assert found["overview"]["failed"] == 1


def test_the_block_is_what_went_in(whole: Fleet) -> None:
    found = data(whole, Links())
    page = render(whole, Links())
    (stored,) = re.findall(r'<script type="application/json" id="fleet">(.*?)</script>', page, re.DOTALL)
    assert json.loads(stored) == json.loads(json.dumps(found))


def test_no_name_becomes_markup(whole: Fleet) -> None:
    page = render(whole, Links())
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "alert(1)" in page


@given(some.recursive(some.text(), lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner)))
def test_a_block_survives_any_text_and_holds_no_markup(value: object) -> None:
    written = block(value)
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == value


def test_the_policy_allows_exactly_the_pages_own_script_and_style(whole: Fleet) -> None:
    page = render(whole, Links())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    for name, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert "https:" not in policy


@given(some.floats(min_value=0, max_value=1e15, allow_subnormal=False))
@pytest.mark.parametrize("unit", [units.seconds, units.size, units.rate])
def test_a_packed_number_prints_as_the_number_itself(unit: Any, value: float) -> None:
    packed = _packed(value, unit, 3)
    assert unit(packed) == unit(value)


def test_a_packed_number_is_short() -> None:
    assert _packed(12.16700000001, units.seconds, 5) == 12.167
    assert json.dumps(_packed(3250341888.0, units.size, 4)) == "3250000000"
    assert _packed(None, units.size, 4) is None


def test_the_page_depends_on_its_input_alone(whole: Fleet) -> None:
    assert render(whole, Links()) == render(whole, Links())


def test_a_page_without_series_waits_for_no_library_of_statistics(tmp_path: Path) -> None:
    code = (
        "import sys; from datetime import UTC, datetime, timedelta; from pathlib import Path\n"
        "from analysis.fleet.files import Folders, Terms, write\n"
        "folders = Folders(*(Path(sys.argv[1], name) for name in ('results', 'reports', 'audit')))\n"
        "write(folders, {'gpu-01': []}, Terms(timedelta(days=30), 5), datetime.now(UTC))\n"
        "print(sorted({'scipy', 'matplotlib'} & sys.modules.keys()))"
    )
    written = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=REPOSITORY / "plugins", capture_output=True, text=True
    )
    assert (written.stdout, written.stderr) == ("[]\n", "")
    assert (tmp_path / "reports" / "index.html").exists()
