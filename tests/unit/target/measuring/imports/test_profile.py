"""The imports of one run: a fake loader under the real interpreter's timing, and what it says of modules' bytecode."""

from __future__ import annotations

import json
import os
import py_compile
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.measuring.imports import profile
from ansible.module_utils.slm_baseline.measuring.imports.importtime import Imported
from ansible.module_utils.slm_baseline.measuring.imports.profile import NoAnswer, describe, profile_imports
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader, Observation, observe

from analysis.documents.schema import validate
from tests.conftest import REPOSITORY

FAKE = REPOSITORY / "tests" / "support" / "fake_loader.py"
ANSWER: dict[str, Any] = {
    "states": {"valid": 2, "missing": 1},
    "compiled": 1,
    "compile_s": 1.5,
    "load_s": 0.25,
    "standard": ["json"],
    "distributions": {"scikit-learn": {"requires": [], "packages": ["sklearn"]}},
}
IMPORTS = [Imported("json", 0.1, None), Imported("sklearn", 2.0, 2), Imported("transformers.x", 0.5, None)]


def loader(tmp_path: Path, mode: str = "good") -> Loader:
    """A fake loader with the program that looks for bytecode beside it, as on a host."""
    script = tmp_path / "slm_load.py"
    for path, target in ((script, FAKE), (tmp_path / profile.SCRIPT, REPOSITORY / "files" / profile.SCRIPT)):
        if not path.exists():
            path.symlink_to(target)
    return Loader(sys.executable, str(script), (mode,), None, 20.0, scratch=str(tmp_path))


def ask(tmp_path: Path, *names: str) -> dict[str, Any]:
    return dict(profile._ask(loader(tmp_path), names))


def test_a_good_run_tells_its_imports(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"x")
    seen = profile_imports(loader(tmp_path), [model])
    validate(json.loads(json.dumps(seen)), "result", "/$defs/imports")
    assert seen["problem"] is None
    # The fake loader imports the standard library alone.
    assert seen["packages"][0]["name"] == "standard library"
    assert seen["bytecode"]["valid"] > 0
    assert seen["modules"] > 20


@pytest.mark.parametrize(("mode", "word"), [("crash", "exit code 1"), ("rubbish", "JSON"), ("killed", "SIGKILL")])
def test_a_run_that_fails_leaves_a_reason(tmp_path: Path, mode: str, word: str) -> None:
    seen = profile_imports(loader(tmp_path, mode), [])
    validate(seen, "result", "/$defs/imports")
    assert word in seen["problem"]


def test_an_interpreter_that_is_gone_leaves_a_reason(tmp_path: Path) -> None:
    gone = Loader(str(tmp_path / "python"), str(FAKE), ("good",), None, 5.0, scratch=str(tmp_path))
    assert "python" in profile_imports(gone, [])["problem"]


def test_a_run_that_read_from_disk_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Loader] = []

    def counted(loader: Loader, on_held: Callable[[int], None]) -> Observation:
        runs.append(loader)
        return observe(loader, on_held)

    monkeypatch.setattr(profile, "observe", counted)
    profile._timed_imports(loader(tmp_path), [])
    assert len(runs) == 1
    # The fake loader says that it read 1000 bytes.
    monkeypatch.setattr(profile, "_MOST_READ_BYTES", 999)
    profile._timed_imports(loader(tmp_path), [])
    assert len(runs) == 3


