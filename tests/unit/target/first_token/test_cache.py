"""A cache is a folder of its user's own, made anew, and the former one stays where that fails."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import cache as module
from ansible.module_utils.slm_baseline.first_token.cache import (
    Cache,
    cache_at,
    find_cache_objection,
    in_making,
    make_cache,
)
from ansible.module_utils.slm_baseline.first_token.recorder.start import Identity
from ansible.module_utils.slm_baseline.first_token.recorder.unit import Unit
from ansible.module_utils.slm_baseline.host.files import Host

from tests.support.bytecode import command_lines

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another user")
ME = Identity(os.getuid(), os.getgid())
UNIT = Unit("a.service", "simple", "app", "", False, "active", facts=(("ExecStartEx", command_lines("")),))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_dynamic_users_cache_is_kept_by_systemd_with_the_folders_below() -> None:
    dynamic = replace(UNIT, has_dynamic_user=True)
    assert cache_at(dynamic, "/place", "name", ["a", "b"]) == Cache(
        "/var/cache/name",
        "/var/cache/private/name",
        ("CacheDirectory=name name/a name/b", "UnsetEnvironment=CACHE_DIRECTORY"),
    )
    assert cache_at(dynamic, "/place", "name").lines[0] == "CacheDirectory=name"
    assert cache_at(UNIT, "/place", "name", ["a"]) == Cache("/place", "/place")


@pytest.mark.parametrize(("how", "closed"), [("strict", True), ("full", False), ("yes", False), ("no", False)])
def test_only_a_unit_that_may_not_write_there_is_given_the_right(how: str, closed: bool) -> None:
    unit = replace(UNIT, facts=(("ProtectSystem", "".join(how)),))
    assert cache_at(unit, "/place", "name").lines == (("ReadWritePaths=-/place",) if closed else ())


def test_no_link_is_followed_to_a_new_folder(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []
    real = os.open

    def opened(path: Path, given: int) -> int:
        flags.append(given)
        return real(path, given)

    monkeypatch.setattr(os, "open", opened)
    make_cache(host, "/cache", ME)
    assert flags == [os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC]


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (UNIT, ""),
        (replace(UNIT, user=""), "runs as root"),
        (replace(UNIT, user="", has_dynamic_user=True), ""),
        (replace(UNIT, has_dynamic_user=True, facts=(*UNIT.facts, ("CacheDirectory", "x"))), "CacheDirectory="),
        (replace(UNIT, facts=(("ExecStartEx", command_lines("privileged")),)), "more rights than its user's"),
    ],
)
def test_a_cache_of_any_kind_is_for_a_unit_whose_lines_all_run_as_its_user(unit: Unit, words: str) -> None:
    found = find_cache_objection(unit)
    assert (words in found) if words else (found == "")


def test_a_new_cache_and_what_is_below_it_are_its_users_alone(host: Host, tmp_path: Path) -> None:
    make_cache(host, "/cache", ME, ["cuda", "triton"])
    for path in ("cache", "cache/cuda", "cache/triton"):
        found = (tmp_path / path).stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o700, ME.uid, ME.gid)


@as_root
def test_the_user_gets_the_outermost_folder_last(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had it before could put a link in the place of the next one."""
    owners: list[int] = []
    real = os.chown

    def chown(name: str, *more: int, dir_fd: int, **named: bool) -> None:
        owners.append((tmp_path / "cache").stat().st_uid)
        real(name, *more, dir_fd=dir_fd, **named)

    monkeypatch.setattr(os, "chown", chown)
    make_cache(host, "/cache", Identity(4242, 4242), ["cuda"])
    assert owners == [0]
    assert {(tmp_path / path).stat().st_uid for path in ("cache", "cache/cuda")} == {4242}


def test_a_cache_is_made_anew_and_the_former_one_goes(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("x")
    (tmp_path / "a.former").mkdir()
    with in_making(host, [("/a", ()), ("/b", ("below",))], ME):
        assert (tmp_path / "a.former/old").exists()
        (tmp_path / "a/new").write_text("x")
        assert (tmp_path / "b/below").is_dir()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/new", "b", "b/below"]


def test_a_link_in_its_place_is_not_followed(host: Host, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("x")
    (tmp_path / "a").symlink_to(tmp_path / "theirs")
    with in_making(host, [("/a", ())], ME):
        assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "theirs/file").exists()


@pytest.mark.parametrize("fails", ["block", "second folder"])
def test_the_former_caches_stay_where_it_fails(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("x")
    real = make_cache

    def failing(host: Host, folder: str, *more: object) -> None:
        if folder == "/b" and fails != "block":
            raise OSError(28, "No space left on device", folder)
        real(host, folder, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "make_cache", failing)
    with pytest.raises((OSError, KeyboardInterrupt)), in_making(host, [("/a", ()), ("/b", ())], ME):
        raise KeyboardInterrupt
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["a", "a/old", "b", "b/old"]


def test_the_folder_of_a_dynamic_user_is_left_to_systemd(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with in_making(host, [("/a", ())], None):
        assert not (tmp_path / "a").exists()
