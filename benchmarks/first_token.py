"""How much sooner does the first token come? Our replay beside what people use today, on one host in one run.

Every arm starts the same loader on the same model as the same user; what differs is what happens before or beside it,
and which caches it finds: `bytecode` of all modules, and `kernels` that the driver compiled before. A cold arm begins
with nothing in the page cache (`sync`, drop_caches). The clock runs from the first thing an arm does for the start,
whether that is the loader or a command before it, to the first token; `replay ahead` alone is finished before, as at
boot. The arms of a block run in an order that is drawn; a block holds each arm once.

Peers that change the application's loader (benchmarks/peers.py) are installed into a folder of the run's own; one that
cannot be installed, or does not run on this host, is named with the reason.

`--out` takes a document with every start (plugins/schemas/evidence.schema.json); `python -m benchmarks.tables` makes
tables of it. With `--state FOLDER` the plan and the caches stay there, and another call with the same folder and
document adds blocks. Needs root. `--plan-only` records, replays once, and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))
sys.path.append(str(ROOT / "plugins"))

from ansible.module_utils.slm_baseline.first_token.bytecode import LEAST_MODULES, find_compiled  # noqa: E402  found through the path above
from ansible.module_utils.slm_baseline.first_token.fit import Fit, fit_text  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.plan import Plan, to_text  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.members import in_tree  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.record import Look, Recording, plan_file, record  # noqa: E402
from ansible.module_utils.slm_baseline.first_token.recorder.touched import Touched  # noqa: E402
from ansible.module_utils.slm_baseline.host.deadline import Deadline  # noqa: E402
from ansible.module_utils.slm_baseline.host.files import Host  # noqa: E402
from ansible.module_utils.slm_baseline.host.kernel_caches import CACHES, Held, held_in, variables  # noqa: E402

from benchmarks.evidence import Document, told_of_host  # noqa: E402
from benchmarks.peers import PEERS  # noqa: E402
from benchmarks.tables import first_token_table  # noqa: E402

REPLAY = ["/usr/bin/python3", "-IS", str(ROOT / "files" / "slm_replay.py")]
FIT = ["/usr/bin/python3", "-IS", str(ROOT / "files" / "slm_fit.py")]
PEER_LOADER = str(ROOT / "benchmarks" / "peers.py")
PEER_PACKAGES = str(ROOT / "benchmarks" / "requirements-peers.txt")
CHANGES = "(changes the application)"
DISK_BLOCK_BYTES = (2 << 20, 8 << 20, 32 << 20)
DISK_STREAMS = (2, 4, 8, 16)
RECORDING_S = 1800.0


class NotStarted(Exception):
    """A loader that gave no first token; the text is its last line."""


@dataclass(frozen=True)
class Start:
    """One start: seconds to the first token by the arm's clock, those of each phase, and bytes read by its end."""

    seconds: float
    phases: Mapping[str, float]
    read_bytes: Mapping[str, int]
    replay: str = ""
    head_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the start as the document has it; a replay's line becomes names and numbers."""
        words = dict(word.partition("=")[::2] for word in self.replay.split())
        return {
            "seconds": self.seconds,
            "head_s": self.head_s,
            "phases": dict(self.phases),
            "read_bytes": dict(self.read_bytes),
            "replay": {name: float(value) for name, value in words.items() if value[:1].isdigit()} or None,
        }


@dataclass(frozen=True)
class Subject:
    """The benchmark's loader: its command and environment, and the user it runs as."""

    command: Sequence[str]
    env: Mapping[str, str]
    user: str
    model: Path
    trees: Sequence[Path]

    @property
    def identity(self) -> dict[str, Any]:
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def run(self, env: Mapping[str, str], began_ns: int | None = None, look: Look | None = None) -> Start:
        """Start the loader and wait for its end; seconds are counted from `began_ns`, or from the spawn.

        `look` is called while it is held after its first token.
        """
        read, write = os.pipe()
        held, hold = os.pipe()
        spawn_ns = time.monotonic_ns()
        more = ["--hold-fd", str(held)] if look else []
        process = subprocess.Popen(
            [*self.command, "--until", "first_token", "--events-fd", str(write), *more],
            env={**self.env, **env},
            cwd="/",
            pass_fds=(write, held),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **self.identity,
        )
        os.close(write)
        os.close(held)
        events = []
        with os.fdopen(read, encoding="utf-8") as stream:
            for line in stream:
                events.append(json.loads(line))
                if look and events[-1]["event"] == "held":
                    look()
                    os.write(hold, b"g")
        os.close(hold)
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
    """Return each peer that runs here, as the subject with its loader; print the others with the reason."""
    python, *loader = subject.command
    packages = folder / "peers"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(packages)]
    answer = subprocess.run([*pip, "--requirement", PEER_PACKAGES], capture_output=True, text=True, check=False)
    if answer.returncode:
        print(f"no peers: {(answer.stderr.strip().splitlines() or ['pip failed'])[-1]}", flush=True)
        return {}
    found = {}
    for peer in PEERS:
        # Readable for the user, whatever the umask was.
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


