"""The attacks on the first-token wing, each against the real module under a real systemd.

After each of them this must hold, too: every module ended in time with success or one error, the service runs unless
the attack itself still keeps it from it, and a rollback leaves nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.live.hostile.attack import Attacks
from tests.live.hostile.wing_world import (
    APP,
    COMMAND,
    HOME,
    NOTE,
    PORT,
    UNITS,
    World,
    active,
    environment_of,
    must,
    serving,
    sh,
    wait_until,
    write_unit,
)

CACHE = HOME / "targets/app/pycache"
PLAN = HOME / "targets/app/plan"
START = HOME / "bin/slm-start"
PREFIX = "PYTHONPYCACHEPREFIX="
KERNELS = "CUDA_CACHE_PATH="


attack = Attacks[World]()
ATTACKS = attack.all
USER, SERVICE, ADMIN, ACCIDENT = "a user of the host", "the service's user", "an administrator", "an accident"


def restart() -> None:
    sh("systemctl restart app")
    wait_until(lambda: sh(f"ss -Hltn sport = :{PORT}"), "app listens")


# --- whose code, for whom


@attack(
    "a line with more rights",
    SERVICE,
    "has ExecStartPre=+python3 in its unit and would store bytecode for that root.",
    "No cache is made, and root's line has no prefix.",
)
def privileged_line(world: World) -> None:
    serving('ExecStartPre=+/usr/bin/python3 -c \'import os; open("/run/seen", "w").write(str(os.environ))\'')
    answer = world.fine()
    must("more rights" in answer.notes and answer.result["bytecode"] is None, answer.notes)
    restart()
    must(PREFIX not in Path("/run/seen").read_text() + environment_of("app"), "root's line has the prefix")
    must(not CACHE.exists(), "a cache was made")


@attack(
    "a line with more rights, later",
    ADMIN,
    "adds ExecStartPre=+python3 after the cache was made.",
    "The next start gets no prefix, and the audit says why.",
)
def privileged_line_later(world: World) -> None:
    world.fine()
    restart()
    must(PREFIX in environment_of("app"), "the cache is not used")
    serving('ExecStartPre=+/usr/bin/python3 -c \'import os; open("/run/seen", "w").write(str(os.environ))\'')
    restart()
    must(PREFIX not in Path("/run/seen").read_text() + environment_of("app"), "root's line has the prefix")
    rows = world.module("memory_info", first_token=True, facts=False).result["rows"]
    must("more rights" in json.dumps(rows), rows)


@attack(
    "the unit gets another user",
    ADMIN,
    "changes User= after the cache was made.",
    "The other user's start gets no prefix.",
)
def another_user(world: World) -> None:
    world.fine()
    serving(user="User=victim")
    restart()
    must(PREFIX not in environment_of("app"), "another user has the cache")


@attack(
    "a unit of root's",
    ADMIN,
    "has the service run as root, whose Python would make the folder again after a rollback.",
    "No cache; after a rollback nothing comes back.",
)
def roots_unit(world: World) -> None:
    serving(user="")
    restart()
    answer = world.fine()
    must("runs as root" in answer.notes and not CACHE.exists(), answer.notes)


@attack(
    "slm-start by root",
    SERVICE,
    "leaves bytecode in its cache that root's `slm-start NAME` would run.",
    "Root gets no prefix, and neither does another user; the owner does.",
)
def started_by_root(world: World) -> None:
    world.fine(**COMMAND)
    shown = {
        uid: sh(f"setpriv --reuid {uid} --regid {uid} --clear-groups {START} cmd -- /usr/bin/env")
        for uid in (APP, 4242)
    }
    must(PREFIX in shown[APP], "the owner has no cache")
    must(PREFIX not in shown[4242] + sh(f"{START} cmd -- /usr/bin/env"), "somebody else has the cache")


@attack(
    "a name that nobody recorded",
    ADMIN,
    "starts a command with `slm-start cmdd -- ...`, a typo.",
    "One line says that nothing is recorded as that; the command is not started.",
)
def typo(world: World) -> None:
    world.fine(**COMMAND)
    done = subprocess.run(
        [str(START), "cmdd", "--", "/bin/echo", "started"], capture_output=True, text=True, check=False
    )
    must(done.returncode == 2 and "started" not in done.stdout and "cmdd" in done.stderr, done)


@attack(
    "an upgrade",
    ADMIN,
    "upgrades the packages that the cache was made from.",
    "The next start is as without us, and the audit says stale.",
)
def upgraded(world: World) -> None:
    world.fine()
    Path("/srv/lib/new").write_text("VALUE = 1000\n")
    Path("/srv/lib/new").rename("/srv/lib/slm_module_3.py")
    restart()
    must(PREFIX not in environment_of("app"), "a stale cache is given")
    rows = world.module("memory_info", first_token=True, facts=False).result["rows"]
    states = {row["knob"]: row["runtime"] for row in rows}
    must(states["first_token.app.bytecode"] == "stale", states)


@attack(
    "unchecked bytecode",
    SERVICE,
    "fills the cache with bytecode that no interpreter checks (flags 1).",
    "It is in no plan.",
)
def unchecked(world: World) -> None:
    text = Path("/srv/serve.py").read_text()
    spoil = """
