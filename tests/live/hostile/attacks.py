"""The attacks: what a hostile user of the host, a model's author or a second administrator does, and what must hold.

What must always hold is not repeated: siege.py looks after every attack whether a file of others changed, whether root
executed what the user could write, whether a process is left, and whether all ended in time with one error at most.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import random
import resource
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.slm_baseline.host.lease import parse_stat

from tests.live.faults.modules import IN_MEMORY
from tests.live.hostile.attack import Attacks
from tests.live.hostile.world import (
    HOME,
    MALLORY,
    MINE,
    MODEL,
    NOBODY,
    PACKAGES,
    PYTHON,
    RAN,
    Answer,
    Broken,
    World,
    mounts,
    shard,
)

THP = Path("/sys/kernel/mm/transparent_hugepage")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
CANARY = f"#!/bin/sh\nid -u >> {RAN}\nexit 0\n"
MODELS = f"{MINE}/models"
MAP_HUGETLB = 0x40000
TRIAL = """print('{"class": "ObedientForCausalLM", "model_type": "obedient"}')\n"""
"""The trial of a model for a Python that has neither torch nor transformers, as loader.py is the loader for it."""


attack = Attacks[World]()
ATTACKS = attack.all


USER, AUTHOR, LOADER, ADMIN = "a user of the host", "a model's author", "the loader", "a second administrator"


def must(holds: object, why: object) -> None:
    if not holds:
        raise Broken(str(why)[-1500:])


def refused(answer: Answer, knob: str = "slm_benchmark_home", *words: str) -> None:
    must(answer.failed and answer.knob == knob, f"not refused as {knob}: {answer.output}")
    must(all(word in answer.output for word in words), f"{words} not in: {answer.output}")


def fine(answer: Answer) -> Answer:
    must(not answer.failed, answer.output)
    return answer


def canary(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(CANARY)
    Path(path).chmod(0o755)


def script(name: str, text: str) -> Callable[[], None]:
    """In the hostile user's process: a program of their own."""

    def write() -> None:
        Path(MINE, name).write_text(text)
        Path(MINE, name).chmod(0o755)

    return write


def open_ran() -> None:
    """Let everybody note in it who they are."""
    Path(RAN).touch()
    Path(RAN).chmod(0o666)


def ran_as() -> list[str]:
    return Path(RAN).read_text().split() if Path(RAN).exists() else []


def kinds(answer: Answer) -> list[str]:
    return [str(sample["kind"]) for sample in answer.result.get("samples", [])]


# --- the folder of the measurement


def try_home(world: World, home: str) -> None:
    refused(world.check(home=home))
    refused(world.install(home=home))
    refused(world.measure(home=home))


@attack(
    "a team's folder for a home",
    ADMIN,
    "names /srv/team, which has models, venv and scratch of its own, as home.",
    "Rejected with a clear error; nothing in it changes.",
)
def foreign_home(world: World) -> None:
    try_home(world, "/srv/team")


@attack("a purge of a team's folder", ADMIN, "purges with /srv/team as home.", "Nothing in it is removed.")
def foreign_purge(world: World) -> None:
    must(fine(world.purge("/srv/team")).result["removed"] == [], "something was removed")


@attack(
    "a home made beforehand",
    USER,
    "creates the home on a sticky disk first, with a Python and a stamp in it.",
    "Refused; the Python never runs.",
)
def made_beforehand(world: World) -> None:
    def prepare() -> None:
        canary("/srv/shared/taken/venv/bin/python")
        Path("/srv/shared/taken/venv/slm-baseline.json").write_text("{}")
        Path("/srv/shared/taken/.slm-baseline").write_text("")

    world.once(prepare)
    refused(world.check(home="/srv/shared/taken", python=""))
    try_home(world, "/srv/shared/taken")
    must(ran_as() == [], ran_as())


@attack("a home below a folder of everybody's", USER, "may write the folder above the home.", "Refused.")
def open_parent(world: World) -> None:
    try_home(world, "/srv/open/slm")
    must(not os.path.exists("/srv/open/slm"), "it was made")


@attack("a home in a user's own folder", USER, "owns the folder above the home.", "Refused.")
def users_parent(world: World) -> None:
    try_home(world, f"{MINE}/slm")


