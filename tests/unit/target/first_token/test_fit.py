"""Whether a cache fits: the audit and the program that each start runs say the same, and say it in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import fit as module
from ansible.module_utils.slm_baseline.first_token.bytecode import fit_of
from ansible.module_utils.slm_baseline.first_token.cache import Cache
from ansible.module_utils.slm_baseline.first_token.fit import (
    Fit,
    find_kernels_misfit,
    find_misfit,
    find_unit_misfit,
    fit_text,
    parse_fit,
    show_unit,
)
from ansible.module_utils.slm_baseline.first_token.target import Target
from ansible.module_utils.slm_baseline.host.errors import ParseError
from ansible.module_utils.slm_baseline.host.files import Host
from hypothesis import given
from hypothesis import strategies as st

from files import slm_fit
from tests.support.bytecode import command_lines

LIVE = Host()
PATHS = st.text(min_size=1).map(lambda text: f"/{text}").filter(lambda path: "\0" not in path)
NUMBERS = st.integers(0, 2**63)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for folder in ("site", "cache"):
        (tmp_path / folder).mkdir(mode=0o700)
    for name in ("a", "b"):
        (tmp_path / "site" / f"{name}.py").write_text(f"{name} = 1\n")
    return tmp_path


@pytest.fixture
def fit(site: Path) -> Fit:
    cache = Cache(str(site / "cache"), str(site / "cache"))
    sources = [str(site / "site" / f"{name}.py") for name in ("a", "b")]
    return fit_of(LIVE, Target("app"), None, os.getuid(), cache, sources)


def said(fit: Fit, site: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the program says of it: the variables, or why not."""
    path = site / "bytecode"
    path.write_text(fit_text(fit), encoding="utf-8", errors="surrogateescape")
    path.chmod(0o640)
    status = slm_fit.main([str(path)])
    out, err = capsys.readouterr()
    assert (status, bool(out), err.count("\n")) in ((0, True, 0), (1, False, 1), (1, True, 1))
    return (out or err).strip()


@given(
    st.builds(
        Fit,
        PATHS,
        PATHS,
        NUMBERS,
        st.sampled_from(["0", "dynamic"]),
        st.sampled_from([(), ("a.service", "app")]),
        st.just(()),
        st.just(()),
        st.one_of(st.none(), st.tuples(PATHS, NUMBERS)),
        st.lists(st.tuples(st.just("CUDA_CACHE_PATH"), PATHS)).map(tuple),
        st.lists(st.tuples(st.just("ReadOnlyPaths"), PATHS)).map(tuple),
    ),
    st.booleans(),
    st.dictionaries(PATHS, st.tuples(NUMBERS, NUMBERS, NUMBERS)),
)
def test_a_description_comes_back_from_its_text(
    fit: Fit, has_bytecode: bool, sources: dict[str, tuple[int, int, int]]
) -> None:
    folders = tuple(sorted({os.path.dirname(path) for path in sources}))
    listed = sorted(sources, key=lambda path: (os.path.dirname(path), path))
    by_folder = tuple((*sources[path], path) for path in listed)
    fit = fit if has_bytecode else replace(fit, prefix="", folder="", inode=0)
    whole = replace(fit, folders=tuple((1, 2, folder) for folder in folders), sources=by_folder)
    assert parse_fit(fit_text(whole)) == whole


@given(st.text())
def test_any_other_text_is_one_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_fit(text)
    with pytest.raises(ParseError):
        parse_fit(f"{module.FIRST_LINE}\n{text}")


def test_a_description_that_was_cut_short_or_is_of_another_version_is_damaged(fit: Fit) -> None:
    text = fit_text(fit)
    versions = [text.replace("fit 1", f"fit {other}", 1) for other in (0, 2)]
    for damaged in (*versions, *(text[:length] for length in range(len(text)))):
        with pytest.raises(ParseError):
            parse_fit(damaged)