import py_compile
prefix = sys.pycache_prefix
kind = py_compile.PycInvalidationMode.UNCHECKED_HASH
for number in range(30):
    path = f"{prefix}/srv/lib/slm_module_{number}.cpython-%d%d.pyc" % sys.version_info[:2] if prefix else ""
    if prefix: py_compile.compile(f"/srv/lib/slm_module_{number}.py", path, invalidation_mode=kind)
"""
    Path("/srv/serve.py").write_text(text.replace("if os.path.exists", f"{spoil}\nif os.path.exists", 1))
    answer = world.fine()
    must("slm_module_3.cpython" not in PLAN.read_text(), answer.output)


@attack(
    "links in the cache",
    SERVICE,
    "puts links to /etc/shadow and /dev/zero in the place of its bytecode.",
    "They are in no plan, and root opens neither.",
)
def links_in_the_cache(world: World) -> None:
    text = Path("/srv/serve.py").read_text()
    spoil = """
prefix = sys.pycache_prefix
for number in range(40):
    if prefix:
        path = f"{prefix}/srv/lib/slm_module_{number}.cpython-%d%d.pyc" % sys.version_info[:2]
        os.unlink(path)
        os.symlink("/etc/shadow" if number % 2 else "/dev/zero", path)
"""
    Path("/srv/serve.py").write_text(text.replace("if os.path.exists", f"{spoil}\nif os.path.exists", 1))
    world.fine()
    must("slm_module_3.cpython" not in PLAN.read_text() and "/etc/shadow" not in PLAN.read_text(), "in the plan")


@attack(
    "a look into the cache",
    USER,
    "reads bytecode of sources that are closed to others.",
    "The cache is its user's alone.",
)
def look_into_the_cache(world: World) -> None:
    world.fine()
    must(CACHE.stat().st_mode & 0o777 == 0o700 and CACHE.stat().st_uid == APP, oct(CACHE.stat().st_mode))
    seen = sh(f"setpriv --reuid 4242 --regid 4242 --clear-groups ls {CACHE}", check=False)
    must(seen == "", seen)


@attack(
    "a cache of its own elsewhere",
    SERVICE,
    "sets PYTHONPYCACHEPREFIX in an environment file.",
    "A note, and no cache of ours.",
)
def own_prefix(world: World) -> None:
    Path("/srv/env").write_text("PYTHONPYCACHEPREFIX=/tmp/own\n")
    serving("EnvironmentFile=/srv/env")
    answer = world.fine()
    must("does not keep it in a cache of ours" in answer.notes and answer.result["bytecode"] is None, answer.notes)


@attack(
    "folders without end",
    SERVICE,
    "fills its cache with 20,000 empty files, 300 folders deep.",
    "A rollback restores, and takes all of it away in time.",
)
def deep_folders(world: World) -> None:
    world.fine()

    def dig() -> None:
        os.chdir(CACHE)
        for depth in range(300):
            for number in range(66):
                Path(f"f{number}").touch()
            os.mkdir(f"d{depth}")
            os.chdir(f"d{depth}")

    pid = os.fork()
    if pid == 0:
        os.setresgid(APP, APP, APP)
        os.setresuid(APP, APP, APP)
        dig()
        os._exit(0)
    os.waitpid(pid, 0)
    answer = world.rollback()
    must(not answer.failed and not HOME.exists(), answer.output)


@attack(
    "a dynamic user",
    ADMIN,
    "has DynamicUser=, whose id is nobody's for long.",
    "systemd keeps its cache; the service sees no variable more than the one.",
)
def dynamic(world: World) -> None:
    serving("DynamicUser=yes", "ProtectSystem=strict", user="")
    restart()
    before = set(environment_of("app").splitlines())
    answer = world.fine()
    must(answer.result["bytecode"], answer.notes)
    restart()
    more = {line.partition("=")[0] for line in set(environment_of("app").splitlines()) - before}
    must(more <= {"PYTHONPYCACHEPREFIX", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "JOURNAL_STREAM"}, more)
    must("PYTHONPYCACHEPREFIX" in more, more)


# --- kept kernels


def on_gpu() -> None:
    """The service opens the driver's library, and compiles a kernel unless its cache has it; its home does not last."""
    Path("/srv/libcuda.so.1").write_bytes(b"x" * 70000)
    compiles = """
open("/srv/libcuda.so.1", "rb").read()
place = os.environ.get("CUDA_CACHE_PATH", os.path.expanduser("~/.nv/ComputeCache"))
try:
    if not os.path.exists(f"{place}/index"):
        os.makedirs(place, exist_ok=True)
        with open(f"{place}/index", "a") as file: file.write(f"{os.getpid()}\\n")
except OSError: pass
# On a busy machine nobody can ask a process that has ended what it opened last.
if "--once" in sys.argv: time.sleep(2)
"""
    text = Path("/srv/serve.py").read_text()
    Path("/srv/serve.py").write_text(text.replace("if os.path.exists", f"{compiles}\nif os.path.exists", 1))


