"""docker and podman: their answers, and one error for each thing that they cannot do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.slm_baseline.containers import runtime
from ansible.module_utils.slm_baseline.containers.image import find_image_change, image_facts
from ansible.module_utils.slm_baseline.containers.runtime import (
    Container,
    Runtime,
    find_by_container,
    find_runtime,
    find_socket_weakness,
    parse_container,
    parse_image,
    require_layers,
    require_startable,
)
from ansible.module_utils.slm_baseline.host.errors import ParseError, SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "containers"
DOCKER = (GOLDEN / "docker-20.10-inspect.json").read_text()
PODMAN = (GOLDEN / "podman-5.4-inspect.json").read_text()
QUADLET = (GOLDEN / "podman-5.4-quadlet-inspect.json").read_text()
PODMAN_IMAGE = (GOLDEN / "podman-5.4-image-inspect.json").read_text()
LAYER = "/var/lib/containers/storage/overlay/82e08a566c686ceea4e446663626f87337ed71026e047347a3be72fbb0d64acd/diff"


def test_dockers_answer() -> None:
    found = parse_container(DOCKER)
    assert (found.name, found.image, found.driver, found.status) == ("aa", "slmtest:1", "overlay2", "running")
    assert found.image_id == "sha256:7b78ab74510e7e92b64f55fa06d01c242a0db27640c0e52495d6a15b3bd68aa5"
    assert [path.rpartition("/")[2] for path in found.lower] == ["diff", "diff"]
    assert [(mount.kind, mount.source, mount.destination) for mount in found.mounts] == [
        ("bind", "/srv/models", "/models")
    ]
    assert not found.has_health_check
    assert not found.is_removed_when_stopped


def test_podmans_answer() -> None:
    found = parse_container(PODMAN)
    assert (found.name, found.image, found.driver, found.runs) == ("engine2", "localhost/slm-engine:1", "overlay", True)
    assert (found.health, found.has_health_check, found.is_removed_when_stopped) == ("healthy", True, False)
    assert [(mount.kind, mount.source, mount.destination) for mount in found.mounts] == [
        ("bind", "/srv/engine/models", "/models"),
        ("bind", "/srv/engine/out2", "/out"),
    ]
    assert replace(found.mounts[0], kind="volume", name="0" * 64).is_anonymous
    assert not replace(found.mounts[0], kind="volume", name="cache").is_anonymous


def test_podmans_answer_for_a_quadlets_container_and_its_image() -> None:
    found, image = parse_container(QUADLET), parse_image(PODMAN_IMAGE)
    assert (found.name, found.has_health_check, found.is_removed_when_stopped) == ("systemd-engine", False, True)
    # Podman has the digest without its algorithm, and the image's own layer as the upper one.
    assert found.image_id == image.digest == "sha256:4e032e1e0bedb3d2e0a79057b4b59f7fd20cd35180d509a3ccb07ad44513ad65"
    assert found.lower == image.layers == (LAYER,)
    assert dict(found.labels)["PODMAN_SYSTEMD_UNIT"] == "engine.service"


def test_a_health_check_that_is_switched_off_is_none() -> None:
    (document,) = json.loads(PODMAN)
    document["Config"]["Healthcheck"] = {"Test": ["NONE"]}
    document["State"]["Health"] = {"Status": "none"}
    found = parse_container(json.dumps([document]))
    assert (found.health, found.has_health_check) == ("", False)


@pytest.mark.parametrize("text", ["", "[]", "[{}]", "{}", "[1]", '[{"Id": 1}]', "null", f"[{DOCKER[2:-3]},1]"])
def test_another_answer_is_one_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_container(text)
    with pytest.raises(ParseError):
        parse_image(text)


KEYS = st.sampled_from(
    ["Id", "Name", "State", "Status", "Image", "Config", "GraphDriver", "Data", "Mounts", "Healthcheck", "HostConfig"]
)


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
        max_leaves=20,
    )
)
def test_any_document_gives_a_container_or_one_error(document: Any) -> None:
    try:
        assert parse_container(json.dumps([document])).id is not None
    except ParseError:
        assert True


class Clients:
    """Clients that answer from a table of words, and note what was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], str] = {}
        self.asked: list[list[str]] = []

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        name = command[0].rpartition("/")[2]
        text = self.answers.get((name, " ".join(word for word in command[1:] if word != "--")))
        if text is None:
            return subprocess.CompletedProcess(command, 1, "", f"{name}: no\nmore")
        return subprocess.CompletedProcess(command, 0, text, "")

    def runs(self, name: str, info: str = "") -> None:
        form = "{{.Server.Version}}" if name == "docker" else "{{.Version}}"
        self.answers[name, f"version --format {form}"] = "1\n"
        form = "{{.SecurityOptions}}" if name == "docker" else "{{.Host.Security.Rootless}}"
        self.answers[name, f"info --format {form}"] = info


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(subprocess, "run", clients.run)
    monkeypatch.setattr(runtime, "find_program", lambda host, name: f"/usr/bin/{name}")
    return clients