def test_a_cache_that_fits_is_given(fit: Fit, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_misfit(LIVE, fit) is None
    assert said(fit, site, capsys) == f"PYTHONPYCACHEPREFIX={site / 'cache'}"


def upgrade(site: Path) -> None:
    (site / "site/a.py.new").write_text("a = 22\n")
    (site / "site/a.py.new").rename(site / "site/a.py")


def disturb(what: str, site: Path) -> None:
    if what == "upgrade":
        upgrade(site)
    elif what == "gone":
        (site / "site/b.py").unlink()
    elif what == "folder gone":
        shutil.rmtree(site / "site")
    elif what == "another folder":
        (site / "cache").rename(site / "old")
        (site / "cache").mkdir(mode=0o700)
    elif what == "link":
        (site / "cache").rename(site / "real")
        (site / "cache").symlink_to(site / "real")
    else:
        (site / "cache").chmod(0o777)


@pytest.mark.parametrize("what", ["upgrade", "gone", "folder gone", "another folder", "link", "open to all"])
def test_a_cache_that_does_not_fit_is_not_given(
    fit: Fit, site: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """A stale cache made starts slower than without us: new bytecode beside its sources was not looked at."""
    disturb(what, site)
    assert find_misfit(LIVE, fit)
    assert "as without a cache" in said(fit, site, capsys)


@pytest.mark.parametrize(("mode", "fits"), [(0o720, False), (0o702, False), (0o755, True)])
def test_a_folder_that_others_may_write_is_not_given_and_one_that_they_may_read_is(
    fit: Fit, site: Path, capsys: pytest.CaptureFixture[str], mode: int, fits: bool
) -> None:
    (site / "cache").chmod(mode)
    assert (find_misfit(LIVE, fit) is None) is fits
    assert said(fit, site, capsys).startswith("PYTHONPYCACHEPREFIX=") is fits


def test_a_new_file_beside_the_sources_is_no_misfit(fit: Fit, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log beside the application would keep every start from its cache."""
    (site / "site/app.log").write_text("x")
    assert find_misfit(LIVE, fit) is None
    assert said(fit, site, capsys) == f"PYTHONPYCACHEPREFIX={site / 'cache'}"


def test_a_cache_is_given_to_its_owner_alone(fit: Fit, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`slm-start` by root ran the target user's bytecode as root."""
    other = replace(fit, uid=str(os.getuid() + 1))
    assert "belongs to another user" in said(other, site, capsys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        path = site / "bytecode"
        path.write_text(fit_text(fit))
        assert slm_fit.main([str(path)]) == 1
    assert find_misfit(LIVE, other)
    assert find_misfit(LIVE, parse_fit(fit_text(replace(fit, uid="dynamic")))) is None


@pytest.mark.parametrize("text", ["", "x", f"{module.FIRST_LINE}\nend\n", f"{module.FIRST_LINE}\nuid\t1\n"])
def test_a_damaged_description_gives_nothing(site: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = site / "bytecode"
    path.write_text(text)
    path.chmod(0o640)
    assert slm_fit.main([str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_description_that_others_may_write_gives_nothing(
    fit: Fit, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(fit, site, capsys)
    (site / "bytecode").chmod(0o666)
    assert slm_fit.main([str(site / "bytecode")]) == 1
    assert "others than root may write" in capsys.readouterr().err
    (site / "link").symlink_to(site / "bytecode")
    assert slm_fit.main([str(site / "link")]) == 1
    assert slm_fit.main([str(site / "none")]) == 1
    assert slm_fit.main([]) == slm_fit.main(["a", "b", "c"]) == 2


def as_unit(monkeypatch: pytest.MonkeyPatch, **facts: str) -> None:
    """systemd says that of the unit."""
    shown = {"ExecStartEx": command_lines(""), "User": "app", **facts}
    text = "".join(f"{name}={line}\n" for name, value in shown.items() for line in value.split("\n"))

    class Done:
        stdout = text

    monkeypatch.setattr(subprocess, "run", lambda *command, **more: Done)
    monkeypatch.setattr(module, "show", lambda names, properties: {"app.service": shown} if properties else {})


@pytest.mark.parametrize(
    ("facts", "fits"),
    [
        ({}, True),
        ({"ExecStartPreEx": command_lines("", "ignore-failure privileged")}, False),
        ({"ExecReloadEx": command_lines("no-setuid")}, False),
        ({"ExecStopEx": command_lines("ambient")}, False),
        ({"PermissionsStartOnly": "yes"}, False),
        ({"AmbientCapabilities": "cap_setuid"}, False),
        ({"User": "other"}, False),
        ({"User": ""}, False),
        ({"ExecStartEx": ""}, False),
    ],
)
def test_a_unit_whose_lines_changed_gets_none(
    fit: Fit, site: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, str], fits: bool
) -> None:
    """Looked at before each start: the administrator may have added a line with more rights."""
    as_unit(monkeypatch, **facts)
    environment, path = site / "app.env", site / "bytecode"
    path.write_text(fit_text(replace(fit, unit=("app.service", "app"))))
    path.chmod(0o640)
    environment.write_text("PYTHONPYCACHEPREFIX=/of/the/start/before\n")
    assert slm_fit.main([str(path), str(environment)]) == (0 if fits else 1)
    if fits:
        assert environment.read_text() == f"PYTHONPYCACHEPREFIX={site / 'cache'}\n"
    else:
        assert not environment.exists()
    assert (find_unit_misfit(("app.service", "app"), show_unit("app.service")) == "") is fits


def test_a_systemd_that_does_not_answer_gives_none(fit: Fit, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*command: object, **more: object) -> None:
        raise subprocess.TimeoutExpired("systemctl", 4)

    monkeypatch.setattr(subprocess, "run", late)
    path = site / "bytecode"
    path.write_text(fit_text(replace(fit, unit=("app.service", "app"))))
    assert slm_fit.main([str(path), str(site / "env")]) == 1
    assert not (site / "env").exists()


@pytest.fixture
def kernels(fit: Fit, site: Path) -> Fit:
    """The same with kernels kept."""
    (site / "kernels").mkdir(mode=0o700)
    variables = (("CUDA_CACHE_PATH", str(site / "kernels/cuda")), ("TRITON_CACHE_DIR", str(site / "kernels/triton")))
    return replace(fit, kernels=(str(site / "kernels"), (site / "kernels").stat().st_ino), variables=variables)


def test_kernels_are_given_whether_or_not_the_sources_changed(
    kernels: Fit, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = said(kernels, site, capsys).splitlines()
    assert [line.split("=")[0] for line in both] == ["PYTHONPYCACHEPREFIX", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR"]
    upgrade(site)
    assert find_misfit(LIVE, kernels)
    assert find_kernels_misfit(LIVE, kernels, None) is None
    assert said(kernels, site, capsys).splitlines() == both[1:]
    alone = replace(kernels, prefix="", folder="", inode=0, folders=(), sources=())
    assert said(alone, site, capsys).splitlines() == both[1:]


def test_a_command_that_has_a_place_of_its_own_keeps_it(
    kernels: Fit, site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_CACHE_PATH", "/mine")
    assert "CUDA_CACHE_PATH" not in said(kernels, site, capsys)
    assert "TRITON_CACHE_DIR" in said(kernels, site, capsys)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "/mine")
    assert said(kernels, site, capsys).startswith("TRITON_CACHE_DIR")


@pytest.mark.parametrize("what", ["link", "another", "open to all", "gone", "another user's"])
def test_a_folder_of_kernels_that_is_not_the_owners_alone_is_not_given(
    kernels: Fit, site: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    folder = site / "kernels"
    if what in ("link", "another", "gone"):
        folder.rename(site / "old")
    if what == "link":
        folder.symlink_to(site / "old")
    elif what == "another":
        folder.mkdir(mode=0o700)
    elif what == "open to all":
        folder.chmod(0o770)
    fit = replace(kernels, uid=str(os.getuid() + 1)) if what == "another user's" else kernels
    assert find_kernels_misfit(LIVE, fit, None)
    found = said(fit, site, capsys)
    assert "CUDA_CACHE_PATH" not in found
    # What is with the bytecode stays as it was.
    assert (found == f"PYTHONPYCACHEPREFIX={site / 'cache'}") is (what != "another user's")


@pytest.mark.parametrize("name", module.SANDBOX)
def test_a_unit_that_may_no_longer_write_there_is_not_told_of_it(
    kernels: Fit, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Triton ends a start that cannot write to its cache."""
    as_recorded = tuple((each, "no" if each == "ProtectSystem" else "") for each in module.SANDBOX)
    path, environment = site / "bytecode", site / "app.env"
    path.write_text(fit_text(replace(kernels, unit=("app.service", "app"), sandbox=as_recorded)))
    path.chmod(0o640)
    fit = parse_fit(path.read_text())
    as_unit(monkeypatch, ProtectSystem="no")
    assert slm_fit.main([str(path), str(environment)]) == 0
    assert f"CUDA_CACHE_PATH={site}/kernels/cuda\n" in environment.read_text()
    assert find_kernels_misfit(LIVE, fit, show_unit("app.service")) is None
    as_unit(monkeypatch, **{"ProtectSystem": "no", name: "/var"})
    assert slm_fit.main([str(path), str(environment)]) == 1
    assert environment.read_text() == f"PYTHONPYCACHEPREFIX={site}/cache\n"
    reason = f"has another {name}= than when it was recorded"
    assert reason in capsys.readouterr().err
    assert reason in str(find_kernels_misfit(LIVE, fit, show_unit("app.service")))


@pytest.mark.parametrize("line", ["kernels\t/x", "kernels\t/x\ty", "K\tA", "sandbox\tA", "prefix\t/x", "unit"])
def test_a_damaged_line_gives_nothing_of_its_part(site: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    path = site / "bytecode"
    path.write_text(f"{module.FIRST_LINE}\nuid\t{os.getuid()}\n{line}\nend\n")
    path.chmod(0o640)
    assert slm_fit.main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    if line != "unit":
        with pytest.raises(ParseError):
            parse_fit(path.read_text())


def test_both_ask_of_the_same_properties() -> None:
    assert slm_fit.SANDBOX == module.SANDBOX
    assert {f"Exec{each}Ex" for each in slm_fit.EXEC} < set(module.RIGHTS)
