"""A loader that speaks the event protocol, or misbehaves in the way that its first argument names.

Run as `python fake_loader.py MODE ... --events-fd N --hold-fd M`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

MODE = sys.argv[1]
EVENTS = int(sys.argv[sys.argv.index("--events-fd") + 1])
HOLD = int(sys.argv[sys.argv.index("--hold-fd") + 1])
BEFORE_HOLD = (
    "interpreter",
    "import_torch",
    "import_transformers",
    "device_ready",
    "tokenizer",
    "weights",
    "first_token",
)
MEMORY = {"rss_bytes": 1 << 30, "vsz_bytes": 8192, "uss_bytes": 2048, "pss_bytes": 3072}


def say(name: str, **more: object) -> None:
    event = {
        "event": name,
        "t_ns": time.monotonic_ns(),
        "read_bytes": 1000,
        "minor_faults": 10,
        "major_faults": 1,
        "cpu_user_s": 0.5,
        "cpu_system_s": 0.25,
        **more,
    }
    os.write(EVENTS, json.dumps(event).encode() + b"\n")


def misbehave() -> None:
    if MODE == "crash":
        raise SystemExit("no \x1b[31mweights\x1b[0m here")
    if MODE == "hang":
        time.sleep(60)
    if MODE == "hang-in-child":
        subprocess.Popen(["sleep", "61.5"])
        time.sleep(60)
    if MODE == "leave-child":
        subprocess.Popen(["sleep", "62.5"])
        os._exit(0)
    if MODE == "leave-daemon":
        # Out of the process group, and an orphan at once.
        subprocess.Popen(["sh", "-c", "setsid sleep 64.5 & exit 0"], start_new_session=True).wait()
        os._exit(0)
    if MODE == "flood-after-end":
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    os.write(EVENTS, b'{"event": "noise"}\n' * 1000)
            os._exit(0)
        time.sleep(0.3)
        os._exit(0)
    if MODE == "fork-bomb":
        # Each child forks the next one and ends: no two looks at /proc see the same.
        if os.fork() == 0:
            os.setsid()
            while True:
                if os.fork():
                    os._exit(0)
        time.sleep(0.3)
        os._exit(0)
    if MODE == "fill-hold":
        hold = os.open(f"/proc/self/fd/{HOLD}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(hold, b"x" * 4096)
        except BlockingIOError:
            pass
    if MODE == "deep-home":
        os.chdir(os.environ["HOME"])
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
        os.chdir("/")
    if MODE == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if MODE == "rubbish":
        os.write(EVENTS, b"\x00\xff not json\n")
        time.sleep(60)
    if MODE == "endless":
        while True:
            os.write(EVENTS, b"x" * 65536)
    if MODE == "order":
        say("second_token")
    if MODE == "past":
        say("import_transformers", t_ns=1)


def main() -> None:
    for name in BEFORE_HOLD:
        if name == "import_transformers":
            misbehave()
        say(name)
    if MODE == "silent":
        return
    facts = {"device": "cpu", "dtype": "bfloat16", "parameters": 7, "gpu": None, "software": {"torch": "2"}}
    loaded = {
        "class": "FakeForCausalLM",
        "files": [os.environ["FAKE_OPENED"]] if "FAKE_OPENED" in os.environ else [],
        "stored_elements": 9,
        "buffer_elements": 1,
        **{name: {"count": 1, "names": ["lm_head.weight"]} for name in ("tied", "stored_twice", "unplaced")},
        "unplaced_elements": 1,
        "quantization": None,
        "is_cached": True,
    }
    say("held", memory=MEMORY, loaded=loaded, **facts)
    sys.stderr.write(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "uid": os.getuid()}))
    sys.stderr.flush()
    if MODE == "fill-hold":
        time.sleep(90)
    if MODE != "hasty":
        assert os.read(HOLD, 1)
    say("resumed")
    say("unheard-of", t_ns="of no meaning")
    first = time.monotonic_ns()
    say("second_token")
    say("done", tokens_ns=[first] * 4)


main()
