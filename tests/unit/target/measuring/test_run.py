"""What bad input to a measurement gets: one error that names the variable, before anything on the host changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.host.accounts import Account
from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.measuring import run
from ansible.module_utils.slm_baseline.measuring.install import environment, interpreter
from ansible.module_utils.slm_baseline.measuring.install.environment import (
    Environment,
    absolute_path,
    changed_scripts,
    find_base_python,
    fresh_scratch,
    install_scripts,
    installed_parts,
    is_built,
    remove_parts,
)
from ansible.module_utils.slm_baseline.measuring.install.install_dir import make_home
from ansible.module_utils.slm_baseline.measuring.install.interpreter import (
    PACKAGES,
    Interpreter,
    is_too_old,
    probe,
    require_packages,
)
from ansible.module_utils.slm_baseline.measuring.install.model_build import build_model
from ansible.module_utils.slm_baseline.measuring.loader.process import Loader
from ansible.module_utils.slm_baseline.measuring.model.files import Model
from ansible.module_utils.slm_baseline.measuring.protocol import Subject
from ansible.module_utils.slm_baseline.measuring.run import parse_block, parse_request, require_measurable
from ansible.module_utils.slm_baseline.measuring.sample import CeilingRecord, Shared
from hypothesis import given
from hypothesis import strategies as st

from analysis.documents.schema import validate

NOBODY = Account("nobody", 65534, 65534)
PARAMS: dict[str, Any] = {
    "home": "/opt/slm-baseline",
    "python": "",
    "base_python": "",
    "requirements": "torch==2.13.0\n",
    "model": "tiny",
    "revision": "",
    "hf_home": "",
    "offline": True,
    "dtype": "auto",
    "scope": "host",
    "blocks": 3,
    "timeout_s": 600,
    "user": "nobody",
}


def test_defaults_make_sense() -> None:
    request = parse_request(PARAMS)
    assert (request.blocks, request.timeout_s, request.scope) == (3, 600.0, "host")
    assert request.environment.interpreter == "/opt/slm-baseline/venv/bin/python"
    assert request.place.hf_home == "/opt/slm-baseline/huggingface"
    # `-e slm_benchmark_runs=5` gives text.
    assert parse_request({**PARAMS, "blocks": "5", "timeout_s": "2.5"}).blocks == 5


@pytest.mark.parametrize(
    ("name", "value", "knob"),
    [
        ("blocks", 0, "slm_benchmark_runs"),
        ("blocks", -1, "slm_benchmark_runs"),
        ("blocks", 2.5, "slm_benchmark_runs"),
        ("blocks", True, "slm_benchmark_runs"),
        ("blocks", None, "slm_benchmark_runs"),
        ("blocks", "many", "slm_benchmark_runs"),
        ("blocks", 10**9, "slm_benchmark_runs"),
        ("timeout_s", 0, "slm_benchmark_timeout_s"),
        ("timeout_s", "nan", "slm_benchmark_timeout_s"),
        ("timeout_s", float("inf"), "slm_benchmark_timeout_s"),
        ("scope", "everything", "slm_benchmark_cold_scope"),
        ("scope", ["host"], "slm_benchmark_cold_scope"),
        ("dtype", "int3", "slm_benchmark_dtype"),
        ("home", "relative", "slm_benchmark_home"),
        ("home", "/", "slm_benchmark_home"),
        ("home", "/opt/..", "slm_benchmark_home"),
        ("python", "python3", "slm_benchmark_python"),
        ("hf_home", "cache", "slm_benchmark_hf_home"),
    ],
)
def test_bad_values_name_their_variable(name: str, value: object, knob: str) -> None:
    with pytest.raises(SettingError) as raised:
        parse_request({**PARAMS, name: value})
    assert raised.value.knob == knob


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2))
def test_any_value_is_a_count_or_one_error(value: Any) -> None:
    try:
        blocks = parse_request({**PARAMS, "blocks": value}).blocks
    except SettingError:
        return
    assert str(blocks) == str(value).strip().lstrip("+0").replace("_", "")


def test_a_block_lies_within_its_run() -> None:
    assert parse_block("3", 3) == 3
    with pytest.raises(SettingError):
        parse_block(4, 3)


def test_measuring_without_root_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SettingError, match="user id 1000"):
        require_measurable(Host(), parse_request(PARAMS))


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own never is."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def host(public: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A tree with an interpreter that has everything and room for all."""
    (public / "opt").mkdir()
    found = Interpreter((3, 11, 2), dict.fromkeys(PACKAGES, "1"), (), (), "/usr/bin/python3")
    monkeypatch.setattr(run, "require_packages", lambda python, account, launcher: found)
    monkeypatch.setattr(run, "find_base_python", lambda host, environment, account: "/usr/bin/python3")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 40))
    return Host(public)


