"""A loader that keeps the protocol, or attacks its observer in the way that MODE names. Runs as the loader's user."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time

MODE = "obey"
EVENTS = int(sys.argv[sys.argv.index("--events-fd") + 1])
HOLD = int(sys.argv[sys.argv.index("--hold-fd") + 1])
MODEL = sys.argv[sys.argv.index("--model") + 1]
PHASES = ("interpreter", "import_torch", "import_transformers", "device_ready", "tokenizer", "weights", "first_token")
MEMORY = {"rss_bytes": 1 << 30, "vsz_bytes": 8192, "uss_bytes": 2048, "pss_bytes": 3072}


def say(name: str, **more: object) -> None:
    counters = {"read_bytes": 1000, "minor_faults": 10, "major_faults": 1, "cpu_user_s": 0.5, "cpu_system_s": 0.25}
    event = {"event": name, "t_ns": time.monotonic_ns(), **counters, **more}
    os.write(EVENTS, json.dumps(event).encode() + b"\n")


def flood(descriptor: int) -> None:
    while True:
        os.write(descriptor, b"x" * 65536)


def stray(work: object = None) -> None:
    """A child that leaves the session and keeps every pipe."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 64):
                signal.signal(number, signal.SIG_IGN) if number not in (9, 19, 32, 33) else None
            if work:
                flood(EVENTS)
            time.sleep(600)
        os._exit(0)


def attack() -> None:
    home = os.environ["HOME"]
    if MODE == "flood events":
        flood(EVENTS)
    if MODE == "flood stderr":
        os.write(2, b"\x1b]0;owned\x07\xff" * 10_000_000)
    if MODE == "never end":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if MODE == "stray child":
        stray()
    if MODE == "stray child floods":
        stray(flood)
        os._exit(0)
    if MODE == "kill everybody":
        for pid in (-1, os.getppid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    if MODE == "deep home":
        os.chdir(home)
        for _ in range(5000):
            os.mkdir("deeper")
            os.chdir("deeper")
        os.chdir("/")
    if MODE == "links in home":
        for name in ("models", "venv", "config"):
            os.symlink("/srv/team", f"{home}/{name}")
        os.symlink("/etc/shadow", f"{home}/shadow")
        os.mkfifo(f"{home}/pipe")
        open(os.fsencode(home) + b"/\xff\n", "w").close()
        os.chmod(home, 0)
    if MODE == "odd events":
        os.write(EVENTS, b'{"event": "\\ud800", "t_ns": 99999999999999999999999, "x": "\\udcff"}\n')
    if MODE == "nested events":
        os.write(EVENTS, b"[" * 200_000 + b"\n")
    if MODE == "many processes":
        for _ in range(200):
            if os.fork() == 0:
                time.sleep(600)
    if MODE == "vanish while held":
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    for name in PHASES:
        if name == "weights":
            with open(f"{MODEL}/model.safetensors", "rb") as stream:
                while stream.read(1 << 20):
                    pass
        say(name)
        if name == "import_torch":
            attack()
    facts = {"device": "cpu", "dtype": "bfloat16", "parameters": 1 << 19, "gpu": None, "software": {"torch": "2"}}
    none = {"count": 0, "names": []}
    loaded = {
        "class": "ObedientForCausalLM",
        "files": [f"{MODEL}/{name}" for name in os.listdir(MODEL) if name.endswith(".safetensors")],
        **dict.fromkeys(("stored_elements", "buffer_elements", "unplaced_elements"), 0),
        **dict.fromkeys(("tied", "stored_twice", "unplaced"), none),
        "quantization": None,
        "is_cached": True,
    }
    say("held", memory=MEMORY, loaded=loaded, **facts)
    os.read(HOLD, 1)
    for name in ("resumed", "second_token", "done"):
        say(name)


main()
