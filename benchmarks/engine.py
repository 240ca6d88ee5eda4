"""How much sooner does a serving engine give its first token? A target of first_token.yml, with and without its replay.

    python -m benchmarks.engine NAME --url http://127.0.0.1:8000/v1/completions \\
        --body '{"model": "m", "prompt": "Hello", "max_tokens": 1}'

NAME is a target with a command and a rule by which it is ready. Each start is the engine's own command, as the target's
user, on a host with nothing in the page cache (cold) or right after another start (warm). The clock runs from the first
thing done for the start to the answer of the first request, which is sent as soon as the engine is ready. The arms of a
block run in an order that is drawn; a block holds each arm once. Needs root, and the target recorded on this host.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))

from ansible.module_utils.slm_baseline.first_token.recorder.interruption import PYTHON  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.start import ready_command  # noqa: E402  found through the path above
from ansible.module_utils.slm_baseline.first_token.target import Target, recorded_targets  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.unit_files import REPLAYER, STARTER  # noqa: E402
from ansible.module_utils.slm_baseline.host.caches import drop_host_caches  # noqa: E402
from ansible.module_utils.slm_baseline.host.errors import SettingError  # noqa: E402
from ansible.module_utils.slm_baseline.host.files import Host  # noqa: E402

from benchmarks.evidence import Document, told_of_host  # noqa: E402
from benchmarks.tables import engine_table  # noqa: E402

ARMS = ("cold, as found", "replay together", "replay ahead", "warm, as found", "warm, caches kept")
REQUEST_TIMEOUT_S = 300


@dataclass(frozen=True)
class Start:
    """One start, in seconds: until the engine was ready, and until it had answered the first request."""

    ready_s: float
    token_s: float

    def to_json(self) -> dict[str, float]:
        """Return the start as the document has it."""
        return {"seconds": self.token_s, "ready_s": self.ready_s}


@dataclass(frozen=True)
class Engine:
    """The target, and the request whose answer is the first token."""

    target: Target
    url: str
    body: bytes

    def start(self, prefix: Sequence[str] = (), bytecode: bool = False) -> Start:
        """Start the engine, ask once, and end all that it has started; raise SettingError if it does not get ready."""
        target = self.target
        has_cache = bytecode and Host(Path("/")).exists(f"{target.folder}/bytecode")
        began = time.monotonic()
        with ready_command(target, {"PYTHONPYCACHEPREFIX": target.pycache} if has_cache else {}, prefix):
            ready_s = time.monotonic() - began
            try:
                request = urllib.request.Request(self.url, self.body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:
                    answer.read()
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise SettingError(
                    "--url",
                    f"an answer from {self.url}",
                    str(error),
                    "The first token is the answer to this request.",
                    f"start {target.name} by hand and send the request with curl.",
                ) from error
            return Start(ready_s, time.monotonic() - began)

    def run(self, arm: str) -> Start:
        """Start the engine once in this arm."""
        with_ours = not arm.endswith("as found")
        if arm.startswith("warm"):
            self.start(bytecode=with_ours)
            return self.start(bytecode=with_ours)
        drop_host_caches(Host(Path("/")))
        if arm == "replay together":
            return self.start([STARTER, self.target.name, "--"])
        if arm == "replay ahead":
            subprocess.run([PYTHON, "-IS", REPLAYER, self.target.plan], stdout=subprocess.DEVNULL, check=True)
        return self.start(bytecode=with_ours)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the target, as in first_token_targets")
    parser.add_argument("--url", required=True, help="where the first request goes")
    parser.add_argument("--body", required=True, help="the request, JSON")
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE for the engine, as in the target")
    parser.add_argument("--blocks", default=6, type=int)
    parser.add_argument("--arms", default=";".join(ARMS), help="names, separated by `;`")
    parser.add_argument("--out", type=Path, help="where the document goes")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("engine: dropping the page cache needs root. Next: run it as root.")
    target = recorded_targets(Host(Path("/"))).get(arguments.name)
    if target is None or not target.command or target.ready.how == "exit":
        sys.exit(f"engine: {arguments.name} is no target with a command and a port or URL. Next: first_token.yml.")
    arms = [arm for arm in arguments.arms.split(";") if arm]
    if odd := [arm for arm in arms if arm not in ARMS]:
        sys.exit(f"engine: no such arm: {odd[0]}. Next: choose of {'; '.join(ARMS)}.")
    # A record has only digests of the values.
    target = replace(target, environment=tuple(pair.partition("=")[::2] for pair in arguments.env))
    engine = Engine(target, arguments.url, arguments.body.encode())
    facts = {"target": target.name, "user": target.user}
    document = Document("engine", told_of_host(target.command[0]), facts)
    try:
        for block in range(arguments.blocks):
            random.shuffle(arms)
            starts = []
            for arm in arms:
                start = engine.run(arm)
                starts.append((arm, start.to_json()))
                print(f"block {block + 1} {arm}: {start.token_s:.2f} s", flush=True)
            document.add_block(starts)
            if arguments.out:
                document.write(arguments.out)
    except (SettingError, OSError) as error:
        sys.exit(f"engine: {error}")
    print(engine_table(document.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
