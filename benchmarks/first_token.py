"""How much sooner does the first token come? Our replay beside what people use today, on one host in one run.

Every arm starts the same loader on the same model as the same user; what differs is what happens before or beside it.
A cold arm begins with nothing in the page cache (`sync`, drop_caches). The clock runs from the first thing an arm does
for the start, whether that is the loader or a command before it, to the first token; `replay-ahead` alone is finished
before, as at boot. The arms of a block run in an order that is drawn; a block holds each arm once.

Peers that change the application's loader (benchmarks/peers.py) are installed into a folder of the run's own; one that
cannot be installed, or does not run on this host, is named with the reason.

Prints seconds, ratios paired within blocks, and how far each arm is from the floor F*: no start can be sooner than the
disk gives what it reads cold and the warm start takes. Needs root. `--plan-only` records, replays once, and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))

from ansible.module_utils.slm_baseline.first_token.bytecode import (  # noqa: E402  found through the path above
    LEAST_MODULES,
    find_cached,
    find_compiled,
    with_cached,
)
from ansible.module_utils.slm_baseline.first_token.plan import to_text  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.members import in_tree  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.record import Recording, plan_file, record  # noqa: E402
from ansible.module_utils.slm_baseline.host.deadline import Deadline  # noqa: E402
from ansible.module_utils.slm_baseline.host.files import Host  # noqa: E402

from benchmarks.peers import PEERS  # noqa: E402

REPLAY = ["/usr/bin/python3", "-IS", str(ROOT / "files" / "slm_replay.py")]
PEER_LOADER = str(ROOT / "benchmarks" / "peers.py")
PEER_PACKAGES = str(ROOT / "benchmarks" / "requirements-peers.txt")
CHANGES = "(changes the application)"
DISK_BLOCK_BYTES = (2 << 20, 8 << 20, 32 << 20)
DISK_STREAMS = (2, 4, 8, 16)


class NotStarted(Exception):
    """A loader that made no first token; the text is its last line."""


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first token by the arm's clock, those of each phase, and bytes read by its end."""

    seconds: float
    phases: Mapping[str, float]
    read_bytes: Mapping[str, int]
    replay: str = ""
    head_s: float = 0.0


@dataclass(frozen=True)
class Subject:
    """What is started: command and environment of the loader, and the user it runs as."""

    command: Sequence[str]
    env: Mapping[str, str]
    user: str
    model: Path
    trees: Sequence[Path]

    @property
    def identity(self) -> dict[str, Any]:
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def run(self, env: Mapping[str, str], began_ns: int | None = None) -> Start:
        """Start it and wait for its end; seconds are counted from `began_ns`, or from the spawn."""
        read, write = os.pipe()
        spawn_ns = time.monotonic_ns()
        process = subprocess.Popen(
            [*self.command, "--until", "first_token", "--events-fd", str(write)],
            env={**self.env, **env},
            cwd="/",
            pass_fds=(write,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **self.identity,
        )
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as stream:
            events = [json.loads(line) for line in stream]
        _, errors = process.communicate()
        if process.returncode or not any(event["event"] == "first_token" for event in events):
            raise NotStarted((errors.decode(errors="replace").strip().splitlines() or ["no word"])[-1][:300])
        phases: dict[str, float] = {}
        read_bytes: dict[str, int] = {}
        before_ns = spawn_ns
        for event in events:
            phases[event["event"]] = (event["t_ns"] - before_ns) / 1e9
            read_bytes[event["event"]] = event["read_bytes"] or 0
            before_ns = event["t_ns"]
            if event["event"] == "first_token":
                return Start(
                    (event["t_ns"] - (began_ns or spawn_ns)) / 1e9,
                    phases,
                    read_bytes,
                    head_s=(spawn_ns - (began_ns or spawn_ns)) / 1e9,
                )
        raise AssertionError("the first token was there a moment ago")


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def cold(subject: Subject, env: Mapping[str, str] | None = None) -> Start:
    drop_caches()
    return subject.run(env or {})


def runnable_peers(subject: Subject, folder: Path) -> dict[str, Subject]:
    """Each peer that runs here, as the subject with its loader; the others are printed with the reason."""
    python, *loader = subject.command
    packages = folder / "peers"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(packages)]
    answer = subprocess.run([*pip, "--requirement", PEER_PACKAGES], capture_output=True, text=True, check=False)
    if answer.returncode:
        print(f"no peers: {(answer.stderr.strip().splitlines() or ['pip failed'])[-1]}", flush=True)
        return {}
    found = {}
    for peer in PEERS:
        # What a user may read, whatever the umask was.
        subprocess.run(["chmod", "-R", "a+rX", str(packages)], check=True)
        env = {**subject.env, "PYTHONPATH": str(packages)}
        candidate = replace(subject, command=[python, PEER_LOADER, peer, *loader], env=env)
        try:
            candidate.run({})
        except NotStarted as error:
            print(f"{peer}: does not run here: {error}", flush=True)
        else:
            found[peer] = candidate
    return found


