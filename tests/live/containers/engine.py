"""A server without dependencies, as an image's program: it imports, reads its weights, and is healthy then.

    engine.py WEIGHTS REPORT [PORT]

REPORT, on a bind mount, gets what the process itself says that it read: files of modules, mapped files, and the bytes
that the kernel read from disk for it. With a port it listens there, on the host's own address.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import time

MODULES = (
    *("asyncio", "concurrent.futures", "ctypes", "decimal", "email.mime.text", "http.server", "inspect", "json"),
    *("logging.config", "multiprocessing", "sqlite3", "ssl", "statistics", "unittest.mock", "urllib.request"),
    *("xml.dom.minidom", "xml.etree.ElementTree", "zipfile", "tarfile", "lzma", "bz2", "difflib", "doctest", "pydoc"),
)


def main(weights: str, report: str, port: str = "") -> None:
    for name in MODULES:
        importlib.import_module(name)
    with open(weights, "rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass
    files = set()
    for module in list(sys.modules.values()):
        # A frozen module is in the interpreter, and no file of it is opened.
        is_frozen = getattr(getattr(module, "__spec__", None), "origin", None) == "frozen"
        cached = getattr(module, "__cached__", None) or getattr(module, "__file__", None)
        if not is_frozen and cached and os.path.exists(cached):
            files.add(cached)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        files |= {line.split()[-1] for line in maps if line.rstrip().split(" ")[-1].startswith("/")}
    with open("/proc/self/io", encoding="ascii") as io:
        read_bytes = next(int(line.split()[1]) for line in io if line.startswith("read_bytes"))
    with open(report, "w", encoding="utf-8") as stream:
        json.dump({"files": sorted(files), "read_bytes": read_bytes}, stream)
    # A cache that each new container makes anew.
    os.makedirs("/root/.cache/vllm", exist_ok=True)
    with open("/root/.cache/vllm/graph", "w", encoding="ascii") as stream:
        stream.write("compiled")
    with open("/root/.cache/vllm/graph", encoding="ascii") as stream:
        stream.read()
    with open("/run/healthy", "w", encoding="ascii"):
        pass
    listening = socket.create_server(("127.0.0.1", int(port))) if port else None
    while True:
        if listening:
            listening.accept()[0].close()
        else:
            time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
