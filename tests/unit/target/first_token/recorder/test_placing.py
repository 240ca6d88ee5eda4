"""What was opened in a container gets its path on the host, and what goes with the container is in no plan."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.containers.mounted import Place
from ansible.module_utils.slm_baseline.containers.remade import Written
from ansible.module_utils.slm_baseline.containers.runtime import Container, Mounted
from ansible.module_utils.slm_baseline.first_token.recorder.fanotify import Opened, Seen
from ansible.module_utils.slm_baseline.first_token.recorder.placing import place
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.mountinfo import parse_mountinfo

ID = "ba6c1c701ca9f5a5b40bde36656581d25d20954aa2c44069a61891ffdb09b374"
HOME = "/var/lib/docker/overlay2"
VOLUMES = "/var/lib/docker/volumes"
OPTIONS = f"rw,lowerdir={HOME}/own-init/diff:{HOME}/image/diff,upperdir={HOME}/own/diff,workdir={HOME}/own/work"
MOUNTS = parse_mountinfo(
    f"27 1 8:1 / / rw - ext4 /dev/vda rw\n46 27 0:39 / {HOME}/own/merged rw - overlay overlay {OPTIONS}\n"
)
INSIDE = parse_mountinfo(
    f"72 48 0:39 / / rw - overlay overlay {OPTIONS}\n"
    "89 72 8:1 /srv/models /models ro - ext4 /dev/vda rw\n"
    f"90 72 8:1 /var/lib/docker/containers/{ID}/hosts /etc/hosts rw - ext4 /dev/vda rw\n"
    f"91 72 8:1 {VOLUMES}/{'0' * 64}/_data /scratch rw - ext4 /dev/vda rw\n"
    f"92 72 8:1 {VOLUMES}/cache/_data /cache rw - ext4 /dev/vda rw\n"
)
CONTAINER = Container(
    ID,
    "engine",
    "engine:1",
    "sha256:1",
    folder=f"{HOME}/own",
    mounts=(
        Mounted("bind", "/srv/models", "/models"),
        Mounted("volume", f"{VOLUMES}/{'0' * 64}/_data", "/scratch", "0" * 64),
        Mounted("volume", f"{VOLUMES}/cache/_data", "/cache", "cache"),
    ),
)
FILES = {
    "/lib/low.py": (f"{HOME}/image/diff/lib/low.py", 0),
    "/etc/resolv.conf": (f"{HOME}/own-init/diff/etc/resolv.conf", 0),
    "/root/.cache/vllm/graph": (f"{HOME}/own/diff/root/.cache/vllm/graph", 0),
    "/models/weights": ("/srv/models/weights", 1),
    "/etc/hosts": (f"/var/lib/docker/containers/{ID}/hosts", 2),
    "/scratch/x": (f"{VOLUMES}/{'0' * 64}/_data/x", 3),
    "/cache/x": (f"{VOLUMES}/cache/_data/x", 4),
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for real, _ in FILES.values():
        (tmp_path / real.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / real.lstrip("/")).write_text(real)
    return Host(tmp_path)


def opened(host: Host, inside: str, real: str, mount: int, pid: int = 7) -> Opened:
    found = os.lstat(host.path(real))
    where = Place(INSIDE[mount], inside, found.st_ino, found.st_size, found.st_mtime_ns)
    return Opened(inside, host.path(real).is_dir(), inside, where, pid)


def seen_of(*each: Opened) -> Seen:
    seen = Seen({one.path if one.place is None else f"9:{one.path}": one for one in each})
    seen.mounts = MOUNTS
    return seen


def test_a_plan_has_what_the_next_container_has_too(host: Host) -> None:
    seen = seen_of(*(opened(host, inside, *real) for inside, real in FILES.items()))
    placed = place(host, seen, CONTAINER)
    assert list(seen.opened) == [
        f"{HOME}/image/diff/lib/low.py",
        "/srv/models/weights",
        f"{VOLUMES}/cache/_data/x",
    ]
    assert seen.opened[f"{HOME}/image/diff/lib/low.py"].inside == "/lib/low.py"
    assert all(each.place is None for each in seen.opened.values())
    assert (placed.in_layers, placed.from_image) == (1, 1)
    assert placed.own == ["/etc/resolv.conf", "/root/.cache/vllm/graph", "/etc/hosts", "/scratch/x"]
    assert seen.elsewhere == 0


def test_what_the_start_wrote_in_a_cache_is_told_with_its_seconds(host: Host) -> None:
    cache = f"{HOME}/own/diff/root/.cache/vllm"
    began_ns = time.time_ns() - 60 * 10**9
    graph = opened(host, "/root/.cache/vllm/graph", f"{cache}/graph", 0)
    host.path(f"{cache}/deep").mkdir()
    # Written on after it was opened, by one of two times; the others are of before the start, and of nobody's time.
    for name, second in (("graph", 12.5), ("deep/late", 31.25), ("older", -5), ("never", 10**6)):
        host.path(f"{cache}/{name}").write_text(name)
        at_ns = began_ns + int(second * 1e9)
        os.utime(host.path(f"{cache}/{name}"), ns=(at_ns, at_ns))
    placed = place(host, seen_of(graph), CONTAINER, started_ns=began_ns)
    assert placed.written == {"/root/.cache/vllm": Written(2, 12.5, 31.25)}
    assert (placed.caches, placed.own) == ({"/root/.cache/vllm": False}, ["/root/.cache/vllm/graph"])


def test_a_folder_of_an_overlay_is_that_of_each_layer_but_the_containers_own(host: Host) -> None:
    for layer in ("own", "own-init"):
        host.path(f"{HOME}/{layer}/diff/lib").mkdir(parents=True)
    seen = seen_of(opened(host, "/lib", f"{HOME}/own/diff/lib", 0))
    place(host, seen, CONTAINER)
    assert seen.folders == [f"{HOME}/image/diff/lib"]


def test_what_is_not_found_counts_as_elsewhere(host: Host) -> None:
    low = opened(host, "/lib/low.py", *FILES["/lib/low.py"])
    assert low.place
    seen = seen_of(replace(low, place=replace(low.place, inode=1)))
    placed = place(host, seen, CONTAINER)
    assert (seen.opened, seen.elsewhere) == ({}, 1)
    assert (placed.in_layers, placed.from_image) == (0, 1)


def test_what_the_runtime_opens_to_make_the_container_is_not_the_engines(host: Host) -> None:
    """runc opened `/` of the host before it entered the container, and every folder in memory was in the plan."""
    seen = seen_of(
        Opened("/", True),
        Opened(f"/run/runc/moby/{ID}", True),
        Opened(f"/run/containerd/{ID}/config.json", False),
        Opened(f"{HOME}/own/merged", True),
        # The state of Podman's storage, which each start of a Quadlet writes anew.
        Opened(f"{HOME.rpartition('/')[0]}/overlay-containers/containers.json", False),
        Opened("/usr/sbin/runc", False),
        Opened("/srv/models/phi", True),
    )
    place(host, seen, CONTAINER)
    assert list(seen.opened) == ["/usr/sbin/runc", "/srv/models/phi"]


def test_processes_of_other_containers_are_left_out(host: Host) -> None:
    low, weights = (opened(host, path, *FILES[path]) for path in ("/lib/low.py", "/models/weights"))
    seen = seen_of(low, replace(weights, pid=8))
    place(host, seen, CONTAINER, keeps=lambda pid: pid == 7)
    assert list(seen.opened) == [f"{HOME}/image/diff/lib/low.py"]


def test_files_of_a_service_with_mounts_of_its_own_are_found_but_for_its_private_folders(host: Host) -> None:
    private = "/tmp/systemd-private-1-app.service-x/tmp/f"
    host.path(private).parent.mkdir(parents=True)
    host.path(private).write_text("x")
    (mount,) = parse_mountinfo("93 72 8:1 /tmp/systemd-private-1-app.service-x/tmp /tmp rw - ext4 /dev/vda rw\n")
    own = replace(opened(host, "/tmp/f", private, 1), place=None)
    found = os.lstat(host.path(private))
    own = replace(own, place=Place(mount, "/tmp/f", found.st_ino, found.st_size, found.st_mtime_ns))
    seen = seen_of(opened(host, "/models/weights", *FILES["/models/weights"]), own, Opened("/", True))
    place(host, seen)
    assert list(seen.opened) == ["/srv/models/weights", "/"]


def test_an_image_on_fuse_is_named(host: Host) -> None:
    (mount,) = parse_mountinfo("72 48 0:50 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0,group_id=0\n")
    low = opened(host, "/lib/low.py", *FILES["/lib/low.py"])
    assert low.place
    placed = place(host, seen_of(replace(low, place=replace(low.place, mount=mount))), CONTAINER)
    assert placed.drivers == ["fuse.fuse-overlayfs"]