@attack("a link for a home", USER, "puts a link to /opt/slm-baseline where the home should be.", "Refused.")
def linked_home(world: World) -> None:
    fine(world.install())
    world.once(lambda: os.symlink(HOME, "/srv/shared/link"))
    try_home(world, "/srv/shared/link")


@attack(
    "a link of root's into a user's folder", ADMIN, "left a link of root's that leads to a user's folder.", "Refused."
)
def roots_link(world: World) -> None:
    os.symlink(MINE, "/srv/leads-away")
    try:
        try_home(world, "/srv/leads-away/slm")
    finally:
        os.unlink("/srv/leads-away")


@attack(
    "a link above the home, swapped all the time",
    USER,
    "swaps a folder on a sticky disk for a link to /srv/team and back while it is checked.",
    "Refused every time.",
)
def swapped_home(world: World) -> None:
    def swap() -> None:
        os.mkdir("/srv/shared/swap")
        os.rmdir("/srv/shared/swap")
        os.symlink("/srv/team", "/srv/shared/swap")
        os.unlink("/srv/shared/swap")

    with world.meanwhile(swap):
        for _ in range(8):
            answer = world.install(home="/srv/shared/swap/slm")
            must(answer.failed or os.lstat("/srv/shared/swap").st_uid == 0, answer.output)
    if os.path.isdir("/srv/shared/swap") and os.lstat("/srv/shared/swap").st_uid == 0:
        world.purge("/srv/shared/swap/slm")


@attack(
    "a race for the home",
    USER,
    "creates and removes the home on a sticky disk in a loop.",
    "Ours alone or refused; what the user puts there is never used.",
)
def raced_home(world: World) -> None:
    def race() -> None:
        canary("/srv/shared/slm/venv/bin/python")
        shutil.rmtree("/srv/shared/slm")

    with world.meanwhile(race):
        for _ in range(8):
            answer = world.install(home="/srv/shared/slm")
            must(answer.failed or os.lstat("/srv/shared/slm").st_uid == 0, answer.output)
    must(ran_as() == [], ran_as())
    if os.path.isdir("/srv/shared/slm") and os.lstat("/srv/shared/slm").st_uid == 0:
        fine(world.purge("/srv/shared/slm"))
        must(not os.path.exists("/srv/shared/slm"), "the purge left the home")


@attack(
    "a purge that is told nothing",
    ADMIN,
    "purges without naming the home that was in use.",
    "The host's record knows it; it is gone, and nothing else.",
)
def unnamed_purge(world: World) -> None:
    fine(world.install(home="/mnt/slm/home"))
    fine(world.purge())
    must(not os.path.exists("/mnt/slm"), "the home is left")


@attack("a disk mounted in the home", ADMIN, "mounted a disk into the home's scratch.", "What is on it stays.")
def mounted_scratch(world: World) -> None:
    fine(world.install())
    os.makedirs(f"{HOME}/scratch/disk")
    subprocess.run(["mount", "--bind", "/srv/team", f"{HOME}/scratch/disk"], check=True)
    try:
        answer = world.measure()
        must(answer.failed, answer.output)
    finally:
        for place in [line.split(" ")[0] for line in mounts() if line.startswith(f"{HOME}/scratch/")]:
            subprocess.run(["umount", place], check=True)


# --- what root runs


@attack(
    "an open PATH",
    USER,
    "puts nvidia-smi and systemctl into folders that PATH names: empty, relative, writable.",
    "None of them runs.",
)
def open_path(world: World) -> None:
    for name in ("nvidia-smi", "systemctl", "mount", "umount", "python3"):
        world.once(lambda name=name: canary(f"{MINE}/bin/{name}"))  # type: ignore[misc]
        world.once(lambda name=name: canary(f"/srv/open/{name}"))  # type: ignore[misc]
    at = os.getcwd()
    os.chdir(f"{MINE}/bin")
    try:
        env = {"PATH": f":.:bin:{MINE}/bin:/srv/open:{os.environ['PATH']}"}
        fine(world.install())
        fine(world.module("slm_benchmark", model=MODEL, python=PYTHON, scope="weights", timeout_s=10, env=env))
        fine(world.module("thp", enabled="never", env=env))
        fine(world.module("memory_info", env=env))
        fine(world.module("memory_snapshot", state="restored", env=env))
    finally:
        os.chdir(at)
        for name in os.listdir("/srv/open"):
            os.unlink(f"/srv/open/{name}")
    must(ran_as() == [], ran_as())


