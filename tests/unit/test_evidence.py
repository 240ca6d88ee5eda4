"""Documents of benchmarks: they keep their schema, the tables are made of them, and the pages show these tables."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.documents.errors import DocumentError
from analysis.documents.schema import validate
from benchmarks.evidence import Document
from benchmarks.first_token import Start
from benchmarks.tables import TABLES, best_peer, engine_table, first_token_table, floor_s, median_start, paired
from tests.conftest import REPOSITORY

EVIDENCE = sorted((REPOSITORY / "docs/evidence").glob("*.json"))
PHASES = ("interpreter", "import_transformers", "weights", "first_token")
HOST: dict[str, Any] = {"kernel": "6.18", "arch": "x86_64", "cpus": 2, "gpus": [], "software": {"torch": "2.13"}}
FACTS: dict[str, Any] = {
    "model": "m",
    "disk_bytes_per_s": 1e9,
    "imports_bytes": 10**9,
    "resident_bytes": 2 * 10**9,
    "weights_bytes": 4 * 10**9,
    "modules_compiled": 0,
    "kernel_files": 0,
}


def start(*seconds: float, read_gb: tuple[float, ...] = (0, 0, 0, 0)) -> dict[str, Any]:
    read = {name: int(size * 10**9) for name, size in zip(PHASES, read_gb, strict=True)}
    made = Start(sum(seconds), dict(zip(PHASES, seconds, strict=True)), read, "ended_s=0.9 stale=0 memory=imports only")
    return made.to_json()


def document(**arms: list[dict[str, Any]]) -> dict[str, Any]:
    made = Document("first-token", HOST, FACTS, taken_at="2026-11-30T12:00:00Z", commit="0123456789ab")
    named = {name.replace("_", " ").replace(" c ", ", "): starts for name, starts in arms.items()}
    for block in range(max(map(len, named.values()))):
        made.add_block([(arm, starts[block]) for arm, starts in named.items() if block < len(starts)])
    return json.loads(json.dumps(made.to_json()))  # type: ignore[no-any-return]


COLD = start(0.1, 5, 5, 1, read_gb=(0, 2, 6, 6))
WARM = start(0.1, 2, 1, 1)


def test_what_a_bench_writes_keeps_its_schema_and_is_read_back(tmp_path: Path) -> None:
    made = document(cold_c_as_found=[COLD, COLD], warm_c_as_found=[WARM, WARM])
    validate(made, "evidence")
    assert made["starts"][0]["replay"] == {"ended_s": 0.9, "stale": 0.0}
    (tmp_path / "one.json").write_text(json.dumps(made))
    again = Document.read(tmp_path / "one.json")
    assert again.blocks == 2
    again.add_block([("cold, as found", COLD)])
    again.write(tmp_path / "one.json")
    assert [each["block"] for each in json.loads((tmp_path / "one.json").read_text())["starts"]] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("path", "value"), [("commit", "x"), ("kind", "guess"), ("host", {}), ("starts", [{"block": 1, "arm": "a"}])]
)
def test_a_document_of_another_form_is_refused(path: str, value: object) -> None:
    made = document(cold_c_as_found=[COLD])
    made[path] = value
    with pytest.raises(DocumentError):
        validate(made, "evidence")


def test_the_floor_counts_of_the_imports_what_is_touched_and_work_after_what_is_read_last() -> None:
    made = document(cold_c_as_found=[COLD], warm_c_as_found=[WARM])
    # 1 of the 2 GB of imports is touched, then 4 GB of weights: 5 s, and the first token's 1 s after that.
    assert floor_s(made) == pytest.approx(6.0)
    quick = copy.deepcopy(made)
    quick["facts"]["disk_bytes_per_s"] = 1e12
    assert floor_s(quick) == pytest.approx(4.1, abs=0.01)
    assert floor_s(document(cold_c_as_found=[COLD])) is None
    kept = document(cold_c_as_found=[COLD], warm_c_as_found=[WARM], warm_c_caches_kept=[start(0.1, 1, 1, 0.5)])
    assert floor_s(kept) == pytest.approx(5.5)


def test_ratios_are_paired_within_blocks_and_the_best_peer_changes_no_application() -> None:
    made = document(
        replay_together=[start(0, 1, 1, 0), start(0, 2, 2, 0), start(0, 4, 4, 0)],
        cat_model_beside=[start(0, 2, 2, 0), start(0, 3, 3, 0)],
        vmtouch_c_all=[start(0, 9, 9, 0)],
    )
    assert paired(made, "cat model beside", "replay together") == pytest.approx((2 + 1.5) / 2)
    assert paired(made, "nothing", "replay together") is None
    assert best_peer(made) == "cat model beside"
    assert best_peer(document(replay_together=[WARM])) is None
    assert median_start([start(0, 3, 0, 0), start(0, 1, 0, 0), start(0, 2, 0, 0), start(0, 9, 0, 0)])["seconds"] == 2


def test_a_table_has_every_start_soonest_arm_first() -> None:
    lines = first_token_table(document(cold_c_as_found=[COLD], warm_c_as_found=[WARM], replay_together=[WARM])).split(
        "\n"
    )
    assert lines[0].startswith("first-token, 2026-11-30T12:00:00Z, commit 0123456789ab, 1 blocks: no GPU, 2 CPUs")
    assert lines[-1] == "| cold, as found | 11.10 | 11.10 | 1.85 | 2.71x |"
    made = Document("engine", HOST, {"target": "vllm"}, taken_at="2026-11-30T12:00:00Z", commit="0123456789ab")
    made.add_block(
        [("cold, as found", {"seconds": 80.0, "ready_s": 79.0}), ("replay ahead", {"seconds": 40.0, "ready_s": 39.0})]
    )
    validate(made.to_json(), "evidence")
    assert engine_table(made.to_json()).split("\n")[-2:] == [
        "| replay ahead | 39.00 | 40.00 | 40.00 | 2.00x |",
        "| cold, as found | 79.00 | 80.00 | 80.00 | 1.00x |",
    ]


@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: path.stem)
def test_what_is_published_keeps_its_schema(path: Path) -> None:
    validate(json.loads(path.read_text(encoding="utf-8")), "evidence")


@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: path.stem)
def test_the_page_of_evidence_shows_the_table_that_its_document_makes(path: Path) -> None:
    made = json.loads(path.read_text(encoding="utf-8"))
    table = TABLES[made["kind"]](made)
    pages = [page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs/evidence").glob("*.md")]
    assert [page for page in pages if path.name in page and table in page]
