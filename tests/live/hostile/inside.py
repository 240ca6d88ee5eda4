"""What runs in the attacked container, as its root: `inside.py ATTACK [ARGUMENT...]`. Each attack is one function.

It gets /vol, a folder of the host, and /out for what it has seen. SECRETS is where the host keeps what is nobody's
business: the container does not have it, and can only write down its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

SIGNS = "/usr/share/signs"
"""A folder of the image with a hundred small files."""
SPOOFED = "spoof\nI\t1\t1\t1\t*\t/etc/shadow\nend\n"
ODD_NAMES = (
    *(
        b"tab\tin it",
        b"percent%09",
        b"..",
        b"...",
        b"..hidden",
        b" blank ",
        b"back\\slash",
        b"\\054,lowerdir=",
        b"quote'\"",
    ),
    *(
        b"\xff\xfe latin",
        SPOOFED.replace("/", "\N{DIVISION SLASH}").encode(),
        b"n" * 255,
        b"gone (deleted)",
        b"\x1b[31m",
    ),
)


def read(path: str | bytes) -> None:
    with open(path, "rb", buffering=0) as file:
        file.read(1 << 16)


def write(path: str | bytes, size: int = 8192) -> None:
    """Write a file as old as one that was there before the start."""
    with open(path, "wb") as file:
        file.write(b"x" * size)
    os.utime(path, (1, 1))


def note(text: str) -> None:
    with open("/out/seen", "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def replace_with_link(path: str, to: str) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    os.symlink(to, path)


def serve(port: int, work: Callable[[], object] = lambda: time.sleep(0.2)) -> NoReturn:
    """Be ready, and do something again and again until the container is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listening = socket.create_server(("127.0.0.1", port))
    if not os.fork():
        while True:
            listening.accept()[0].close()
    while True:
        with contextlib.suppress(OSError):
            work()


def links(secrets: str) -> None:
    """Opens files of the image and of the volume, and puts links to the host's secrets in their places."""
    for number in range(60):
        read(f"{SIGNS}/{number}")
        read(f"/vol/{number}")
    read("/vol/dir/file")
    os.listdir("/vol/dir")
    for number in range(60):
        replace_with_link(f"{SIGNS}/{number}", f"{secrets}/file")
        replace_with_link(f"/vol/{number}", f"{secrets}/file")
    replace_with_link("/vol/dir", f"{secrets}/dir")
    replace_with_link("/usr/share/other", secrets)


def hard_links(secrets: str) -> None:
    """Gives its own files many names, and tries to give the host's a name in its folders."""
    for number in range(50):
        with contextlib.suppress(OSError):
            os.link("/vol/keys/private", f"/vol/linked-{number}")
        with contextlib.suppress(OSError):
            os.link("/out/seen", f"/vol/from-elsewhere-{number}")
        with contextlib.suppress(OSError):
            os.link(f"{SIGNS}/1", f"{SIGNS}/linked-{number}")
    for folder in ("/vol", SIGNS):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                read(f"{folder}/{name}")


def odd_names(_: str) -> None:
    """Opens files and folders with names of every kind in the volume and in its own layer."""
    for top in (b"/vol/odd", b"/odd"):
        os.makedirs(top, exist_ok=True)
        for name in (each for each in ODD_NAMES if each != b".."):
            os.makedirs(top + b"/in " + name[:200], exist_ok=True)
            for path in (top + b"/" + name, top + b"/in " + name[:200] + b"/file"):
                if not os.path.exists(path):
                    write(path)
                read(path)
            os.listdir(top + b"/in " + name[:200])
            read(top + b"/.././" + os.path.basename(top) + b"//" + name)
    for path in (b"/vol/odd/gone (deleted)", b"/odd/gone (deleted)"):
        os.unlink(path)
    with open("/vol/odd/last", "w") as file:
        os.unlink("/vol/odd/last")
        read(f"/proc/self/fd/{file.fileno()}")


def swap(port: str) -> None:
    """Has pipes, devices, leased files and links where it has opened files, one after the other, without end."""
    read(f"{SIGNS}/1")
    for number in range(40):
        read(f"/vol/{number}")
    kinds = iter(_kinds())

    def turn() -> None:
        for number in range(40):
            path = f"/vol/{number}"
            os.unlink(path)
            next(kinds)(path)
            with contextlib.suppress(OSError):
                # Only where somebody has it open for reading.
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)) if number % 5 == 0 else None

    serve(int(port), turn)


def _kinds() -> Iterator[Callable[[str], object]]:
    def pipe(path: str) -> None:
        os.mkfifo(path)

    def device(path: str) -> None:
        os.mknod(path, 0o20600, os.makedev(1, 8))

    def leased(path: str) -> None:
        write(path)
        # Kept open: whoever opens the file waits until the lease is broken (fcntl(2), F_SETLEASE).
        descriptor = os.open(path, os.O_RDWR)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        if descriptor > 500:
            os.close(descriptor)

    def link(path: str) -> None:
        os.symlink("/dev/zero", path)

    signal.signal(signal.SIGIO, signal.SIG_IGN)
    while True:
        yield from (pipe, device, leased, link, write)


