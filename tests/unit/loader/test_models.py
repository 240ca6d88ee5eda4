"""The matrix of models without a page cache: what the loader's code makes of each kind, and the page made from it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.measuring.install import trial

from tests.live.models import architectures
from tests.live.models.architectures import NONE, ROWS
from tests.live.models.page import PAGE, by_name, tables, with_tables
from tests.support.torch_python import find_torch_python


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("models")
    command = [find_torch_python(), architectures.__file__, "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr[-2000:]
    return by_name(done.stdout.splitlines())


def test_the_page_of_models_is_what_the_loader_says(facts: dict[str, dict[str, Any]]) -> None:
    page = PAGE.read_text()
    assert with_tables(page, facts) == page, "make it anew: architectures.py ... | python -m tests.live.models.page"
    assert tables(facts)[0] in page


def test_every_row_but_the_refused_is_loaded(facts: dict[str, dict[str, Any]]) -> None:
    refused = {name: said["refused"] for name, said in facts.items() if "refused" in said}
    assert not refused.keys() & {row.name for row in ROWS if row.group != NONE}
    for name, words in refused.items():
        assert len(words.splitlines()) == 1, name


def test_what_is_stored_and_not_loaded_is_named(facts: dict[str, dict[str, Any]]) -> None:
    twice = facts["qwen3, head stored twice"]
    assert twice["stored_twice"] == {"count": 1, "names": ["lm_head.weight"]}
    assert twice["stored_elements"] - twice["parameters"] == 384 * 64
    assert facts["gemma3 with a vision tower beside it"]["unplaced"]["names"][0] == "vision_tower.layers.0.weight"
    assert facts["llama with inv_freq"]["unplaced"]["count"] == 2
    assert facts["pythia with its old buffers"]["unplaced_elements"] == 2 * 128 * 128 + 4
    assert facts["decoy by an alias in the config"]["files"][0].endswith("decoy.safetensors")
    assert len(facts["llama in shards"]["files"]) > 1


def test_there_are_enough_rows_and_each_has_a_name_of_its_own() -> None:
    assert len(ROWS) >= 40
    assert len({row.name for row in ROWS}) == len({architectures.folder_of(row) for row in ROWS}) == len(ROWS)


def test_what_is_known_of_the_lock_is_what_its_transformers_has() -> None:
    program = (
        "import transformers; from transformers.models.auto import modeling_auto as auto;"
        "print(transformers.__version__, *auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)"
    )
    done = subprocess.run([find_torch_python(), "-c", program], capture_output=True, text=True, check=True)
    version, *kinds = done.stdout.split()
    if version != trial.KNOWN_TRANSFORMERS:
        pytest.skip(f"this Python has transformers {version}")
    assert set(kinds) == trial.CAUSAL_TYPES


def test_the_page_has_each_row(tmp_path: Path) -> None:
    page = PAGE.read_text()
    for row in ROWS:
        assert f"| {row.name} |" in page