@dataclass(frozen=True)
class Prepared:
    """The recorded plans by name, and each filled cache's environment, empty if it saves nothing.

    `stale_fit` describes bytecode that an upgrade has outdated: nothing but the check of it is left of a cache.
    """

    plans: Mapping[str, str]
    bytecode: Mapping[str, str]
    kernels: Mapping[str, str]
    stale_fit: str

    @property
    def kept(self) -> dict[str, str]:
        """Return the environment of all caches."""
        return {**self.bytecode, **self.kernels}


@dataclass
class Bench:
    """The arms over one subject."""

    subject: Subject
    prepared: Prepared
    peers: Mapping[str, Subject] = field(default_factory=dict)
    warmed: Mapping[str, str] | None = None
    """The caches with which everything was last read into memory; None after the page cache was dropped."""

    def arms(self) -> dict[str, Callable[[], Start]]:
        model = [str(path) for path in sorted(self.subject.model.rglob("*")) if path.is_file()]
        trees = [str(path) for path in self.subject.trees]
        prepared = self.prepared
        kept, bytecode = prepared.kept, prepared.bytecode
        arms: dict[str, Callable[[], Start]] = {
            "cold, as found": lambda: self.cold({}),
            "warm, as found": lambda: self.warm({}),
            "replay together": lambda: self.replay_beside(kept),
            "replay ahead": lambda: self.replay_ahead(kept),
        }
        if kept:
            arms["cold, caches kept"] = lambda: self.cold(kept)
            arms["warm, caches kept"] = lambda: self.warm(kept)
        arms["warm, replay beside"] = lambda: self.warm_beside(kept)
        arms["replay together, residency"] = lambda: self.replay_beside(kept, "residency")
        arms["cold, a stale plan beside"] = lambda: self.replay_beside({}, "stale")
        arms["cold, a stale cache checked"] = self.stale_cache
        if bytecode and prepared.kernels:
            arms["replay together, bytecode alone"] = lambda: self.replay_beside(bytecode)
            arms["warm, bytecode alone"] = lambda: self.warm(bytecode)
        found = {"cat model": ["cat", *model]}
        if shutil.which("vmtouch"):
            found |= {"vmtouch -t model": ["vmtouch", "-qt", *model]}
            found |= {"vmtouch -t all": ["vmtouch", "-qt", *trees, *cache_trees(kept), *model]}
        for name, command in found.items():
            arms[f"{name} first"] = lambda command=command: self.after(command, {})  # type: ignore[misc]
            arms[f"{name} beside"] = lambda command=command: self.beside(command, {})  # type: ignore[misc]
            if kept:
                arms[f"{name} beside, caches kept"] = lambda command=command: self.beside(command, kept)  # type: ignore[misc]
        for peer, subject in self.peers.items():
            arms[f"{peer} {CHANGES}"] = lambda subject=subject: self.by_peer(subject)  # type: ignore[misc]
        return arms

    def run(self, arm: Callable[[], Start]) -> Start:
        """Run one start; the arms themselves determine what is in memory afterwards."""
        return arm()

    def drop(self) -> None:
        drop_caches()
        self.warmed = None

    def cold(self, env: Mapping[str, str]) -> Start:
        self.drop()
        return self.started(env)

    def by_peer(self, subject: Subject) -> Start:
        self.drop()
        return subject.run(self.prepared.kept)

    def started(self, env: Mapping[str, str], began_ns: int | None = None) -> Start:
        start = self.subject.run(env, began_ns)
        self.warmed = dict(env)
        return start

    def warm(self, env: Mapping[str, str]) -> Start:
        """Run a start with everything in memory; one before it reads that, unless the last start of this run did."""
        if self.warmed != dict(env):
            self.started(env)
        return self.started(env)

    def warm_beside(self, env: Mapping[str, str]) -> Start:
        if self.warmed != dict(env):
            self.started(env)
        return self._beside(self.replay_command(), env, is_replay=True)

    def after(self, command: Sequence[str], env: Mapping[str, str]) -> Start:
        self.drop()
        began_ns = time.monotonic_ns()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return self.started(env, began_ns)

    def beside(self, command: Sequence[str], env: Mapping[str, str]) -> Start:
        self.drop()
        return self._beside(command, env)

    def stale_cache(self) -> Start:
        self.drop()
        began_ns = time.monotonic_ns()
        # It ends with 1, as a cache that does not fit should.
        subprocess.run(
            [*FIT, self.prepared.stale_fit], env={}, capture_output=True, check=False, **self.subject.identity
        )
        return self.started({}, began_ns)

    def replay_command(self, plan: str = "plan") -> list[str]:
        return [*REPLAY, self.prepared.plans[plan]]

    def replay_beside(self, env: Mapping[str, str], plan: str = "plan") -> Start:
        self.drop()
        return self._beside(self.replay_command(plan), env, is_replay=True)

    def replay_ahead(self, env: Mapping[str, str]) -> Start:
        self.drop()
        said = subprocess.run(self.replay_command(), capture_output=True, text=True, check=True).stdout
        return replace(self.started(env), replay=said.strip())

    def _beside(self, command: Sequence[str], env: Mapping[str, str], is_replay: bool = False) -> Start:
        began_ns = time.monotonic_ns()
        output = subprocess.PIPE if is_replay else subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, text=True)
        start = self.started(env, began_ns)
        said, _ = process.communicate()
        return replace(start, replay=(said or "").strip())