def error_of(call: Callable[[], object]) -> SettingError:
    with pytest.raises(SettingError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "nothing was stopped or changed" in str(caught.value).lower()
    return caught.value


def test_the_runtime_that_has_the_container_is_found(clients: Clients) -> None:
    clients.runs("docker")
    clients.runs("podman", "false")
    clients.answers["podman", "container inspect systemd-engine"] = QUADLET
    found, container = find_by_container(Host(), "first_token.x", "systemd-engine")
    assert (found.name, container.name) == ("podman", "systemd-engine")
    assert found.environment.get("DOCKER_HOST") is None
    clients.answers["docker", "container inspect systemd-engine"] = DOCKER
    assert error_of(lambda: find_by_container(Host(), "first_token.x", "systemd-engine")).found == (
        "systemd-engine in docker and in podman"
    )
    found, _ = find_by_container(Host(), "first_token.x", "systemd-engine", "docker")
    assert found.environment["DOCKER_HOST"] == "unix:///var/run/docker.sock"


def test_a_container_that_nobody_knows(clients: Clients) -> None:
    clients.runs("docker")
    clients.runs("podman", "false")
    assert error_of(lambda: find_by_container(Host(), "first_token.x", "other")).found == "no such container"


def test_a_runtime_that_does_not_answer(clients: Clients) -> None:
    assert error_of(lambda: find_by_container(Host(), "first_token.x", "other", "docker")).found == "docker: no"


def test_no_runtime_at_all(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_program", lambda host, name: None)
    assert error_of(lambda: find_by_container(Host(), "first_token.x", "other")).found == "no runtime"
    assert "no podman" in error_of(lambda: find_by_container(Host(), "first_token.x", "other", "podman")).found


def test_a_client_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert "did not answer within 30 seconds" in Runtime("docker", "/usr/bin/docker").answers()


@pytest.mark.parametrize(("name", "info"), [("docker", "[name=seccomp name=rootless]"), ("podman", "true\n")])
def test_a_rootless_runtime_is_refused_by_name(clients: Clients, name: str, info: str) -> None:
    clients.runs(name, info)
    assert error_of(lambda: find_runtime(Host(), "first_token.x", name)).found == "a rootless one"


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2375", "ssh://root@host", "unix://relative", "unix:///a b", ""])
def test_a_daemon_elsewhere_is_refused(clients: Clients, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    clients.runs("docker")
    monkeypatch.setenv("DOCKER_HOST", address)
    if not address:
        assert find_runtime(Host(), "first_token.x", "docker").address == "unix:///var/run/docker.sock"
        return
    assert error_of(lambda: find_runtime(Host(), "first_token.x", "docker")).found == repr(address)


@pytest.mark.parametrize("driver", ["btrfs", "zfs", "vfs", "fuse-overlayfs", "devicemapper", "aufs", ""])
def test_layers_on_another_storage_driver_are_refused_by_name(driver: str) -> None:
    error = error_of(lambda: require_layers("first_token.x", Container("1", "x", "i", "d", driver=driver)))
    assert (driver or "another kind") in error.found
    for good in ("overlay", "overlay2", "overlayfs"):
        require_layers("first_token.x", Container("1", "x", "i", "d", driver=good))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"is_removed_when_stopped": True}, "--rm"),
        ({"status": "paused"}, "paused"),
        ({"status": "dead"}, "dead"),
        ({"has_health_check": False}, "x without one"),
    ],
)
def test_what_cannot_be_stopped_and_started_is_refused(changed: dict[str, Any], words: str) -> None:
    good = Container("1", "x", "i", "d", status="running", has_health_check=True)
    require_startable("first_token.x", good, True)
    assert words in str(error_of(lambda: require_startable("first_token.x", replace(good, **changed), True)))


