"""Podman and Quadlet under a real systemd: recorded, made anew, booted, given caches, and put back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.live.vm.engines import FIRST_TOKEN, plan_of, replays
from tests.live.vm.fleet import Fleet
from tests.live.vm.podman import (
    HOME,
    IMAGE,
    PARTS,
    files_from_image,
    health,
    image_id,
    import_another_image,
    install_image,
    install_quadlet,
    layers,
    make_container,
)
from tests.live.vm.test_first_token import active, audited, wait_for_replay

PORT = 8001
PYCACHE = "/var/cache/slm-pycache"
PATIENCE_S = 600
TARGETS = [
    {
        "name": "quadlet",
        "unit": "engine.service",
        "ready": {"type": "port", "port": PORT, "timeout_s": PATIENCE_S},
        "replay": "both",
    },
    {"name": "named", "container": "engine2", "ready": {"type": "health", "timeout_s": PATIENCE_S}, "replay": "ahead"},
]
DROP_IN = "/etc/containers/systemd/engine.container.d/slm-first-token.conf"


@pytest.fixture
def host(fleet_of: Callable[..., Fleet]) -> Fleet:
    """A host with Podman, of which nothing is to be tuned."""
    fleet = fleet_of("podman")
    fleet.variables.clear()
    return fleet


def share_in_layers(fleet: Fleet, name: str, out: str) -> float:
    """How much of what the engine read from its image is in the plan, by a layer's file."""
    machine = fleet["podman"]
    opened = files_from_image(machine, out)
    planned = {fields[-1] for fields in plan_of(machine, name)}
    # Bytecode that a container is given lies in our folder, and counts as the image's, whose sources it is of.
    given, places = f"{FIRST_TOKEN}/targets/{name}/given/pycache", layers(machine)
    hosts = {path: {path.replace(PYCACHE, given), *(f"{layer}{path}" for layer in places)} for path in opened}
    found = [path for path in opened if hosts[path] & planned]
    assert len(opened) > 150
    return len(found) / len(opened)


@pytest.mark.slow_vm
def test_a_quadlet_and_a_container_by_its_name(host: Fleet, figure: Callable[[str], None]) -> None:
    podman = host["podman"]
    install_image(podman)
    install_quadlet(podman, PORT)
    podman.check("systemctl start engine.service", timeout_s=PATIENCE_S)
    make_container(podman, "engine2")
    host.variables["first_token_targets"] = TARGETS

    recorded = host.playbook("first_token.yml").expect(0)
    assert "Traceback" not in recorded.output
    assert active(podman, "engine.service") == "active"
    assert podman.check("podman inspect --format '{{.State.Running}}' engine2") == "true"
    for name, out in (("quadlet", "out"), ("named", "out2")):
        share = share_in_layers(host, name, out)
        figure(f"{name}: {share:.1%} of what the engine read from its image is in the plan, by its layer")
        assert share >= 0.95
        assert [fields[5] for fields in plan_of(podman, name) if fields[0] == "W"] == [f"{HOME}/models/weights"]
    # The Quadlet has its caches by the drop-in, and filled them; the other container's options are printed.
    given = f"{FIRST_TOKEN}/targets/quadlet/given"
    assert f"Volume={given}/vllm:/root/.cache/vllm:Z" in podman.check(f"cat {DROP_IN}").splitlines()
    assert podman.check(f"cat {given}/vllm/graph") == "compiled"
    assert int(podman.check(f"find {given}/pycache -name 'part*.pyc' | wc -l")) == PARTS
    assert f"--volume {FIRST_TOKEN}/targets/named/given/vllm:/root/.cache/vllm:Z" in recorded.text
    assert host.playbook("first_token.yml").expect(0).count("podman", "changed") == 0
    rows = audited(host, 0)
    assert set(rows.values()) == {"clean"}
    assert {"first_token.quadlet.plan", "first_token.quadlet.given", "first_token.named.plan"} <= rows.keys()

    # Made anew, both; the Quadlet's replay runs beside it.
    podman.check("systemctl restart engine.service", timeout_s=PATIENCE_S)
    make_container(podman, "engine2")
    wait_for_replay(podman, "quadlet")
    assert [(each["stale"], each["unread"]) for each in replays(podman, "quadlet")][-1] == ("0", "0")
    assert set(audited(host, 0).values()) == {"clean"}

    podman.reboot()
    for name in ("quadlet", "named"):
        wait_for_replay(podman, name)
        replay = replays(podman, name)[0]
        figure(f"{name}, at boot: {replay}")
        assert (replay["stale"], replay["unread"]) == ("0", "0")
    podman.wait_for(lambda: active(podman, "engine.service") == "active", "the Quadlet after the boot", PATIENCE_S)
    podman.check("podman start engine2", timeout_s=PATIENCE_S)
    podman.wait_for(lambda: health(podman, "engine2") == "healthy", "the container after the boot", PATIENCE_S)
    assert set(audited(host, 0).values()) == {"clean"}

    former = image_id(podman)
    assert import_another_image(podman) != former
    assert audited(host, 2)["first_token.quadlet.plan"] == "drift"
    podman.check(f"podman tag {former} {IMAGE}")

    host.playbook("rollback.yml").expect(0)
    assert active(podman, "engine.service") == "active"
    assert podman.check("podman inspect --format '{{.State.Running}}' engine2") == "true"
    podman.check(f"test ! -e {FIRST_TOKEN} && test ! -e {DROP_IN}")
    assert podman.ssh("ls /etc/systemd/system /run/systemd/system | grep slm-").stdout == ""
    podman.check("systemctl restart engine.service", timeout_s=PATIENCE_S)
    assert "slm-baseline" not in json.dumps(json.loads(podman.check("podman inspect systemd-engine"))[0]["Mounts"])