def keep_kernels(world: World, **more: Any) -> str:
    """Record the service with a GPU; return the path that it is told."""
    on_gpu()
    answer = world.fine(**more)
    must((answer.result["kernels"] or {}).get("caches") == ["cuda"], answer.notes)
    restart()
    path = variable(KERNELS)
    must(path, "the start is told of no cache")
    must(Path(path, "index").read_text().count("\n") == 1, "it was compiled again")
    return path


def variable(name: str) -> str:
    lines = environment_of("app").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith(name)), "")


def rows_of(world: World) -> dict[str, str]:
    found = world.module("memory_info", first_token=True, facts=False).result["rows"]
    return {row["knob"].rpartition(".")[2]: row["runtime"] for row in found if "first_token" in row["knob"]}


@attack(
    "kernels of another's",
    USER,
    "looks into the kernels of the service, and starts `slm-start NAME` as root and as himself.",
    "The folder is its user's alone, and nobody else is told of it.",
)
def kernels_of_anothers(world: World) -> None:
    on_gpu()
    answer = world.fine(**COMMAND)
    must((answer.result["kernels"] or {}).get("files") == 1, answer.output)
    folder = HOME / "targets/cmd/kernels"
    must(folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == APP, oct(folder.stat().st_mode))
    told = {uid: sh(f"setpriv --reuid {uid} --regid {uid} --clear-groups {START} cmd -- env") for uid in (0, 4242, APP)}
    must([uid for uid, text in told.items() if KERNELS in text] == [APP], told)
    must(f"{KERNELS}{folder}/cuda" in told[APP], told)
    own = sh(f"CUDA_CACHE_PATH=/own setpriv --reuid {APP} --regid {APP} --clear-groups {START} cmd -- env")
    must(f"{KERNELS}/own" in own.splitlines(), own)


@attack(
    "kernels for a line with more rights",
    ADMIN,
    "gives the unit an ExecStartPre=+ after kernels were kept.",
    "No line of the next start is told of what the user wrote; without that line it is again.",
)
def kernels_later_line(world: World) -> None:
    keep_kernels(world)
    extra = UNITS / "app.service.d/theirs.conf"
    extra.write_text("[Service]\nExecStartPre=+/usr/bin/env python3 -c pass\n")
    sh("systemctl daemon-reload")
    restart()
    must(not variable(KERNELS), "given")
    must(rows_of(world)["kernels"] == "stale", rows_of(world))
    extra.unlink()
    sh("systemctl daemon-reload")
    restart()
    must(variable(KERNELS), "not given")