@attack(
    "a base Python of a user's",
    USER,
    "owns the Python that the environment is to be made from.",
    "Refused; it never runs.",
)
def users_base(world: World) -> None:
    world.once(lambda: canary(f"{MINE}/python"))
    refused(world.check(python="", base_python=f"{MINE}/python"), "slm_benchmark_base_python")
    os.symlink(f"{MINE}/python", "/srv/base-python")
    try:
        refused(world.check(python="", base_python="/srv/base-python"), "slm_benchmark_base_python")
    finally:
        os.unlink("/srv/base-python")
    must(ran_as() == [], ran_as())


@attack(
    "an interpreter of a user's",
    USER,
    "owns slm_benchmark_python.",
    "It runs as the loader's user and never as root; one error.",
)
def users_python(world: World) -> None:
    world.once(lambda: canary(f"{MINE}/python"))
    world.once(open_ran)
    refused(world.check(python=f"{MINE}/python"), "slm_benchmark_python")
    fine(world.install())
    world.module("slm_model", model="tiny", python=f"{MINE}/python")
    must(set(ran_as()) == {str(NOBODY)}, ran_as())


HOSTILE_BUILDER = f"""#!/usr/bin/python3
import os, sys
open({RAN!r}, "a").write(str(os.getuid()) + "\\n")
if "--output" in sys.argv:
    folder = sys.argv[sys.argv.index("--output") + 1]
    os.symlink("/srv/team", folder + "/team")
    os.symlink("/etc/shadow", folder + "/config.json")
    os.mkfifo(folder + "/tokenizer.json")
    open(folder + "/model.safetensors", "wb").close()
    os.link(folder + "/model.safetensors", folder + "/second-name")
    open(folder + "/config.json.part", "w").close()
    os.chmod(folder + "/config.json.part", 0o6777)
    os.chmod(folder, 0o777)
    print('{{"changed": true, "built": [], "bytes": 1}}')
"""


@attack(
    "a builder that leaves traps",
    USER,
    "owns the Python that builds the model: links, a pipe, a second name, set-uid.",
    "It runs as the loader's user; root takes over plain files alone, without set-uid, and follows no link.",
)
def hostile_builder(world: World) -> None:
    def prepare() -> None:
        Path(f"{MINE}/builder").write_text(HOSTILE_BUILDER)
        os.chmod(f"{MINE}/builder", 0o755)
        open_ran()

    world.once(prepare)
    fine(world.install(scripts={"build_model.py": "def main(): pass\n"}))
    answer = world.module("slm_model", model="tiny", python=f"{MINE}/builder")
    must(answer.failed, answer.output)
    must(set(ran_as()) == {str(NOBODY)}, ran_as())
    folder = Path(HOME, "models/tiny")
    must(stat.S_IMODE(folder.stat().st_mode) == 0o755 and folder.stat().st_uid == 0, "the folder is not root's")
    must(sorted(os.listdir(folder)) == ["config.json.part", "model.safetensors"], os.listdir(folder))
    for path in folder.iterdir():
        status = path.lstat()
        must((status.st_uid, status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 1, 0o644), f"{path}: {status}")


@attack(
    "an interpreter that never stops talking",
    USER,
    "owns slm_benchmark_python, which prints for ever.",
    "It is ended; one error.",
)
def talking_python(world: World) -> None:
    world.once(script("python", "#!/bin/sh\nyes\n"))
    refused(world.check(python=f"{MINE}/python"), "slm_benchmark_python")


@attack(
    "an interpreter that leaves a child",
    USER,
    "owns slm_benchmark_python, whose child keeps its output open.",
    "It is not waited for; one error, and the child is gone.",
)
def lingering_python(world: World) -> None:
    text = "#!/bin/sh\nsetsid sleep 500 &\necho '{}'\n"
    world.once(script("python", text))
    refused(world.check(python=f"{MINE}/python"), "slm_benchmark_python")


CLAIMING = """#!/bin/sh
case "$2" in *metadata*) ;; *) exec /srv/python/bin/python "$@" ;; esac
echo '{"version": [3, 11, 2], "packages": PACKAGES, "library": ["FOLDER"], "standard": [], "executable": "/bin/sh"}'
"""


