"""The texts by which a container is given its caches; nothing that a container has opened may add a line to them."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.slm_baseline.containers import runtime
from ansible.module_utils.slm_baseline.containers.runtime import Container, Mounted
from ansible.module_utils.slm_baseline.first_token.given import (
    PYCACHE,
    Gift,
    compose_command,
    compose_override,
    compose_service,
    find_containers_with,
    find_gift,
    find_mounted,
    find_quadlet,
    folders_in,
    quadlet_drop_in,
    run_options,
    to_json,
)
from ansible.module_utils.slm_baseline.first_token.places import MARK, names_in
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile
from ansible.module_utils.slm_baseline.host.files import Host
from hypothesis import given as for_any
from hypothesis import strategies as st

FOLDER = "/var/lib/slm-baseline/first-token/targets/llm/given"
GIFT = Gift(FOLDER, (("pycache", PYCACHE), ("vllm", "/root/.cache/vllm")))
MADE = Container("1", "llm", "i", "d")


def test_each_cache_gets_a_folder_of_a_name_of_its_own() -> None:
    assert find_gift(FOLDER, ["/root/.cache/vllm"], compiles=True) == GIFT
    found = find_gift(FOLDER, ["/a/.nv", "/b/.nv"], compiles=False)
    assert found
    assert found.places == (("nv", "/a/.nv"), ("nv-2", "/b/.nv"))
    assert found.environment == {}
    assert find_gift(FOLDER, [], compiles=False) is None


@pytest.mark.parametrize(
    "inside",
    ["/a\nExecStart=x/.nv", "/a:b/.nv", "/a b/.nv", "/a/../.nv", "/$HOME/.nv", "/%h/.nv", '/"/.nv', "rel/.nv", "/"],
)
def test_a_path_with_a_meaning_in_one_of_the_texts_is_given_nothing(inside: str) -> None:
    assert find_gift(FOLDER, [inside], compiles=False) is None


@for_any(st.lists(st.text(alphabet="/.ab\n\t:%$ ='\"\\\x85é", max_size=20)))
def test_no_path_adds_a_line(paths: list[str]) -> None:
    gift = find_gift(FOLDER, paths, compiles=False)
    if gift:
        assert len(quadlet_drop_in("llm", gift).splitlines()) == 3 + len(gift.places)
        assert yaml.safe_load(compose_override("llm", "s", gift))["services"]["s"]["volumes"] == gift.volumes
        assert shlex.split(run_options(gift))[1::2] == gift.volumes


def test_the_drop_in_of_a_quadlet() -> None:
    text = quadlet_drop_in("llm", GIFT)
    assert text.splitlines() == [
        *(MARK, "# Target: llm", "[Container]"),
        *(f"Environment=PYTHONPYCACHEPREFIX={PYCACHE}", "Environment=PYTHONDONTWRITEBYTECODE="),
        *(f"Volume={FOLDER}/pycache:{PYCACHE}:Z", f"Volume={FOLDER}/vllm:/root/.cache/vllm:Z"),
    ]
    assert names_in(text) == ["llm"]
    assert GIFT.is_in(f"podman run -v {FOLDER}/pycache:{PYCACHE}:Z -v {FOLDER}/vllm:/root/.cache/vllm:Z image")
    assert not GIFT.is_in(f"podman run -v {FOLDER}/pycache:{PYCACHE}:Z image")


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/etc/containers/systemd/llm.container", "/etc/containers/systemd/llm.container.d/slm-first-token.conf"),
        ("/usr/share/containers/systemd/a/x.container", "/etc/containers/systemd/x.container.d/slm-first-token.conf"),
        ("/etc/containers/systemd/llm@.container", ""),
        ("/etc/containers/systemd/llm.kube", ""),
        ("/home/app/.config/containers/systemd/llm.container", ""),
        ("/etc/systemd/system/llm.service", ""),
        ("", ""),
    ],
)
def test_a_quadlet_is_known_by_its_source(source: str, path: str) -> None:
    assert find_quadlet(source) == path


def test_the_override_file_of_compose_and_the_command_that_uses_it() -> None:
    labels = {
        "com.docker.compose.service": "engine",
        "com.docker.compose.project": "llm",
        "com.docker.compose.project.working_dir": "/srv/my app",
        "com.docker.compose.project.config_files": "/srv/a.yaml,/srv/b.yaml",
    }
    made = Container("1", "llm", "i", "d", labels=tuple(labels.items()))
    assert compose_service(made) == "engine"
    assert compose_service(MADE) == ""
    assert compose_service(Container("1", "x", "i", "d", labels=(("com.docker.compose.service", "a: b\n"),))) == ""
    text = compose_override("llm", "engine", GIFT)
    assert text.startswith(MARK)
    assert yaml.safe_load(text) == {
        "services": {
            "engine": {
                "environment": {"PYTHONPYCACHEPREFIX": PYCACHE, "PYTHONDONTWRITEBYTECODE": ""},
                "volumes": [f"{FOLDER}/pycache:{PYCACHE}:Z", f"{FOLDER}/vllm:/root/.cache/vllm:Z"],
            }
        }
    }
    assert compose_command("docker", made, "/o.yaml") == (
        "docker compose --project-directory '/srv/my app' --project-name llm --file /srv/a.yaml --file /srv/b.yaml"
        " --file /o.yaml up --detach"
    )
    assert compose_command("podman", MADE, "/o.yaml") == "podman compose --file compose.yaml --file /o.yaml up --detach"


def test_the_options_of_a_command_line() -> None:
    assert run_options(GIFT) == (
        f"--env PYTHONPYCACHEPREFIX={PYCACHE} --env PYTHONDONTWRITEBYTECODE="
        f" --volume {FOLDER}/pycache:{PYCACHE}:Z --volume {FOLDER}/vllm:/root/.cache/vllm:Z"
    )


def test_what_a_container_has_mounted_of_ours_is_known_by_its_mounts() -> None:
    mounts = (
        Mounted("bind", f"{FOLDER}/vllm", "/root/.cache/vllm"),
        Mounted("bind", f"{FOLDER}-other/x", "/x"),
        Mounted("bind", f"{FOLDER}/pycache", PYCACHE),
    )
    assert find_mounted(FOLDER, Container("1", "llm", "i", "d", mounts=mounts)) == GIFT
    assert find_mounted(FOLDER, MADE) is find_mounted(FOLDER, None) is None


def test_bytecode_alone_of_the_folders_is_in_the_plan() -> None:
    files = [PlanFile(f"{FOLDER}/{name}", False, 1, 2, 3) for name in ("pycache/a.pyc", "vllm/graph")]
    plan = GIFT.left_out_of(Plan({"page_bytes": "4096"}, [f"{FOLDER}/vllm", "/srv"], files))
    assert ([file.path for file in plan.files], plan.folders) == ([f"{FOLDER}/pycache/a.pyc"], ["/srv"])


def test_who_has_a_folder_mounted_is_asked_of_the_recorded_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_program", lambda host, name: "/bin/echo")
    facts = {"runtime": "docker", "runtime_address": "unix:///d.sock"}
    assert f"volume={FOLDER}/vllm" in find_containers_with(Host(), facts, [f"{FOLDER}/vllm"])
    assert find_containers_with(Host(), {**facts, "runtime_address": "tcp://x"}, [FOLDER]) == []
    assert find_containers_with(Host(), {**facts, "runtime": "sh"}, [FOLDER]) == []
    monkeypatch.setattr(runtime, "find_program", lambda host, name: "/bin/false")
    assert find_containers_with(Host(), facts, [FOLDER]) == []


def test_a_socket_that_another_user_could_have_put_there_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime, "find_program", lambda host, name: "/bin/echo")
    tmp_path.chmod(0o755)
    (tmp_path / "run").mkdir(mode=0o755)
    facts = {"runtime": "docker", "runtime_address": "unix:///run/d.sock"}
    assert find_containers_with(Host(tmp_path), facts, [FOLDER])
    (tmp_path / "run").chmod(0o777)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "run/d.sock"))
        assert find_containers_with(Host(tmp_path), facts, [FOLDER]) == []


def test_the_record_has_the_folders() -> None:
    assert folders_in(to_json(GIFT, 1, 0)) == [f"{FOLDER}/pycache", f"{FOLDER}/vllm"]
    assert folders_in(None) == folders_in({"folder": 1}) == folders_in({"folder": "/x", "places": [1, [2]]}) == []