@attack(
    "kernels and a tighter sandbox",
    ADMIN,
    "gives the unit ProtectSystem=strict after kernels were kept, so that it may not write there.",
    "The next start is not told of them; recorded anew, it is, and may write.",
)
def kernels_sandbox(world: World) -> None:
    keep_kernels(world)
    serving("ProtectSystem=strict")
    restart()
    must(not variable(KERNELS), "given")
    must(rows_of(world)["kernels"] == "stale", rows_of(world))
    answer = world.fine()
    must(answer.result["kernels"]["files"] == 1, answer.notes)
    restart()
    must(variable(KERNELS), "not given")


@attack(
    "kernels of a dynamic user",
    ADMIN,
    "has DynamicUser=, whose id is nobody's for long, and a GPU.",
    "systemd keeps its kernels; each start finds them.",
)
def kernels_dynamic(world: World) -> None:
    serving("DynamicUser=yes", user="")
    restart()
    path = keep_kernels(world)
    must(path == "/var/cache/slm-kernels-app/cuda", path)
    must("CACHE_DIRECTORY" not in environment_of("app"), "one variable more")


@attack(
    "kernels in a place of its own",
    SERVICE,
    "sets CUDA_CACHE_PATH in an environment file.",
    "It stays; no cache of ours.",
)
def own_kernels(world: World) -> None:
    on_gpu()
    Path("/srv/env").write_text("CUDA_CACHE_PATH=/tmp/own\n")
    serving("EnvironmentFile=/srv/env")
    answer = world.fine()
    must(answer.result["kernels"] is None, answer.output)
    restart()
    must(variable(KERNELS) == "/tmp/own", environment_of("app"))


@attack(
    "links among the kernels",
    SERVICE,
    "fills its kernels with links to /etc/shadow, a pipe, and 300 folders deep.",
    "An audit, a recording and a rollback open none of them and end.",
)
def links_among_kernels(world: World) -> None:
    path = keep_kernels(world)
    pid = os.fork()
    if pid == 0:
        os.setresgid(APP, APP, APP)
        os.setresuid(APP, APP, APP)
        os.chdir(path)
        os.symlink("/etc/shadow", "link")
        os.mkfifo("pipe")
        for _ in range(300):
            os.mkdir("d")
            os.chdir("d")
        os._exit(0)
    os.waitpid(pid, 0)
    must(rows_of(world)["kernels"] == "clean", rows_of(world))
    world.fine(replay="together")
    must("/etc/shadow" not in PLAN.read_text() and "/kernels/" not in PLAN.read_text(), "in the plan")


@attack(
    "no folder for kernels",
    ACCIDENT,
    "takes the folder of kernels away, and puts another one there.",
    "No start is told of either; the audit says so; recorded anew, it is made again.",
)
def kernels_gone(world: World) -> None:
    folder = Path(keep_kernels(world)).parent
    for becomes in ("nothing", "another"):
        sh(f"rm -rf {folder}")
        if becomes == "another":
            folder.mkdir(mode=0o777)
        restart()
        must(not variable(KERNELS), "given")
        must(rows_of(world)["kernels"] == "stale", rows_of(world))
    world.fine()
    restart()
    must(variable(KERNELS), "not given")


@attack(
    "recorded once more with other options",
    ADMIN,
    "asks for another replay, while the former caches are given to each start.",
    "The recorded start has no former cache, so bytecode and kernels are found wanting, and kept again.",
)
def recorded_once_more(world: World) -> None:
    keep_kernels(world)
    answer = world.fine(replay="together")
    must(answer.result["bytecode"] and answer.result["kernels"], answer.output)


# --- who belongs


@attack(
    "a control group of the same name",
    USER,
    "opens files from a control group that ends in app.service, below a slice of his own.",
    "They are not in the plan.",
)
def same_group_name(world: World) -> None:
    group = Path("/sys/fs/cgroup/user.slice/mallory.slice/app.service")
    group.mkdir(parents=True, exist_ok=True)
    Path("/srv/mallorys").write_bytes(b"x" * 70000)

    def read() -> None:
        Path("/srv/mallorys").read_bytes()
        time.sleep(0.01)

    with world.meanwhile(read) as pid:
        (group / "cgroup.procs").write_text(str(pid))
        world.fine()
    must("mallorys" not in PLAN.read_text(), "in the plan")
    time.sleep(0.2)
    for folder in (group, group.parent):
        folder.rmdir()