@attack(
    "an interpreter that claims a disk",
    USER,
    "owns slm_benchmark_python, which names /, /proc or a sparse terabyte as its library.",
    "Nothing of that is read; one error.",
)
def claiming_python(world: World) -> None:
    fine(world.install())

    def sparse() -> None:
        os.mkdir(f"{MINE}/library")
        with open(f"{MINE}/library/large", "w", encoding="utf-8") as stream:
            stream.truncate(1 << 40)

    world.once(sparse)
    for folder in ("/", "/proc", f"{MINE}/library"):
        text = CLAIMING.replace("PACKAGES", json.dumps(PACKAGES)).replace("FOLDER", folder)
        world.once(script("python", text))
        refused(world.measure(python=f"{MINE}/python", scope="app"), "slm_benchmark_python")


# --- the model's files


def users_model(change: Callable[[Path], object]) -> Callable[[], None]:
    """In the hostile user's process: a model of their own, changed."""

    def make() -> None:
        folder = Path(MODELS)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(shard(1 << 12))
        change(folder)

    return make


def bad_model(name: str, does: str, change: Callable[[Path], object]) -> None:
    def run(world: World) -> None:
        world.once(users_model(change))
        for answer in (world.check(model=MODELS), world.module("slm_model", model=MODELS, python=PYTHON)):
            must(answer.failed, answer.output)
            must("precious" not in answer.output, "a secret was told")

    attack(name, AUTHOR, does, "One error, told before anything else; nothing secret in it.")(run)


def replace(folder: Path, name: str, make: Callable[[str], object]) -> None:
    (folder / name).unlink()
    make(str(folder / name))


def circle(folder: Path) -> None:
    for name, other in (("config.json", "tokenizer.json"), ("tokenizer.json", "config.json")):
        (folder / name).unlink()
        (folder / name).symlink_to(other)


def lying_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"w": "../../../etc/shadow"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


bad_model(
    "a config that is a link to a secret",
    "links config.json to /etc/shadow.",
    lambda folder: replace(folder, "config.json", lambda path: os.symlink("/etc/shadow", path)),
)
bad_model(
    "weights that are a link to a secret",
    "links the weights to another user's file.",
    lambda folder: replace(folder, "model.safetensors", lambda path: os.symlink("/home/victim/secret", path)),
)
bad_model(
    "a pipe for a config",
    "puts a FIFO where config.json should be.",
    lambda folder: replace(folder, "config.json", os.mkfifo),
)
bad_model(
    "a pipe for weights",
    "puts a FIFO where the weights should be.",
    lambda folder: replace(folder, "model.safetensors", os.mkfifo),
)
bad_model(
    "a socket for a tokenizer's weights",
    "puts a socket where the weights should be.",
    lambda folder: replace(folder, "model.safetensors", lambda path: socket.socket(socket.AF_UNIX).bind(path)),
)
bad_model(
    "links in a circle",
    "makes the model's files links to each other.",
    circle,
)
bad_model(
    "a header of 2^63 bytes",
    "writes a length of 2^63 before the header.",
    lambda folder: (folder / "model.safetensors").write_bytes(header(b"{}", 1 << 63)),
)
bad_model(
    "a header of nested lists",
    "writes a header of 200,000 opening brackets.",
    lambda folder: (folder / "model.safetensors").write_bytes(header(b"[" * 200_000)),
)
bad_model(
    "a config of nested lists",
    "writes a config of 200,000 opening brackets.",
    lambda folder: (folder / "config.json").write_bytes(b"[" * 200_000),
)
bad_model(
    "a sparse terabyte",
    "makes the weights a sparse file of 1 TiB.",
    lambda folder: os.truncate(folder / "model.safetensors", 1 << 40),
)
bad_model(
    "pickles alone",
    "offers weights that run code when they are loaded.",
    lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
)
bad_model(
    "shards outside the model",
    "names ../../etc/shadow in the index.",
    lying_index,
)
bad_model(
    "a model that root alone could list",
    "closes the model's folder to everybody else.",
    lambda folder: folder.chmod(0o700),
)
bad_model(
    "a header of text that is none",
    "writes a header with surrogates and NUL.",
    lambda folder: (folder / "model.safetensors").write_bytes(header(b'{"\\ud800\\u0000": {"dtype": "\xff"}}')),
)


