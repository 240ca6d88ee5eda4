"""A cache is its user's own, filled by a start, and nothing in it counts that was not asked for and is not checked."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.bytecode import (
    cache_of,
    find_cached,
    find_compiled,
    find_objection,
    fit_of,
    has_bytecode,
    lacks_times,
    stamp_of,
    with_cached,
)
from ansible.module_utils.slm_baseline.first_token.cache import Cache
from ansible.module_utils.slm_baseline.first_token.fit import find_rights_above
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.host.files import Host

from tests.support.bytecode import command_lines

LIVE = Host()
TARGET = Target("app", unit="app.service")
PLAIN = command_lines("")
UNIT = Unit("app.service", "simple", "app", "", False, "active", facts=tuple({"ExecStartEx": PLAIN}.items()))


def with_facts(**facts: str) -> Unit:
    return replace(UNIT, facts=tuple({"ExecStartEx": PLAIN, **facts}.items()))


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (UNIT, ""),
        (replace(UNIT, user=""), "runs as root"),
        (replace(UNIT, user="root"), "runs as root"),
        (replace(UNIT, user="0"), "runs as root"),
        (replace(UNIT, user="", has_dynamic_user=True), ""),
        (with_facts(ExecStartPreEx=command_lines("privileged")), "more rights than its user's"),
        (with_facts(ExecStartPreEx=command_lines("ignore-failure privileged")), "more rights than its user's"),
        (with_facts(ExecStartPostEx=command_lines("", "no-setuid")), "more rights than its user's"),
        (with_facts(ExecReloadEx=command_lines("ambient")), "more rights than its user's"),
        (with_facts(ExecStopPostEx=command_lines("privileged")), "more rights than its user's"),
        (with_facts(ExecConditionEx=command_lines("privileged")), "more rights than its user's"),
        (with_facts(ExecStopEx=command_lines("ignore-failure")), ""),
        (with_facts(PermissionsStartOnly="yes"), "more rights than its user's"),
        (with_facts(PermissionsStartOnly="no"), ""),
        (with_facts(ExecStartEx=""), "does not tell"),
        (with_facts(AmbientCapabilities="cap_net_raw cap_setuid"), "may become other users"),
        (with_facts(AmbientCapabilities="cap_net_raw"), ""),
        (with_facts(Environment="A=1 PYTHONPYCACHEPREFIX=/x"), "of its own"),
        (replace(with_facts(CacheDirectory="x"), has_dynamic_user=True), "CacheDirectory="),
        (with_facts(CacheDirectory="x"), ""),
    ],
)
def test_a_unit_has_a_cache_only_where_all_its_lines_run_as_its_user(unit: Unit, words: str) -> None:
    """`ExecStartPre=+/usr/bin/python3` ran what the service's user had put into the cache, as root."""
    found = find_objection(unit)
    assert (words in found) if words else (found == "")


def test_a_unit_without_a_word_on_its_rights_has_none() -> None:
    assert "does not tell" in find_rights_above({})
    assert find_rights_above({"ExecStartEx": PLAIN}) == ""


