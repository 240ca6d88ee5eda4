"""The attacks from inside a container on its recording, replay, audit and rollback (inside.py has what runs there)."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import time
from pathlib import Path

from tests.live.hostile.attack import Attacks
from tests.live.hostile.container_world import MALLORY, NAME, NOTE, PLAN, World, file_systems_alike
from tests.live.hostile.wing_attacks import fuse_mount
from tests.live.hostile.wing_world import must

MANY = 200_000


attack = Attacks[World]()
ATTACKS = attack.all
INSIDE, OTHER, USER = "root in the container", "somebody with another container", "a user of the host"


def secrets_are_in_no_plan(world: World) -> None:
    must(str(world.secrets.folder) not in world.plan(), "a secret is in the plan")


@attack(
    "links to secrets",
    INSIDE,
    "puts links to the host's secrets where it has opened files and folders, in its own layer and in the volume.",
    "None of them is in the plan; recording, replay and audit follow none.",
)
def links(world: World) -> None:
    world.make("links", world.secrets.folder)
    world.fine()
    secrets_are_in_no_plan(world)
    must(
        f"{world.volume}/dir" not in world.plan() and f"{world.volume}/1\n" not in world.plan(), "a link is in the plan"
    )
    world.replay()
    world.audit()


@attack(
    "a file of the same number",
    INSIDE,
    "swaps a folder of the volume for a link to another disk, where a file has the same inode number, size and time.",
    "It is not taken for the file that was opened.",
)
def same_number(world: World) -> None:
    with file_systems_alike(world.folder) as (one, two):
        must((one / "file").stat().st_ino == (two / "file").stat().st_ino, "this attack attacks nothing")
        disk = world.folder / "one"
        (disk / "dir").mkdir()
        (disk / "file").rename(disk / "dir/file")
        world.secrets.watch_too(two / "file")
        world.make("dead_end_of_one", two, "--volume", f"{disk}:/disk")
        world.fine()
        must(f"{disk}/dir/file" not in world.plan() and str(two) not in world.plan(), "it is in the plan")


@attack(
    "hard links",
    INSIDE,
    "gives one file fifty names, and tries to give files of the host a name in its folders.",
    "Files of its own alone are in the plan, and each as it was opened.",
)
def hard_links(world: World) -> None:
    world.make("hard_links", world.secrets.folder)
    world.fine()
    secrets_are_in_no_plan(world)
    must("from-elsewhere" not in world.plan(), "a file of another mount is in the plan")
    world.replay()


@attack(
    "odd names",
    INSIDE,
    "opens files and folders whose names have tabs, line ends, `..`, bytes that are no text, or lines of a plan.",
    "The plan can be read, has no line that was not recorded, and a replay finds each file of it.",
)
def odd_names(world: World) -> None:
    world.make("odd_names")
    world.fine()
    must(not any(line.endswith("\t/etc/shadow") for line in world.plan().splitlines()), "a line is spoofed")
    must(f"{world.volume}/odd/tab%09in it" in world.plan(), world.plan()[-3000:])
    must("stale=0 unread=0" in world.replay(), world.replay())
    must(world.audit()["plan"] == "clean", "stale")


@attack(
    "pipes, devices and leases in place of files",
    INSIDE,
    "has pipes, device nodes, leased files and links where it has opened files, swapped without end.",
    "None of them is opened, and nobody waits for them.",
)
def swap(world: World) -> None:
    world.make("swap", world.port)
    world.fine(ready=world.asked)
    must("/dev/" not in world.plan(), "a device is in the plan")
    world.daemon.docker("start", NAME)
    world.replay()
    world.audit()


@attack(
    "a lease on each file",
    INSIDE,
    "takes a write lease on each file that it has opened, which whoever opens it must wait for.",
    "Nobody waits.",
)
def lease(world: World) -> None:
    world.make("lease", world.port)
    answer = world.fine(ready=world.asked)
    # Its files are open for writing, so a second start is recorded: with the very same overlay.
    must(answer.result["starts"] == 2, "only one start was recorded")
    world.daemon.docker("start", NAME)
    time.sleep(0.5)
    world.replay()
    world.audit()


@attack(
    "a file system that never answers",
    INSIDE,
    "swaps a folder of the volume for a link to a FUSE mount whose program answers nothing.",
    "Recording, audit and rollback end; nothing of it is in the plan.",
)
def dead_end(world: World) -> None:
    mount = f"{world.folder}/fuse"
    with fuse_mount(mount):
        world.make("dead_end", mount)
        world.fine()
        must(f"{world.volume}/dir/" not in world.plan(), "in the plan")
        # Now after the recording.
        world.daemon.docker("rm", NAME)
        world.set_stage()
        world.make("once")
        world.fine(replay="ahead")
        must(f"\t{world.volume}/1\n" in world.plan(), world.plan()[-2000:])
        volume = world.volume
        volume.rename(f"{volume}.real")
        volume.symlink_to(mount)
        try:
            must(world.audit()["plan"] == "stale", "not stale")
            must(not world.clear(), "a rollback")
        finally:
            volume.unlink()
            Path(f"{volume}.real").rename(volume)
    Path(mount).rmdir()


@attack(
    "two hundred thousand names",
    INSIDE,
    "opens files under 200,000 names.",
    "The recording ends in time and memory, and says so where it has not seen all.",
)
def many_paths(world: World) -> None:
    world.make("many_paths", MANY)
    answer = world.record()
    must(not answer.failed or "problem" in answer.result, answer.output)
    if not answer.failed:
        must(world.plan().count("/vol/moved-") < 2, "names that are gone are in the plan")


@attack(
    "a layer that hides and redirects",
    INSIDE,
    "removes, renames and replaces files of the image after it has opened them, and sets the attributes of overlayfs.",
    "Only files that are as they were opened are in the plan, by their layer.",
)
def layers(world: World) -> None:
    world.make("layers")
    world.fine()
    plan = world.plan()
    must("/etc/shadow" not in plan and "renamed-" not in plan, "in the plan")
    must("/usr/share/signs/35\n" in plan, [line for line in plan.splitlines() if "/usr/share/signs" in line])
    must("stale=0" in world.replay(), world.replay())


@attack(
    "an overlay of its own",
    INSIDE,
    "mounts an overlay in a user namespace whose layers have the paths of the host's secrets.",
    "Nothing of it is looked for on the host.",
)
def own_overlay(world: World) -> None:
    world.make("own_overlay", world.secrets.folder, "--security-opt", "seccomp=unconfined")
    world.fine()
    must("mounted" in (world.out / "seen").read_text(), (world.out / "seen").read_text())
    secrets_are_in_no_plan(world)


@attack(
    "folders without end",
    INSIDE,
    "lists a folder with 8,000 folders, and opens a file deeper than a path may be long.",
    "The recording ends, and so do audit, replay and rollback.",
)
def folders(world: World) -> None:
    world.make("folders")
    world.fine()
    world.replay()
    world.audit()


@attack(
    "a cache that it is given",
    INSIDE,
    "opens caches whose paths are lines of a unit, and fills its own with links, a pipe and deep folders.",
    "The plain one alone is given; audit, recording and rollback open nothing in it, and end.",
)
def given(world: World) -> None:
    world.make("caches")
    answer = world.fine()
    folder = f"{PLAN.parent}/given"
    must(answer.result["given"]["volumes"] == [f"{folder}/vllm:/root/.cache/vllm:Z"], answer.result["given"])
    must(os.stat(folder).st_mode & 0o777 == 0o700, oct(os.stat(folder).st_mode))
    world.daemon.docker("rm", NAME)
    world.make("spoil", world.secrets.folder, *shlex.split(answer.result["given"]["use"]))
    answer = world.fine(replay="ahead")
    must(answer.result["given"]["how"] == "mounted", answer.result["given"])
    secrets_are_in_no_plan(world)
    must(world.audit()["given"] == "clean", "not clean")
    world.replay()
    world.daemon.docker("rm", NAME)


@attack(
    "never ready",
    INSIDE,
    "never listens, and ends itself whenever it was started, with a policy that starts it again.",
    "One error in time; the container is as before.",
)
def restarting(world: World) -> None:
    world.make("restart", "", "--restart", "always")
    world.refused("ready", ready={**world.asked, "timeout_s": 3})
    must(world.state() in ("exited", "created"), world.state())
    must(not PLAN.exists(), "a plan was kept")


@attack(
    "somebody else's port",
    OTHER,
    "listens at the container's port from another container of root's, while that is down.",
    "It is not taken for the container's.",
)
def false_ready(world: World) -> None:
    world.make("never_ready")
    world.make("plain", world.port, name="slm-other")
    process = world.begin(
        "first_token", name="attacked", container=NAME, ready={"type": "port", "port": world.port, "timeout_s": 5}
    )
    world.wait_until(lambda: world.state() == "running" or process.poll() is not None, "the container runs")
    world.daemon.docker("start", "slm-other")
    answer = world.end(process)
    must(answer.failed and "not the target's" in answer.text, answer.output)
    must(not PLAN.exists(), "a plan was kept")


@attack(
    "a neighbour's files",
    OTHER,
    "starts another container during the recording, which opens its own files without end.",
    "None of them is in the plan.",
)
def neighbours_files(world: World) -> None:
    theirs = world.folder / "theirs"
    shutil.copytree(world.volume, theirs, dirs_exist_ok=True)
    world.make("once")
    world.make("neighbour", "", "--volume", f"{theirs}:/theirs", name="slm-other")
    process = world.begin("first_token", name="attacked", container=NAME, ready={"type": "exit", "timeout_s": 30})
    world.wait_until(lambda: world.state() == "running" or process.poll() is not None, "the container runs")
    world.daemon.docker("start", "slm-other")
    answer = world.end(process)
    must(not answer.failed, answer.output)
    must(str(theirs) not in world.plan(), "in the plan")


@attack(
    "removed while it is recorded",
    OTHER,
    "removes the container while its start is recorded.",
    "One error in time, and no later task waits for a container that is gone.",
)
def removed(world: World) -> None:
    world.make("plain", world.port)
    world.daemon.docker("start", NAME)
    world.make("never_ready", name="slm-next")
    process = world.begin(
        "first_token", name="attacked", container=NAME, ready={"type": "port", "port": 1, "timeout_s": 20}
    )
    world.wait_until(NOTE.exists, "the note")
    world.wait_until(lambda: world.state() == "exited", "the stop")
    world.daemon.docker("rm", "--force", NAME)
    answer = world.end(process)
    must(answer.failed and "problem" in answer.result, answer.output)
    must(not NOTE.exists(), "the note is left")
    rows = world.audit()
    must("stopped" not in rows, rows)


@attack(
    "a daemon of his own",
    USER,
    "has a daemon at a socket of his, which answers that it is root's and has the wanted container.",
    "Rejected with a clear error before anything is asked of it.",
)
def own_daemon(world: World) -> None:
    home = world.folder / "mallory"
    home.mkdir()
    asked = 0
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{home}/d.sock")
        for path in (home, home / "d.sock"):
            os.chown(path, MALLORY, MALLORY)
        listening.listen()
        listening.settimeout(0)
        world.refused("user id 4242", address=f"unix://{home}/d.sock")
        try:
            listening.accept()[0].close()
            asked = 1
        except BlockingIOError:
            pass
    must(not asked, "it was asked")
    shutil.rmtree(home)