@attack(
    "a config swapped for a pipe and back",
    AUTHOR,
    "swaps config.json for a FIFO and back while it is read.",
    "It ends in time, with a model or one error.",
)
def swapped_config(world: World) -> None:
    world.once(users_model(lambda folder: None))

    def swap() -> None:
        os.mkfifo(f"{MODELS}/pipe")
        os.rename(f"{MODELS}/pipe", f"{MODELS}/config.json")
        Path(f"{MODELS}/new").write_text("{}")
        os.rename(f"{MODELS}/new", f"{MODELS}/config.json")

    with world.meanwhile(swap):
        for _ in range(12):
            world.module("slm_model", bound_s=15, model=MODELS, python=PYTHON)


@attack(
    "weights replaced while they are measured",
    AUTHOR,
    "replaces the weights by a FIFO, a link and other bytes while they are evicted, looked at and loaded.",
    "Ends in time: failed samples or one error.",
)
def swapped_weights(world: World) -> None:
    fine(world.install())
    world.once(users_model(lambda folder: None))

    def swap() -> None:
        name, new = f"{MODELS}/model.safetensors", f"{MODELS}/new"
        for make in (
            lambda: os.mkfifo(new),
            lambda: os.symlink("/etc/shadow", new),
            lambda: Path(new).write_bytes(shard(9)),
        ):
            make()
            os.rename(new, name)
            time.sleep(0.01)
        Path(new).write_bytes(shard(1 << 12))
        os.rename(new, name)
        time.sleep(random.random() / 4)

    with world.meanwhile(swap):
        for _ in range(4):
            world.measure(model=MODELS)


@attack(
    "odd names beside the model",
    AUTHOR,
    "adds files whose names are not UTF-8 or hold line ends and escapes.",
    "The model is found all the same.",
)
def odd_names(world: World) -> None:
    def add(folder: Path) -> None:
        for name in (b"\xff\xfe", b"a\nb", b"\x1b]0;owned\x07", b"-rf", b"$(id)"):
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("")

    world.once(users_model(add))
    fine(world.module("slm_model", model=MODELS, python=PYTHON))


@attack(
    "names that are no paths",
    USER,
    "has a model or a revision with NUL, line ends or dots in its name given.",
    "One error that names the variable.",
)
def odd_model_names(world: World) -> None:
    for model in ("/srv/\0x", "/srv/a\nb", "../../etc", "a/../b", "x" * 5000, "/" + "y/" * 3000, "org/--name"):
        answer = world.check(model=model)
        must(answer.failed and answer.knob.startswith("slm_benchmark_model"), answer.output)
    refused(world.check(model="org/name", revision="../../.."), "slm_benchmark_model_revision")


@attack(
    "a hub cache that leads away",
    USER,
    "owns the hub's cache; its snapshot is a link to /root and its refs a pipe.",
    "One error in time.",
)
def odd_hub(world: World) -> None:
    def make() -> None:
        cache = Path(MINE, "hf/hub/models--org--name")
        (cache / "snapshots").mkdir(parents=True)
        (cache / "refs").mkdir()
        os.symlink("/root", cache / "snapshots" / ("a" * 40))
        os.mkfifo(cache / "refs/main")

    world.once(make)
    for revision in ("", "a" * 40):
        answer = world.check(model="org/name", revision=revision, hf_home=f"{MINE}/hf", bound_s=15)
        must(answer.failed, answer.output)
        more = {"model": "org/name", "hf_home": f"{MINE}/hf", "revision": revision}
        world.module("memory_info", 15, None, preflight=True, tolerate_competitors=True, **more)


# --- the loader


def bad_loader(mode: str, does: str, holds: str, expect: str = "failed") -> None:
    def run(world: World) -> None:
        fine(world.install(mode))
        answer = world.measure(timeout_s=4)
        if expect == "failed":
            must(answer.failed or set(kinds(answer)) == {"failed"}, answer.output)
        else:
            must(not answer.failed and "failed" not in kinds(answer), answer.output)
        fine(world.install("obey"))
        again = fine(world.measure(block=2, blocks=2))
        must("failed" not in kinds(again), again.output)

    attack(f"a loader: {mode}", LOADER, does, f"{holds} The next measurement works.")(run)


