"""Bytecode: which sources were imported, and what is taken from an interpreter that serves another user."""

from __future__ import annotations

import io
import os
import py_compile
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import bytecode
from ansible.module_utils.slm_baseline.first_token.bytecode import fill, frames, make_cache, source_of, sources_of
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Opened
from ansible.module_utils.slm_baseline.host.errors import SettingError

from tests.conftest import REPOSITORY

COMPILER = str(REPOSITORY / "files" / "slm_compile.py")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/a/b.py", "/a/b.py"),
        ("/a/__pycache__/b.cpython-312.pyc", "/a/b.py"),
        ("/a/__pycache__/b.cpython-312.opt-1.pyc", "/a/b.py"),
        ("/cache/a/b.cpython-312.pyc", "/a/b.py"),
        ("/a/b.cpython-312.pyc", None),
        ("/cache/a/__pycache__/b.cpython-312.pyc", None),
        ("/a/b.so", None),
    ],
)
def test_the_source_of_an_opened_file(path: str, source: str | None) -> None:
    assert source_of(path, "/cache") == source


def test_sources_are_told_apart_by_interpreter_and_other_programs_are_left_out() -> None:
    opened = [
        Opened("/a/x.py", False, "/usr/bin/python3.11"),
        Opened("/a/__pycache__/y.cpython-311.pyc", False, "/usr/bin/python3.11"),
        Opened("/b/z.py", False, "/opt/bin/python3.12"),
        Opened("/a/x.py", False, "/usr/bin/grep"),
        Opened("/a", True, "/usr/bin/python3.11"),
    ]
    assert sources_of(opened) == {"/usr/bin/python3.11": ["/a/x.py", "/a/y.py"], "/opt/bin/python3.12": ["/b/z.py"]}


def test_an_interpreter_takes_the_filled_cache_and_compiles_nothing(tmp_path: Path) -> None:
    source, prefix = tmp_path / "site" / "mine.py", tmp_path / "cache"
    source.parent.mkdir()
    source.write_text("VALUE = 1\n")
    (source.parent / "later.py").write_text("OTHER = 2\n")
    py_compile.compile(str(source.parent / "later.py"))
    prefix.mkdir()
    filled = fill([sys.executable, "-IS", COMPILER], [str(source), str(tmp_path / "gone.py")], str(prefix), {})
    assert (filled.compiled, filled.copied, filled.failed) == (1, 1, 1)
    # The sources of the interpreter itself that lie where it looks are there too, where they have bytecode.
    ours = f"{prefix}{source.parent}"
    stored = {path: path.stat().st_mtime_ns for path in prefix.rglob("*.pyc") if str(path).startswith(ours)}
    answer = subprocess.run(
        [sys.executable, "-v", "-c", "import mine, later; print(mine.__cached__, later.__cached__)"],
        env={"PYTHONPYCACHEPREFIX": str(prefix), "PYTHONPATH": str(source.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == [str(path) for path in sorted(stored, reverse=True)]
    assert f"matches {source}" in answer.stderr
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


@pytest.mark.parametrize(
    "sent",
    [
        b"/etc/cron.d/x.pyc\x001\x00x",
        b"PREFIX/../x.pyc\x001\x00x",
        b"PREFIX/x.sh\x001\x00x",
        b"PREFIX/a.pyc\x0099999999999\x00x",
        b"PREFIX/a.pyc\x00ten\x00x",
        b"PREFIX/a.pyc\x005\x00x",
        b"\x004\x00nope",
        b"",
    ],
)
def test_whatever_a_strange_interpreter_sends_stays_below_the_prefix(tmp_path: Path, sent: bytes) -> None:
    prefix = tmp_path / "cache"
    prefix.mkdir()
    answer = tmp_path / "answer"
    answer.write_bytes(sent.replace(b"PREFIX", os.fsencode(prefix)))
    with pytest.raises(SettingError, match="bytecode"):
        fill(["/bin/sh", "-c", f"cat >/dev/null; cat {answer}"], ["/a.py"], str(prefix), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer", "cache"]


@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 600",
        "cat >/dev/null; exec sleep 600",
        "yes | tr -d '\\n' & sleep 600",
        "setsid sh -c 'setsid sleep 600 & sleep 600' & exit 0",
    ],
)
def test_an_interpreter_that_holds_us_up_is_ended(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "_TIMEOUT_S", 0.5)
    with pytest.raises(SettingError, match="bytecode"):
        fill(["/bin/sh", "-c", script], ["/a.py"] * 50_000, str(tmp_path), {})


def test_counts_that_are_no_numbers_are_one_error(tmp_path: Path) -> None:
    told = '{"compiled": Infinity, "copied": 0, "failed": 0, "compile_s": 0}'
    with pytest.raises(SettingError, match="bytecode"):
        fill(["/bin/sh", "-c", f"printf '\\0%d\\0%s' {len(told)} '{told}'"], [], str(tmp_path), {})


def test_frames_are_read_one_after_the_other() -> None:
    assert list(frames(io.BytesIO(b"/a\x002\x00xy/b\x000\x00"))) == [("/a", b"xy"), ("/b", b"")]


def test_a_cache_is_closed_to_all_but_root_and_the_targets_group(tmp_path: Path) -> None:
    source, cache = tmp_path / "private.py", tmp_path / "cache"
    source.write_text("KEY = 'secret'\n")
    source.chmod(0o600)
    make_cache(cache, os.getgid())
    fill([sys.executable, "-IS", COMPILER], [str(source)], str(cache), {})
    assert b"secret" in next(cache.rglob("private.*.pyc")).read_bytes()
    found = cache.stat()
    assert (oct(found.st_mode & 0o777), found.st_gid) == ("0o750", os.getgid())
    with pytest.raises(FileExistsError):
        make_cache(cache, os.getgid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another group")
def test_a_cache_of_nobody_holds_what_everybody_can_read_and_is_open_to_all(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", 65534)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o755