@attack(
    "a unit that is an option",
    ADMIN,
    "names -Hhost.service as the unit.",
    "Rejected with a clear error; nothing is stopped.",
)
def unit_as_option(world: World) -> None:
    pid = sh("systemctl show -P MainPID app")
    world.refused("-Hhost.service", unit="-Hhost.service")
    must(sh("systemctl show -P MainPID app") == pid, "app was stopped")


@attack(
    "two targets, one unit", ADMIN, "records one unit under two names.", "The second is refused; nothing is stopped."
)
def two_targets(world: World) -> None:
    world.fine()
    pid = sh("systemctl show -P MainPID app")
    world.refused("one target a unit", name="other")
    must(sh("systemctl show -P MainPID app") == pid, "app was stopped")


@attack(
    "somebody's drop-in in our place",
    ADMIN,
    "has a file of his own where ours would lie.",
    "Refused; nothing is stopped, and the file is as it was.",
)
def foreign_drop_in(world: World) -> None:
    theirs = UNITS / "app.service.d/slm-first-token.conf"
    theirs.parent.mkdir()
    theirs.write_text("[Service]\nNice=1\n")
    pid = sh("systemctl show -P MainPID app")
    world.refused("somebody else wrote", "nothing was stopped")
    must(theirs.read_text() == "[Service]\nNice=1\n" and sh("systemctl show -P MainPID app") == pid, "touched")


# --- who waits


def squat(answer: Callable[[socket.socket], object]) -> Callable[[], None]:
    """Take the service's port as soon as it is free, and answer there."""

    def work() -> None:
        with socket.create_server(("127.0.0.1", PORT)) as listener:
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    answer(connection)

    return work


def drip(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"H")
        time.sleep(0.5)


@attack(
    "a byte now and then",
    USER,
    "binds the port while the service is stopped, and sends a byte every half second.",
    "The recording ends in time; what is down is told, and the next task starts it.",
    spares=True,
)
def slow_answers(world: World) -> None:
    with world.meanwhile(squat(drip)):
        answer = world.record(bound_s=150, ready={"type": "url", "url": f"http://127.0.0.1:{PORT}/", "timeout_s": 8})
    must(answer.failed, answer.output)
    sh("systemctl reset-failed app", check=False)
    world.fine()