bad_loader("flood events", "writes into the events' pipe without end.", "It is ended, and its sample is a failed one.")
bad_loader(
    "flood stderr", "writes megabytes of escapes to its errors.", "The sample is kept, its text is printable.", "fine"
)
bad_loader("never end", "ignores every signal and never ends.", "It is killed at the time limit.")
bad_loader(
    "stray child", "leaves a child in a session of its own that keeps every pipe.", "The child is ended.", "fine"
)
bad_loader("stray child floods", "ends, while a child of its own session floods the events.", "The child is ended.")
bad_loader("kill everybody", "kills all that it may, its observer first.", "It may kill nothing of ours.", "fine")
bad_loader("deep home", "leaves 5,000 nested folders in its home.", "They are removed.", "fine")
bad_loader(
    "links in home",
    "leaves links to others' folders, a pipe and odd names in its home.",
    "They are removed, and what they lead to stays.",
    "fine",
)
bad_loader(
    "odd events", "sends unknown events with surrogates and times beyond 64 bits.", "They are passed over.", "fine"
)
bad_loader("nested events", "sends an event of 200,000 opening brackets.", "A failed sample.")
bad_loader("many processes", "starts 200 processes and leaves them.", "All are ended.", "fine")
bad_loader("vanish while held", "kills itself in the middle of a phase.", "A failed sample.")


# --- the settings


def run_named(name: bytes) -> None:
    """Give this process a name of any bytes (prctl(2), PR_SET_NAME)."""
    ctypes.CDLL(None).prctl(15, name + b"\0", 0, 0, 0)


def hold_page(name: bytes = b"holder") -> object:
    run_named(name)
    page = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
    page[0] = 1
    return page


@attack(
    "a pool's page held under an odd name",
    USER,
    "holds a huge page in a process whose name is not UTF-8.",
    "memory_info answers; rollback says incomplete, names the process, and completes once it is gone.",
)
def odd_holder(world: World) -> None:
    fine(world.module("memory_snapshot"))
    fine(world.module("hugepages", pools=[{"size": "2M", "count": 4}], margin="1M", max_share=0.9))
    with world.holding(lambda: hold_page(b"\xff\xfe\n\x1b[0m")):
        fine(world.module("memory_info"))
        told = world.restore()
        must(told.failed and "incomplete" in told.output, told.output)
    fine(world.restore())


@attack(
    "names that look like other processes",
    USER,
    "runs processes called ansible-playbook, and ones with parentheses.",
    "Nothing is taken for a run of ours.",
)
def odd_processes(world: World) -> None:
    with world.holding(lambda: run_named(b"x) R 1 (y")), world.holding(lambda: run_named(b"ansible-playbook")):
        fine(world.tune())
        fine(world.module("memory_info"))
        fine(world.restore())


@attack(
    "processes that come and go", USER, "starts and ends processes all the time while /proc is read.", "All answers."
)
def churn(world: World) -> None:
    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)
        os.waitpid(-1, 0)

    with world.meanwhile(fork), world.meanwhile(fork):
        for _ in range(4):
            fine(world.module("memory_info"))
            fine(world.tune())
        fine(world.restore())


@attack(
    "descriptors by the thousand",
    USER,
    "holds as many descriptors, pipes and processes as a user may.",
    "All answers in time.",
)
def many_descriptors(world: World) -> None:
    def hold() -> object:
        kept: list[object] = []
        # As far as a machine usually lets a user go.
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        for _ in range(20):
            if os.fork() == 0:
                try:
                    while True:
                        kept.append(os.dup(0))
                except OSError:
                    time.sleep(600)
        return kept

    with world.holding(hold):
        fine(world.module("memory_info"))
        fine(world.tune())
        fine(world.restore())


@attack(
    "a mount point in a user's folder, swapped",
    USER,
    "owns the folder above a hugetlbfs mount and swaps it for a link to /srv/team all the time.",
    "Nothing is ever mounted anywhere else.",
)
def swapped_mount_point(world: World) -> None:
    def swap() -> None:
        for make, remove in ((os.mkdir, os.rmdir), (lambda path: os.symlink("/srv/team", path), os.unlink)):
            make(f"{MINE}/huge")
            time.sleep(random.random() / 200)
            remove(f"{MINE}/huge")

    with world.meanwhile(swap):
        for _ in range(8):
            world.module("hugetlbfs", mounts=[{"path": f"{MINE}/huge/models", "page_size": "2M"}])
            must(not [line for line in mounts() if line.startswith("/srv/team")], mounts())
    world.restore()
    must(not [line for line in mounts() if "hugetlbfs" in line and "/srv/" in line], mounts())
    for line in [line for line in mounts() if line.startswith(MINE) and "hugetlbfs" in line]:
        subprocess.run(["umount", line.split(" ")[0]], check=True)


