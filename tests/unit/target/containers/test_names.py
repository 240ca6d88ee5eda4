"""Containers by control groups and command lines, and what each new one makes anew."""

from __future__ import annotations

import pytest
from ansible.module_utils.slm_baseline.containers.command_line import (
    ContainerCommand,
    find_command,
    parse_command,
)
from ansible.module_utils.slm_baseline.containers.control_groups import container_of
from ansible.module_utils.slm_baseline.containers.remade import Written, find_remade, remade_notes, seconds_notes
from hypothesis import given
from hypothesis import strategies as st

ID = "ba6c1c701ca9f5a5b40bde36656581d25d20954aa2c44069a61891ffdb09b374"


@pytest.mark.parametrize(
    "group",
    [
        f"/docker/{ID}",
        f"/system.slice/docker-{ID}.scope",
        f"/machine.slice/libpod-{ID}.scope/container",
        f"/machine.slice/libpod-{ID}.scope",
        f"/system.slice/engine.service/libpod-payload-{ID}",
        f"/libpod_parent/libpod-{ID}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1a_2b.slice/cri-containerd-{ID}.scope",
        f"/kubepods/besteffort/pod1a-2b/{ID}",
        f"/docker/{'0' * 64}/docker/{ID}",
    ],
)
def test_the_id_is_in_the_path_of_the_control_group(group: str) -> None:
    assert container_of(f"0::{group}\n") == ID
    assert container_of(f"9:name=systemd:/\n4:memory:{group}\n0::/\n") == ID


@pytest.mark.parametrize(
    "group",
    [
        "/",
        "/system.slice/docker.service",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        f"/system.slice/docker-{ID}x.scope",
        f"/docker/{ID[:-1]}",
        f"/x{ID}",
    ],
)
def test_other_groups_are_of_no_container(group: str) -> None:
    assert container_of(f"0::{group}\n") == ""


@given(st.text())
def test_any_text_of_groups_gives_an_id_or_none(text: str) -> None:
    assert len(container_of(text)) in (0, 64)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/usr/bin/docker run --rm --name vllm --gpus all vllm/vllm-openai:latest", ("docker", "vllm")),
        ("/usr/bin/docker run --name=vllm image", ("docker", "vllm")),
        ("/usr/bin/docker -H unix:///d.sock run --name vllm image", ("docker", "vllm")),
        ("/usr/bin/docker container run --name vllm image", ("docker", "vllm")),
        ("/usr/bin/docker start -a vllm", ("docker", "vllm")),
        ("/usr/bin/docker start --attach vllm", ("docker", "vllm")),
        (
            # As the generator of Podman 5.4 writes it.
            "/usr/bin/podman run --name systemd-vllm --cidfile=/run/vllm.cid --replace --rm --cgroups=split"
            " --network host --sdnotify=conmon -d -v /m:/m:ro image",
            ("podman", "systemd-vllm"),
        ),
        ("/usr/bin/podman start vllm", ("podman", "vllm")),
        ("/usr/bin/docker run image", ("docker", "")),
        ("/usr/bin/docker compose up", ("docker", "")),
        ("/usr/bin/docker-compose -f x.yml up", ("docker", "")),
        ("/usr/bin/docker pull image", None),
        ("/usr/bin/dockerd -H fd://", None),
        ("/usr/bin/python3 docker run", None),
        ("", None),
    ],
)
def test_the_container_of_a_command_line(line: str, expected: tuple[str, str] | None) -> None:
    assert parse_command(line.split()) == (ContainerCommand(*expected) if expected else None)


def test_the_command_of_a_unit_as_systemd_shows_it() -> None:
    shown = (
        "{ path=/usr/bin/podman ; argv[]=/usr/bin/podman run --name=systemd-engine --replace --rm image ;"
        " flags= ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
    )
    assert find_command(shown) == ContainerCommand("podman", "systemd-engine")
    two = shown.replace("run --name=systemd-engine", "rm") + "\n" + shown
    assert find_command(two) == ContainerCommand("podman", "systemd-engine")
    assert find_command("{ path=/opt/app ; argv[]=/opt/app serve ; flags= }") is None
    assert find_command("") is None


@given(st.text())
def test_any_command_line_is_a_containers_or_none(text: str) -> None:
    found = find_command(text) or parse_command(text.split())
    assert found is None or found.runtime in ("docker", "podman")


def test_what_each_new_container_makes_anew_is_named_with_what_keeps_it() -> None:
    own = [
        "/root/.cache/vllm/torch_compile_cache/a",
        "/root/.cache/vllm/b",
        "/root/.triton/cache/c",
        "/tmp/torchinductor_root/d",
        "/root/.nv/ComputeCache/index",
        "/var/log/x",
    ]
    assert find_remade(own) == ["/root/.cache/vllm", "/root/.triton", "/tmp/torchinductor_root", "/root/.nv"]
    written = {"/root/.cache/vllm": Written(2, 12.14, 31.4), "/root/.nv": Written(1, 3, 3), "/root/.triton": Written(0)}
    (note,) = remade_notes("llm", written, 3)
    vllm = "/root/.cache/vllm (2 files, written between second 12.1 and 31.4 of the start)"
    assert f"--volume llm-vllm:{vllm}" in note
    assert "--volume llm-nv:/root/.nv (1 file, written between second 3.0 and 3.0 of the start)" in note
    assert "--volume llm-triton:/root/.triton (nothing written in the recorded start)" in note
    assert written["/root/.triton"].to_json() == {"files": 0, "first_written_s": None, "last_written_s": None}
    (seconds,) = seconds_notes(written)
    assert "/root/.cache/vllm: 2 files, written between second 12.1 and 31.4 of the start; " in seconds
    assert seconds_notes({}) == []
    (bytecode,) = remade_notes("llm", {}, 50)
    assert "compiles 50 modules" in bytecode
    assert remade_notes("llm", {}, 49) == []