def test_where_a_cache_lies() -> None:
    assert cache_of(TARGET, UNIT) == Cache(TARGET.pycache, TARGET.pycache)
    assert cache_of(TARGET, None) == Cache(TARGET.pycache, TARGET.pycache)
    writable = (f"ReadWritePaths=-{TARGET.pycache}",)
    assert cache_of(TARGET, with_facts(ProtectSystem="strict")).lines == writable
    assert cache_of(TARGET, with_facts(ReadOnlyPaths="/var")).lines == writable
    assert cache_of(TARGET, with_facts(ProtectSystem="full")).lines == ()
    dynamic = cache_of(TARGET, replace(UNIT, has_dynamic_user=True))
    assert dynamic == Cache(
        "/var/cache/slm-first-token-app",
        "/var/cache/private/slm-first-token-app",
        ("CacheDirectory=slm-first-token-app", "UnsetEnvironment=CACHE_DIRECTORY"),
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Modules: `has` with bytecode beside it, `stale` with that of an older source, `lacks` without."""
    for name in ("has", "stale", "lacks"):
        (tmp_path / f"{name}.py").write_text(f"NAME = {name!r}\n")
    for name in ("has", "stale"):
        py_compile.compile(str(tmp_path / f"{name}.py"))
    (tmp_path / "stale.py").write_text("NAME = 'newer than that'\n")
    return tmp_path


def test_a_source_is_compiled_at_each_start_unless_bytecode_beside_it_fits(site: Path) -> None:
    opened = [str(site / name) for name in ("has.py", "lacks.py", "stale.py", "lacks.so")]
    assert find_compiled(LIVE, opened) == [str(site / "lacks.py"), str(site / "stale.py")]
    # One with a hash in place of the time is the interpreter's to check.
    py_compile.compile(str(site / "stale.py"), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    assert has_bytecode(LIVE, str(site / "stale.py"))
    (cached,) = (site / "__pycache__").glob("has.*")
    cached.write_bytes(cached.read_bytes()[:12])
    assert not has_bytecode(LIVE, str(site / "has.py"))
    assert not has_bytecode(LIVE, str(site / "gone.py"))
    cached.unlink()
    os.mkfifo(cached)
    assert not has_bytecode(LIVE, str(site / "has.py"))


def fill(site: Path, prefix: Path, *names: str) -> list[str]:
    """What a start opens that imports these with the cache."""
    prefix.mkdir(exist_ok=True)
    env = {"PYTHONPYCACHEPREFIX": str(prefix), "PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", f"import {', '.join(names)}"], env=env, check=True)
    stored = [str(path) for path in prefix.rglob("*.pyc") if str(site) in str(path)]
    # An interpreter writes under another name first.
    return [*(str(site / f"{name}.py") for name in names), f"{stored[0]}.140234", *stored[1:]]


def test_what_the_start_itself_stored_is_found_by_what_it_asked_for(site: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "cache"
    opened = fill(site, prefix, "has", "lacks")
    cached = find_cached(LIVE, str(prefix), opened)
    assert set(cached) == {str(site / "has.py"), str(site / "lacks.py")}
    assert all(path.startswith(f"{prefix}{site}/") and os.path.exists(path) for path in cached.values())


def test_bytecode_for_what_nobody_asked_for_does_not_count(site: Path, tmp_path: Path) -> None:
    """A fake interpreter stored bytecode of `json`, which others then ran."""
    prefix = tmp_path / "cache"
    opened = fill(site, prefix, "has", "lacks")
    (stored,) = (prefix / str(site).lstrip("/")).glob("has.*.pyc")
    (stored.parent / stored.name.replace("has", "stale")).write_bytes(stored.read_bytes())
    assert str(site / "stale.py") not in find_cached(LIVE, str(prefix), opened)
    assert find_cached(LIVE, str(prefix), [path for path in opened if path.endswith(".py")]) == {}


@pytest.mark.parametrize("mode", ["unchecked", "hash", "other time", "link", "short"])
def test_bytecode_that_is_not_checked_against_its_source_does_not_count(site: Path, tmp_path: Path, mode: str) -> None:
    """Unchecked bytecode of an image ran on after an upgrade, with new source and new bytecode beside it."""
    prefix = tmp_path / "cache"
    opened = fill(site, prefix, "has", "lacks")
    (stored,) = (prefix / str(site).lstrip("/")).glob("lacks.*.pyc")
    if mode in ("unchecked", "hash"):
        kinds = py_compile.PycInvalidationMode
        kind = kinds.UNCHECKED_HASH if mode == "unchecked" else kinds.CHECKED_HASH
        py_compile.compile(str(site / "lacks.py"), str(stored), invalidation_mode=kind)
    elif mode == "other time":
        os.utime(site / "lacks.py", (1_700_000_000, 1_700_000_000))
    elif mode == "link":
        stored.rename(tmp_path / "elsewhere.pyc")
        stored.symlink_to(tmp_path / "elsewhere.pyc")
    else:
        stored.write_bytes(b"short")
    assert set(find_cached(LIVE, str(prefix), opened)) == {str(site / "has.py")}


def test_sources_without_times_of_their_own_have_no_cache(site: Path) -> None:
    sources = [str(site / "has.py"), str(site / "gone.py")]
    assert not lacks_times(LIVE, sources)
    os.utime(site / "has.py", (1, 1))
    assert lacks_times(LIVE, sources)


def test_the_plan_of_the_next_start_has_the_bytecode_in_the_place_of_its_source() -> None:
    def file(path: str) -> PlanFile:
        return PlanFile(path, False, 1, 2, 3)

    plan = Plan({"page_bytes": "4096"}, ["/a"], [file("/a/x.py"), file("/a/lib.so"), file("/a/main.py")])
    found = with_cached(plan, {"/a/x.py": file("/c/x.pyc"), "/a/y.py": file("/c/y.pyc")})
    assert [each.path for each in found.files] == ["/c/x.pyc", "/a/lib.so", "/a/main.py", "/c/y.pyc"]
    assert found.folders == ["/a"]


def test_the_stamp_of_a_source_is_what_its_bytecode_has(site: Path) -> None:
    (cached,) = (site / "__pycache__").glob("has.*")
    assert cached.read_bytes()[8:16] == stamp_of((site / "has.py").stat())


def test_what_a_cache_was_made_for_is_the_folder_the_user_and_the_sources(site: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    cache = Cache("/told", str(tmp_path / "cache"))
    fit = fit_of(LIVE, TARGET, UNIT, 7, cache, [str(site / "has.py")])
    found = (site / "has.py").stat()
    assert fit.sources == ((found.st_ino, found.st_size, found.st_mtime_ns, str(site / "has.py")),)
    assert [folder for _, _, folder in fit.folders] == [str(site)]
    assert (fit.prefix, fit.folder, fit.uid, fit.unit) == ("/told", cache.folder, "7", ("app.service", "app"))
    assert fit.inode == (tmp_path / "cache").stat().st_ino
    assert fit_of(LIVE, TARGET, None, None, cache, []).uid == "dynamic"