def test_preflight_counts_what_is_yet_to_be_made(host: Host) -> None:
    fresh = require_measurable(host, parse_request(PARAMS))
    assert fresh["to_make_bytes"] > 3 << 30
    given_python = require_measurable(host, parse_request({**PARAMS, "python": "/srv/python"}))
    assert 0 < given_python["to_make_bytes"] < 1 << 20
    assert given_python["interpreter"] == "/srv/python"
    host.path("/proc/driver/nvidia").mkdir(parents=True)
    host.path("/proc/driver/nvidia/version").write_text("NVRM")
    assert require_measurable(host, parse_request(PARAMS))["to_make_bytes"] > 12 << 30


@pytest.mark.parametrize(
    ("more", "knob"),
    [
        ({"model": "/srv/missing"}, "slm_benchmark_model"),
        ({"model": "no such model"}, "slm_benchmark_model"),
        ({"model": ""}, "slm_benchmark_model"),
        ({"model": "Qwen/Qwen2.5-0.5B"}, "slm_benchmark_model"),
        ({"user": "nobody-of-that-name"}, "slm_benchmark_user"),
        ({"user": "root"}, "slm_benchmark_user"),
    ],
)
def test_preflight_refuses(host: Host, more: dict[str, str], knob: str) -> None:
    with pytest.raises(SettingError) as raised:
        require_measurable(host, parse_request({**PARAMS, **more}))
    assert raised.value.knob == knob


@pytest.mark.skipif(os.geteuid() == 65534, reason="the loader's user reads its own folders")
@pytest.mark.parametrize("closed", ["/opt", "/opt/slm-baseline"])
@pytest.mark.parametrize("python", ["/srv/python", ""])
def test_a_home_that_the_user_cannot_reach_is_told(host: Host, closed: str, python: str) -> None:
    request = parse_request({**PARAMS, "python": python})
    binary = host.path("/opt/slm-baseline/venv/bin/python")
    make_home(host, "/opt/slm-baseline")
    binary.parent.mkdir(parents=True)
    binary.touch()
    host.path("/opt/slm-baseline/venv/slm-baseline.json").write_text(json.dumps(request.environment.stamp()))
    require_measurable(host, request)
    host.path(closed).chmod(0o700)
    with pytest.raises(SettingError, match=f"{closed} is closed to nobody") as raised:
        require_measurable(host, request)
    assert raised.value.knob == "slm_benchmark_home"


@pytest.mark.parametrize(
    ("program", "source", "tried"), [("print(1)", "local", "/srv/m"), ("", "local", ""), ("print(1)", "embedded", "")]
)
def test_the_preflight_says_what_it_tried(
    host: Host, monkeypatch: pytest.MonkeyPatch, program: str, source: str, tried: str
) -> None:
    model = Model("/srv/m", source, "/srv/m", None, (), "bfloat16", 0)
    programs: list[str] = []
    monkeypatch.setattr(run, "find_model", lambda host, place, account: model)
    monkeypatch.setattr(
        run, "try_model", lambda program, environment, path, account, launcher: programs.append(program)
    )
    asked = {**PARAMS, "python": "/srv/python", "model": "/srv/m", "trial": program}
    assert require_measurable(host, parse_request(asked))["tried"] == tried
    assert programs == ([program] if tried else [])