def lease(port: str) -> None:
    """Holds a lease on each file that it has opened, so that whoever opens it next would wait for 45 seconds."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    held = []
    for number in range(40):
        read(f"/vol/{number}")
        held.append(os.open(f"/vol/{number}", os.O_RDWR))
        # The watch itself has the file open for a moment.
        for _ in range(500):
            try:
                fcntl.fcntl(held[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)
                break
            except BlockingIOError:
                time.sleep(0.02)
        else:
            sys.exit("no lease")
    serve(int(port))


def dead_end(to: str) -> None:
    """Opens files below a folder of the volume, and puts a link to a file system that never answers in its place."""
    for number in range(20):
        read(f"/vol/dir/{number}")
    os.listdir("/vol/dir")
    os.rename("/vol/dir", "/vol/dir.real")
    os.symlink(to, "/vol/dir")


def dead_end_of_one(to: str) -> None:
    """The same with one file, on a disk of its own."""
    read("/disk/dir/file")
    os.rename("/disk/dir", "/disk/dir.real")
    os.symlink(to, "/disk/dir")


def many_paths(count: str) -> None:
    """Opens some files under several hundred thousand names: two openings of one file in a row count as one."""
    paths = [f"/vol/moved-{number}" for number in range(4000)]
    for path in paths:
        write(path, 0)
    for turn in range(int(count) // len(paths)):
        for number, path in enumerate(paths):
            paths[number] = f"/vol/moved-{turn}-{number}"
            os.rename(path, paths[number])
            os.close(os.open(paths[number], os.O_RDONLY))


def layers(_: str) -> None:
    """Removes, replaces, renames and marks what it has opened, so that its layer redirects and hides."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(40):
        read(f"{SIGNS}/{number}")
    for number in range(10):
        os.unlink(f"{SIGNS}/{number}")
    for number in range(10, 20):
        os.rename(f"{SIGNS}/{number}", f"{SIGNS}/renamed-{number}")
    for name in (
        "trusted.overlay.redirect",
        "user.overlay.redirect",
        "trusted.overlay.opaque",
        "trusted.overlay.metacopy",
    ):
        for path in (f"{SIGNS}/30", SIGNS):
            libc.setxattr(path.encode(), name.encode(), b"/../../../../../../../etc/shadow", 32, 0)
    with contextlib.suppress(OSError):
        os.mknod("/usr/share/whiteout", 0o20600, os.makedev(0, 0))
    shutil.rmtree("/usr/share/other")
    os.mkdir("/usr/share/other")
    write("/usr/share/other/0")
    read("/usr/share/other/0")
    for number in range(40):
        with contextlib.suppress(OSError):
            read(f"{SIGNS}/{number}")
            read(f"{SIGNS}/renamed-{number}")


def own_overlay(secrets: str) -> None:
    """Mounts an overlay of its own in a user namespace, whose layers have the names of the host's secrets."""
    libc = ctypes.CDLL(None, use_errno=True)
    newuser, newns = 0x10000000, 0x20000
    # What was opened before is asked for in the namespace that this process had then.
    time.sleep(0.5)
    if libc.unshare(newuser | newns):
        note(f"unshare: {os.strerror(ctypes.get_errno())}")
        return
    for folder in (secrets, "/tmp/lower", "/tmp/merged"):
        os.makedirs(folder, exist_ok=True)
    write(f"{secrets}/file", 70000)
    options = f"lowerdir={secrets}:/tmp/lower,userxattr".encode()
    if libc.mount(b"overlay", b"/tmp/merged", b"overlay", 0, options):
        note(f"mount: {os.strerror(ctypes.get_errno())}")
        return
    note("mounted")
    read("/tmp/merged/file")
    os.listdir("/tmp/merged")


def caches(_: str) -> None:
    """Fills a cache that each container makes anew, and others whose paths are lines of a unit or of compose."""
    for folder in ("/root/.cache/vllm", "/x\nExecStartPre=/bin/touch /pwned\n/.nv", "/a:b/.nv", "/%h/$(id)/.triton"):
        os.makedirs(folder)
        write(f"{folder}/graph")
        read(f"{folder}/graph")


def spoil(secrets: str) -> None:
    """Fills the cache that it was given with links to secrets, a pipe and folders 300 deep."""
    folder = "/root/.cache/vllm"
    for number in range(20):
        os.symlink(f"{secrets}/file", f"{folder}/{number}")
    os.symlink(secrets, f"{folder}/folder")
    os.mkfifo(f"{folder}/pipe")
    write(f"{folder}/graph")
    read(f"{folder}/graph")
    os.chdir(folder)
    for _depth in range(300):
        os.mkdir("d")
        os.chdir("d")


def never_ready(_: str) -> None:
    """Reads, and listens nowhere."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    read(f"{SIGNS}/1")
    while True:
        time.sleep(1)


def restart(_: str) -> None:
    """Ends itself again and again."""
    read(f"{SIGNS}/1")
    time.sleep(0.05)
    sys.exit(7)


def folders(_: str) -> None:
    """Lists a folder with thousands of folders, and opens a file deeper than a path may be long."""
    for number in range(8000):
        os.mkdir(f"/vol/wide-{number}")
    os.listdir("/vol")
    os.mkdir("/vol/deep")
    os.chdir("/vol/deep")
    for _depth in range(40):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
        os.listdir(".")
    write("file")
    read("file")


def plain(port: str) -> None:
    """A service that reads some files, and listens."""
    for number in range(20):
        read(f"{SIGNS}/{number}")
    serve(int(port))


def once(_: str) -> None:
    """A program that reads some files, and ends."""
    for number in range(20):
        read(f"{SIGNS}/{number}")
        read(f"/vol/{number}")


def neighbour(_: str) -> None:
    """Reads its own files, without end."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        for name in os.listdir("/theirs"):
            with contextlib.suppress(OSError):
                read(f"/theirs/{name}")
        time.sleep(0.02)


if __name__ == "__main__":
    os.dup2(1, 2)
    # On a busy host the recording notices the container's mounts a little later.
    for _ in range(5):
        read(f"{SIGNS}/99")
        time.sleep(0.1)
    globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")
    # Nobody can ask a process that has ended what it opened last.
    time.sleep(0.7)