@attack(
    "somebody else's 200",
    USER,
    "binds the port while the service is stopped, and answers 200 at once.",
    "It is not taken for the service.",
    spares=True,
)
def false_ready(world: World) -> None:

    def say_good(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with world.meanwhile(squat(say_good)):
        answer = world.record(bound_s=150, ready={"type": "url", "url": f"http://127.0.0.1:{PORT}/", "timeout_s": 8})
    must(answer.failed, answer.output)
    must(not PLAN.exists(), "a plan was kept")
    sh("systemctl reset-failed app", check=False)
    world.fine()


@attack(
    "five thousand files in a loop",
    USER,
    "opens files without end while the recording wants to end.",
    "It ends; nothing of his is in the plan.",
)
def many_files(world: World) -> None:
    folder = Path("/srv/many")
    folder.mkdir(exist_ok=True)
    for number in range(5000):
        (folder / str(number)).write_text("x")

    def loop() -> None:
        for number in range(5000):
            os.close(os.open(f"/srv/many/{number}", os.O_RDONLY))

    with world.meanwhile(loop), world.meanwhile(loop):
        world.fine()
    must("/srv/many/" not in PLAN.read_text(), "in the plan")
    sh("rm -r /srv/many")


@contextlib.contextmanager
def fuse_mount(path: str) -> Iterator[None]:
    """A FUSE mount of mallory's whose program never answers."""
    os.makedirs(path)
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=4242,group_id=4242,allow_other".encode()
    if libc.mount(b"mallory", path.encode(), b"fuse.sshfs", 6, options):
        raise OSError(ctypes.get_errno(), "mount of FUSE")
    try:
        yield
    finally:
        libc.umount2(path.encode(), 2)
        os.close(device)


@attack(
    "a FUSE mount that never answers",
    USER,
    "has a FUSE mount whose program answers nothing.",
    "Recorded all the same, with a note.",
)
def dead_fuse(world: World) -> None:
    with fuse_mount("/home/mallory/mnt"):
        answer = world.fine()
    must("another user's program" in answer.notes, answer.notes)


@attack(
    "a sparse file of 1 TiB",
    SERVICE,
    "opens a file of 1 TiB without a byte in it.",
    "The recording is not held up, and it is no weights.",
)
def sparse(world: World) -> None:
    with open("/srv/sparse", "wb") as file:
        file.truncate(1 << 40)
    Path("/srv/serve.py").write_text(
        "open('/srv/sparse', 'rb').read(4096)\n" + Path("/srv/serve.py").read_text().lstrip()
    )
    world.fine()
    must(not any(line.startswith("W") and "sparse" in line for line in PLAN.read_text().splitlines()), "weights")


@attack(
    "a command that talks without end",
    SERVICE,
    "writes to stderr as fast as it can until it is ended.",
    "Ended in time; root's disk is no fuller.",
)
def talking(world: World) -> None:
    free = os.statvfs("/var/tmp").f_bavail
    command = ["/bin/sh", "-c", "while :; do head -c 1000000 /dev/zero >&2; done"]
    answer = world.record(**{**COMMAND, "command": command, "ready": {"type": "exit", "timeout_s": 3}})
    must(answer.failed and "still running" in str(answer.result["msg"]), answer.output)
    must(free - os.statvfs("/var/tmp").f_bavail < 50_000, "the disk is fuller")


@attack(
    "a command that leaves processes",
    SERVICE,
    "leaves a process in a session of its own.",
    "None is left.",
)
def leaving(world: World) -> None:
    world.record(**{**COMMAND, "command": ["/bin/sh", "-c", "setsid setsid sleep 4321 & exit 0"]})
    must(not sh("pgrep -f 'sleep 432[1]'", check=False), "a process is left")


@attack(
    "a stop that takes its time",
    SERVICE,
    "ignores SIGTERM until systemd's own time for a stop is over.",
    "Recorded; the service runs.",
)
def slow_stop(world: World) -> None:
    Path("/srv/serve.py").write_text(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + Path("/srv/serve.py").read_text().lstrip()
    )
    serving("TimeoutStopSec=2")
    restart()
    world.fine(bytecode=False)


# --- a service that is stopped comes back


def stopped(world: World, work: Callable[[subprocess.Popen[bytes]], object]) -> None:
    """Interrupt a recording once the service is down, and see it up again without anybody's help."""
    process = world.begin("first_token", **{**TARGET_OF_APP})
    wait_until(lambda: NOTE.exists() and active("app") in ("inactive", "deactivating", "failed"), "the stop", 60)
    work(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()
    wait_until(lambda: active("app") == "active", "the service runs again", 60)


TARGET_OF_APP = {
    "name": "app",
    "unit": "app.service",
    "ready": {"type": "url", "url": f"http://127.0.0.1:{PORT}/", "timeout_s": 30},
}


def slow_to_stop() -> None:
    """A service whose stop takes a second: long enough to be interrupted in."""
    Path("/srv/serve.py").write_text(
        "import signal, time, os; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.5), os._exit(0)))\n"
        + Path("/srv/serve.py").read_text().lstrip()
    )
    restart()


for number in ("KILL", "TERM", "HUP", "INT"):

    def _interrupt(world: World, number: str = number) -> None:
        slow_to_stop()
        stopped(world, lambda process: os.killpg(process.pid, getattr(signal, f"SIG{number}")))

    attack(
        f"SIG{number} between stop and start",
        ACCIDENT,
        f"ends the recording with SIG{number} while the service is down.",
        "The service runs again by itself.",
    )(_interrupt)


@attack(
    "killed in the second start",
    ACCIDENT,
    "kills the recording while the service fills its cache.",
    "The service runs, without a cache that nobody checked.",
)
def killed_in_second(world: World) -> None:
    process = world.begin("first_token", **TARGET_OF_APP)
    drop_in = Path("/run/systemd/system/app.service.d/zz-slm-first-token-recording.conf")
    wait_until(drop_in.exists, "the second start", 90)
    process.kill()
    process.wait()
    wait_until(lambda: not drop_in.exists() and active("app") == "active", "the service runs again", 60)
    restart()
    must(PREFIX not in environment_of("app"), "an unchecked cache is in use")


@attack(
    "killed with who waits for it",
    ACCIDENT,
    "kills the recording and the unit that would start the service again.",
    "The next task starts it.",
)
def killed_with_guard(world: World) -> None:
    slow_to_stop()
    process = world.begin("first_token", **TARGET_OF_APP)
    wait_until(lambda: NOTE.exists() and active("app") != "active", "the stop", 60)
    sh("systemctl kill -s KILL slm-baseline-restart", check=False)
    process.kill()
    process.wait()
    time.sleep(3)
    must(active("app") != "active", "this attack attacks nothing")
    rows = world.module("memory_info", first_token=True, facts=False).result["rows"]
    must("first_token.stopped" in json.dumps(rows), "the audit does not see it")
    world.fine()


@attack(
    "killed, then rolled back",
    ACCIDENT,
    "kills the recording and who waits, and a rollback comes next.",
    "The rollback starts the service, says so, and leaves nothing of ours.",
)
def killed_then_rolled_back(world: World) -> None:
    slow_to_stop()
    process = world.begin("first_token", **TARGET_OF_APP)
    wait_until(lambda: NOTE.exists() and active("app") != "active", "the stop", 60)
    sh("systemctl kill -s KILL slm-baseline-restart", check=False)
    process.kill()
    process.wait()
    answer = world.rollback()
    must(not answer.failed and "app.service" in answer.output and active("app") == "active", answer.output)


@attack(
    "a boot after a power loss",
    ACCIDENT,
    "leaves the note of another boot, as a machine that went down does.",
    "The unit that boots with it starts the service.",
)
def booted(world: World) -> None:
    process = world.begin("first_token", **TARGET_OF_APP)
    wait_until(NOTE.exists, "the note", 60)
    guard = UNITS / "slm-baseline-restart.service"
    text, kept = NOTE.read_text(), guard.read_text()
    world.end(process, time.monotonic())
    note = {**json.loads(text), "boot_id": "another"}
    sh("systemctl stop app")
    programs = HOME / "bin"
    must((programs / "slm_restart.py").exists(), "no program")
    NOTE.write_text(json.dumps(note))
    guard.write_text(kept)
    sh("systemctl daemon-reload && systemctl start slm-baseline-restart")
    wait_until(lambda: active("app") == "active" and not NOTE.exists(), "the service runs again", 60)


@attack(
    "a service that is broken meanwhile",
    ACCIDENT,
    "has the service fail at each start once it was stopped.",
    "One error names it as down, the next task starts it when it can.",
    spares=True,
)
def broken_service(world: World) -> None:
    Path("/run/dies").touch()
    answer = world.record()
    must(answer.failed and answer.result.get("service_down") and "app.service" in answer.output, answer.output)
    must(NOTE.exists(), "the note is gone")
    Path("/run/dies").unlink()
    world.fine()
    must(not NOTE.exists(), "the note is left")


@attack(
    "a failed recording after a good one",
    ACCIDENT,
    "has the service fail while it is recorded anew.",
    "The former plan stays in force.",
    spares=True,
)
def former_plan(world: World) -> None:
    world.fine()
    plan = PLAN.read_text()
    Path("/srv/lib/slm_module_1.py").write_text("VALUE = 1234567\n")
    Path("/run/dies").touch()
    world.record()
    must(PLAN.read_text() == plan and (UNITS / "app.service.d/slm-first-token.conf").exists(), "the plan is gone")
    Path("/run/dies").unlink()
    world.fine()


@attack(
    "a service in conflict",
    ADMIN,
    "records a service that is not running, in conflict with one that is.",
    "Named beforehand; the other one runs again, and that is seen.",
)
def conflict(world: World) -> None:
    sh("systemctl stop app")
    write_unit("blue", "ExecStart=/bin/sleep 3600")
    serving(unit=("Conflicts=blue.service",))
    sh("systemctl start blue")
    told = world.record(_ansible_check_mode=True)
    must(
        told.result["stops"][0]["with"] == ["blue.service"] and "blue.service" in str(told.result["summary"]),
        told.output,
    )
    world.fine(bytecode=False)
    must((active("blue"), active("app")) == ("active", "inactive"), (active("blue"), active("app")))
    sh("systemctl start app")


@attack(
    "services bound to it",
    ADMIN,
    "has services with Requires=, BindsTo=, PartOf= and PropagatesStopTo= of the recorded one.",
    "Named beforehand; all of them run again.",
)
def dependents(world: World) -> None:
    names = []
    for how in ("Requires", "BindsTo", "PartOf"):
        names.append(how.lower())
        write_unit(how.lower(), "ExecStart=/bin/sleep 3600", unit=(f"{how}=app.service", "After=app.service"))
    write_unit("told", "ExecStart=/bin/sleep 3600")
    serving(unit=("PropagatesStopTo=told.service",))
    sh(f"systemctl start {' '.join(names)} told")
    told = world.record(_ansible_check_mode=True)
    must(set(told.result["stops"][0]["with"]) == {f"{name}.service" for name in [*names, "told"]}, told.output)
    world.fine(bytecode=False)
    must({active(name) for name in [*names, "told", "app"]} == {"active"}, "one is down")


@attack(
    "a neighbour that does not start again",
    ADMIN,
    "has a service bound to the recorded one that fails at its next start.",
    "One error names it; the recorded service runs.",
    spares=True,
)
def lost_neighbour(world: World) -> None:
    Path("/run/front-ran").unlink(missing_ok=True)
    write_unit(
        "front",
        "ExecStart=/bin/sh -c 'test ! -e /run/front-ran && touch /run/front-ran && exec sleep 3600'",
        "Type=exec",
        unit=("BindsTo=app.service", "After=app.service"),
    )
    sh("systemctl daemon-reload && systemctl start front")
    wait_until(lambda: os.path.exists("/run/front-ran"), "front ran")
    answer = world.record(bytecode=False)
    os.unlink("/run/front-ran")
    must(answer.failed and answer.result.get("service_down") and "front.service" in answer.output, answer.output)
    must(active("app") == "active", "app is down")


@attack(
    "a secret in the environment",
    ADMIN,
    "gives a command HF_TOKEN.",
    "Its value is in no result, diff, record, plan, unit or log; a command that says it is silenced.",
)
def secret(world: World) -> None:
    token = "hf_q8w7e6r5t4"
    environment = {"PYTHONPATH": "/srv/lib", "HF_TOKEN": token}
    answers = [
        world.record(**{**COMMAND, "environment": environment}, _ansible_check_mode=True, _ansible_diff=True),
        world.record(**{**COMMAND, "environment": environment}, _ansible_diff=True),
        world.record(**{**COMMAND, "environment": {**environment, "A": "1"}}, _ansible_diff=True),
    ]
    must(all(token not in answer.output for answer in answers), "in a result")
    must(not sh(f"grep -rl {token} /var/lib/slm-baseline /etc/systemd /run 2>/dev/null", check=False), "on the disk")
    says = {**COMMAND, "name": "loud", "environment": environment}
    loud = world.record(**{**says, "command": ["/bin/sh", "-c", "echo $HF_TOKEN >&2; exit 1"]})
    must(loud.failed and token not in loud.output, "in an error")


@attack(
    "a replay over a swapped folder",
    SERVICE,
    "swaps a folder of the plan for a link to /dev after the recording.",
    "The replay opens no device and ends.",
)
def swapped(world: World) -> None:
    world.fine(bytecode=False)
    sh("mv /srv/lib /srv/lib.real && ln -s /dev /srv/lib")
    said = subprocess.run(
        [sys.executable, "-IS", str(HOME / "bin/slm_replay.py"), str(PLAN)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sh("rm /srv/lib && mv /srv/lib.real /srv/lib")
    must(said.returncode == 0 and "stale=0" not in said.stdout, said)


@attack(
    "power lost before the record was whole",
    ACCIDENT,
    "leaves our drop-in without any record.",
    "The audit sees it, and a rollback takes it away.",
)
def without_record(world: World) -> None:
    world.fine()
    sh(f"rm -r {HOME}/targets")
    rows = world.module("memory_info", first_token=True, facts=False).result["rows"]
    must("first_token.app.plan" in json.dumps(rows), rows)