def test_a_full_disk_is_told_with_its_figures(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    with pytest.raises(SettingError, match=r"3\.5 GiB free .* found 1\.0 GiB"):
        require_measurable(host, parse_request(PARAMS))


SHARED = Shared(CeilingRecord((2e9,), 4, False), {"torch": "2.13.0"})


@pytest.mark.parametrize(
    ("shared", "rates", "streams", "torch"),
    [([], [], None, "1"), ([Shared()], [], None, "1"), ([Shared(), SHARED], [2e9], 4, "2.13.0")],
)
def test_a_run_without_closing_lines_has_no_ceiling_and_is_told_all_the_same(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    shared: list[Shared],
    rates: list[float],
    streams: int | None,
    torch: str,
) -> None:
    monkeypatch.setattr(run, "host_facts", lambda host, path: {})
    request = parse_request(PARAMS)
    install_scripts(host, request.environment, {"slm_load.py": ""})
    subject = Subject(
        Loader("/usr/bin/python3", "", (), None, 1.0),
        Model("tiny", "embedded", "/m", None, (), "bfloat16", 7),
        Interpreter((3, 11, 2), dict.fromkeys(PACKAGES, "1"), (), (), "/usr/bin/python3"),
    )
    whole = run.run_facts(host, request, subject, shared)
    assert (whole["ceiling"]["bytes_per_s"], whole["ceiling"]["streams"]) == (rates, streams)
    assert whole["software"]["torch"] == torch
    validate(whole["ceiling"], "result", "/properties/ceiling")


def test_a_python_without_torch_is_refused_by_name() -> None:
    with pytest.raises(SettingError) as raised:
        require_packages("/usr/bin/python3", None)
    assert raised.value.knob == "slm_benchmark_python"
    assert "without torch, transformers" in raised.value.found


@pytest.mark.parametrize(
    ("name", "version", "is_old"),
    [
        ("torch", "2.4.1", True),
        ("torch", "2.5.0a0+872d972e41.nv24.08", False),
        ("torch", "2.13.0+cpu", False),
        ("transformers", "4.55.4", True),
        ("transformers", "4.56.0.dev0", False),
        ("transformers", "5.23.0", False),
        ("accelerate", "0.25.0", True),
        ("psutil", "0.1", False),
        ("torch", "of our own", False),
    ],
)
def test_packages_without_what_the_loader_calls_are_too_old(name: str, version: str, is_old: bool) -> None:
    assert is_too_old(name, version) is is_old


def test_a_python_with_old_packages_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    packages: dict[str, str | None] = {
        **dict.fromkeys(PACKAGES, "99.0"),
        "torch": "2.4.1+cu121",
        "transformers": "4.55.4",
    }
    monkeypatch.setattr(interpreter, "probe", lambda *_: Interpreter((3, 11, 2), packages, (), (), "/srv/python"))
    with pytest.raises(SettingError) as raised:
        require_packages("/srv/python", None)
    assert raised.value.found == "/srv/python, Python 3.11.2, with torch 2.4.1+cu121, transformers 4.55.4"
    assert "torch >= 2.5, transformers >= 4.56," in raised.value.wanted
    packages.update(torch="2.5.0", transformers="4.56.0")
    assert require_packages("/srv/python", None).packages == packages


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    liar = tmp_path / "liar"
    liar.write_text("#!/bin/sh\necho not json\n")
    liar.chmod(0o755)
    for python in ("/nonexistent/python", "/bin/false", "/bin/true", str(liar)):
        with pytest.raises(SettingError) as raised:
            probe(python, None)
        assert raised.value.knob == "slm_benchmark_python"


def test_this_python_can_be_asked() -> None:
    told = probe(sys.executable, None)
    assert told.version == sys.version_info[:3]
    assert told.packages["psutil"] is not None
    files = list(told.all_files())
    assert len(files) == len(set(files)) > 100
    assert set(told.library_files()) < set(files)


def test_paths_are_normal_and_absolute() -> None:
    assert absolute_path("home", "/opt//slm/./x") == "/opt/slm/x"
    for bad in ("", ".", "//", "/..", "/a\nb", "/a\0b", None):
        with pytest.raises(SettingError):
            absolute_path("home", bad)


def test_an_environment_is_built_when_its_stamp_says_so(tmp_path: Path) -> None:
    host, wanted = Host(tmp_path), Environment("/opt/slm", requirements="torch==2.13.0\n")
    assert not is_built(host, wanted)
    binary = host.path("/opt/slm/venv/bin/python")
    make_home(host, "/opt/slm")
    binary.parent.mkdir(parents=True)
    stamp = host.path("/opt/slm/venv/slm-baseline.json")
    stamp.write_text(str(wanted.stamp()).replace("'", '"'))
    assert not is_built(host, wanted), "a stamp without an interpreter is of no use"
    binary.touch()
    assert is_built(host, wanted)
    for other in (
        replace(wanted, requirements="torch==2.14.0\n"),
        replace(wanted, pip_options=("--index-url", "https://user:secret@index.example/simple")),
        replace(wanted, base_python="/usr/bin/python3.12"),
    ):
        assert not is_built(host, other)
        assert "secret" not in str(other.stamp())
    stamp.write_text("torn {")
    assert not is_built(host, wanted)
    assert is_built(host, Environment("/opt/slm", python="/srv/python"))


def test_scripts_are_written_once(tmp_path: Path) -> None:
    host, wanted = Host(tmp_path), Environment("/opt/slm")
    scripts = {"slm_load.py": "print('ü')\n"}
    assert changed_scripts(host, wanted, scripts) == ["slm_load.py"]
    install_scripts(host, wanted, scripts)
    assert changed_scripts(host, wanted, scripts) == []
    assert host.path("/opt/slm/slm_load.py").stat().st_mode & 0o777 == 0o755
    with pytest.raises(SettingError):
        changed_scripts(host, wanted, {"../evil.py": ""})


def test_what_is_made_for_home_is_open_under_any_umask(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv").chmod(0o711)
    umask = os.umask(0o077)
    try:
        install_scripts(host, Environment("/srv/deep/slm"), {"slm_load.py": ""})
    finally:
        os.umask(umask)
    modes = {path: host.path(path).stat().st_mode & 0o777 for path in ("/srv", "/srv/deep", "/srv/deep/slm")}
    assert modes == {"/srv": 0o711, "/srv/deep": 0o755, "/srv/deep/slm": 0o755}


def test_the_purge_removes_ours_and_nothing_else(tmp_path: Path) -> None:
    host, wanted = Host(tmp_path), Environment("/srv/shared")
    install_scripts(host, wanted, {"slm_load.py": ""})
    host.path("/var/lib/slm-baseline/runs/run-1").mkdir(parents=True)
    for name in ("venv/bin", "huggingface", "models/tiny", "models/their-own"):
        host.path(f"/srv/shared/{name}").mkdir(parents=True)
    parts = installed_parts(host, "/opt/slm-baseline")
    assert parts == {
        "/srv/shared": ["/srv/shared/venv", "/srv/shared/slm_load.py", "/srv/shared/models/tiny"],
        "": ["/var/lib/slm-baseline/runs"],
    }
    remove_parts(host, parts)
    assert installed_parts(host, "/srv/shared") == {}
    assert host.names("/srv/shared") == ["huggingface", "models"]
    assert host.names("/srv/shared/models") == ["their-own"]
    assert not host.exists("/var/lib/slm-baseline")


@pytest.mark.parametrize("others", [(), ("archive",)])
def test_a_purge_takes_the_state_folder_along_where_it_is_empty(tmp_path: Path, others: tuple[str, ...]) -> None:
    host = Host(tmp_path)
    for name in ("runs/run-1", *others):
        host.path(f"/var/lib/slm-baseline/{name}").mkdir(parents=True)
    remove_parts(host, installed_parts(host, "/srv/shared"))
    assert host.names("/var/lib/slm-baseline") == list(others)
    assert host.exists("/var/lib/slm-baseline") is bool(others)


def test_a_purge_does_not_follow_links(tmp_path: Path) -> None:
    host = Host(tmp_path)
    make_home(host, "/srv/shared")
    (tmp_path / "precious/tiny").mkdir(parents=True)
    host.path("/srv/shared/venv").symlink_to(tmp_path / "precious")
    remove_parts(host, installed_parts(host, "/srv/shared"))
    assert (tmp_path / "precious/tiny").exists()
    assert not host.path("/srv").exists()


def test_scratch_is_emptied_of_leftovers(tmp_path: Path) -> None:
    host, wanted = Host(tmp_path), Environment("/opt/slm")
    make_home(host, "/opt/slm")
    host.path("/opt/slm/scratch/home-left").mkdir(parents=True)
    assert os.listdir(fresh_scratch(host, wanted)) == []


def test_a_failing_pip_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "python"
    pip = "#!/bin/sh\\necho ERROR: No matching distribution found for torch==2.13.0\\nexit 1\\n"
    fake.write_text(f"#!/bin/sh\nmkdir -p $4/bin; printf '{pip}' > $4/bin/python; chmod 755 $4/bin/python\n")
    fake.chmod(0o755)
    monkeypatch.setattr(environment, "find_base_python", lambda host, wanted, account: str(fake))
    host, wanted = Host(tmp_path), Environment("/opt/slm", requirements="torch==2.13.0\n")
    with pytest.raises(SettingError, match="pip failed: ERROR: No matching distribution"):
        environment.build(host, wanted, Account("nobody", 65534, 65534))
    assert not is_built(host, wanted)


def test_a_failing_builder_is_told_with_its_last_line(tmp_path: Path) -> None:
    host = Host(tmp_path)
    make_home(host, "/opt/slm-baseline")
    builder = host.path("/opt/slm-baseline/build_model.py")
    place = parse_request(PARAMS).place
    for text, word in (
        ("import sys; sys.exit('build_model: 1.00 GB and 0.25 GB to spare; 0.10 GB are free')", "0.10 GB are free"),
        ("print('done')", "the builder ended with"),
    ):
        builder.write_text(text)
        with pytest.raises(SettingError, match=word):
            build_model(host, sys.executable, place, None)
    builder.write_text("""print('{"changed": true, "built": ["a"], "bytes": 5}')""")
    assert build_model(host, sys.executable, place, None) == {"changed": True, "built": ["a"], "bytes": 5}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another user")
def test_a_python_that_the_user_cannot_reach_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "python").symlink_to("/usr/bin/python3")
    with pytest.raises(SettingError, match="slm_benchmark_python"):
        probe(str(private / "python"), Account("nobody", 65534, 65534))
    assert subprocess.run([private / "python", "-c", ""], check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another user")
def test_the_builder_runs_as_the_loaders_user_and_the_model_is_roots_afterwards(public: Path) -> None:
    host, place = Host(public), parse_request(PARAMS).place
    make_home(host, "/opt/slm-baseline")
    (public / "victim").write_text("theirs")
    os.chown(public / "victim", 65534, 65534)
    host.path("/opt/slm-baseline/build_model.py").write_text(
        f"""
import json, os, sys
out = sys.argv[-1]
assert os.getuid() == os.geteuid() == 65534 and not os.getgroups()
open(out + "/model.safetensors", "w").write("w")
os.chmod(out + "/model.safetensors", 0o666)
os.mkfifo(out + "/pipe")
os.symlink("/etc/passwd", out + "/link")
os.makedirs(out + "/" + "deep/" * 50)
try:
    os.link("{public}/victim", out + "/second-name")
except OSError:
    pass
print(json.dumps(dict(changed=True, built=["a"], bytes=5)))
"""
    )
    before = os.lstat("/etc/passwd")
    build_model(host, "/usr/bin/python3", place, NOBODY)
    folder = host.path("/opt/slm-baseline/models/tiny")
    assert os.listdir(folder) == ["model.safetensors"]
    for path, mode in ((folder, 0o755), (folder / "model.safetensors", 0o644)):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, mode)
    assert (public / "victim").stat().st_uid == 65534
    assert os.lstat("/etc/passwd") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read what others cannot")
def test_a_model_is_read_with_the_rights_of_the_loaders_user(public: Path) -> None:
    model = public / "srv/model"
    model.mkdir(parents=True)
    secret = public / "secret"
    secret.write_text('{"root": "only"}')
    secret.chmod(0o600)
    (model / "config.json").symlink_to(secret)
    with pytest.raises(SettingError, match=r"config\.json cannot be read"):
        run.find_model(Host(public), replace(parse_request(PARAMS).place, model="/srv/model"), NOBODY)
    assert os.geteuid() == 0


def test_an_environment_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    host, wanted = Host(tmp_path), Environment("/opt/slm", requirements="torch==2.13.0\n")
    make_home(host, "/opt/slm")
    host.path("/opt/slm").chmod(0o777)
    with pytest.raises(SettingError, match="/opt/slm has mode 0777, so others can write it"):
        is_built(host, wanted)


def test_a_base_python_that_others_can_write_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_CANDIDATES", ("/usr/bin/python3",))
    ran = tmp_path / "ran"
    base = tmp_path / "usr/bin/python3"
    base.parent.mkdir(parents=True)
    base.write_text(f"#!/bin/sh\ntouch {ran}\n")
    base.chmod(0o777)
    for named in ("", "/usr/bin/python3"):
        with pytest.raises(SettingError, match="slm_benchmark_base_python"):
            find_base_python(Host(tmp_path), Environment("/opt/slm", base_python=named), NOBODY)
    assert not ran.exists()


@pytest.mark.parametrize("claimed", ["/", "/proc", "/sys/kernel", "{}/link", "{}/many", "{}/large"])
def test_a_python_that_claims_what_is_not_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: str
) -> None:
    monkeypatch.setattr(interpreter, "_MOST_FILES", 3)
    (tmp_path / "link").symlink_to("/proc/self")
    for name in ("many", "large"):
        (tmp_path / name).mkdir()
    for number in range(4):
        (tmp_path / f"many/{number}").touch()
    with (tmp_path / "large/file").open("w") as stream:
        stream.truncate(1 << 40)
    python = Interpreter((3, 11, 2), {}, (claimed.format(tmp_path),), (), sys.executable)
    with pytest.raises(SettingError, match="slm_benchmark_python"):
        list(python.library_files())