def test_bytecode_is_valid_missing_stale_or_unreadable(tmp_path: Path) -> None:
    caches = {}
    for name in ("valid", "missing", "other_python", "older", "hashed", "hashed_other", "torn", "unreadable", "broken"):
        source = tmp_path / f"{name}.py"
        source.write_text("a = 1 +" if name == "broken" else "a = 1\n" * 1000)
        caches[name] = tmp_path / "__pycache__" / f"{name}.{sys.implementation.cache_tag}.pyc"
        if name not in ("missing", "broken"):
            checked = py_compile.PycInvalidationMode.CHECKED_HASH if "hashed" in name else None
            py_compile.compile(str(source), invalidation_mode=checked)
    caches["other_python"].write_bytes(b"abcd" + caches["other_python"].read_bytes()[4:])
    os.utime(tmp_path / "older.py", (1, 1))
    (tmp_path / "hashed_other.py").write_text("a = 2\n")
    caches["torn"].write_bytes(caches["torn"].read_bytes()[:7])
    caches["unreadable"].unlink()
    caches["unreadable"].mkdir()
    answer = ask(tmp_path, *caches, "no_such_module", "no_such.module", "sys", "json.decoder", "_io")
    assert answer["states"] == {"valid": 3, "missing": 2, "stale": 4, "unreadable": 1}
    assert (answer["lacking"], answer["compiled"]) == (7, 6)
    assert answer["compile_s"] > answer["load_s"] > 0


def test_modules_are_found_without_importing_what_lies_above(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "leaf.py").write_text("")
    (tmp_path / "spread" / "part").mkdir(parents=True)
    (tmp_path / "spread" / "leaf.py").write_text("")
    answer = ask(tmp_path, "package", "package.inner", "package.inner.leaf", "spread", "spread.leaf")
    assert answer["states"] == {"missing": 4}


def test_compiling_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"long{number}.py").write_text("a = 1\n" * 5000)
    monkeypatch.setattr(profile, "COMPILE_LIMIT_S", 0.0)
    answer = ask(tmp_path, *(f"long{number}" for number in range(3)))
    assert (answer["lacking"], answer["compiled"]) == (3, 1)


def test_what_is_said_of_imports() -> None:
    said = describe(IMPORTS, ANSWER)
    validate({"problem": None, **said}, "result", "/$defs/imports")
    assert said["bytecode"]["saving_s"] == 1.25
    assert said["packages"][0] == {"name": "sklearn", "seconds": 2.0, "modules": 1}
    assert said["not_required"] == [{"distribution": "scikit-learn", "importer": "transformers.x", "seconds": 2.0}]
    assert describe(IMPORTS, {**ANSWER, "load_s": 9.0})["bytecode"]["saving_s"] == 0.0


@pytest.mark.parametrize(
    "damage",
    [
        {"states": 1},
        {"states": {"valid": "many"}},
        {"compile_s": None},
        {"compile_s": "NaN"},
        {"load_s": -1},
        {"compiled": -1},
        {"standard": 3},
        {"distributions": {"a": {}}},
        {"distributions": []},
    ],
)
def test_an_odd_answer_is_told(damage: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer, match="odd answer"):
        describe(IMPORTS, {**ANSWER, **damage})


def test_a_process_that_answers_nothing_is_told(tmp_path: Path) -> None:
    for program, word in (("", "failed"), ("print([])", "no answer"), ("raise SystemExit('why')", "why")):
        (tmp_path / profile.SCRIPT).write_text(program)
        with pytest.raises(NoAnswer, match=word):
            ask(tmp_path)


def test_all_of_the_timing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything, _ = profile._timed_imports(loader(tmp_path), [])
    assert "encodings" in {each.name for each in everything}
    monkeypatch.setattr(profile, "STDERR_BYTES", 1000)
    the_end, _ = profile._timed_imports(loader(tmp_path), [])
    assert 0 < len(the_end) < len(everything)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("while :; do head -c 1000000 /dev/zero; done", "more than 1 MiB"),
        ('echo \'{"states": {"valid": Infinity}}\'', "odd answer"),
        ("echo '[]'", "gave no answer"),
        ("cat > /dev/null; echo no >&2; exit 3", "looking for bytecode failed: no"),
        ("exec 0<&-; exit 3", "exit code 3"),
    ],
)
def test_an_interpreter_may_say_what_it_likes(tmp_path: Path, answer: str, found: str) -> None:
    """One that talks for ever grew root's module by 100 MB/s; `Infinity` was a traceback."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    asked = Loader(str(python), "/x/slm_load.py", (), None, 60.0)
    with pytest.raises(NoAnswer, match=found):
        describe([], profile._ask(asked, ["json"] * 50_000))