def cache_trees(env: Mapping[str, str]) -> list[str]:
    """Return the folders of bytecode that an environment names; those of kernels are smaller than a megabyte."""
    return [value for name, value in env.items() if name == "PYTHONPYCACHEPREFIX"]


def make_ready(subject: Subject, folder: Path) -> tuple[Prepared, dict[str, Any]]:
    """Record the subject's start, fill the caches that save time, record again for replay; return plans and facts.

    The plan has the pages of both recorded starts. The plan `residency` has what was in memory, as a plan of the first
    version.
    """
    host, touched = Host(), Touched()

    def recorded(env: Mapping[str, str]) -> Recording:
        def start(look: Look) -> None:
            subject.run(env, look=look)

        return record(host, in_tree(os.getpid()), drop_caches, start, Deadline.after(RECORDING_S), touched)

    first = recorded({})
    compiled = find_compiled(host, first.seen.opened)
    bytecode = {"PYTHONPYCACHEPREFIX": str(own_folder(subject, folder / "pycache"))}
    kernels = variables(CACHES, str(own_folder(subject, folder / "kernels")))
    kept = {**(bytecode if len(compiled) >= LEAST_MODULES else {}), **kernels}
    # This start fills the caches that the next one reads.
    subject.run(kept)
    held = held_in(str(folder / "kernels"))
    if not held.files:
        kept = {name: value for name, value in kept.items() if name not in kernels}
    last = recorded(kept)
    plans = {"plan": last.plan, "residency": with_residency(last.plan), "stale": outdated(last.plan)}
    for name, plan in plans.items():
        (folder / name).write_text(to_text(plan), encoding="utf-8", errors="surrogateescape")
        (folder / name).chmod(0o644)
    stale_fit = folder / "stale-fit"
    stale_fit.write_text(outdated_fit(bytecode["PYTHONPYCACHEPREFIX"], first.seen.opened), encoding="utf-8")
    prepared = Prepared(
        {name: str(folder / name) for name in plans},
        {name: value for name, value in kept.items() if name in bytecode},
        {name: value for name, value in kept.items() if name in kernels},
        str(stale_fit),
    )
    return prepared, what_was_made(last, len(compiled), held)


def with_residency(plan: Plan) -> Plan:
    """Return the plan with all pages of its files that are in memory; call it right after the recording."""
    deadline = Deadline.after(RECORDING_S)
    return replace(plan, files=[plan_file(file.path, deadline) or file for file in plan.files])


def outdated(plan: Plan) -> Plan:
    """Return the plan as it is after an upgrade that has replaced every file of it."""
    return replace(plan, files=[replace(file, mtime_ns=file.mtime_ns + 1) for file in plan.files])


def outdated_fit(folder: str, opened: Iterable[str]) -> str:
    """Return the longest check of a cache: every folder has changed, and of the sources the very last one alone."""
    sources = [path for path in dict.fromkeys(opened) if path.endswith(".py") and os.path.exists(path)]
    folders = list(dict.fromkeys(map(os.path.dirname, sources)))
    last = next(path for path in reversed(sources) if os.path.dirname(path) == folders[-1])
    found = {path: os.stat(path) for path in (folder, *folders, *sources)}
    return fit_text(
        Fit(
            folder,
            folder,
            found[folder].st_ino,
            str(found[folder].st_uid),
            (),
            tuple((found[path].st_ino, found[path].st_mtime_ns + 1, path) for path in folders),
            tuple(
                (found[path].st_ino, found[path].st_size, found[path].st_mtime_ns + (path == last), path)
                for path in sources
            ),
        )
    )