def test_a_socket_of_another_users_is_refused_by_name(clients: Clients, tmp_path: Path) -> None:
    """A daemon of his would tell what he likes, and that it is root's."""
    host = Host(tmp_path)
    (tmp_path / "run").mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/run/d.sock")
    (tmp_path / "run/d.sock").chmod(0o660)
    assert find_socket_weakness(host, "unix:///run/d.sock") == ""
    assert find_socket_weakness(host, "unix:///run/gone/d.sock") == ""
    (tmp_path / "run").chmod(0o777)
    assert "others can write" in find_socket_weakness(host, "unix:///run/d.sock")
    with pytest.raises(SettingError, match=r"another user: .* others can write") as caught:
        find_runtime(host, "first_token.x", "docker", "unix:///run/d.sock")
    assert "\n" not in str(caught.value)
    (tmp_path / "run").chmod(0o755)
    if os.geteuid() == 0:
        os.chown(tmp_path / "run/d.sock", 4242, 4242)
        assert "belongs to user id 4242" in find_socket_weakness(host, "unix:///run/d.sock")


FACTS = {"runtime": "docker", "runtime_address": "unix:///d.sock", "image": "vllm:1", "image_id": "sha256:aa"}


def image_answer(digest: str) -> str:
    return json.dumps([{"Id": digest}])


def test_another_image_under_the_name_is_told(clients: Clients) -> None:
    clients.runs("docker")
    clients.answers["docker", "image inspect vllm:1"] = image_answer("sha256:aa")
    assert find_image_change(Host(), FACTS) == ""
    clients.answers["docker", "image inspect vllm:1"] = image_answer("sha256:bb")
    assert find_image_change(Host(), FACTS) == (
        "the image vllm:1 is sha256:bb now, and was sha256:aa when it was recorded"
    )
    del clients.answers["docker", "image inspect vllm:1"]
    assert find_image_change(Host(), FACTS) == "the image vllm:1 is gone"


def test_a_container_that_starts_by_its_name_has_its_own_image(clients: Clients) -> None:
    clients.runs("docker")
    facts = {**FACTS, "container": "aa", "image_id": parse_container(DOCKER).image_id}
    clients.answers["docker", "image inspect vllm:1"] = image_answer("sha256:newer")
    clients.answers["docker", "container inspect aa"] = DOCKER
    assert find_image_change(Host(), facts) == ""
    del clients.answers["docker", "container inspect aa"]
    assert "is sha256:newer now" in find_image_change(Host(), facts)


def test_a_runtime_that_does_not_run_says_nothing_of_images(clients: Clients) -> None:
    assert find_image_change(Host(), FACTS) == ""
    assert find_image_change(Host(), {**FACTS, "runtime": "/bin/sh"}) == ""
    clients.asked.clear()
    assert find_image_change(Host(), {**FACTS, "runtime_address": "tcp://10.0.0.1:1"}) == ""
    assert find_image_change(Host(), {}) == ""
    assert clients.asked == []


def test_the_plan_has_name_and_digest() -> None:
    container = parse_container(DOCKER)
    docker = Runtime("docker", "/usr/bin/docker", "unix:///d.sock")
    facts = image_facts(docker, container, is_remade=False)
    assert facts == {
        "runtime": "docker",
        "runtime_address": "unix:///d.sock",
        "image": "slmtest:1",
        "image_id": container.image_id,
        "container": "aa",
    }
    assert "container" not in image_facts(docker, container, is_remade=True)
    assert "image" not in image_facts(docker, replace(container, image="a\tb\n"), is_remade=True)


def test_a_client_is_asked_with_the_daemons_address_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho $DOCKER_HOST $DOCKER_CONTEXT\n")
    program.chmod(0o755)
    assert Runtime("docker", str(program), "unix:///d.sock").call("version").stdout == "unix:///d.sock\n"
