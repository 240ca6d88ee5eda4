"""How much sooner does a model server in a container give its first token? And what does the container itself cost?

The embedded model behind a small server (benchmarks/container_server.py), in an image of the loader's environment, by a
Docker daemon of the benchmark's own. The container is recorded once by `first_token`; before each start it is made
anew. A cold start begins with nothing in the page cache, and that holds for the daemon and the runtime, too. The clock
runs from the first thing done for the start to the answer of the first request; `replay ahead` alone is finished
before, as at boot. The bare arms start the same server by the host's own environment. The arms of a block run in an
order that is drawn; a block holds each arm once.

Needs root, Debian's docker.io, and the environment and model that `make baseline` installs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))

from ansible.module_utils.slm_baseline.first_token.plan import parse_plan  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.interruption import PYTHON  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.unit_files import REPLAYER  # noqa: E402
from ansible.module_utils.slm_baseline.host.caches import drop_host_caches  # noqa: E402
from ansible.module_utils.slm_baseline.host.files import Host  # noqa: E402
from ansible.module_utils.slm_baseline.host.paths import TARGETS  # noqa: E402

from benchmarks.engine import Start  # noqa: E402
from benchmarks.evidence import Document, told_of_host  # noqa: E402
from benchmarks.tables import engine_table  # noqa: E402
from tests.live.containers.daemon import Daemon, running_daemon  # noqa: E402
from tests.live.containers.torch_image import PYTHON as IMAGE_PYTHON  # noqa: E402
from tests.live.containers.torch_image import import_torch_image  # noqa: E402
from tests.support.module_process import answer_in, begin_module, first_token_programs  # noqa: E402

NAME = "slm-benchmark-container"
IMAGE = "slm-benchmark:1"
SERVER = ROOT / "benchmarks" / "container_server.py"
PORT = 8461
USER = 65534
START_TIMEOUT_S = 600.0
POLL_S = 0.02


class Bench:
    """The arms over one daemon with the image, and the same server without a container."""

    def __init__(self, daemon: Daemon, python: str, model: Path) -> None:
        self.daemon, self.python, self.model = daemon, python, model

    @property
    def arms(self) -> dict[str, Callable[[], Start]]:
        """Return the arms by name."""
        return {
            "cold, as found": lambda: self.cold(self.container),
            "replay together": lambda: self.cold(self.container, beside=True),
            "replay ahead": lambda: self.cold(self.container, ahead=True),
            "warm, as found": lambda: self.warm(self.container),
            "cold, bare process": lambda: self.cold(self.process),
            "warm, bare process": lambda: self.warm(self.process),
        }

    def cold(self, begin: Callable[[], Any], beside: bool = False, ahead: bool = False) -> Start:
        """Start with nothing in the page cache, and a replay where one is asked for."""
        self.remove()
        drop_host_caches(Host())
        replay = [PYTHON, "-IS", REPLAYER, f"{TARGETS}/{NAME}/plan"]
        if ahead:
            subprocess.run(replay, stdout=subprocess.DEVNULL, check=True)
        began_s = time.monotonic()
        reader = subprocess.Popen(replay, stdout=subprocess.DEVNULL) if beside else None
        with begin():
            start = first_answer(began_s)
        if reader and reader.wait():
            sys.exit(f"container: the replay ended with {reader.returncode}.")
        return start

    def warm(self, begin: Callable[[], Any]) -> Start:
        """Start right after another start."""
        for _ in range(2):
            self.remove()
            began_s = time.monotonic()
            with begin():
                start = first_answer(began_s)
        return start

    @contextlib.contextmanager
    def container(self) -> Iterator[None]:
        """Make the container anew, and run it."""
        self.daemon.docker("run", "--detach", *self.options, *self.command(IMAGE_PYTHON))
        try:
            yield
        finally:
            self.remove()

    def remove(self) -> None:
        self.daemon.docker("rm", "--force", NAME, check=False)

    @property
    def options(self) -> list[str]:
        return [
            *("--name", NAME, "--network", "host", "--user", f"{USER}:{USER}"),
            # No image has this folder: runc gives a mount in memory the mode of the image's own.
            *("--tmpfs", "/scratch", "--env", "TMPDIR=/scratch", "--env", "HF_HUB_OFFLINE=1"),
            *("--volume", f"{self.model}:{self.model}:ro"),
            *("--volume", f"{SERVER}:{SERVER}:ro", IMAGE),
        ]

    def command(self, python: str) -> list[str]:
        """Return the server's command line, by a Python of the image or of the host."""
        return [python, str(SERVER), str(self.model), str(PORT)]

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """Run the server as a process of the host."""
        process = subprocess.Popen(
            self.command(self.python),
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "HF_HUB_OFFLINE": "1"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=USER,
            group=USER,
            extra_groups=[],
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def module(self, **given: Any) -> None:
        """Run the module first_token; end where it fails."""
        arguments = {"name": NAME, "programs": first_token_programs(), **given}
        daemon = {"DOCKER_HOST": self.daemon.address}
        told, _ = begin_module("first_token", arguments, daemon, stderr=subprocess.DEVNULL).communicate()
        result = answer_in(told.decode())
        if result.get("failed"):
            sys.exit(f"container: {result['msg']}")


def first_answer(began_s: float) -> Start:
    """Return once the server has answered the first request; end if it does not get ready."""
    while time.monotonic() - began_s < START_TIMEOUT_S:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=START_TIMEOUT_S):
                ready_s = time.monotonic() - began_s
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/generate", timeout=START_TIMEOUT_S):
                return Start(ready_s, time.monotonic() - began_s)
        time.sleep(POLL_S)
    sys.exit(f"container: no answer within {START_TIMEOUT_S:.0f} s.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="/opt/slm-baseline/venv/bin/python", help="of the loader's environment")
    parser.add_argument("--model", default="/opt/slm-baseline/models/qwen2.5-0.5b", type=Path)
    parser.add_argument("--blocks", default=6, type=int)
    parser.add_argument("--out", type=Path, help="where the document goes")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("container: a Docker daemon and dropping the page cache need root. Next: run it as root.")
    if not shutil.which("dockerd"):
        sys.exit("container: no dockerd. Next: install Debian's docker.io.")
    for path in (Path(arguments.python), arguments.model):
        if not path.exists():
            sys.exit(f"container: {path} does not exist. Next: make baseline.")
    with running_daemon() as daemon, tempfile.TemporaryDirectory(prefix="slm-image-", dir="/var/tmp") as folder:
        import_torch_image(daemon, IMAGE, Path(arguments.python).parents[1], Path(folder))
        bench = Bench(daemon, arguments.python, arguments.model)
        try:
            compare(bench, arguments)
        finally:
            bench.module(state="absent")
    return 0


def compare(bench: Bench, arguments: argparse.Namespace) -> None:
    """Record the container, run the blocks, and print the table."""
    bench.daemon.docker("create", *bench.options, *bench.command(IMAGE_PYTHON))
    # Ready is who has answered a first request: what that alone reads is in the plan, too, such as weights that a lazy
    # mapping has not touched before.
    ready = {"type": "url", "url": f"http://127.0.0.1:{PORT}/generate", "timeout_s": START_TIMEOUT_S}
    bench.module(container=NAME, ready=ready)
    plan = parse_plan(Host().read(f"{TARGETS}/{NAME}/plan"))
    facts = {
        "target": f"{arguments.model.name} in a container",
        "user": str(USER),
        "files": len(plan.files),
        "folders": len(plan.folders),
        "imports_bytes": plan.bytes_of(weights=False),
        "resident_bytes": plan.resident_bytes,
        "weights_bytes": plan.bytes_of(weights=True),
    }
    document = Document("engine", told_of_host(arguments.python), facts)
    document.host["software"]["docker"] = bench.daemon.docker("version", "--format", "{{.Server.Version}}")
    arms = list(bench.arms)
    for block in range(arguments.blocks):
        random.shuffle(arms)
        starts = []
        for arm in arms:
            start = bench.arms[arm]()
            starts.append((arm, start.to_json()))
            print(f"block {block + 1} {arm}: {start.token_s:.2f} s", flush=True)
        document.add_block(starts)
        if arguments.out:
            document.write(arguments.out)
    print(engine_table(document.to_json()))


if __name__ == "__main__":
    sys.exit(main())
