"""Bad input of the measurement through the real play: told before anything is tuned, built or measured."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.bad_input.conftest import NOBODY, Outcome, Play

PYTHON = "/usr/bin/python3"
MODEL = "slm_benchmark_model"
HEADER = json.dumps({"w": {"dtype": "BF16", "shape": [8, 8], "data_offsets": [0, 128]}}).encode()
SHARD = struct.pack("<Q", len(HEADER)) + HEADER + bytes(128)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def told_before_any_change(done: Outcome, knob: str, *words: str) -> None:
    assert done.rc == 2, done.output
    assert len(done.errors) == 1, done.output
    assert done.errors[0].startswith(f"{knob}: wanted "), done.output
    assert ". Next: " in done.errors[0]
    assert all(word in done.errors[0] for word in words), done.errors
    assert "Traceback" not in done.output
    assert "changed=0" in done.output


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "runs of zero": ({"slm_benchmark_runs": 0}, "slm_benchmark_runs", "found 0"),
    "negative runs": ({"slm_benchmark_runs": -1}, "slm_benchmark_runs", "found -1"),
    "fractional runs": ({"slm_benchmark_runs": 1.5}, "slm_benchmark_runs", "found 1.5"),
    "boolean runs": ({"slm_benchmark_runs": True}, "slm_benchmark_runs", "found True"),
    "a word for runs": ({"slm_benchmark_runs": "many"}, "slm_benchmark_runs", "found 'many'"),
    "a timeout of zero": ({"slm_benchmark_timeout_s": 0}, "slm_benchmark_timeout_s", "found 0"),
    "an unknown scope": ({"slm_benchmark_cold_scope": "all"}, "slm_benchmark_cold_scope", "found 'all'"),
    "an unknown dtype": ({"slm_benchmark_dtype": "int3"}, "slm_benchmark_dtype", "found 'int3'"),
    "an unknown user": ({"slm_benchmark_user": "no-such-user"}, "slm_benchmark_user", "no-such-user"),
    "root for a user": ({"slm_benchmark_user": "root"}, "slm_benchmark_user", "root"),
    "a relative home": ({"slm_benchmark_home": "opt/slm"}, "slm_benchmark_home", "found 'opt/slm'"),
    "a model of no known form": ({MODEL: "gpt 17"}, MODEL, "found 'gpt 17'"),
    "a model folder that is missing": ({MODEL: "/nowhere/model"}, MODEL, "/nowhere/model"),
    "a hub id that is not cached": ({MODEL: "Nobody/Nothing-1B"}, MODEL, "The host is offline"),
    "a Python that is missing": (
        {"slm_benchmark_python": "/nowhere/python"},
        "slm_benchmark_python",
        "/nowhere/python",
    ),
    "a Python without torch": ({"slm_benchmark_python": PYTHON}, "slm_benchmark_python", "torch"),
}


@pytest.mark.parametrize("tags", ["measure", "all"])
@pytest.mark.parametrize("case", CASES)
def test_bad_setting(play: Play, case: str, tags: str) -> None:
    variables, knob, words = CASES[case]
    told_before_any_change(play(variables, tags=tags), knob, words)


def whole(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(SHARD)


def cut_short(folder: Path) -> None:
    whole(folder)
    (folder / "model.safetensors").write_bytes(SHARD[:-1])


def corrupt(folder: Path) -> None:
    whole(folder)
    (folder / "model.safetensors").write_bytes(SHARD[:8] + b"\xff" * (len(SHARD) - 8))


def without_tokenizer(folder: Path) -> None:
    whole(folder)
    (folder / "tokenizer.json").unlink()


def pickled(folder: Path) -> None:
    whole(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def secret(folder: Path) -> None:
    whole(folder)
    (folder / "model.safetensors").chmod(0o600)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: None, "found an empty folder"),
        (cut_short, "wanted 128 bytes of tensor data, as its header says; found '127 bytes'"),
        (corrupt, "model.safetensors: wanted"),
        (without_tokenizer, "a tokenizer"),
        (pickled, "wanted safetensors weights"),
        (secret, "nobody"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told(
    play: Play, folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    before = sorted(os.listdir(folder))
    done = play({MODEL: str(folder)}, tags="measure")
    told_before_any_change(done, done.errors[0].partition(":")[0], words)
    assert sorted(os.listdir(folder)) == before


def test_a_disk_without_room_for_the_model_is_told(play: Play, folder: Path) -> None:
    done = play({"slm_benchmark_home": str(folder)}, tags="measure", prepare=f"mount -t tmpfs -o size=9M none {folder}")
    told_before_any_change(done, "slm_benchmark_home", str(folder))
    assert os.listdir(folder) == []


def test_no_root_says_so(play: Play, folder: Path) -> None:
    os.chown(folder, int(NOBODY), int(NOBODY))
    variables = {"ansible_become": False, "ansible_python_interpreter": PYTHON}
    # The folders of this checkout are root's by now, and are tried before the host is.
    outputs = {name: f"{folder}/{name}" for name in ("report_results_dir", "report_reports_dir")}
    done = play({**variables, **outputs}, tags="measure", home=str(folder))
    assert done.rc == 2, done.output
    assert "wanted root; found user id 65534" in done.errors[0], done.output