@dataclass
class Bench:
    """The arms over one subject. `env` is what the bytecode arms add: our cache, if there was anything to compile."""

    subject: Subject
    plan: str
    env: Mapping[str, str]
    disk_bytes_per_s: float = 0.0
    peers: Mapping[str, Subject] = field(default_factory=dict)
    starts: dict[str, list[Start]] = field(default_factory=dict)

    def arms(self) -> dict[str, Callable[[], Start]]:
        model = [str(path) for path in sorted(self.subject.model.rglob("*")) if path.is_file()]
        trees = [str(path) for path in self.subject.trees]
        arms: dict[str, Callable[[], Start]] = {
            "cold, as found": lambda: self.cold({}),
            "cat model first": lambda: self.after(["cat", *model], {}),
            "cat model beside": lambda: self.beside(["cat", *model], {}),
            "replay together": lambda: self.replay_beside(),
            "replay ahead": lambda: self.replay_ahead(),
            "warm, as found": lambda: self.warm({}),
        }
        if shutil.which("vmtouch"):
            arms["vmtouch -t model first"] = lambda: self.after(["vmtouch", "-qt", *model], {})
            arms["vmtouch -t model beside"] = lambda: self.beside(["vmtouch", "-qt", *model], {})
            arms["vmtouch -t all first"] = lambda: self.after(["vmtouch", "-qt", *trees, *model], {})
            arms["vmtouch -t all beside"] = lambda: self.beside(["vmtouch", "-qt", *trees, *model], {})
        for peer, subject in self.peers.items():
            arms[f"{peer} {CHANGES}"] = lambda subject=subject: cold(subject)  # type: ignore[misc]
        if self.env:
            arms["cold, bytecode"] = lambda: self.cold(self.env)
            arms["warm, bytecode"] = lambda: self.warm(self.env)
        return arms

    def cold(self, env: Mapping[str, str]) -> Start:
        return cold(self.subject, env)

    def warm(self, env: Mapping[str, str]) -> Start:
        self.subject.run(env)
        return self.subject.run(env)

    def after(self, command: Sequence[str], env: Mapping[str, str]) -> Start:
        drop_caches()
        began_ns = time.monotonic_ns()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return self.subject.run(env, began_ns)

    def beside(self, command: Sequence[str], env: Mapping[str, str]) -> Start:
        drop_caches()
        began_ns = time.monotonic_ns()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        start = self.subject.run(env, began_ns)
        process.wait()
        return start

    def replay_beside(self) -> Start:
        drop_caches()
        began_ns = time.monotonic_ns()
        process = subprocess.Popen([*REPLAY, self.plan], stdout=subprocess.PIPE, text=True)
        start = self.subject.run(self.env, began_ns)
        said, _ = process.communicate()
        return Start(start.seconds, start.phases, start.read_bytes, said.strip())

    def replay_ahead(self) -> Start:
        drop_caches()
        said = subprocess.run([*REPLAY, self.plan], capture_output=True, text=True, check=True).stdout
        start = self.subject.run(self.env)
        return Start(start.seconds, start.phases, start.read_bytes, said.strip())


