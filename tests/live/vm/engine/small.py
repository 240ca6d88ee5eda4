"""A server of the standard library that starts as engines do: imports, then weights, then an answer.

    small.py WEIGHTS [--port PORT] [--notify] [--once] [--never]

It reads WEIGHTS whole and answers every GET at PORT with JSON: their `checksum`, how many modules it imported from
PYTHONPATH (`modules`), and for how many of these it can read the bytecode (`cached`). `--notify` tells systemd that it
is ready (sd_notify(3)), `--once` ends after the weights, `--never` does not get ready.
"""

from __future__ import annotations

import argparse
import asyncio
import doctest
import email.message
import html.parser
import http.server
import importlib
import ipaddress
import json
import multiprocessing.pool
import os
import pickletools
import pydoc
import socket
import sys
import tarfile
import time
import unittest
import xml.etree.ElementTree
import zipfile
import zlib

# An engine imports much that a first token does not need.
UNUSED = (
    *(asyncio, doctest, email.message, html.parser, ipaddress, multiprocessing.pool, pickletools, pydoc, tarfile),
    *(unittest, xml.etree, zipfile, importlib.import_module("_pydecimal")),
)
CHUNK_BYTES = 4 << 20


def checksum(path: str) -> int:
    """The weights, read as a loader reads them: from the first byte to the last, each used."""
    value = 0
    with open(path, "rb", buffering=0) as file:
        while part := file.read(CHUNK_BYTES):
            value = zlib.adler32(part, value)
    return value


def imported() -> dict[str, int]:
    """Modules of our own folder, and those of them whose bytecode this process can read."""
    home = f"{os.environ.get('PYTHONPATH', '/nowhere')}/"
    caches = [
        module.__cached__ or ""
        for module in list(sys.modules.values())
        if (getattr(module, "__file__", None) or "").startswith(home)
    ]
    return {"modules": len(caches), "cached": sum(os.access(path, os.R_OK) for path in caches)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--port", type=int, default=0)
    for option in ("--notify", "--once", "--never"):
        parser.add_argument(option, action="store_true")
    options = parser.parse_args()
    answer = json.dumps({"checksum": checksum(options.weights), **imported()}).encode()
    if options.once:
        return
    while options.never:
        time.sleep(60)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", options.port), Handler)
    if options.notify:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    server.serve_forever()


if __name__ == "__main__":
    main()
