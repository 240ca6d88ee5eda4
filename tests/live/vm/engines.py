"""Servers to start on a test machine: the files of `engine/`, their units, and what a start of them costs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.live.vm.image import REPOSITORY
from tests.live.vm.machine import Machine

ENGINE = Path(__file__).with_name("engine")
HOME = "/srv/engine"
FIRST_TOKEN = "/var/lib/slm-baseline/first-token"
START_TIMEOUT_S = 1000
_WORD = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True)
class Start:
    """One start of a unit: seconds to its first answer, and that answer."""

    seconds: float
    answer: dict[str, object]


def install_unit(machine: Machine, name: str, *lines: str) -> None:
    """A service unit of these lines."""
    text = "\n".join(["[Unit]", f"Description=The server {name} of a scenario", "[Service]", *lines, ""])
    machine.check(f"cat > /etc/systemd/system/{name}.service && systemctl daemon-reload", stdin=text)


def install_small(machine: Machine, weights_mib: int) -> None:
    """small.py with its weights, and modules of its own that have no bytecode, in a folder that only root may write."""
    machine.check(f"mkdir -p {HOME}/lib && cat > {HOME}/small.py", stdin=(ENGINE / "small.py").read_text())
    machine.check(f"head -c {weights_mib}M /dev/urandom > {HOME}/weights", timeout_s=300)
    names = "asyncio email html http json multiprocessing unittest urllib xml"
    names += (
        " _pydecimal.py argparse.py doctest.py inspect.py ipaddress.py pickletools.py pydoc.py tarfile.py zipfile.py"
    )
    machine.check(f"cd /usr/lib/python3.11 && cp -r {names} {HOME}/lib && find {HOME} -name '*.pyc' -delete")


def install_engine(machine: Machine) -> None:
    """The model server as engine.service, run by the user `engine`: its packages, the tiny model, and app.py."""
    machine.check(
        "useradd --system engine && mkdir -p /opt/slm-engine"
        " && echo 'LABEL=slm-engine /opt/slm-engine ext4 ro,noload,nofail 0 0' >> /etc/fstab"
        " && systemctl daemon-reload && mount /opt/slm-engine"
    )
    machine.check(f"mkdir {HOME} && cat > {HOME}/app.py", stdin=(ENGINE / "app.py").read_text())
    builder = (REPOSITORY / "files/build_model.py").read_text()
    machine.check(
        f"/opt/slm-python/bin/python - --shape tiny --output {HOME}/model", stdin=builder, timeout_s=START_TIMEOUT_S
    )
    install_unit(
        machine,
        "engine",
        "User=engine",
        f"Environment=ENGINE_MODEL={HOME}/model PYTHONPATH=/opt/slm-engine",
        "Environment=HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false",
        f"ExecStart=/opt/slm-python/bin/python {HOME}/app.py",
    )


def small(*options: str) -> str:
    return f"ExecStart=/usr/bin/python3 {HOME}/small.py {HOME}/weights {' '.join(options)}"


def time_start(machine: Machine, unit: str, url: str, *more: str) -> Start:
    """Stop the unit, drop the page cache, start it, and wait for its first answer; see time_start.py."""
    script = (ENGINE / "time_start.py").read_text()
    words = " ".join(f"'{word}'" for word in (unit, url, *more))
    return Start(**json.loads(machine.check(f"python3 - {words}", stdin=script, timeout_s=START_TIMEOUT_S)))


def replays(machine: Machine, name: str) -> list[dict[str, str]]:
    """What each replay of a target since the boot said when it was done, the earliest first."""
    command = f"journalctl --boot --unit slm-first-token-{name}.service --output cat --grep ended_s= || true"
    return [dict(_WORD.findall(line)) for line in machine.check(command).splitlines() if "ended_s=" in line]


def plan_of(machine: Machine, name: str) -> list[list[str]]:
    """The lines of a target's plan, in fields."""
    text = machine.check(f"cat {FIRST_TOKEN}/targets/{name}/plan")
    return [line.split("\t") for line in text.splitlines()]