@attack("a mount point that is a link", USER, "puts a link to /etc where the mount should be.", "Refused.")
def linked_mount_point(world: World) -> None:
    world.once(lambda: os.symlink("/etc", "/srv/shared/huge"))
    answer = world.module("hugetlbfs", mounts=[{"path": "/srv/shared/huge", "page_size": "2M"}])
    must(answer.failed, answer.output)
    must(not [line for line in mounts() if line.startswith("/etc hugetlbfs")], mounts())


@attack(
    "locks on every file that can be opened",
    USER,
    "opens and locks each folder and file of ours that a user may read.",
    "Nothing waits for them.",
)
def locks(world: World) -> None:
    fine(world.install())
    fine(world.tune())

    def hold() -> object:
        kept = []
        for top in ("/run/slm-baseline", "/var/lib/slm-baseline", "/etc/tmpfiles.d", HOME):
            for parent, folders, names in os.walk(top):
                for name in (".", *folders, *names):
                    try:
                        kept.append(os.open(f"{parent}/{name}", os.O_RDONLY | os.O_NONBLOCK))
                        fcntl.flock(kept[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        pass
        must(kept, "nothing could be locked")
        return kept

    with world.holding(hold):
        fine(world.tune(enabled="always"))
        fine(world.install("flood stderr"))
        fine(world.measure())
        fine(world.restore())
        fine(world.purge())


@attack(
    "our own folders in /run and /var/lib, made by a user",
    USER,
    "tries to make, rename and fill /run/slm-baseline, /var/lib/slm-baseline and our drop-ins.",
    "None succeeds.",
)
def own_folders(world: World) -> None:
    def touch(path: str) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))

    def steal(path: str) -> None:
        os.rename(path, f"{MINE}/stolen")

    def make() -> None:
        for path in (
            "/run/slm-baseline",
            "/var/lib/slm-baseline",
            "/etc/tmpfiles.d/slm-baseline-thp.conf",
            f"{HOME}/x",
        ):
            for act in (os.mkdir, os.unlink, os.rmdir, touch, steal):
                try:
                    act(path)
                    Path(MINE, "broke-in").write_text(path)
                except OSError:
                    pass

    with world.meanwhile(make):
        fine(world.install())
        fine(world.tune())
        fine(world.restore())
        fine(world.purge())
    must(not os.path.exists(f"{MINE}/broke-in"), "a user wrote into our folders")


@attack(
    "a drop-in whose name is not UTF-8",
    ADMIN,
    "keeps a Latin-1 name and text in /etc/sysctl.d and /etc/tmpfiles.d.",
    "Everything answers.",
)
def latin_dropins(world: World) -> None:
    paths = [os.fsdecode(os.fsencode(f"/etc/{folder}/gr") + b"\xfc\xdfe.conf") for folder in ("sysctl.d", "tmpfiles.d")]
    was_there = os.path.isdir("/etc/tmpfiles.d")
    for path in paths:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(b"# \xe4\nvm.nr_hugepages = 1\n")
    try:
        fine(world.module("memory_info", thp={"enabled": "never"}, pools=[{"size": "2M", "count": 2}]))
    finally:
        for path in paths:
            os.unlink(path)
        if not was_there:
            os.rmdir("/etc/tmpfiles.d")


@attack(
    "a mount with an odd name", ADMIN, "mounted something at a path with a line end, a blank and bytes.", "All answers."
)
def odd_mount(world: World) -> None:
    path = os.fsdecode(b"/mnt/a\nb \\\xff")
    os.mkdir(path)
    subprocess.run([b"mount", b"-t", b"tmpfs", b"odd", os.fsencode(path)], check=True)
    try:
        fine(world.module("memory_info"))
        fine(world.tune())
        fine(world.restore())
    finally:
        subprocess.run([b"umount", os.fsencode(path)], check=True)
        os.rmdir(path)


