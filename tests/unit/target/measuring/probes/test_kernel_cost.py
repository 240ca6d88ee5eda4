"""What compiling kernels costs: two runs that share their caches, and one note where they cannot be had."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.slm_baseline.measuring.loader.events import Events, Mark
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader, Observation, Usage
from ansible.module_utils.slm_baseline.measuring.probes.kernel_cost import profile_kernels

from analysis.documents.schema import validate

S = 10**9


def observation(first_s: float, second_s: float, problem: str | None = None) -> Observation:
    events = Events(0)
    names = ("interpreter", "import_torch", "import_transformers", "device_ready", "tokenizer", "weights")
    for number, name in enumerate(names, 1):
        events.marks[name] = Mark(number * S)
    at = len(names) * S
    events.marks["first_token"] = Mark(at + round(first_s * S))
    events.marks["resumed"] = Mark(at + round(first_s * S))
    events.marks["second_token"] = Mark(at + round(first_s * S) + round(second_s * S))
    return Observation(events, problem, 0, None, "", Usage(0.0, 0.0))


def loader(tmp_path: Path) -> Loader:
    return Loader("python3", "slm_load.py", (), None, 60.0, scratch=str(tmp_path))


def driver(seen: list[Path]) -> Callable[[Loader], Observation]:
    """A loader whose driver compiles what it does not find."""

    def run(asked: Loader) -> Observation:
        cache = Path(dict(asked.env)["CUDA_CACHE_PATH"])
        seen.append(cache)
        if (cache / "index").exists():
            return observation(0.35, 0.1)
        cache.mkdir(parents=True)
        (cache / "index").write_bytes(b"x" * 96)
        return observation(0.95, 0.4)

    return run


def test_the_first_run_compiles_and_the_second_finds_what_it_stored(tmp_path: Path) -> None:
    seen: list[Path] = []
    found = profile_kernels(loader(tmp_path), [], driver(seen))
    assert found == {
        "problem": None,
        "files": 1,
        "bytes": 96,
        "compiling": {"first_token": 0.95, "second_token": 0.4},
        "kept": {"first_token": 0.35, "second_token": 0.1},
    }
    validate(found, "result", part="/properties/kernels")
    assert seen[0] == seen[1]
    # Nothing is left of it.
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_stored_there_is_no_second_run(tmp_path: Path) -> None:
    runs: list[Loader] = []

    def run(asked: Loader) -> Observation:
        runs.append(asked)
        return observation(0.3, 0.1)

    found = profile_kernels(loader(tmp_path), [], run)
    assert (found["files"], found["kept"], len(runs)) == (0, None, 1)
    validate(found, "result", part="/properties/kernels")


def test_a_run_that_fails_or_a_folder_that_cannot_be_made_is_one_word(tmp_path: Path) -> None:
    found = profile_kernels(loader(tmp_path), [], lambda asked: observation(1.0, 1.0, "killed by SIGKILL"))
    assert found == {"problem": "the loader with kept kernels failed: killed by SIGKILL"}

    def full(asked: Loader) -> Observation:
        raise OSError(errno.ENOSPC, "No space left on device")

    found = profile_kernels(loader(tmp_path), [], full)
    assert "No space left on device" in found["problem"]
    validate(found, "result", part="/properties/kernels")
