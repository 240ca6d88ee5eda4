"""Podman on a test machine: an image made there, a Quadlet, and a container by its name."""

from __future__ import annotations

import json

from tests.live.vm.image import REPOSITORY
from tests.live.vm.machine import Machine

ENGINE = REPOSITORY / "tests/live/containers/engine.py"
ROOT_SCRIPT = REPOSITORY / "tests/live/vm/engine/container_root.sh"
HOME = "/srv/engine"
IMAGE = "localhost/slm-engine:1"
QUADLET = "/etc/containers/systemd/engine.container"
PARTS = 60
"""Modules of the engine that have no bytecode in the image, so that each new container compiles them."""
WEIGHTS_MIB = 33
SLOW_S = 600
HEALTH = "--health-cmd 'test -e /run/healthy' --health-interval 20s --health-timeout 60s --health-retries 100"
_APP = f"""import importlib, sys
for number in range({PARTS}):
    importlib.import_module(f"part{{number:02}}")
import engine
engine.main(*sys.argv[1:])
"""


def install_image(machine: Machine) -> None:
    """The engine's image, and its weights and reports outside of it."""
    machine.check(f"mkdir -p {HOME}/opt {HOME}/models {HOME}/out {HOME}/out2 && cat > {HOME}/opt/app.py", stdin=_APP)
    machine.check(f"cat > {HOME}/opt/engine.py", stdin=ENGINE.read_text())
    machine.check(f"cd {HOME}/opt && for i in $(seq -w 0 {PARTS - 1}); do echo 'number = 1' > part$i.py; done")
    machine.check(f"head -c {WEIGHTS_MIB}M /dev/urandom > {HOME}/models/weights")
    machine.check(f"cat > {HOME}/container_root.sh", stdin=ROOT_SCRIPT.read_text())
    machine.check(f"sh {HOME}/container_root.sh > {HOME}/root.tar", timeout_s=SLOW_S)
    machine.check(f"podman import --quiet {HOME}/root.tar {IMAGE} && rm {HOME}/root.tar", timeout_s=SLOW_S)


def image_id(machine: Machine) -> str:
    return machine.check(f"podman image inspect --format '{{{{.Id}}}}' {IMAGE}")


def import_another_image(machine: Machine) -> str:
    """An image of other content under the same name; return its id."""
    machine.check(f"tar --create --directory {HOME}/opt app.py | podman import --quiet - {IMAGE}", timeout_s=SLOW_S)
    return image_id(machine)


def program(machine: Machine) -> str:
    """The image's interpreter."""
    return machine.check("readlink -f /usr/bin/python3")


def install_quadlet(machine: Machine, port: int) -> None:
    """engine.container, which the generator makes engine.service of."""
    lines = [
        "[Container]",
        f"Image={IMAGE}",
        "Network=host",
        f"Volume={HOME}/models:/models:ro",
        f"Volume={HOME}/out:/out",
        f"Exec={program(machine)} /opt/app.py /models/weights /out/report {port}",
        "[Service]",
        f"TimeoutStartSec={SLOW_S}",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    machine.check(f"mkdir -p /etc/containers/systemd && cat > {QUADLET}", stdin="\n".join(lines))
    machine.check("systemctl daemon-reload")


def make_container(machine: Machine, name: str, *options: str) -> None:
    """A container by its name, made anew and started."""
    machine.check(f"podman rm --force --ignore {name}", timeout_s=SLOW_S)
    volumes = f"--volume {HOME}/models:/models:ro --volume {HOME}/out2:/out"
    words = f"{volumes} {HEALTH} {' '.join(options)}"
    run = f"podman run --detach --name {name} --network none {words} {IMAGE}"
    machine.check(f"{run} {program(machine)} /opt/app.py /models/weights /out/report", timeout_s=SLOW_S)


def health(machine: Machine, name: str) -> str:
    return machine.ssh(f"podman inspect --format '{{{{.State.Health.Status}}}}' {name}").stdout.strip()


def files_from_image(machine: Machine, out: str = "out") -> list[str]:
    """What the engine itself says that it read from its image."""
    files: list[str] = json.loads(machine.check(f"cat {HOME}/{out}/report"))["files"]
    return [path for path in files if not path.startswith(("/models/", "/out/"))]


def layers(machine: Machine) -> list[str]:
    """The folders of the image's layers."""
    driver = json.loads(machine.check(f"podman image inspect {IMAGE}"))[0]["GraphDriver"]["Data"]
    return [path for key in ("UpperDir", "LowerDir") for path in driver.get(key, "").split(":") if path]
