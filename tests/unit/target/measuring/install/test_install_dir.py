"""Whose folder it is: what is taken, what is refused, what a purge finds and what it leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import INSTALL_DIRS
from ansible.module_utils.slm_baseline.measuring.install import install_dir
from ansible.module_utils.slm_baseline.measuring.install.environment import (
    Environment,
    fresh_scratch,
    installed_parts,
    remove_parts,
)
from ansible.module_utils.slm_baseline.measuring.install.install_dir import (
    HOME_MARK,
    homes_of,
    is_marked,
    make_home,
    recorded_homes,
    require_home,
)

HOME = "/srv/deep/slm"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv").chmod(0o755)
    return Host(tmp_path)


@pytest.fixture
def shared(host: Host) -> Host:
    """A host whose `/data` is a team's: with models, an environment and a file by names that we use too."""
    for name in ("models/tiny", "venv/bin", "scratch"):
        host.path(f"/data/{name}").mkdir(parents=True)
        host.path(f"/data/{name}/theirs").write_text("precious")
    host.path("/data/requirements.txt").write_text("precious")
    return host


def tree(host: Host) -> list[str]:
    return sorted(str(path) for path in host.path("/data").rglob("*"))


def test_a_folder_of_others_is_refused_by_name_and_nothing_in_it_changes(shared: Host) -> None:
    before = tree(shared)
    for work in (
        lambda: require_home(shared, "/data"),
        lambda: make_home(shared, "/data"),
        lambda: fresh_scratch(shared, Environment("/data")),
    ):
        with pytest.raises(SettingError, match=r"slm_benchmark_home: .* /data, which holds models, req"):
            work()
    assert tree(shared) == before
    assert not shared.exists(INSTALL_DIRS)


def test_a_purge_of_a_folder_of_others_removes_nothing(shared: Host) -> None:
    before = tree(shared)
    parts = installed_parts(shared, "/data")
    assert parts == {}
    remove_parts(shared, parts)
    assert tree(shared) == before


def test_a_new_home_is_recorded_marked_and_gone_after_a_purge(host: Host) -> None:
    make_home(host, HOME)
    make_home(host, HOME)
    assert is_marked(host, HOME)
    assert json.loads(host.read(INSTALL_DIRS)) == {HOME: ["/srv/deep", HOME]}
    # Nobody has to say where it is.
    assert homes_of(host, "/opt/slm-baseline") == [HOME]
    remove_parts(host, installed_parts(host, "/opt/slm-baseline"))
    assert host.names("/srv") == []
    assert not host.exists("/var/lib/slm-baseline")


def test_an_empty_folder_is_taken_and_left_behind_empty(host: Host) -> None:
    host.path(HOME).mkdir(parents=True)
    make_home(host, HOME)
    remove_parts(host, installed_parts(host, HOME))
    assert host.names("/srv/deep") == ["slm"]
    assert host.names(HOME) == []


def test_a_home_that_another_user_made_and_removed_meanwhile_is_refused(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There when we ask what is missing, gone when we look whether it is trusted, and there again when we write.
    monkeypatch.setattr(install_dir, "missing_folders", lambda *_: [])
    with pytest.raises(SettingError) as refused:
        make_home(host, HOME)
    assert refused.value.knob == "slm_benchmark_home"
    assert "/srv/deep does not exist" in refused.value.found
    assert not host.exists(HOME)


def test_two_homes_are_two_on_record(host: Host) -> None:
    for home in ("/srv/one", "/srv/two"):
        make_home(host, home)
    parts = installed_parts(host, "/opt/slm-baseline")
    assert list(parts) == ["/srv/one", "/srv/two"]
    remove_parts(host, {"/srv/one": parts["/srv/one"]})
    assert recorded_homes(host) == ["/srv/two"]


@pytest.mark.parametrize("torn", ["recorded", "made", "marking"])
def test_an_interrupted_beginning_is_taken_up(host: Host, torn: str) -> None:
    make_home(host, HOME)
    host.path(f"{HOME}/{HOME_MARK}").unlink()
    if torn == "marking":
        host.path(f"{HOME}/{HOME_MARK}.slm-baseline.tmp").write_text("")
    if torn == "recorded":
        host.path(HOME).rmdir()
    make_home(host, HOME)
    assert is_marked(host, HOME)
    assert json.loads(host.read(INSTALL_DIRS)) == {HOME: ["/srv/deep", HOME]}


def test_a_mark_that_is_no_file_of_roots_is_none(host: Host, tmp_path: Path) -> None:
    make_home(host, HOME)
    mark = host.path(f"{HOME}/{HOME_MARK}")
    mark.unlink()
    (tmp_path / "elsewhere").write_text("")
    mark.symlink_to(tmp_path / "elsewhere")
    assert not is_marked(host, HOME)
    mark.unlink()
    mark.mkdir()
    assert not is_marked(host, HOME)
    if os.geteuid() == 0:
        mark.rmdir()
        mark.write_text("")
        os.chown(mark, 65534, 65534)
        assert not is_marked(host, HOME)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_home_that_others_can_write_is_refused(host: Host, mode: int) -> None:
    make_home(host, HOME)
    host.path(HOME).chmod(mode)
    for work in (require_home, make_home, installed_parts):
        with pytest.raises(SettingError, match=r"slm_benchmark_home: wanted a path that only root can write"):
            work(host, HOME)


def test_a_file_in_the_way_is_refused(host: Host) -> None:
    host.path("/srv/file").write_text("")
    for home in ("/srv/file", "/srv/file/slm"):
        with pytest.raises(SettingError, match="is a file"):
            require_home(host, home)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"/srv": 1}', '{"srv": []}', '{"/srv": ["/etc"]}', '{"/srv": [7]}', "[" * 10_000]
)
def test_a_damaged_record_is_one_error(host: Host, text: str) -> None:
    host.path(INSTALL_DIRS).parent.mkdir(parents=True)
    host.path(INSTALL_DIRS).write_text(text)
    with pytest.raises(SettingError, match=r"homes\.json: .* a damaged file"):
        installed_parts(host, HOME)
