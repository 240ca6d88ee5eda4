"""What root may read and run: a path that only root can change, whatever its links lead through."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.trust import (
    PathWalk,
    Step,
    acting_as,
    find_program,
    require_trusted,
    search_path,
    walk_path,
    weakness,
)

FOLDER, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK
ROOT = Step("/", FOLDER | 0o755, 0)
BIN = ("/bin", FOLDER | 0o755, 0)


def way(*steps: tuple[str, int, int], missing: str | None = None) -> PathWalk:
    return PathWalk((ROOT, *(Step(*step) for step in steps)), missing)


@pytest.mark.parametrize(
    "trusted",
    [
        way(("/opt", FOLDER | 0o755, 0), ("/opt/python", FILE | 0o755, 0)),
        way(("/opt", FOLDER | 0o755, 0), missing="/opt/new"),
        # What the mode of a link says does not matter.
        way(("/bin", LINK | 0o777, 0), ("/usr", FOLDER | 0o755, 0), ("/usr/bin", FOLDER | 0o555, 0)),
        # In a sticky folder nobody can replace a folder of root's.
        way(("/tmp", FOLDER | 0o1777, 0), ("/tmp/ours", FOLDER | 0o700, 0)),
        way(("/tmp", FOLDER | 0o1777, 0), missing="/tmp/ours"),
    ],
)
def test_what_only_root_can_write_is_trusted(trusted: PathWalk) -> None:
    assert weakness(trusted) is None


@pytest.mark.parametrize(
    ("weak", "word"),
    [
        (way(("/srv", FOLDER | 0o755, 990), ("/srv/python", FILE | 0o755, 0)), "/srv belongs to user id 990"),
        (way(("/srv", FOLDER | 0o755, 0), ("/srv/python", FILE | 0o755, 990)), "/srv/python belongs to user id 990"),
        (way(("/srv", FOLDER | 0o777, 0), ("/srv/home", FOLDER | 0o755, 0)), "/srv has mode 0777"),
        (way(("/srv", FOLDER | 0o2775, 0), ("/srv/home", FOLDER | 0o755, 0)), "/srv has mode 2775"),
        (way(("/srv", FOLDER | 0o777, 0), missing="/srv/home"), "/srv has mode 0777"),
        (way(("/srv", FOLDER | 0o755, 0), ("/srv/python", FILE | 0o775, 0)), "/srv/python has mode 0775"),
        (way(("/srv", FOLDER | 0o755, 0), ("/srv/python", FILE | 0o757, 0)), "/srv/python has mode 0757"),
        (way(("/tmp", FOLDER | 0o1777, 0)), "/tmp has mode 1777"),
        (way(("/tmp", FOLDER | 0o1777, 990), ("/tmp/ours", FOLDER | 0o755, 0)), "/tmp belongs to"),
        # A user can move a file of root's there from a folder of their own, under any name.
        (way(("/tmp", FOLDER | 0o1777, 0), ("/tmp/log", FILE | 0o644, 0)), "/tmp/log lies in a folder"),
        (way(("/tmp", FOLDER | 0o1777, 0), ("/tmp/link", LINK | 0o777, 0), BIN), "/tmp/link lies in"),
        (way(("/opt", LINK | 0o777, 990), BIN), "/opt belongs to user id 990"),
        (PathWalk((Step("/", FOLDER | 0o777, 0),)), "/ has mode 0777"),
        # The sticky bit of a file means nothing.
        (way(("/srv", FILE | 0o1777, 0), missing="/srv/x"), "/srv has mode 1777"),
    ],
)
def test_what_others_can_change_is_named(weak: PathWalk, word: str) -> None:
    assert word in str(weakness(weak))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A tree in which `/safe/python` is trusted and `/open` is everybody's."""
    for name, mode in (("safe", 0o755), ("open", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        (tmp_path / name / "python").write_text("")
        (tmp_path / name / "python").chmod(0o755)
    return Host(tmp_path)


def test_every_component_of_every_link_is_on_the_way(host: Host) -> None:
    host.path("/safe/up").symlink_to("../open/inner")
    host.path("/open/inner").symlink_to("/safe")
    found = walk_path(host, "/safe/./up//python")
    assert [step.path for step in found.steps] == ["/", "/safe", "/safe/up", "/open", "/open/inner", "/safe/python"]
    assert "/open has mode 0777" in str(weakness(found, (0, os.geteuid())))
    with pytest.raises(SettingError, match=r"slm_benchmark_python: .* found /safe/up/python: /open has mode 0777"):
        require_trusted(host, "/safe/up/python", "slm_benchmark_python")
    require_trusted(host, "/safe/python", "slm_benchmark_python")


@pytest.mark.parametrize("path", ["/safe/gone", "/safe/gone/deeper", "/safe/python/deeper"])
def test_a_way_ends_where_nothing_is(host: Host, path: str) -> None:
    found = walk_path(host, path)
    assert found.missing is not None
    assert path.startswith(found.missing)


def test_links_in_a_circle_are_one_error(host: Host) -> None:
    host.path("/safe/a").symlink_to("b")
    host.path("/safe/b").symlink_to("a")
    with pytest.raises(SettingError, match="loop"):
        require_trusted(host, "/safe/a", "home")


def test_a_program_is_never_taken_from_a_folder_that_others_can_write(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ":.:open:/open:/nowhere:/safe")
    monkeypatch.chdir(host.path("/open"))
    assert find_program(host, "python") == "/safe/python"
    monkeypatch.setenv("PATH", ":.:open:/open:safe")
    assert find_program(host, "python") is None
    assert find_program(host, "python", ["/safe"]) == "/safe/python"
    monkeypatch.delenv("PATH")
    assert find_program(host, "python") is None


def test_the_search_path_of_root_has_no_open_folder(host: Host) -> None:
    for folder, mode in (("usr/local/bin", 0o2775), ("usr/bin", 0o755)):
        host.path(folder).mkdir(parents=True)
        host.path(folder).chmod(mode)
    assert search_path(host) == "/usr/bin"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_files_are_used_with_anothers_rights_and_root_comes_back(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("")
    secret.chmod(0o600)
    ids = os.getresuid(), os.getresgid(), os.getgroups()
    with acting_as(65534, 65534):
        assert os.getresuid() == (0, 65534, 0)
        with pytest.raises(PermissionError):
            secret.read_text()
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == ids