@attack("settings changed since", ADMIN, "sets another value after our tuning.", "Rollback leaves it, and says so.")
def changed_since(world: World) -> None:
    fine(world.module("memory_snapshot"))
    fine(world.tune(enabled="never", defrag="never"))
    (THP / "defrag").write_text("defer")
    told = world.restore()
    must("[defer]" in (THP / "defrag").read_text(), "the second administrator's value is gone")
    must("defrag" in told.output, told.output)
    world.module("memory_snapshot", state="restored", force=True)


@attack(
    "another run at work",
    ADMIN,
    "works on the same host from another control node.",
    "The second is rejected with a clear error.",
)
def other_run(world: World) -> None:
    fine(world.tune())
    lease = Path("/run/slm-baseline/lease.json")
    theirs = {**json.loads(lease.read_text()), "run_id": "theirs"}
    theirs["controller"] = {"name": "their-laptop", "id": "x", "pid": 1, "started": 1}
    # Their ssh session: any process does that lives on while the second run asks.
    theirs["session"] = [os.getpid(), parse_stat(Path("/proc/self/stat").read_text())[2]]
    lease.write_text(json.dumps(theirs))
    refused(world.tune(enabled="always"), "run lock", "their-laptop")
    lease.unlink()
    fine(world.restore())


@attack(
    "a full temporary folder",
    USER,
    "fills /tmp and owns every name in it that one could guess.",
    "Nothing of ours uses it.",
)
def full_tmp(world: World) -> None:
    def fill() -> None:
        for name in ("slm-baseline", "slm_run", "home-", "ansible", ".ansible", "slm_load.py"):
            if not os.path.lexists(f"/tmp/{name}"):
                os.symlink("/etc/shadow", f"/tmp/{name}")

    with world.meanwhile(fill, pause_s=0.1):
        fine(world.install())
        fine(world.measure())
        fine(world.tune())
        fine(world.restore())
        fine(world.purge())


@attack(
    "the siege",
    USER,
    "does most of this at once while the real plays tune, measure, audit, roll back and purge.",
    "Every play ends in time, with its usual result.",
)
def siege(world: World) -> None:
    def locks_and_links() -> None:
        for path in ("/srv/shared/a", "/tmp/a", f"{MINE}/a"):
            os.symlink("/etc/shadow", path)
            os.unlink(path)
        for path in (HOME, "/run/slm-baseline", "/etc/tmpfiles.d"):
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)

    def processes() -> None:
        run_named(bytes(random.randrange(1, 256) for _ in range(12)))
        if os.fork() == 0:
            os._exit(0)
        os.waitpid(-1, 0)

    loader = Path(__file__).with_name("loader.py").read_text()
    variables = {
        "slm_benchmark_python": PYTHON,
        "slm_benchmark_model": MODEL,
        "slm_benchmark_runs": 1,
        "slm_benchmark_cold_scope": "weights",
        "slm_benchmark_timeout_s": 20,
        "__slm_benchmark_scripts": {"slm_load.py": loader, "try_model.py": TRIAL},
        "thp_enabled": "never",
        "hugepages_pools": [{"size": "2M", "count": 4}],
        "hugepages_margin": "1M",
        "hugetlbfs_mounts": [{"path": "/mnt/huge", "page_size": "2M"}],
        "tuning_tolerate_competitors": True,
        "slm_accept_loss": IN_MEMORY["accept_loss"],
        **{f"{name}_dir": f"{MINE}-{name}" for name in ("report_results", "report_reports", "audit_reports")},
        "ansible_python_interpreter": sys.executable,
    }
    with (
        world.meanwhile(locks_and_links, pause_s=0.01),
        world.meanwhile(processes, pause_s=0.01),
        world.holding(lambda: run_named(b"\xff\xfeansible-playbook")),
    ):
        for playbook, rc, more in (
            ("baseline.yml", 0, {}),
            ("audit.yml", 0, {}),
            ("rollback.yml", 0, {"rollback_purge": True}),
        ):
            answer = world.play(playbook, 600, **variables, **more)
            world.answers.append(answer)
            must(answer.rc == rc, f"{playbook} ended with {answer.rc}: {answer.output}")
    must(not os.path.exists(HOME), "the purge left the home")
    for name in ("report_results", "report_reports", "audit_reports"):
        shutil.rmtree(f"{MINE}-{name}", ignore_errors=True)


assert MALLORY not in (0, NOBODY)