def make_plan(subject: Subject, folder: Path) -> tuple[Recording, dict[str, str], int]:
    """Record the subject's imports, have it fill a bytecode cache if it lacks any, and give the plan of the next start.

    The last is how many modules are kept.
    """
    host = Host(Path("/"))

    def recorded(env: Mapping[str, str]) -> Recording:
        def start() -> None:
            subject.run(env)

        return record(host, in_tree(os.getpid()), drop_caches, start, Deadline.after(3600))

    first = recorded({})
    if len(find_compiled(host, first.seen.opened)) < LEAST_MODULES:
        return first, {}, 0
    prefix = folder / "pycache"
    prefix.mkdir()
    os.chown(prefix, subject.identity.get("user", -1), subject.identity.get("group", -1))
    env = {"PYTHONPYCACHEPREFIX": str(prefix)}
    second = recorded(env)
    files = {}
    for source, path in find_cached(host, str(prefix), list(second.seen.opened)).items():
        with contextlib.suppress(OSError):
            file = plan_file(path, Deadline.after(60))
            if file:
                files[source] = file
    print(f"bytecode: {len(files)} modules are kept", flush=True)
    return replace(second, plan=with_cached(second.plan, files)), env, len(files)


def disk_rate(files: Sequence[Path]) -> float:
    """The best that this disk gives in bytes per second: the files past the page cache, by several depths and sizes."""
    import mmap
    from concurrent.futures import ThreadPoolExecutor

    best = 0.0
    large = [path for path in files if path.stat().st_size >= 32 << 20]
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path in large]
    for block in DISK_BLOCK_BYTES:
        chunks = [
            (descriptor, offset)
            for descriptor in descriptors
            for offset in range(0, os.fstat(descriptor).st_size - block, block)
        ][: (1 << 30) // block]
        for streams in DISK_STREAMS:
            buffers = [mmap.mmap(-1, block) for _ in range(streams)]

            def read(index: int, chunks: Any = chunks, buffers: Any = buffers, streams: int = streams) -> int:
                return sum(os.preadv(one, [buffers[index]], at) for one, at in chunks[index::streams])

            began = time.monotonic()
            with ThreadPoolExecutor(streams) as pool:
                total = sum(pool.map(read, range(streams)))
            best = max(best, total / (time.monotonic() - began))
    for descriptor in descriptors:
        os.close(descriptor)
    return best


def floor(cold: Start, warm: Start, disk_bytes_per_s: float) -> float:
    """F* in seconds: max(W, max over k of (bytes up to the end of phase k) / D + (warm time after phase k))."""
    names = list(warm.phases)
    after = {name: sum(warm.phases[later] for later in names[index + 1 :]) for index, name in enumerate(names)}
    disk = [cold.read_bytes[name] / disk_bytes_per_s + after[name] for name in names]
    return max(sum(warm.phases.values()), *disk)


def median_start(starts: Sequence[Start]) -> Start:
    """The start whose time is the (lower) median."""
    return sorted(starts, key=lambda start: start.seconds)[(len(starts) - 1) // 2]


def best_peer(starts: Mapping[str, Sequence[Start]]) -> str | None:
    """The arm with the lowest median of those that somebody uses today and that change no application."""
    medians = {
        arm: statistics.median(start.seconds for start in found)
        for arm, found in starts.items()
        if arm.startswith(("cat ", "vmtouch "))
    }
    return min(medians, key=lambda arm: medians[arm], default=None)


def report(bench: Bench) -> dict[str, Any]:
    """Print the table; the same as a document."""
    found = "cold, as found"
    bytecode = "warm, bytecode" if "warm, bytecode" in bench.starts else "warm, as found"
    warm = median_start(bench.starts[bytecode])
    cold = median_start(bench.starts.get("cold, bytecode", bench.starts[found]))
    f_star = floor(cold, warm, bench.disk_bytes_per_s)
    base = [start.seconds for start in bench.starts[found]]
    ours = [start.seconds for start in bench.starts["replay together"]]
    print(f"disk {bench.disk_bytes_per_s / 1e9:.2f} GB/s, cold reads {max(cold.read_bytes.values()) / 1e9:.2f} GB")
    print(f"warm {sum(warm.phases.values()):.2f} s, floor F* {f_star:.2f} s\n")
    print(f"{'arm':48} {'median':>7} {'lowest':>7} {'highest':>7} {'/ F*':>6} {'as found /':>11} {'/ together':>11}")
    rows = {}
    for arm, starts in sorted(bench.starts.items(), key=lambda item: statistics.median(s.seconds for s in item[1])):
        values = [start.seconds for start in starts]
        middle = statistics.median(values)
        gain = statistics.median(a / b for a, b in zip(base, values, strict=True))
        over = statistics.median(b / a for a, b in zip(ours, values, strict=True))
        rows[arm] = {
            "seconds": values,
            "median": middle,
            "over_floor": middle / f_star,
            "gain": gain,
            "over_ours": over,
        }
        print(
            f"{arm:48} {middle:7.2f} {min(values):7.2f} {max(values):7.2f} {middle / f_star:6.2f}"
            f" {gain:10.2f}x {over:10.2f}x"
        )
    for arm in ("cold, as found", "cold, bytecode", "replay together", "replay ahead", bytecode):
        if arm in bench.starts:
            start = median_start(bench.starts[arm])
            shown = " ".join(f"{name} {seconds:.2f}" for name, seconds in start.phases.items())
            print(f"\n{arm}: {shown}")
            if start.replay:
                print(f"  {start.replay}")
    best = best_peer(bench.starts)
    if best:
        print(f"\nreplay together against {best}, the best that changes no application: {rows[best]['over_ours']:.2f}x")
    return {"floor_s": f_star, "disk_bytes_per_s": bench.disk_bytes_per_s, "best_peer": best, "arms": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="/opt/slm-baseline/venv/bin/python", help="the loader's interpreter")
    parser.add_argument("--loader", default=str(ROOT / "files" / "slm_load.py"))
    parser.add_argument("--model", default="/opt/slm-baseline/models/qwen2.5-0.5b", type=Path)
    parser.add_argument("--user", default="nobody")
    parser.add_argument("--blocks", default=6, type=int)
    parser.add_argument("--arms", default="", help="names, separated by `;`; all where empty")
    parser.add_argument("--out", type=Path, help="where the figures go as JSON")
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE for the loader")
    parser.add_argument("--no-peers", action="store_true", help="leave out what changes the application")
    parser.add_argument("--plan-only", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("first_token: dropping the page cache and asking what is in it needs root. Next: run it as root.")
    try:
        return compare(arguments)
    except NotStarted as error:
        sys.exit(f"first_token: the loader failed: {error}")


def compare(arguments: argparse.Namespace) -> int:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8"}
    environment |= dict(pair.split("=", 1) for pair in arguments.env)
    trees = [Path(arguments.python).parents[1] / "lib"]
    command = [arguments.python, arguments.loader, "--model", str(arguments.model)]
    subject = Subject(command, environment, arguments.user, arguments.model, trees)
    with tempfile.TemporaryDirectory(prefix="first-token-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        recording, env, _ = make_plan(subject, Path(name))
        plan = f"{name}/plan"
        Path(plan).write_text(to_text(recording.plan), encoding="utf-8", errors="surrogateescape")
        os.chmod(plan, 0o644)
        imports, weights = (recording.plan.bytes_of(kind) / 1e9 for kind in (False, True))
        print(
            f"plan: {len(recording.plan.files)} files, {len(recording.plan.folders)} folders, imports {imports:.2f} GB,"
            f" weights {weights:.2f} GB; {recording.seen.unattributed} events unattributed"
        )
        bench = Bench(subject, plan, env)
        if arguments.plan_only:
            print(bench.replay_ahead())
            return 0
        bench.disk_bytes_per_s = disk_rate(sorted(arguments.model.rglob("*.safetensors")))
        if not arguments.no_peers:
            bench.peers = runnable_peers(subject, Path(name))
        arms = bench.arms()
        chosen = [arm for arm in arguments.arms.split(";") if arm] or list(arms)
        for block in range(arguments.blocks):
            random.shuffle(chosen)
            for arm in chosen:
                start = arms[arm]()
                bench.starts.setdefault(arm, []).append(start)
                print(f"block {block + 1} {arm}: {start.seconds:.2f} s", file=sys.stderr, flush=True)
        document = report(bench)
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