def what_was_made(recording: Recording, compiled: int, kernels: Held) -> dict[str, Any]:
    """Return the document's facts on plan and caches."""
    plan = recording.plan
    return {
        "files": len(plan.files),
        "folders": len(plan.folders),
        "imports_bytes": plan.bytes_of(weights=False),
        "resident_bytes": plan.resident_bytes,
        "weights_bytes": plan.bytes_of(weights=True),
        "unattributed": recording.seen.unattributed,
        "refused": recording.refused,
        "modules_compiled": compiled,
        "kernel_files": kernels.files,
        "kernel_bytes": kernels.bytes,
    }


def own_folder(subject: Subject, path: Path) -> Path:
    """Make a new folder that only the loader's user may enter."""
    path.mkdir(mode=0o700)
    os.chown(path, subject.identity["user"], subject.identity["group"])
    return path


def disk_rate(files: Sequence[Path]) -> float:
    """Measure the disk's best rate in bytes per second: files past the page cache, with several depths and sizes."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="/opt/slm-baseline/venv/bin/python", help="the loader's interpreter")
    parser.add_argument("--loader", default=str(ROOT / "files" / "slm_load.py"))
    parser.add_argument("--model", default="/opt/slm-baseline/models/qwen2.5-0.5b", type=Path)
    parser.add_argument("--user", default="nobody")
    parser.add_argument("--blocks", default=6, type=int)
    parser.add_argument(
        "--budget-s", default=float("inf"), type=float, help="no block is begun that may not end in time"
    )
    parser.add_argument("--arms", default="", help="names, separated by `;`; all where empty")
    parser.add_argument("--out", type=Path, help="where the document goes")
    parser.add_argument("--state", type=Path, help="a folder for plan and caches, which stay there")
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE for the loader")
    parser.add_argument("--no-peers", action="store_true", help="leave out what changes the application")
    parser.add_argument("--plan-only", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("first_token: dropping the page cache and asking what is in it needs root. Next: run it as root.")
    try:
        return compare(arguments, time.monotonic())
    except NotStarted as error:
        sys.exit(f"first_token: the loader failed: {error}")


def compare(arguments: argparse.Namespace, began_s: float) -> int:
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8"}
    environment |= dict(pair.split("=", 1) for pair in arguments.env)
    trees = [Path(arguments.python).parents[1] / "lib"]
    command = [arguments.python, arguments.loader, "--model", str(arguments.model)]
    subject = Subject(command, environment, arguments.user, arguments.model, trees)
    with tempfile.TemporaryDirectory(prefix="first-token-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        folder = arguments.state or Path(name)
        bench, document = ready_bench(subject, folder, arguments)
        if arguments.plan_only:
            print(json.dumps(document.facts, indent=1))
            print(bench.replay_ahead(bench.prepared.kept))
            return 0
        arms = bench.arms()
        chosen = [arm for arm in arguments.arms.split(";") if arm] or list(arms)
        if odd := [arm for arm in chosen if arm not in arms]:
            sys.exit(f"first_token: no such arm here: {odd[0]}. Next: choose of {'; '.join(arms)}.")
        longest_s = 0.0
        while document.blocks < arguments.blocks:
            begun_s = time.monotonic()
            if begun_s - began_s + longest_s > arguments.budget_s:
                print(f"first_token: {document.blocks} of {arguments.blocks} blocks, as many as the budget holds")
                break
            random.shuffle(chosen)
            starts = []
            for arm in chosen:
                start = bench.run(arms[arm])
                starts.append((arm, start.to_json()))
                print(f"block {document.blocks + 1} {arm}: {start.seconds:.2f} s", file=sys.stderr, flush=True)
            document.add_block(starts)
            if arguments.out:
                document.write(arguments.out)
            longest_s = max(longest_s, time.monotonic() - begun_s)
    print(first_token_table(document.to_json()))
    return 0


def ready_bench(subject: Subject, folder: Path, arguments: argparse.Namespace) -> tuple[Bench, Document]:
    """Return the bench, ready to run, and its document: those of an earlier call with this folder, or new ones."""
    kept = folder / "prepared.json"
    if arguments.out and arguments.out.exists() and kept.exists():
        return Bench(subject, Prepared(**json.loads(kept.read_text(encoding="utf-8")))), Document.read(arguments.out)
    folder.mkdir(mode=0o755, exist_ok=True)
    prepared, made = make_ready(subject, folder)
    kept.write_text(json.dumps({**vars(prepared)}), encoding="utf-8")
    peers = {} if arguments.no_peers else runnable_peers(subject, folder)
    facts = {
        **made,
        "model": arguments.model.name,
        "user": arguments.user,
        "disk_bytes_per_s": disk_rate(sorted(arguments.model.rglob("*.safetensors"))),
    }
    return Bench(subject, prepared, peers), Document("first-token", told_of_host(arguments.python), facts)


if __name__ == "__main__":
    sys.exit(main())
